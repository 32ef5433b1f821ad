"""``answer_after: upstream`` at the listener: what it makes of a client that leaves while Exchange is asked."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from relay.message import Reply
from tests.accept.support import WAIT, Bench, TestClient, listener, running

MESSAGE = b"Subject: x\r\n\r\nhello\r\n.\r\n"


class SlowAnswers:
    """Answers when told to, and keeps the event by which it hears that a client left."""

    def __init__(self) -> None:
        self.gone: asyncio.Event | None = None
        self.asked = asyncio.Event()
        self.go = asyncio.Event()

    def expect(self, message_id: str, lane: str) -> str:
        return message_id

    def forget(self, ticket: Any) -> None:
        raise AssertionError("nothing fails here")

    async def wait(self, ticket: Any, patience: float, gone: asyncio.Event | None) -> Reply:
        self.gone = gone
        self.asked.set()
        await self.go.wait()
        return Reply(250, "2.0.0", "Exchange has it")


async def ask(bench: Bench, client: TestClient, data: bytes) -> SlowAnswers:
    """A message is under way, and its client waits."""
    answers = bench.intake.answers = SlowAnswers()
    await client.reply()
    await client.envelope()
    assert (await client.ask("DATA")).startswith("354")
    client.send(data)
    await asyncio.wait_for(answers.asked.wait(), WAIT)
    assert answers.gone is not None and not answers.gone.is_set()
    return answers


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_a_client_that_leaves_is_noticed_while_it_waits(how: str) -> None:
    async with running(listener(answer_after="upstream")) as bench:
        client = await bench.client()
        answers = await ask(bench, client, MESSAGE)
        client.close() if how == "close" else client.writer.transport.abort()
        assert answers.gone is not None
        await asyncio.wait_for(answers.gone.wait(), WAIT)
        answers.go.set()


async def test_a_client_that_said_quit_and_stops_sending_still_gets_its_answer() -> None:
    async with running(listener(answer_after="upstream")) as bench:
        client = await bench.client()
        answers = await ask(bench, client, MESSAGE + b"QUIT\r\n")
        client.writer.write_eof()
        answers.go.set()
        assert await client.reply() == "250 2.0.0 Exchange has it"
        assert answers.gone is not None and not answers.gone.is_set()
        assert (await client.reply()).startswith("221")


async def test_a_listener_that_answers_at_once_watches_nobody() -> None:
    async with running() as bench, bench.session() as client:
        assert (await client.deliver(MESSAGE)).startswith("250")
        (channel,) = bench.server._roster.channels  # type: ignore[union-attr]
        assert channel._departure is None
