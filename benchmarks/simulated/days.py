"""What can happen on a day of mail, one function for each; they run in simulated time and return what was seen."""

from __future__ import annotations

import asyncio
import resource
import time
from dataclasses import dataclass

from benchmarks.simulated.clock import EPOCH, run
from benchmarks.simulated.world import HOUR, Layout, World, peak
from relay.message import Outcome, Result, Scope
from relay.spool.contract import lane_name

EXPIRED = Outcome(
    Result.HELD, Scope.UPSTREAM, reason="The client secret has expired.", remedy="Create a new one.",
    code="secret-expired", counts=False,
)  # fmt: skip
_LONG = 7 * 24 * HOUR


@dataclass(frozen=True)
class Seen:
    """What came of it. Waits are seconds from acceptance to Exchange's 250; times are simulated seconds."""

    messages: int
    median: float
    most: float
    """Within which 99 % of the messages were sent."""
    longest_queue: int
    drained: float
    """Seconds until nothing waited any more."""
    broken: int
    """Limits exceeded, as Exchange counted."""
    processor: float
    """Microseconds for each message."""
    seconds: float
    """That all of it took on this machine."""
    noticed: float = 0.0
    """Seconds from the mending until the first message went again."""
    left: int = 0
    """Messages that still waited when the last one had come in."""
    provoked: int = 0
    most_open: int = 0
    """Connections."""
    logins: int = 0
    lookups: int = 0
    """Statements about lanes' mail that the end of a hold cost: to bring pools' mail back."""
    megabytes: int = 0
    """Of memory that this process had at most."""


def _seen(world: World, began: float, drained: float, **more: float) -> Seen:
    exchange = world.exchange
    return Seen(
        exchange.messages, world.wait(50), world.wait(99), world.spool.longest, drained, world.broken,
        world.processor_per_message(), time.monotonic() - began, most_open=exchange.most_open,
        logins=exchange.logins, provoked=exchange.provoked.total(),
        megabytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, **more,
    )  # fmt: skip


def day(layout: Layout, per_mailbox: float, hours: float, *, external_limit: int | None = None) -> Seen:
    """``hours`` of mail, from the beginning of the day's peak; more than 24 meet the limits of yesterday's mail."""

    async def work() -> Seen:
        began, world = time.monotonic(), World(layout)
        if external_limit is not None:
            for tenant in range(layout.tenants):
                world.exchange.tenant_limit[f"tenant{tenant}"] = external_limit
        await world.start()
        await world.stream(peak(per_mailbox * layout.all_mailboxes, begins=0.0), hours * HOUR)
        left = world.spool.waiting
        drained = await world.drained(_LONG)
        await world.stop()
        return _seen(world, began, drained, left=left)

    return run(work())


def burst(layout: Layout, messages: int) -> Seen:
    """So many messages wait all at once."""

    async def work() -> Seen:
        began, world = time.monotonic(), World(layout)
        await world.start()
        for number in range(messages):
            world.accept(0, number % layout.pools)
        drained = await world.drained(_LONG)
        await world.stop()
        return _seen(world, began, drained)

    return run(work())


def held(layout: Layout, per_mailbox: float, seconds: float) -> Seen:
    """The first tenant's secret expires at the peak; it is mended after ``seconds``, and `relay reload` says so.

    Mail goes on coming in all the time. It ends when no more waits than before.
    """

    async def work() -> Seen:
        began, world = time.monotonic(), World(layout)
        await world.start()
        rate = peak(per_mailbox * layout.all_mailboxes, begins=0.0)
        await world.stream(rate, HOUR / 2)
        world.exchange.refusing["tenant0"] = EXPIRED
        await world.stream(rate, seconds)
        del world.exchange.refusing["tenant0"]
        mail = asyncio.ensure_future(world.stream(rate, 8 * HOUR))
        lookups = world.lookups()
        await world.scheduler.refresh([], probe_now=True)
        noticed = await world.until(lambda: not world.scheduler.holds.all(), _LONG)
        lookups = world.lookups() - lookups
        drained = await world.until(lambda: world.spool.waiting < 2 * layout.all_mailboxes, _LONG)
        mail.cancel()
        await world.drained(_LONG)
        await world.stop()
        return _seen(world, began, noticed + drained, noticed=noticed, lookups=lookups)

    return run(work())


def squeezed(layout: Layout, per_mailbox: float, seconds: float) -> Seen:
    """Exchange finds one mailbox of a pool too fast for ``seconds``, whatever it does; mail goes on coming in."""

    async def work() -> Seen:
        began, world = time.monotonic(), World(layout)
        await world.start()
        rate = peak(per_mailbox * layout.all_mailboxes, begins=0.0)
        await world.stream(rate, HOUR / 4)
        first = "box0.pool0@tenant0.example"
        until = world.clock.monotonic() + seconds
        world.exchange.mailbox("tenant0", first).squeezed_until = EPOCH + until
        await world.stream(rate, seconds)
        mail = asyncio.ensure_future(world.stream(rate, 4 * HOUR))
        lane = world.scheduler.lanes[lane_name("tenant0", first)]
        drained = await world.until(lambda: lane.state() == "open", _LONG)
        mail.cancel()
        await world.drained(_LONG)
        await world.stop()
        return _seen(world, began, drained)

    return run(work())


def wide(layout: Layout, per_mailbox: float, minutes: float) -> Seen:
    """All mailboxes in one process, at the peak."""

    async def work() -> Seen:
        began, world = time.monotonic(), World(layout)
        await world.start()
        await world.stream(peak(per_mailbox * layout.all_mailboxes, begins=0.0), minutes * 60)
        left = world.spool.waiting
        drained = await world.drained(_LONG)
        await world.stop()
        return _seen(world, began, drained, left=left)

    return run(work())
