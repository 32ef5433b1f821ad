"""A device in between may quote what it did not understand: no piece of a token gets into log, hold, trace or notice."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping

import pytest

from relay import events
from relay.deliver.login import without_token, xoauth2
from relay.deliver.phases import Phase
from tests.fakes.exchange import FakeExchange, Talk
from tests.replies.conftest import Build
from tests.replies.kit import BAD, GOOD, LONG_TOKEN, refuse

PIECE = 16
"""Characters of a token, or of its base64, that would be too much."""


@pytest.fixture
def said() -> Iterator[list[str]]:
    """Everything that is logged."""
    lines: list[str] = []

    def sink(level: str, event: str, fields: Mapping[str, object]) -> None:
        lines.append(f"{level} {event} {dict(fields)!r}")

    events.plug(sink)
    yield lines
    events.plug(None)


def secrets() -> set[str]:
    """All pieces of the token, and of each base64 that holds it."""
    whole = [
        LONG_TOKEN,
        xoauth2("a@contoso.com", LONG_TOKEN).decode(),
        base64.b64encode(LONG_TOKEN.encode()).decode(),
    ]
    found = {one[start : start + PIECE] for one in whole for start in range(len(one) - PIECE)}
    return found - {base64.b64encode(b"user=a@contoso.com\x01").decode()[:PIECE]}


def shows(text: str) -> bool:
    wanted = secrets()
    return any(text[start : start + PIECE] in wanted for start in range(len(text) - PIECE))


@pytest.mark.parametrize(
    "shape", ["500 5.3.3 Unrecognized command '{}'", "535 5.7.3 {}", "454 4.7.0 [{}] later", "{}"]
)
async def test_an_echoed_login(build: Build, server: FakeExchange, said: list[str], shape: str) -> None:
    """Whole, cut short, or as a reply that is none: the words around it stay, the token does not."""
    house = await build(token=LONG_TOKEN)

    def choose(talk: Talk, line: str) -> bytes | None:
        return shape.format(line[:400]).encode() if line.startswith("AUTH") else None

    server.script.choose = choose
    await house.start()
    message = await house.accept(BAD)

    async def look() -> bool:
        return house.lane.state() != "open"

    await house.settles(look, True)
    view = await house.view(message)
    evidence = (
        repr(await house.holds()) + repr(view) + repr(await house.trace(message)) + repr(house.lane.trouble)
    )
    assert said
    assert not shows(evidence)
    assert not shows("\n".join(said))


async def test_an_ordinary_day_shows_no_token(build: Build, server: FakeExchange, said: list[str]) -> None:
    """Delivered, refused for good, told: nothing of the token anywhere."""
    server.script.tokens = {LONG_TOKEN}
    house = await build(token=LONG_TOKEN)
    refuse(server, Phase.RCPT, "550 5.1.10 Recipient not found")
    await house.start()
    failed, sent = await house.accept(BAD), await house.accept(GOOD)
    await house.comes_to(failed, "failed")
    await house.comes_to(sent, "sent")
    (notice,) = await house.told()
    traces = repr(await house.trace(failed)) + repr(await house.trace(sent))
    assert not shows(traces + "\n".join(said) + notice.data.decode())


def test_words_that_are_no_token_stay() -> None:
    """The server's own words are evidence."""
    line = "5.7.3 Authentication unsuccessful [FRAKE.EURPRD10.PROD.OUTLOOK.COM 2026-11-23T10:00:00.000Z 08DBEC0123456789]"
    assert without_token(line, "a@contoso.com", LONG_TOKEN) == line
