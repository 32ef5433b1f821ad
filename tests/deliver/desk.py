"""What the deliver tests share: settings, tokens, claims, and a courier pointed at the fake Exchange."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

from relay.deliver.courier import RelayCourier
from relay.errors import TokenError
from relay.message import BytesBody, Client, Content, Envelope, Outcome, Recipient, Reply
from relay.rewrite.contract import Refused, Route
from relay.settings import (
    Alerts,
    ClientSecret,
    Log,
    MailboxLimits,
    RecipientPolicy,
    Secret,
    Settings,
    SpoolSettings,
    Upstream,
)
from relay.spool.contract import Claim, lane_name
from relay.tokens.contract import Resource, Token, TokenState
from tests.fakes.clock import ManualClock
from tests.fakes.exchange import FakeExchange

MAILBOX = "scans@contoso.com"
LANE = lane_name("M365", MAILBOX)
HEADER = b"From: scans@contoso.com\r\nTo: a@x.example\r\nSubject: hello\r\nMessage-ID: <1@x>\r\nDate: Mon, 23 Nov 2026 10:00:00 +0000\r\n\r\n"  # noqa: E501


def make_upstream(port: int, ca_file: Path | None, **changes: object) -> Upstream:
    """An upstream at 127.0.0.1; ``changes`` replace its fields, or its limits by name."""
    limits = {
        "connections": 2,
        "messages_per_minute": 0,
        "recipients_per_day": 0,
        "recipients_per_message": 500,
        "message_size": 150 * 2**20,
    }
    for name in limits:
        limits[name] = changes.pop(name, limits[name])  # type: ignore[assignment]
    upstream = Upstream(
        name="M365",
        from_email=MAILBOX,
        tenant_id="t",
        client_id="c",
        credential=ClientSecret(Secret("s")),
        host="127.0.0.1",
        port=port,
        timeout=5.0,
        batch_size=30,
        transport="smtp",
        cloud="public",
        authority="https://login.example",
        graph_url="https://graph.example",
        smtp_scope="s/.default",
        graph_scope="g/.default",
        ca_file=ca_file,
        proxy=None,
        limits=MailboxLimits(**limits),
    )
    return dataclasses.replace(upstream, **changes)  # type: ignore[arg-type]


def make_settings(*upstreams: Upstream) -> Settings:
    """Settings in which only the upstreams matter."""
    return Settings(
        upstreams, (), (), (), "rewrite", RecipientPolicy(("*",), (), None),
        SpoolSettings("sqlite:", 0, (60,), 0, 0, "resend", 0, 0), None, Alerts(None, None), None,
        Log("info", "auto"),
    )  # fmt: skip


class FakeTokens:
    """Hands out its ``values`` in order, the last for ever; a discarded one is not handed out again."""

    def __init__(self, *values: str, error: TokenError | None = None) -> None:
        self.values = list(values or ("TOKEN",))
        self.error = error
        self.discarded: list[str] = []
        self.asked = 0

    async def token(self, resource: Resource) -> Token:
        assert resource is Resource.SMTP
        self.asked += 1
        if self.error is not None:
            raise self.error
        return Token(self.values[0], resource, 2e9)

    def discard(self, token: Token) -> None:
        self.discarded.append(token.value)
        if len(self.values) > 1 and token.value == self.values[0]:
            self.values.pop(0)

    def doubt(self, token: Token) -> None:
        """Nothing else is to be had."""

    def states(self) -> list[TokenState]:
        return []

    async def close(self) -> None:
        return None


class FakeRouter:
    """Routes everything one way, or refuses it."""

    def __init__(self, mailboxes: tuple[str, ...] = (MAILBOX,), from_address: str | None = MAILBOX) -> None:
        self.answer = Route("M365", mailboxes, from_address, "keep", "original")
        self.refusal: str | None = None
        self.asked: list[tuple[str, tuple[str, ...]]] = []

    def route(self, sender: str, header_from: tuple[str, ...], client: Client) -> Route:
        self.asked.append((sender, header_from))
        if self.refusal is not None:
            raise Refused(Reply(550, "5.7.1", self.refusal))
        return self.answer

    def choose(self, route: Route, source: str = "") -> str:
        return route.lanes[0]


def make_claim(*recipients: str | Recipient, attempts: int = 0, **envelope: object) -> Claim:
    """A claim of the test lane; ``envelope`` sets fields of the envelope."""
    to = tuple(
        one if isinstance(one, Recipient) else Recipient(one) for one in recipients or ("a@x.example",)
    )
    envelope.setdefault("long_lines", False)  # as for most messages
    made = Envelope(str(envelope.pop("sender", "old@scanners.local")), to, **envelope)  # type: ignore[arg-type]
    return Claim(
        "0123456789abc", LANE, made, Client("10.0.0.7"), 1_795_000_000.0, 100, attempts,
        header_from=("old@scanners.local",),
    )  # fmt: skip


def make_content(body: bytes = b"Hello\r\n") -> Content:
    """A small message."""
    return Content(HEADER, BytesBody(body))


class PatternBody:
    """A body of ``size`` octets that never exists as a whole; ``largest`` is the biggest piece asked for."""

    LINE = b"." + b"0123456789abcdef" * 62 + b"\r\n"

    def __init__(self, size: int) -> None:
        self.size = size - size % len(self.LINE)
        self.handed_out = 0

    async def chunks(self, size: int = 65536) -> AsyncIterator[bytes]:
        block = self.LINE * (size // len(self.LINE) + 2)
        start = 0
        while start < self.size:
            offset, length = start % len(self.LINE), min(size, self.size - start)
            self.handed_out = start + length
            yield block[offset : offset + length]
            start += length


class Begin:
    """Counts its calls; ``write`` runs inside each. ``rooms``: what is granted, in turn; then all that is asked for."""

    def __init__(self, write: Callable[[], Awaitable[None]] | None = None) -> None:
        self.calls = 0
        self.asked: list[int] = []
        self.rooms: list[int] = []
        self.taken: list[int] = []
        self.most: int | None = None
        self.sent: list[str] = []
        self._write = write

    def room(self, recipients: int) -> int:
        self.asked.append(recipients)
        return min(recipients, self.rooms.pop(0)) if self.rooms else recipients

    def took(self, recipients: int, sent: Mapping[str, Outcome]) -> None:
        self.taken.append(recipients)
        self.sent.extend(sent)

    def crowded(self, most: int) -> None:
        self.most = most

    async def __call__(self) -> None:
        self.calls += 1
        if self._write is not None:
            await self._write()


class Desk:
    """A courier with everything it was given at hand."""

    def __init__(self, server: FakeExchange, ca_file: Path | None, **changes: object) -> None:
        self.server = server
        self.clock = ManualClock()
        self.tokens = FakeTokens()
        self.router = FakeRouter()
        self.begin = Begin()
        self.upstream = make_upstream(int(str(changes.pop("port", server.port))), ca_file, **changes)
        self.courier = self.make_courier()

    def make_courier(self) -> RelayCourier:
        return RelayCourier(
            make_settings(self.upstream), {"M365": self.tokens}, self.router, hostname="relay.contoso.com",
            clock=self.clock,
        )  # fmt: skip
