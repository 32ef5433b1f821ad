"""Blocking work in a daemon thread of its own: one that hangs must not hold up the exit, as a pool's would."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


def away(work: Callable[[], Result], name: str) -> asyncio.Future[Result]:
    """What ``work`` returns or raises, once it has. Giving the future up leaves the thread to end by itself."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()
    threading.Thread(target=_run, args=(work, loop, future), name=name, daemon=True).start()
    return future


def _run(work: Callable[[], Result], loop: asyncio.AbstractEventLoop, future: asyncio.Future[Result]) -> None:
    """The thread's whole life. A caller that has gone leaves nobody to tell."""
    deliver: Callable[[], None]
    try:
        result = work()
        deliver = lambda: None if future.done() else future.set_result(result)  # noqa: E731
    except Exception as fault:
        error = fault
        deliver = lambda: None if future.done() else future.set_exception(error)  # noqa: E731
    with contextlib.suppress(RuntimeError):  # the loop is closed: the process is ending
        loop.call_soon_threadsafe(deliver)
