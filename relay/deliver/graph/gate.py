"""The app's requests at once: so many in this process, and no more over all relays that share a spool."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from types import TracebackType
from typing import NamedTuple, Protocol

from relay.background import Tasks
from relay.errors import SpoolError

AT_ONCE = 4
"""Requests to Graph at once of one app (facts 6.6: 4, by some pages over all its mailboxes)."""
_KEEP = 2.0
"""Seconds for which a place that was taken serves one request after the other here, before others have their chance."""
_AGAIN = 0.1
"""Seconds between tries while the others have all places."""


class Places(Protocol):
    """Places that all relays of a group share; each is one relay's at a time (`relay.spool.group.Group`)."""

    shared: bool

    async def take_place(self, name: str, most: int) -> str | None:
        """One of ``most`` places of that name; None: all are taken. Raises SpoolError."""
        ...

    def has_place(self, place: str) -> bool:
        """Whether it certainly is still this relay's."""
        ...

    async def leave_place(self, place: str) -> None:
        """It is free; nothing when it is this relay's no more. Raises SpoolError."""
        ...


class _Kept(NamedTuple):
    place: str
    since: float
    """Steady seconds."""


class Gate:
    """An asynchronous context: inside it is one request."""

    def __init__(self, name: str, places: Places | None = None) -> None:
        """``name``: the app's. Without ``places`` only this process is counted."""
        self._name = name
        self._places = places if places is not None and places.shared else None
        self._here = asyncio.Semaphore(AT_ONCE)
        self._kept: deque[_Kept] = deque()
        """Taken, and in no use just now."""
        self._used: deque[_Kept] = deque()
        """In use; requests are alike, so any of them may be the one that ends."""
        self._not_before = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._tasks = Tasks()

    async def __aenter__(self) -> None:
        """Wait for a place. Raises SpoolError when nobody can say whether there is one."""
        await self._here.acquire()
        try:
            if self._places is not None:
                self._used.append(await self._place(self._places))
        except BaseException:
            self._here.release()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._used:
            self._kept.append(self._used.popleft())
            self._let_go()
        self._here.release()

    async def _place(self, places: Places) -> _Kept:
        while True:
            self._let_go()
            while self._kept:
                one = self._kept.popleft()
                if places.has_place(one.place):
                    return one
                self._tasks.spawn(_leave(places, one.place))
            wait = self._not_before - time.monotonic()
            if wait <= 0:
                began = time.monotonic()
                place = await self._take(places)
                if place is not None:
                    return _Kept(place, began)
            await asyncio.sleep(max(wait, _AGAIN))

    async def _take(self, places: Places) -> str | None:
        """A place of the group; one that comes after its request was given up is another's."""
        taking = self._tasks.spawn(places.take_place(self._name, AT_ONCE))
        try:
            return await asyncio.shield(taking)
        except asyncio.CancelledError:
            taking.add_done_callback(self._unwanted)
            raise

    def _unwanted(self, taking: asyncio.Task[str | None]) -> None:
        if taking.cancelled() or taking.exception() is not None:
            return
        place = taking.result()
        if place is not None:
            self._kept.append(_Kept(place, time.monotonic()))
            self._let_go()

    def _let_go(self) -> None:
        """Places that served here for long enough are for whoever comes first: the others try while this one pauses."""
        now = time.monotonic()
        while self._places is not None and self._kept and now - self._kept[0].since >= _KEEP:
            self._not_before = now + 2 * _AGAIN
            self._tasks.spawn(_leave(self._places, self._kept.popleft().place))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._kept:
            rest = self._kept[0].since + _KEEP - now
            self._timer = asyncio.get_running_loop().call_later(rest, self._let_go)


async def _leave(places: Places, place: str) -> None:
    """Until the spool has heard it: a place that is lost is one request fewer for all."""
    while True:
        try:
            await places.leave_place(place)
        except SpoolError:
            await asyncio.sleep(1.0)
        else:
            return
