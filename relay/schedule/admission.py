"""Which claimed messages may start now: what does not fit the limits lets others pass, and is never starved by them.

A message that needs more than the mailbox has left (many recipients, near the end of the day's limit) waits. Meanwhile
mail of other sources goes, but for each that passes as much is saved for the one that waits, up to what it needs. So
others get at least half of what becomes free, and the large one's share grows with it until it goes. Mail of its own
source never passes it: the order of one sender's mail to one recipient is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.schedule.limits import NOTHING, ONE, Cost
from relay.spool.contract import Claim

if TYPE_CHECKING:
    from relay.schedule.lane import Lane

_MOST_PASSED = 100
"""Waiting messages looked past, at most: each is claimed and given back each time."""
_BEYOND = 4
"""Messages looked at beyond those that are known to wait, for one that may pass."""


class Admission:
    """What one lane remembers about it."""

    def __init__(self) -> None:
        self._waiting: str | None = None
        """The message that is saved for: the first in turn that did not fit."""
        self._wanted = NOTHING
        self._saved = NOTHING
        self._passed = 0
        """Messages that were given back at the last look."""

    def window(self, count: int) -> int:
        """How many messages to claim so that ``count`` of them may start."""
        return count + (min(self._passed, _MOST_PASSED) + _BEYOND if self._passed else 0)

    def admit(self, lane: Lane, claims: list[Claim], count: int, now: float) -> list[Claim]:
        """At most ``count`` of them, charged to the limits; the others are owed to the spool again.

        Sets ``lane.need`` to what must fit before another look is worth while.
        """
        if self._waiting not in {claim.id for claim in claims}:
            self._waiting, self._saved = None, NOTHING
        admitted: list[Claim] = []
        blocked: set[str] = set()
        refused: list[Cost] = []
        for claim in claims:
            cost = lane.cost(claim)
            if claim.source in blocked or len(admitted) == count:
                blocked.add(claim.source)
            elif lane.limiter.fits(now, cost if claim.id == self._waiting else cost.plus(self._saved)):
                lane.charge(claim, cost)
                self._went(claim, cost)
                admitted.append(claim)
                continue
            else:
                blocked.add(claim.source)
                refused.append(self._refuse(claim, cost))
            lane.owed.append(claim)
        lane.need = self._least(lane, refused, now)
        grown = len(claims) - len(admitted) > self._passed and len(claims) < _MOST_PASSED
        self._passed = len(claims) - len(admitted) if refused else 0
        if refused and not admitted and grown:
            lane.need = ONE  # perhaps what may pass is further back
        return admitted

    def _went(self, claim: Claim, cost: Cost) -> None:
        if claim.id == self._waiting:
            self._waiting, self._saved = None, NOTHING
        elif self._waiting is not None:
            self._saved = self._saved.plus(cost).at_most(self._wanted)

    def _refuse(self, claim: Claim, cost: Cost) -> Cost:
        """What must be free before this one goes."""
        if self._waiting is None:
            self._waiting, self._wanted, self._saved = claim.id, cost, NOTHING
        return cost if claim.id == self._waiting else cost.plus(self._saved)

    def _least(self, lane: Lane, refused: list[Cost], now: float) -> Cost:
        return min(refused, key=lambda cost: lane.limiter.ready_at(now, cost), default=ONE)
