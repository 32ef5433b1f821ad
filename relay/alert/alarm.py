"""Ties the watch to the ways: what is new is told at once, in the background, and the watch hears what came of it.

Telling may take the better part of a minute (a webhook that does not answer); the next look does not wait for it.
News of one cause keep their order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from relay import events
from relay.alert.causes import Cause
from relay.alert.news import News
from relay.alert.watch import Watch
from relay.alert.ways import Ways

AT_ONCE = 4
"""Pieces of news told at the same time: a storm of holds must not become a storm of requests (Teams: 4 a second)."""


class Alarm:
    """The alert room's front door for the daemon: ask `known`, judge with `causes`, then `look`; every 20 s or so."""

    def __init__(self, watch: Watch, ways: Ways) -> None:
        self._watch = watch
        self._ways = ways
        self._room = asyncio.Semaphore(AT_ONCE)
        self._last: dict[str, asyncio.Task[None]] = {}
        """The newest telling of each cause."""

    def update(self, ways: Ways) -> None:
        """After a reload; what is being told goes on by the old ways, what is owed goes by these."""
        self._ways = ways

    async def known(self) -> frozenset[str]:
        """Keys of the causes that are not over, for `causes`."""
        return await self._watch.known()

    async def look(self, causes: Sequence[Cause], now: float) -> None:
        """Tell what is new, over or owed. Returns without waiting for the ways."""
        for news in await self._watch.look(causes, now):
            key = news.cause.key
            task = asyncio.create_task(self._tell(news, now, self._last.get(key)))
            self._last[key] = task
            task.add_done_callback(lambda done, key=key: self._forget(key, done))  # type: ignore[misc]

    async def idle(self) -> None:
        """Wait until nothing is being told."""
        while self._last:
            await asyncio.wait(list(self._last.values()))
            await asyncio.sleep(0)

    async def stop(self, seconds: float) -> None:
        """Finish what is being told within ``seconds``; the rest is told after the next start."""
        if self._last:
            _, late = await asyncio.wait(list(self._last.values()), timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _forget(self, key: str, done: asyncio.Task[None]) -> None:
        if self._last.get(key) is done:
            del self._last[key]

    async def _tell(self, news: News, now: float, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        try:
            async with self._room:
                worked = await self._ways.tell(news)
            owed = [way for way in self._ways.names if way not in worked and way not in news.heard]
            await self._watch.told(news, worked, owed, now)
        except Exception as error:
            # a fault of ours must not end the watching; the news stays unconfirmed, and a restart tells it again
            events.trouble(where="alerts", what=f"unexpected error: {error!r}", error=error)
