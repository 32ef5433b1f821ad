"""Tenants, pools and mailboxes around the real scheduler and the real router, and the mail that comes in."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.simulated.clock import EPOCH, SimulatedClock
from benchmarks.simulated.exchange import Exchange, SimulatedCourier
from benchmarks.simulated.spool import SimulatedSpool
from relay.message import Client, Envelope, Recipient
from relay.rewrite.route import Router
from relay.schedule.loop import Scheduler
from relay.settings import SenderRule, Settings
from relay.spool.contract import Claim
from tests.fakes.post import FakePost
from tests.fakes.settings import LIMITS, settings, upstream

HOUR = 3600.0
_SOURCES = 50
"""Applications that send through one pool."""
_LOOK = 1.0
"""Seconds between looks whether something has come about."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """What is simulated."""

    tenants: int
    pools: int
    """Of each tenant."""
    mailboxes: int
    """Of each pool."""
    recipients_per_day: int = 10_000
    messages_per_minute: int = 30
    batch_size: int = 100

    @property
    def all_mailboxes(self) -> int:
        """Of all tenants."""
        return self.tenants * self.pools * self.mailboxes


def configured(layout: Layout) -> Settings:
    """The settings that a configuration of this layout comes to: Exchange's own limits, one sender rule for each pool."""
    limits = dataclasses.replace(
        LIMITS, messages_per_minute=layout.messages_per_minute, recipients_per_day=layout.recipients_per_day
    )
    tenants = [
        upstream(name=f"tenant{n}", from_email=f"app@tenant{n}.example", limits=limits, batch_size=layout.batch_size)
        for n in range(layout.tenants)
    ]  # fmt: skip
    rules = [
        SenderRule(
            match=f"*@pool{pool}.tenant{tenant}.example", network=None, user=None,
            from_address=f"app@tenant{tenant}.example",
            login=tuple(f"box{n}.pool{pool}@tenant{tenant}.example" for n in range(layout.mailboxes)),
            name="keep", reply_to="original", upstream=f"tenant{tenant}",
        )
        for tenant in range(layout.tenants)
        for pool in range(layout.pools)
    ]  # fmt: skip
    return settings(Path("/nonexistent"), upstreams=tuple(tenants), senders=tuple(rules))


class World:
    """One process of relay and all of Microsoft 365, in simulated time. Make and use it inside a simulated loop."""

    def __init__(self, layout: Layout, exchange: Exchange | None = None) -> None:
        config = configured(layout)
        self.layout = layout
        self.exchange = exchange or Exchange()
        self.spool = SimulatedSpool()
        self.router = Router(config)
        self.clock = SimulatedClock()
        self.scheduler = Scheduler(
            self.spool,  # type: ignore[arg-type]
            SimulatedCourier(self.exchange, layout.batch_size, EPOCH),
            config,
            self.clock,
            lambda claim: claim.header_from[0],
            FakePost(),
        )
        self.accepted = 0
        self._numbers = itertools.count()
        self._processor = time.process_time()

    async def start(self) -> None:
        """Take up work."""
        await self.scheduler.start()

    async def stop(self) -> None:
        """End every task."""
        await self.scheduler.stop(60.0)

    def accept(self, tenant: int, pool: int) -> None:
        """One message comes in, is routed as the daemon routes it, and is stored."""
        number = next(self._numbers)
        sender = f"app{number % _SOURCES}@pool{pool}.tenant{tenant}.example"
        client = Client("10.0.0.1")
        route = self.router.route(sender, (sender,), client)
        lane = self.router.choose(route, sender, avoid=self.scheduler.avoided(route.lanes))
        envelope = Envelope(sender, (Recipient(f"person{number}@example.net"),))
        self.spool.accept(
            Claim(
                f"{number:013d}", lane, envelope, client, self.clock.now(), 10_000, 0, f"<{number}@{sender}>", "news",
                (sender,), route.lanes if len(route.lanes) > 1 else (), sender,
            )
        )  # fmt: skip
        self.accepted += 1

    async def stream(self, per_hour: Callable[[float], float], seconds: float) -> None:
        """Mail at random times, all pools alike, at a rate that follows ``per_hour`` (of the simulated second)."""
        loop, chance = asyncio.get_running_loop(), self.exchange.random
        pools = itertools.cycle(
            [(tenant, pool) for pool in range(self.layout.pools) for tenant in range(self.layout.tenants)]
        )
        began = loop.time()
        due = began
        while True:
            due += chance.expovariate(per_hour(due - began) / HOUR)
            if due - began >= seconds:
                return
            if due > loop.time():
                await asyncio.sleep(due - loop.time())
            self.accept(*next(pools))

    async def until(self, condition: Callable[[], bool], seconds: float) -> float:
        """Wait for something, at most so long; the simulated seconds it took. RuntimeError when it does not come about."""
        began = self.clock.monotonic()
        while not condition():
            if self.clock.monotonic() - began > seconds:
                raise RuntimeError(f"did not come about within {seconds:.0f} simulated seconds")
            await asyncio.sleep(_LOOK)
        return self.clock.monotonic() - began

    async def drained(self, seconds: float) -> float:
        """Until nothing waits; the simulated seconds it took."""
        return await self.until(lambda: not self.spool.waiting, seconds)

    def processor_per_message(self) -> float:
        """Microseconds of processor time for each message since this world was made, simulated Exchange included."""
        return (time.process_time() - self._processor) * 1e6 / max(1, self.exchange.messages)

    def lookups(self) -> int:
        """Statements so far that looked at a lane's mail or moved it to another."""
        return self.spool.calls["lane"] + self.spool.calls["reassign"]

    @property
    def broken(self) -> int:
        """How often a limit was exceeded, as Exchange counts."""
        return self.exchange.violations.total()

    def wait(self, share: float) -> float:
        """Seconds within which so many percent of the messages were with Exchange after they had been accepted."""
        waits = self.exchange.waits
        return statistics.quantiles(waits, n=100)[int(share) - 1] if len(waits) > 1 else 0.0


def peak(
    per_day: float, share: float = 0.6, hours: float = 8.0, begins: float = 8.0
) -> Callable[[float], float]:
    """A day's curve: ``share`` of its messages within ``hours`` from ``begins`` o'clock, the rest spread over the others."""
    busy, quiet = per_day * share / hours, per_day * (1 - share) / (24 - hours)
    return lambda second: busy if begins <= second / HOUR % 24 < begins + hours else quiet
