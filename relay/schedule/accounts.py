"""How many notices each address has had, kept in the spool: one bound for all replicas that share it.

Each address has a small text of its own, which is read and written in one transaction: two replicas that have something to
tell the same person cannot both take the last place.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TypeVar

from relay import events
from relay.clock import Clock
from relay.errors import SpoolError
from relay.report.budget import Budget, Owed
from relay.spool.contract import Spool

T = TypeVar("T")

_ACCOUNT = "notices:to:"
"""Key, before an address in lower case."""
_FORMER = "notices:budget"
"""Where an earlier release kept all of them."""
_SWEEP = 3600.0
"""Seconds between looks for addresses that nothing need be remembered of."""


class Accounts:
    """The budget of every address. Raises nothing for a spool that fails: the outcome matters more than the count."""

    def __init__(self, spool: Spool, clock: Clock) -> None:
        self._spool = spool
        self._clock = clock
        self._meanwhile = Budget()
        """What was counted while the spool took nothing."""
        self._swept = clock.now()

    async def take(self, to: str, line: str) -> bool:
        """Whether a notice may go to this address now; else ``line`` is kept for its summary. On disk when it returns."""
        now = self._clock.now()
        try:
            return await self._change(to, lambda budget: budget.take(to, now, line))
        except SpoolError as error:
            events.trouble(where="notices", what=str(error), remedy=error.remedy)
            return self._meanwhile.take(to, now, line)

    async def owed(self) -> list[Owed]:
        """Summaries for which there is a place now. Raises SpoolError."""
        now = self._clock.now()
        kept = await self._spool.remembered(_ACCOUNT)
        owed = [one for text in kept.values() for one in _read(text).owed(now)]
        if now - self._swept >= _SWEEP:
            self._swept = now
            for key, text in kept.items():
                if _read(text).is_over(now):
                    await self._spool.revise(key, lambda text: (_unless_over(text, now), None))
        return owed

    async def settled(self, owed: Owed) -> None:
        """A summary is safely stored. Raises SpoolError."""
        now = self._clock.now()
        await self._change(owed.to, lambda budget: budget.settled(owed, now))

    async def adopt(self) -> None:
        """Take up what an earlier release had counted. Raises SpoolError."""
        text = (await self._spool.remembered(_FORMER)).get(_FORMER)
        if text is None:
            return
        for row in _read(text).export():
            await self._spool.revise(_key(row[0]), lambda kept, row=row: (kept or json.dumps([row]), None))  # type: ignore[misc]
        await self._spool.remember(_FORMER, None)

    async def _change(self, to: str, change: Callable[[Budget], T]) -> T:
        def revise(text: str | None) -> tuple[str, T]:
            budget = _read(text)
            result = change(budget)
            return json.dumps(budget.export()), result

        return await self._spool.revise(_key(to), revise)


def _key(to: str) -> str:
    return _ACCOUNT + to.lower()


def _read(text: str | None) -> Budget:
    if not text:
        return Budget()
    try:
        return Budget.restore(json.loads(text))
    except ValueError as error:
        events.trouble(where="notices", what=f"the counts of earlier notices cannot be read: {error}")
        return Budget()


def _unless_over(text: str | None, now: float) -> str | None:
    return None if _read(text).is_over(now) else text
