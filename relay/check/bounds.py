"""How long a step may take, and blocking work that must not hold up the end."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

from relay.settings import Upstream

CONNECT = 10.0
"""Seconds for a name or a connection; a firewall that drops packets is known by then."""
EXCHANGE = 30.0
"""Seconds for one dialogue: a login, a token, one request to Graph."""

HOST = 15.0
"""Seconds for this machine's own files, ports and disks."""

T = TypeVar("T")


def connect_bound(upstream: Upstream) -> float:
    """Seconds for a name or a connection; never beyond the upstream's own time-out."""
    return min(CONNECT, upstream.timeout)


def dialogue_bound(upstream: Upstream) -> float:
    """Seconds for one dialogue; never beyond twice the upstream's own time-out."""
    return min(EXCHANGE, 2 * upstream.timeout)


def brief(error: BaseException) -> str:
    """An error in a few words, without the type's name where the system has words of its own."""
    words = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(words).split())[:300]


async def in_thread(work: Callable[[], T], seconds: float) -> T:
    """Blocking work in a thread of its own, which nobody waits for when its time is over (TimeoutError).

    The loop's own pool would be waited for at the end of the program: a name server that does not answer would
    hold up a check that has long been reported.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            result = work()
        except BaseException as fault:
            error = fault
            _tell(loop, future, lambda: future.set_exception(error))
        else:
            _tell(loop, future, lambda: future.set_result(result))

    threading.Thread(target=run, name="relay-check", daemon=True).start()
    async with asyncio.timeout(seconds):
        return await future


def _tell(loop: asyncio.AbstractEventLoop, future: asyncio.Future[T], put: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: the check is over
        loop.call_soon_threadsafe(lambda: None if future.done() else put())
