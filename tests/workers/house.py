"""A listener or two, a real spool and real helper processes, in the test's own event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import relay.settings as of
from relay import events
from relay.accept.auth import Authenticator, Guessing, Judge
from relay.accept.intake import Intake
from relay.accept.listener import ListenerServer
from relay.clock import SystemClock
from relay.rewrite.route import Router
from relay.spool.contract import Filter, MessageView
from relay.spool.sqlite import SqliteSpool
from relay.workers.acceptance import Acceptance
from relay.workers.deputy import Deputy, Desk
from tests.accept.support import TestClient, listener
from tests.fakes.settings import settings
from tests.fakes.spool import spool_settings

PATIENCE = 30.0


async def until(condition: Callable[[], Any], what: str = "") -> Any:
    """Ask until the answer is true; the answer."""
    async with asyncio.timeout(PATIENCE):
        while not (answer := condition()):
            await asyncio.sleep(0.01)
        return answer


@dataclass
class House:
    """What a daemon has, as far as accepting goes."""

    settings: of.Settings
    spool: SqliteSpool
    servers: dict[str, ListenerServer]
    acceptance: Acceptance
    told: list[tuple[str, dict[str, object]]] = field(default_factory=list)
    members: list[tuple[str, ...]] = field(default_factory=list)

    def events(self, name: str) -> list[dict[str, object]]:
        return [fields for event, fields in self.told if event == name]

    @property
    def server(self) -> ListenerServer:
        return next(iter(self.servers.values()))

    @contextlib.asynccontextmanager
    async def client(self, greeting: str = "220") -> AsyncIterator[TestClient]:
        """A client that has read the greeting."""
        client = await TestClient.open(self.server.address)
        try:
            assert (await client.reply()).startswith(greeting)
            yield client
        finally:
            client.close()

    async def helper(self) -> Deputy:
        """The helper on duty, once there is one."""
        deputy: Deputy = await until(lambda: self.acceptance.on_duty, "a helper is on duty")
        return deputy

    async def stored(self) -> list[MessageView]:
        return await self.spool.find(Filter(), limit=1_000_000)


@contextlib.asynccontextmanager
async def house(
    path: Path,
    listeners: Sequence[of.Listener] = (),
    *,
    workers: str = "always",
    max_size: int = 10 * 1024**3,
    **changes: Any,
) -> AsyncIterator[House]:
    """Everything open and listening."""
    conf = settings(
        path, listeners=tuple(listeners or [listener()]), workers=workers,
        spool=spool_settings(path, max_size=max_size), **changes,
    )  # fmt: skip
    clock, spool = SystemClock(), SqliteSpool(conf.spool)
    authenticator = Authenticator(conf.clients)
    logins = Judge(authenticator, Guessing(), clock)
    intake = Intake(
        spool=spool, router=Router(conf), settings=conf, clock=clock, hostname="relay.test",
        authenticator=authenticator, logins=logins,
    )  # fmt: skip
    servers = {one.bind: ListenerServer(one, intake, hostname="relay.test") for one in conf.listeners}
    members: list[tuple[str, ...]] = []

    def choose(lanes: tuple[str, ...], source: str) -> str:
        members.append(lanes)
        return lanes[-1]

    acceptance = Acceptance(Desk(spool, lambda: logins, choose), servers, "relay.test", conf)
    this = House(conf, spool, servers, acceptance, members=members)
    events.plug(lambda level, event, fields: this.told.append((event, dict(fields))))
    await spool.open()
    try:
        for server in servers.values():
            await server.start()
        acceptance.start()
        yield this
    finally:
        await acceptance.stop(0.5)
        for server in servers.values():
            await server.drain(0.0)
        await spool.close()
        events.plug(None)
