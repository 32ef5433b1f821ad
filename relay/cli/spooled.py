"""The spool as the commands use it: opened beside a running daemon, or without one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

from relay.cli.output import say
from relay.errors import ControlError

if TYPE_CHECKING:
    from relay.settings import Settings
    from relay.spool.contract import Filter, MessageView, Spool

T = TypeVar("T")
PAGE = 1000
"""Messages read at a time."""


@asynccontextmanager
async def spool_of(settings: Settings) -> AsyncIterator[Spool]:
    """The spool, open for an operator: it does not take the daemon's place."""
    # not `relay.daemon.build_spool`, which is the same: the daemon brings in every room and its libraries
    from relay.spool.factory import build_spool

    spool = build_spool(settings.spool)
    await spool.open(owner=False)
    if spool.trouble is not None:
        say(f"relay: {spool.trouble}; only mail of this host's local spool can be seen")
    try:
        yield spool.last_seen()
    finally:
        await spool.close()


def with_spool(settings: Settings, work: Callable[[Spool], Awaitable[T]]) -> T:
    """Run ``work`` with the open spool."""

    async def whole() -> T:
        async with spool_of(settings) as spool:
            return await work(spool)

    return asyncio.run(whole())


async def pages(
    spool: Spool, wanted: Filter, limit: int | None = None, *, after: str | None = None
) -> AsyncIterator[list[MessageView]]:
    """All messages of a filter (``limit`` at most, beyond the id ``after``), oldest first, a page at a time."""
    left = limit
    while left is None or left > 0:
        page = await spool.find(wanted, limit=PAGE if left is None else min(PAGE, left), after=after)
        if not page:
            return
        yield page
        after = page[-1].id
        left = None if left is None else left - len(page)


def wake(settings: Settings, lanes: Iterable[str]) -> bool:
    """Tell a running daemon to look again at holds and at these lanes. False when none answers.

    A stopped one sees it at its start. It is told even when nothing changed in the spool: it may know a hold that
    the spool could not write down yet.
    """
    from relay.control import ask

    try:
        ask(settings, "wake", lanes=sorted(lanes))
    except ControlError:
        return False
    return True
