"""What the tests of the commands share: a configuration, a spool with mail in it, and a daemon's control channel."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from relay.cli.app import build_app
from relay.config.load import load
from relay.control import ControlServer, control_path
from relay.message import Client, Envelope, Outcome, Recipient, Reply
from relay.message import Result as Verdict
from relay.settings import Settings
from relay.spool.contract import NewMessage, Settlement, Spool, lane_name
from relay.spool.factory import build_spool

LANE = lane_name("Microsoft 365", "notifications@contoso.com")
OTHER_LANE = lane_name("Microsoft 365", "scans@contoso.com")
CONFIG = """\
upstreams:
  - server_name: Microsoft 365
    from_email: notifications@contoso.com
    tenant_id: 11111111-2222-4333-8444-555555555555
    client_id: 66666666-7777-4888-9999-aaaaaaaaaaaa
    client_secret: a-secret-nobody-may-see
    port: 587
    timeout: 120
    batch_size: medium
listeners:
  - bind: 127.0.0.1:{port}
spool:
  url: "sqlite:///{spool}"
"""


class Bench:
    """One configuration with its spool, and the commands run against it."""

    def __init__(self, directory: Path, port: int = 2525) -> None:
        self.directory = directory
        self.config = directory / "config.yaml"
        self.config.write_text(CONFIG.format(port=port, spool=directory / "spool.db"))
        self.config.chmod(0o600)
        self.settings: Settings = load(self.config, {})

    def run(self, *words: str, stdin: str | None = None, config: bool = True) -> Result:
        """`relay WORDS...`, with this configuration."""
        where = ["--config", str(self.config)] if config else []
        return CliRunner().invoke(
            build_app(words[0]), [*words, *where], input=stdin, env={"RELAY_CONFIG": None}
        )

    def json(self, *words: str) -> Any:
        """The JSON that a command prints; it must succeed."""
        result = self.run(*words, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def json_plain(self, *words: str) -> Any:
        """The same, of a command that takes no configuration here."""
        result = self.run(*words, config=False)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def with_spool(self, work: Callable[[Spool], Any]) -> Any:
        """Run a coroutine function with the open spool."""

        async def whole() -> Any:
            spool = build_spool(self.settings.spool)
            await spool.open(owner=True)
            try:
                return await work(spool)
            finally:
                await spool.close()

        return asyncio.run(whole())

    def add(self, **words: Any) -> str:
        """One message in the queue; its id."""
        return str(self.with_spool(lambda spool: put(spool, **words)))

    def attempt(self, lane: str, result: Verdict, code: int, text: str) -> None:
        """Claim what is due on a lane and settle all of it with one outcome."""

        async def work(spool: Spool) -> None:
            now = 4_000_000_000.0
            for claim in await spool.claim(lane, 100, now):
                await spool.begin(claim.id, now, len(claim.envelope.recipients))
                outcome = Outcome(result, reply=Reply(code, "", text), reason=text, remedy="Mend it.")
                outcomes = {one.address: outcome for one in claim.envelope.recipients}
                await spool.settle(Settlement(claim.id, outcomes, due=now + 60), now)

        self.with_spool(work)


async def put(
    spool: Spool,
    *,
    sender: str = "erp@legacy.local",
    to: tuple[str, ...] = ("ann@example.com",),
    subject: str = "Order 4711",
    lane: str = LANE,
    body: bytes = b"Hello.\r\n",
    message_id: str = "<4711@legacy.local>",
) -> str:
    """Commit one message."""
    draft = spool.draft()
    await draft.write(body)
    await draft.commit(
        NewMessage(
            envelope=Envelope(sender, tuple(Recipient(address) for address in to)),
            client=Client(address="10.0.0.7", helo="erp", listener="127.0.0.1:2525"),
            header=f"Subject: {subject}\r\nMessage-ID: {message_id}\r\n\r\n".encode(),
            lane=lane,
            source="10.0.0.7",
            message_id=message_id,
            subject=subject,
        )
    )
    return draft.id


@contextmanager
def daemon(
    settings: Settings, answers: dict[str, dict[str, Any]]
) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """A control channel that gives fixed answers, as a running daemon would; yields what was asked."""
    asked: list[tuple[str, dict[str, Any]]] = []
    ready, loop = threading.Event(), asyncio.new_event_loop()

    async def answer(do: str, payload: dict[str, Any]) -> dict[str, Any]:
        asked.append((do, payload))
        return answers[do]

    server = ControlServer(control_path(settings), answer)

    async def serve() -> None:
        await server.start()
        ready.set()

    def work() -> None:
        loop.run_until_complete(serve())
        loop.run_forever()
        loop.run_until_complete(server.stop())
        loop.close()

    thread = threading.Thread(target=work)
    thread.start()
    assert ready.wait(10)
    try:
        yield asked
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
