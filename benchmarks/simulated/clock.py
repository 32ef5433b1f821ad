"""Simulated time: an event loop that never waits. When nothing can run, its clock jumps to the next timer."""

from __future__ import annotations

import asyncio
import contextlib
import selectors
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

from relay.schedule import pace

T = TypeVar("T")

EPOCH = 1_795_000_000.0
"""Wall time at which every simulation begins: a moment in November 2026."""
_LEAST = 1e-6
"""Seconds of the smallest jump: many times what a wall time of today can tell apart as a float."""


class SimulatedLoop(asyncio.SelectorEventLoop):
    """For code that waits for timers alone: no threads, no sockets. Its time starts at 0."""

    def __init__(self) -> None:
        self._seconds = 0.0
        super().__init__(_Jumping(self))
        self._clock_resolution = _LEAST

    def time(self) -> float:
        """Simulated seconds since the loop was made."""
        return self._seconds

    def jump(self, seconds: float) -> None:
        """Let time pass."""
        self._seconds += max(seconds, _LEAST)


class _Jumping(selectors.SelectSelector):
    """Where a loop would wait for the machine's clock, it moves its own."""

    def __init__(self, loop: SimulatedLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("nothing is left that could ever happen: every task waits for another one")
        if timeout > 0:
            self._loop.jump(timeout)
        return []


class SimulatedClock:
    """`relay.clock.Clock` over the running loop."""

    def now(self) -> float:
        """Wall time."""
        return EPOCH + asyncio.get_running_loop().time()

    def monotonic(self) -> float:
        """The loop's own."""
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        """Wait, which costs nothing."""
        await asyncio.sleep(max(0.0, seconds))


class _LaneTime:
    """In place of the module `time` where a lane takes its pace."""

    @staticmethod
    def monotonic() -> float:
        return asyncio.get_running_loop().time()


@contextlib.contextmanager
def _simulated_pace() -> Iterator[None]:
    """A lane's pace is the one thing that is read from the machine's own clock."""
    real = pace.time  # type: ignore[attr-defined]
    pace.time = _LaneTime  # type: ignore[attr-defined]
    try:
        yield
    finally:
        pace.time = real  # type: ignore[attr-defined]


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run it to its end in simulated time."""
    with _simulated_pace(), asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        return runner.run(work)
