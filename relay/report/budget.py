"""How many notices one address gets: at most N in any hour, then a summary of the rest. Pure; times are passed in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

LIMIT = 20
"""Notices to one address in any window; the summary is one of them."""
WINDOW = 3600.0
"""Seconds."""
SAMPLES = 50
"""Lines kept for a summary; beyond them only the count grows."""

Row = tuple[str, tuple[float, ...], int, float, tuple[str, ...]]
"""Address, times of its notices, how many were kept back, since when, their lines."""


@dataclass(frozen=True, slots=True)
class Owed:
    """A summary that may go out now; see `Budget.owed`."""

    to: str
    count: int
    since: float
    samples: tuple[str, ...]


@dataclass(slots=True)
class _Account:
    to: str
    stamps: list[float] = field(default_factory=list)
    count: int = 0
    since: float = 0.0
    samples: list[str] = field(default_factory=list)


class Budget:
    """Counts what goes to whom. Addresses differing in case are one. Not thread-safe; cost does not grow with time."""

    def __init__(self, limit: int = LIMIT, window: float = WINDOW) -> None:
        self.limit = max(1, limit)
        self.window = window
        self._accounts: dict[str, _Account] = {}
        self._swept = float("-inf")

    def take(self, to: str, now: float, line: str = "") -> bool:
        """Whether a notice may go to ``to`` now, and then it is counted; else ``line`` is kept for the summary.

        While a summary is owed nothing else goes out, so that it gets the first place that comes free.
        """
        self._sweep(now)
        account = self._accounts.setdefault(to.lower(), _Account(to))
        if not account.count and len(self._fresh(account, now)) < self.limit:
            account.stamps.append(now)
            return True
        account.since = account.since if account.count else now
        account.count += 1
        if line and len(account.samples) < SAMPLES:
            account.samples.append(line)
        return False

    def owed(self, now: float) -> list[Owed]:
        """Summaries for which there is a place now. Nothing changes until `settled` says that one is on its way."""
        return [
            Owed(one.to, one.count, one.since, tuple(one.samples))
            for one in self._accounts.values()
            if one.count and len(self._fresh(one, now)) < self.limit
        ]

    def settled(self, summary: Owed, now: float) -> None:
        """A summary is safely stored. What was kept back since it was taken out stays owed."""
        account = self._accounts.get(summary.to.lower())
        if account is None:
            return
        account.stamps.append(now)
        account.count = max(0, account.count - summary.count)
        del account.samples[: len(summary.samples)]
        account.since = now

    def is_over(self, now: float) -> bool:
        """Whether nothing is owed and nothing counts any more: it may be forgotten."""
        return not any(one.count or self._fresh(one, now) for one in self._accounts.values())

    def next_due(self, now: float) -> float | None:
        """When `owed` will have something; ``now`` when it has already, None when nothing is kept back."""
        times = [self._place(one, now) for one in self._accounts.values() if one.count]
        return min(times, default=None)

    def export(self) -> tuple[Row, ...]:
        """All there is to remember, as plain tuples, texts and numbers."""
        return tuple(
            (one.to, tuple(one.stamps), one.count, one.since, tuple(one.samples))
            for one in self._accounts.values()
        )

    @classmethod
    def restore(cls, rows: Sequence[Any], limit: int = LIMIT, window: float = WINDOW) -> Budget:
        """What `export` gave, lists for tuples allowed (JSON). Raises ValueError when it is something else."""
        budget = cls(limit, window)
        try:
            for to, stamps, count, since, samples in rows:
                kept = [str(one) for one in samples]
                account = _Account(
                    str(to), sorted(float(one) for one in stamps), int(count), float(since), kept
                )
                budget._accounts[account.to.lower()] = account
        except (TypeError, ValueError) as error:
            raise ValueError("not the state of a budget") from error
        return budget

    def _fresh(self, account: _Account, now: float) -> list[float]:
        """Its notices of the last window; a clock that was set back does not keep them for ever."""
        account.stamps = [one for one in account.stamps if one - self.window < now < one + self.window]
        return account.stamps

    def _place(self, account: _Account, now: float) -> float:
        """When the account has a place: once all but ``limit - 1`` of its notices are older than the window."""
        fresh = sorted(self._fresh(account, now))
        return now if len(fresh) < self.limit else fresh[len(fresh) - self.limit] + self.window

    def _sweep(self, now: float) -> None:
        """Once in a window, forget who has nothing fresh and nothing owed."""
        if abs(now - self._swept) < self.window:
            return
        self._swept = now
        self._accounts = {
            key: one for key, one in self._accounts.items() if one.count or self._fresh(one, now)
        }
