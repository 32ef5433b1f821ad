"""Work that goes on beside whoever started it, and is kept hold of until its end.

The event loop holds tasks only weakly (Python documentation, `asyncio.create_task`): one that nobody else holds may be
collected before it is done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Tasks:
    """The tasks of one owner that have not ended."""

    def __init__(self) -> None:
        self._all: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Begin it."""
        task = asyncio.ensure_future(work)
        self._all.add(task)
        task.add_done_callback(self._all.discard)
        return task

    def cancel(self) -> None:
        """Tell all of them to end."""
        for task in tuple(self._all):
            task.cancel()

    async def ended(self) -> None:
        """Wait for the end of those that run now, however they end."""
        await asyncio.gather(*self._all, return_exceptions=True)


async def end_within(tasks: list[asyncio.Task[Any]], seconds: float) -> None:
    """Give tasks time to end by themselves; those that have not are cut off. Raises nothing that they raise."""
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=seconds)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
