"""Once per cause, and once when it is over: compares what is wrong now with what was told before.

What is written down for a cause, and what a crash leaves:

- *telling*: somebody is asked to tell it. After a restart it is told again, since nobody knows how far that got.
- *owed*: some way did not carry it; told again by that way at a later look, a bounded number of times.
- *told*: nothing to say until it is over. The end goes through the same three, and is then forgotten.

The store may fail (a full disk is one of the causes): memory goes on, and what was not written is written later.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Collection, Sequence
from typing import Protocol

from relay import events
from relay.alert.causes import Cause
from relay.alert.news import News as News
from relay.errors import RelayError

PREFIX = "alert:"
"""Of our keys in the store, which others use as well."""
EACH_LOOK = 10
"""So many times a failed way is asked again at each look ..."""
LATER = 1800.0
"""... then every so many seconds, since a way that failed for minutes will not mend in seconds ..."""
MOST_TRIES = 58
"""... until so many tries: about a day in all."""

TELLING, OWED, TOLD = "telling", "owed", "told"


class Store(Protocol):
    """Small texts that survive a restart; the spool is one."""

    async def remembered(self) -> dict[str, str]:
        """All of them by key. Raises SpoolError."""
        ...

    async def remember(self, key: str, value: str | None) -> None:
        """Set, or forget with None; durable when it returns. Raises SpoolError."""
        ...


@dataclasses.dataclass(slots=True)
class _Record:
    """What is known about one cause; see the head of this file."""

    cause: Cause
    over: bool = False
    state: str = TELLING
    heard: list[str] = dataclasses.field(default_factory=list)
    """Ways that carried the present news: of the cause, or of its end."""
    before: list[str] = dataclasses.field(default_factory=list)
    """Ways that had carried the cause, once it is over."""
    tries: int = 0
    again: float = 0.0
    """When owed: not before this wall time."""

    def news(self) -> News:
        self.state = TELLING
        return News(self.cause, self.over, frozenset(self.heard), self.tries)

    def end(self) -> None:
        self.over, self.before, self.heard, self.tries = True, self.heard, [], 0

    def resume(self) -> None:
        """It came back before anybody heard that it was over."""
        self.over, self.state, self.heard, self.before, self.tries = False, TOLD, self.before, [], 0


class Watch:
    """Remembers what was told. One per process; see `relay.alert.alarm.Alarm` for who tells it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._records: dict[str, _Record] = {}
        self._loaded = False
        self._unwritten: set[str] = set()
        self._writing = asyncio.Lock()
        self._complained = False

    async def known(self) -> frozenset[str]:
        """Keys of the causes that are not over: for the hysteresis of `causes`."""
        await self._load()
        return frozenset(key for key, record in self._records.items() if not record.over)

    async def look(self, causes: Sequence[Cause], now: float) -> list[News]:
        """What is to be told at ``now`` (wall seconds): new, over, or owed from before. Say `told` what came of it."""
        await self._load()
        current = {cause.key: cause for cause in causes}
        found = [news for cause in current.values() if (news := self._present(cause, now))]
        for key in [key for key in self._records if key not in current]:
            news = self._absent(key, now)
            if news is not None:
                found.append(news)
        await self._write()
        return found

    async def told(self, news: News, worked: Collection[str], owed: Collection[str], now: float) -> None:
        """Which ways carried the news and which still should; without any owed the matter rests (or is forgotten)."""
        key = news.cause.key
        record = self._records.get(key)
        if record is None or record.over != news.over or record.cause.since != news.cause.since:
            return  # it changed meanwhile: what is to be told now is on its way already
        self._unwritten.add(key)
        record.heard += [way for way in worked if way not in record.heard]
        record.tries += 1
        if owed and record.tries < MOST_TRIES:
            record.state = OWED
            record.again = now if record.tries < EACH_LOOK else now + LATER
        else:
            self._settle(key, record, owed)
        await self._write()

    def _settle(self, key: str, record: _Record, owed: Collection[str]) -> None:
        if owed:
            events.trouble(
                where="alerts",
                what=f"gave up telling by {', '.join(owed)}: {record.cause.title}",
                remedy="Mend that way (docs/alerts.md); `relay status` shows what is held meanwhile.",
            )
        record.state = TOLD
        if record.over:
            del self._records[key]

    def _present(self, cause: Cause, now: float) -> News | None:
        record = self._records.get(cause.key)
        stepped = record is not None and not record.over and record.cause.step != cause.step
        if record is None or stepped or (record.over and (record.heard or not record.before)):
            record = self._records[cause.key] = _Record(cause)
        elif record.over:
            record.resume()
            self._unwritten.add(cause.key)
            return None
        elif record.state != OWED or now < record.again:
            return None
        self._unwritten.add(cause.key)
        return record.news()

    def _absent(self, key: str, now: float) -> News | None:
        record = self._records[key]
        if not record.over:
            record.end()
        elif record.state != OWED or now < record.again:
            return None
        self._unwritten.add(key)
        return record.news()

    async def _load(self) -> None:
        if self._loaded:
            return
        try:
            stored = await self._store.remembered()
        except RelayError as error:
            self._complain(error)
            return
        self._loaded = True
        for key, value in stored.items():
            if key.startswith(PREFIX) and key.removeprefix(PREFIX) not in self._records:
                self._take(key.removeprefix(PREFIX), value)

    def _take(self, key: str, value: str) -> None:
        try:
            fields = json.loads(value)
            record = _Record(**{**fields, "cause": Cause(**fields["cause"])})
        except (ValueError, KeyError, TypeError) as error:
            # of another release, or damaged: the cause is told again, if it is still there
            events.trouble(where="alerts", what=f"forgot an unreadable note about {key}: {error!r}")
            self._unwritten.add(key)
            return
        if record.state == TELLING:
            record.state, record.again = OWED, 0.0
        self._records[key] = record

    async def _write(self) -> None:
        """One writer at a time, and always the present state: writes cannot overtake one another."""
        async with self._writing:
            for key in sorted(self._unwritten):
                record = self._records.get(key)
                value = json.dumps(dataclasses.asdict(record)) if record is not None else None
                self._unwritten.discard(key)
                try:
                    await self._store.remember(PREFIX + key, value)
                except BaseException as error:
                    self._unwritten.add(key)  # a cancelled write, too, is made up for
                    if not isinstance(error, RelayError):
                        raise
                    self._complain(error)
                    return
            self._complained = False

    def _complain(self, error: RelayError) -> None:
        if not self._complained:
            events.trouble(
                where="alerts", what=f"what was told could not be written down: {error}", remedy=error.remedy
            )
        self._complained = True
