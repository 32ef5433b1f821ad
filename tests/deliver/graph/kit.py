"""A courier pointed at the simulator: real tokens, real TLS, real HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

from relay.clock import SystemClock
from relay.deliver.contract import Connection
from relay.deliver.courier import RelayCourier
from relay.message import Body, BytesBody, Client, Content, Envelope, Outcome, Recipient, Report
from relay.settings import ClientSecret, MailboxLimits, Secret, Upstream
from relay.simulator.app import Simulator
from relay.simulator.options import SimulatorOptions
from relay.spool.contract import Claim, lane_name
from relay.tokens.entra import EntraTokens
from tests.deliver.desk import Begin, FakeRouter, make_settings

MAILBOX = "notifications@contoso.com"
LANE = lane_name("M365", MAILBOX)
HEADER = (
    b"From: notifications@contoso.com\r\nTo: anna@x.example\r\nSubject: hello\r\nMessage-ID: <1@x>\r\n"
    b"Date: Mon, 23 Nov 2026 10:00:00 +0000\r\n\r\n"
)


class Kept:
    """A memory like the spool's."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    async def remembered(self, prefix: str = "") -> dict[str, str]:
        return {key: text for key, text in self.texts.items() if key.startswith(prefix)}

    async def remember(self, key: str, value: str | None) -> None:
        if value is None:
            self.texts.pop(key, None)
        else:
            self.texts[key] = value


class Tenant:
    """One simulated tenant, and the courier of a relay that knows the eight fields."""

    def __init__(self, sim: Simulator, **changes: object) -> None:
        self.sim = sim
        self.memory = Kept()
        self.clock = SystemClock()
        self.upstream = upstream_of(sim, **changes)
        self.router = FakeRouter((MAILBOX,), MAILBOX)
        self.router.answer = dataclasses.replace(self.router.answer, upstream="M365")
        self.begin = Begin()
        self.start()

    def start(self) -> None:
        """A new process: only the memory is left."""
        self.tokens = EntraTokens(self.upstream, clock=self.clock)
        self.courier = RelayCourier(
            make_settings(self.upstream), {"M365": self.tokens}, self.router, hostname="relay.contoso.com",
            clock=self.clock, memory=self.memory,
        )  # fmt: skip

    async def stop(self) -> None:
        await self.courier.close()
        await self.tokens.close()

    def reload(self) -> None:
        """What the daemon does at a reload, as far as deliver is concerned."""
        self.tokens.retry_now()
        self.courier.update(make_settings(self.upstream), self.router, {"M365": self.tokens})

    async def open(self) -> Connection:
        return await self.courier.open("M365", MAILBOX)

    async def send(
        self,
        *to: str,
        header: bytes = HEADER,
        body: bytes | Body = b"Hello\r\n",
        connection: Connection | None = None,
    ) -> Outcome:
        """One message over a connection of its own, or the given one; what its first recipient got."""
        return next(
            iter((await self.report(*to, header=header, body=body, connection=connection)).outcomes.values())
        )

    async def report(
        self,
        *to: str,
        header: bytes = HEADER,
        body: bytes | Body = b"Hello\r\n",
        connection: Connection | None = None,
    ) -> Report:
        used = connection or await self.open()
        people = tuple(Recipient(one) for one in to or ("anna@x.example",))
        envelope = Envelope(MAILBOX, people, long_lines=isinstance(body, bytes))
        claim = Claim(
            "0123456789abc", LANE, envelope, Client("10.0.0.7"), 1_795_000_000.0, 100, 0,
            header_from=(MAILBOX,),
        )  # fmt: skip
        try:
            async with asyncio.timeout(20):
                return await used.submit(
                    claim, Content(header, BytesBody(body) if isinstance(body, bytes) else body), self.begin
                )
        finally:
            if connection is None:
                await used.close()


def upstream_of(sim: Simulator, **changes: object) -> Upstream:
    """The eight fields and where the simulator is; ``changes`` replace fields, or limits by name."""
    limits = {"connections": 2, "messages_per_minute": 0, "recipients_per_day": 0, "recipients_per_message": 500,
              "message_size": 35 * 2**20}  # fmt: skip
    for name in limits:
        limits[name] = changes.pop(name, limits[name])  # type: ignore[assignment]
    made = Upstream(
        name="M365", from_email=MAILBOX, tenant_id=sim.state.tenant_id, client_id=sim.state.client_id,
        credential=ClientSecret(Secret(sim.options.client_secret)), host="localhost", port=sim.smtp_port, timeout=10.0,
        batch_size=30, transport="auto", cloud="public", authority=sim.authority, graph_url=sim.graph_url,
        smtp_scope="https://outlook.office365.com/.default", graph_scope="https://graph.microsoft.com/.default",
        ca_file=Path(sim.ca_file), proxy=None, limits=MailboxLimits(**limits),
    )  # fmt: skip
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def tenant(
    folder: Path, *permissions: str, options: dict[str, object] | None = None, **changes: object
) -> AsyncIterator[Tenant]:
    """A tenant whose app has these permissions, running."""
    chosen = SimulatorOptions(directory=folder / "microsoft", permissions=set(permissions), **(options or {}))  # type: ignore[arg-type]
    (folder / "microsoft").mkdir()
    async with Simulator(chosen) as sim:
        one = Tenant(sim, **changes)
        try:
            yield one
        finally:
            await one.stop()
