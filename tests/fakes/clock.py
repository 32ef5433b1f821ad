"""A clock that moves only when told."""

from __future__ import annotations

import asyncio


class ManualClock:
    """Starts at a fixed moment in 2026; ``sleep`` moves the time and yields."""

    def __init__(self, now: float = 1_795_000_000.0) -> None:
        self._now = now

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._now

    async def sleep(self, seconds: float) -> None:
        self.advance(max(0.0, seconds))
        await asyncio.sleep(0)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds
