"""What the listener's tests share: a listener with a fake spool, a stub router, and a client on a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from relay import events, settings
from relay.accept.auth import Authenticator
from relay.accept.intake import Intake
from relay.accept.listener import ListenerServer
from relay.clock import SystemClock
from relay.message import Client
from relay.rewrite.contract import Refused, Route
from tests.fakes.memory_spool import MemorySpool

HOST = "relay.test"
WAIT = 20.0
"""Seconds after which a test gives up waiting; nothing waits for it to pass."""


class StubRouter:
    """One mailbox for everybody; refuses on request; remembers what it was asked."""

    def __init__(self) -> None:
        self.refuse: Refused | None = None
        self.mailboxes = ("notifications@contoso.com",)
        self.asked: list[tuple[str, tuple[str, ...], Client]] = []
        self.error: Exception | None = None

    def route(self, sender: str, header_from: tuple[str, ...], client: Client) -> Route:
        self.asked.append((sender, header_from, client))
        if self.error:
            raise self.error
        if self.refuse:
            raise self.refuse
        return Route("Microsoft 365", self.mailboxes, "notifications@contoso.com", "keep", "original")

    def choose(self, route: Route, source: str) -> str:
        return route.lanes[0]


class NapClock(SystemClock):
    """The real clock, but sleeping takes no time and is written down."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)


def limits(**changes: Any) -> settings.ListenerLimits:
    base = settings.ListenerLimits(35 << 20, 1000, 1000, 50, 0, 300.0)
    return dataclasses.replace(base, **changes)


def tls(mode: str = "none", directory: Path | None = None, minimum: str = "1.2") -> settings.ListenerTls:
    if directory is None:
        return settings.ListenerTls(mode, None, None, minimum)
    return settings.ListenerTls(mode, directory / "cert.pem", directory / "key.pem", minimum)


def listener(**changes: Any) -> settings.Listener:
    base = settings.Listener(
        bind="127.0.0.1:0",
        host="127.0.0.1",
        port=0,
        allow=(),
        tls=tls(),
        auth="none",
        auth_in_clear=False,
        answer_after="spool",
        newlines="strict",
        proxy_protocol_from=(),
        limits=limits(),
    )
    return dataclasses.replace(base, **changes)


def networks(*texts: str) -> tuple[settings.Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


def all_settings(**changes: Any) -> settings.Settings:
    base = settings.Settings(
        upstreams=(),
        listeners=(),
        clients=(),
        senders=(),
        default_sender="rewrite",
        recipients=settings.RecipientPolicy(("*",), (), None),
        spool=settings.SpoolSettings(
            "memory:", 10 << 30, (60.0,), 432000.0, 2592000.0, "resend", 14400.0, 2592000.0
        ),
        postmaster="it@contoso.com",
        alerts=settings.Alerts(None, None),
        web=None,
        log=settings.Log("info", "auto"),
    )
    return dataclasses.replace(base, **changes)


@dataclass
class Bench:
    """A running listener and everything around it."""

    server: ListenerServer
    intake: Intake
    spool: MemorySpool
    router: StubRouter
    clock: NapClock
    told: list[tuple[str, str, dict[str, object]]] = field(default_factory=list)

    def events(self, name: str) -> list[dict[str, object]]:
        return [fields for _, event, fields in self.told if event == name]

    async def client(self, **how: Any) -> TestClient:
        return await TestClient.open(self.server.address, **how)

    @contextlib.asynccontextmanager
    async def session(self, **how: Any) -> AsyncIterator[TestClient]:
        client = await self.client(**how)
        try:
            await client.reply()
            yield client
        finally:
            client.close()


@contextlib.asynccontextmanager
async def running(
    conf: settings.Listener | None = None,
    *,
    config: settings.Settings | None = None,
    read_header: Callable[[bytes], Any] | None = None,
    authenticator: Authenticator | None = None,
) -> AsyncIterator[Bench]:
    """A listener on a port the system chose."""
    spool, router, clock = MemorySpool(), StubRouter(), NapClock()
    intake = Intake(
        spool=spool,  # type: ignore[arg-type]
        router=router,
        settings=config or all_settings(),
        clock=clock,
        hostname=HOST,
        read_header=read_header,
        authenticator=authenticator,
    )
    server = ListenerServer(conf or listener(), intake, hostname=HOST)
    bench = Bench(server, intake, spool, router, clock)
    events.plug(lambda level, event, fields: bench.told.append((level, event, dict(fields))))
    await server.start()
    try:
        yield bench
    finally:
        await server.drain(0.0)
        events.plug(None)


class TestClient:
    """Octets out, replies in; every wait is bounded."""

    __test__ = False

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, address: tuple[str, int], **how: Any) -> TestClient:
        reader, writer = await asyncio.wait_for(asyncio.open_connection(*address[:2], **how), WAIT)
        return cls(reader, writer)

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def reply(self) -> str:
        """One reply, its lines joined by newline."""
        lines = []
        while True:
            line = await asyncio.wait_for(self.reader.readline(), WAIT)
            if not line:
                raise EOFError("closed; so far: " + repr(lines))
            lines.append(line.decode().rstrip("\r\n"))
            if line[3:4] != b"-":
                return "\n".join(lines)

    async def ask(self, line: bytes | str) -> str:
        self.send((line.encode() if isinstance(line, str) else line) + b"\r\n")
        return await self.reply()

    async def closed(self) -> bytes:
        """Everything until the server closes."""
        try:
            return await asyncio.wait_for(self.reader.read(), WAIT)
        except ConnectionError:
            return b""

    async def envelope(
        self, sender: str = "a@scanners.local", recipients: Iterable[str] = ("b@example.com",)
    ) -> None:
        """EHLO to RCPT, which must succeed."""
        for line in ("EHLO client", f"MAIL FROM:<{sender}>", *(f"RCPT TO:<{one}>" for one in recipients)):
            answer = await self.ask(line)
            assert answer.startswith("250"), answer

    async def deliver(self, data: bytes) -> str:
        """A whole message with default envelope; the reply to its end. ``data`` includes the final dot."""
        await self.envelope()
        assert (await self.ask("DATA")).startswith("354")
        self.send(data)
        return await self.reply()

    async def start_tls(self, context: ssl.SSLContext) -> None:
        await asyncio.wait_for(self.writer.start_tls(context, server_hostname="localhost"), WAIT)

    def close(self) -> None:
        self.writer.close()


def trusting() -> ssl.SSLContext:
    """A client context that takes the tests' own certificate."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
