"""Time as the rooms see it: injected, so that tests move it instead of sleeping."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """The two clocks a mail server needs, and a way to wait."""

    def now(self) -> float:
        """Wall time: seconds since 1970, for what is stored and shown."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go backwards, for time-outs and rates within this process."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait; a negative or zero time yields once."""
        ...


class ClockOver:
    """Another clock with another wall time: subclasses say which."""

    def __init__(self, base: Clock) -> None:
        self._base = base

    def now(self) -> float:
        return self._base.now()

    def monotonic(self) -> float:
        return self._base.monotonic()

    async def sleep(self, seconds: float) -> None:
        await self._base.sleep(seconds)


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))
