"""Pools while the scheduler runs: mail of a held member goes to the others, and comes back when it is mended.

New mail is spread when it is accepted (`relay.rewrite.route.Router.choose`); this is for what already waits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay import events
from relay.settings import Settings
from relay.spool.contract import lane_name

if TYPE_CHECKING:
    from relay.schedule.loop import Scheduler

_STEP = 50
"""Messages moved to one member before the next one gets some, so that all stay even."""
_MOST = 500
"""Messages moved in one transaction."""


def members(settings: Settings) -> list[tuple[str, ...]]:
    """The lanes of every pool that the sender rules name."""
    return [
        tuple(lane_name(rule.upstream, mailbox) for mailbox in rule.login)
        for rule in settings.senders
        if len(rule.login) > 1
    ]


class Pools:
    """Moves waiting mail between the members of a pool."""

    def __init__(self, scheduler: Scheduler, settings: Settings) -> None:
        self._scheduler = scheduler
        self.members = members(settings)

    def siblings(self, lane: str) -> list[str]:
        """The other lanes that share a pool with this one and are not held."""
        found = {name for pool in self.members if lane in pool for name in pool if name != lane}
        lanes = self._scheduler.lanes
        return sorted(name for name in found if name not in lanes or lanes[name].the_hold() is None)

    async def leave(self, lane: str) -> int:
        """A member is held: its pool mail goes to the others, evenly. How many moved."""
        siblings, total = self.siblings(lane), 0
        moved = len(siblings)
        while moved:
            moved = sum([await self._scheduler.spool.reassign(lane, name, _STEP) for name in siblings])
            total += moved
        if total:
            events.advice(
                where=f"lane {lane}",
                what=f"held; {total} waiting messages of its pool go by its other members",
            )
        return total

    async def join(self, lane: str) -> int:
        """A member works again: it takes its share of what waits at the others. How many moved."""
        total, spool = 0, self._scheduler.spool
        for name in self.siblings(lane):
            theirs, ours = await spool.lane(name), await spool.lane(lane)
            share = (theirs.queued - ours.queued) // 2
            while share > 0:
                moved = await spool.reassign(name, lane, min(share, _MOST))
                total += moved
                share = share - moved if moved else 0
        return total
