"""What the spools on SQLite and on PostgreSQL have in common: the same rows, read and changed by the same functions.

A spool of its own adds how it reads (`_read`), how it writes (`_writer`), and where large bodies are (`_body`). All
changes go through one writer; see `relay.spool.sqlite` and `relay.spool.postgres`.
"""

from __future__ import annotations

import sqlite3
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import TypeVar

from relay.clock import Clock, SystemClock
from relay.errors import SpoolError
from relay.message import Body, Content
from relay.settings import SpoolSettings
from relay.spool import delivery, holding, ids, moving, operators, search, texts
from relay.spool.contract import (
    Changed,
    Claim,
    Filter,
    Hold,
    LaneSummary,
    MessageView,
    Part,
    Settlement,
    Trace,
    Usage,
    Wake,
)
from relay.spool.group import Alone
from relay.spool.host import PROBE, NoLocal
from relay.spool.reading import is_filed, sent_last_minute, stored_bytes, summaries, usage_of
from relay.spool.records import ms
from relay.spool.writer import Writer

T = TypeVar("T")
WriteDown = Callable[[sqlite3.Connection, Settlement, int], bool | None]
"""Writes a settlement (or a decision) down, given the time in ms; whether the content went, None: nothing was done."""


class RelationalSpool(Alone, NoLocal):
    """The part of `relay.spool.contract.Spool` that is the same for both. Errors are SpoolError and its subclasses."""

    standing_by = False
    _writer: Writer

    def __init__(self, settings: SpoolSettings, clock: Clock | None = None) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        self._ids = ids.Ids()
        self._wakes: list[Wake] = []
        self._arriving = 0
        self._stored = 0
        """Octets of content: counted along here, and read anew with each upkeep and each change that is not counted."""
        self._prefetched: dict[str, Content] = {}

    @abstractmethod
    async def _read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """Run a function that only reads. Raises SpoolError."""

    @abstractmethod
    def _body(self, number: int, body: bytes | None, size: int) -> Body:
        """A message's body; None for ``body``: it is kept beside the row."""

    @abstractmethod
    async def _write_down(self, write: WriteDown, settlement: Settlement, now: float) -> bool | None:
        """Settle or decide, and store the notices with it; what ``write`` said."""

    async def _drop_files(self, numbers: Collection[int]) -> None:
        """Content of these messages is gone from the database: files of theirs go, too."""

    def subscribe(self, wake: Wake) -> None:
        self._wakes.append(wake)

    @property
    def clock(self) -> Clock:
        """See `relay.spool.group.Group.clock`."""
        return self._clock

    def now(self) -> float:
        """Wall time of the spool's clock."""
        return self._clock.now()

    def _wake(self, *lanes: str) -> None:
        for wake in self._wakes:
            for lane in lanes:
                wake(lane)

    # accepting

    def reserve(self, size: int) -> None:
        """Count octets that are arriving and not yet stored."""
        self._arriving += size

    async def probe(self) -> None:
        """See `relay.spool.host.Host.probe`."""
        await self.remember(PROBE, None)

    # delivering

    async def lanes(self) -> list[LaneSummary]:
        return await self._read(lambda c: summaries(c, None))

    async def lane(self, name: str) -> LaneSummary:
        found = await self._read(lambda c: summaries(c, name))
        return found[0] if found else LaneSummary(name, 0, 0, 0, 0, None, None)

    async def decide(self, settlement: Settlement, now: float) -> bool:
        return await self._write_down(delivery.decide, settlement, now) is not None

    async def overdue(
        self, before: float, *, unnoticed: bool, after: tuple[float, str] | None = None, limit: int = 100
    ) -> list[Claim]:
        start = (ms(after[0]), ids.number_of(after[1])) if after else (0, 0)
        now = ms(self.now())
        return await self._read(
            lambda c: delivery.overdue(c, ms(before), start, limit, now, unnoticed=unnoticed)
        )

    async def content(self, message_id: str) -> Content:
        ready = self._prefetched.pop(message_id, None)
        if ready is not None:
            return ready
        number = ids.number_of(message_id)
        row = await self._read(
            lambda c: c.execute(
                "SELECT header, body, body_size FROM content WHERE message = ?", (number,)
            ).fetchone()
        )
        if row is None:
            raise SpoolError(f"the content of message {message_id} is gone")
        header, body, size = row
        return Content(header, self._body(number, body, size))

    async def usage(self, lane: str, now: float) -> Usage:
        return await self._read(lambda c: usage_of(c, lane, now))

    async def sent_last_minute(self, now: float) -> dict[str, int]:
        return await self._read(lambda c: sent_last_minute(c, now))

    async def reassign(self, lane: str, to: str, limit: int) -> int:
        now = ms(self.now())
        moved = await self._writer.run(lambda c: moving.reassign(c, lane, to, limit, now))
        if moved:
            self._wake(to)
        return moved

    # holds

    async def hold(self, hold: Hold) -> None:
        await self._writer.run(lambda c: holding.set_hold(c, hold))

    async def unhold(self, scope: str, key: str, now: float) -> bool:
        return await self._writer.run(lambda c: holding.end_hold(c, scope, key, ms(now)))

    async def release_key(self, key: str | None, now: float, *, limit: int | None = None) -> int:
        released, most = 0, limit if limit is not None else operators.STEP
        while step := await self._writer.run(lambda c: operators.release_key_step(c, key, ms(now), most)):
            released += len(step)
            self._wake(*{lane for _, lane in step})
            if limit is not None:
                break
        return released

    async def keeps(self, key: str) -> bool:
        return await self._read(lambda c: holding.keeps(c, key))

    async def holds(self) -> list[Hold]:
        return await self._read(holding.all_holds)

    # operators

    async def find(self, wanted: Filter, *, limit: int = 1000, after: str | None = None) -> list[MessageView]:
        start = ids.read(after) or 0 if after else 0
        return await self._read(lambda c: operators.find(c, wanted, limit, start))

    async def find_within(
        self, wanted: Filter, *, seconds: float, limit: int = 1000, after: str | None = None
    ) -> Part[MessageView]:
        return await search.find_within(self._read, wanted, limit, after, seconds)

    async def operate(self, verb: str, wanted: Filter, now: float) -> Changed:
        matched = changed = start = 0
        found: int | None = None
        lanes: set[str] = set()
        if verb == "release" and not wanted.ids:
            # counted before: afterwards the state and the reason by which mail of a held lane matched are gone
            found, changed = await self._read(lambda c: operators.count_release(c, wanted))
            lanes |= await self._release_holds(wanted, now)
        while rows := await self._matching(wanted, start):
            matched += len(rows)
            start = rows[-1][0]
            numbers, touched = await self._operate_step(verb, rows, now)
            changed += len(numbers)
            lanes |= touched
        self._wake(*sorted(lanes))
        return Changed(matched if found is None else found, changed, tuple(sorted(lanes)))

    async def _matching(self, wanted: Filter, start: int) -> list[tuple[int, int]]:
        return await self._read(lambda c: operators.matching(c, wanted, start))

    async def _operate_step(
        self, verb: str, rows: list[tuple[int, int]], now: float
    ) -> tuple[list[int], set[str]]:
        def change(connection: sqlite3.Connection) -> tuple[list[int], set[str], list[int], int]:
            filed = [number for number, _ in rows if is_filed(connection, number)]
            changed, lanes = operators.operate_step(connection, verb, rows, ms(now))
            return changed, lanes, filed, stored_bytes(connection)

        changed, lanes, filed, self._stored = await self._writer.run(change)
        if verb == "delete":
            await self._drop_files(set(changed) & set(filed))
        return changed, lanes

    async def _release_holds(self, wanted: Filter, now: float) -> set[str]:
        """Holds of the lanes (and their upstreams) that a filter names; all holds when it names none."""
        ended: set[str] = set()
        names = {summary.lane for summary in await self.lanes()}
        for hold in await self.holds():
            lane = hold.key.split("|")[0]
            covered = {name for name in names if name == lane or name.startswith(lane + "/")} or {lane}
            if wanted.lane is None or any(_names_lane(wanted.lane, name) for name in covered):
                await self.unhold(hold.scope, hold.key, now)
                ended |= covered
        return ended

    async def trace(self, text: str, *, limit: int = 100) -> list[Trace]:
        return await self._read(lambda c: operators.trace(c, text, limit))

    async def trace_within(
        self, text: str, *, seconds: float, limit: int = 100, before: str | None = None
    ) -> Part[Trace]:
        return await search.trace_within(self._read, text, limit, before, seconds)

    async def reroute(
        self, choose: Callable[[Claim], str | None], now: float, *, lanes: Sequence[str] | None = None
    ) -> int:
        wanted = [Filter()] if lanes is None else [Filter(lane=name) for name in lanes]
        return sum([await self._reroute(choose, now, one) for one in wanted])

    async def _reroute(self, choose: Callable[[Claim], str | None], now: float, wanted: Filter) -> int:
        moved = start = 0
        while rows := await self._matching(wanted, start):
            start = rows[-1][0]
            numbers = [number for number, state in rows if state != 1]
            claims = await self._read(lambda c, n=numbers: delivery.load_claims(c, n, ms(now)))  # type: ignore[misc]
            moves = [(claim, lane) for claim in claims if (lane := choose(claim)) not in (None, claim.lane)]
            moved += await self._writer.run(lambda c, m=moves: moving.move_all(c, m, ms(now)))  # type: ignore[misc]
            self._wake(*{lane for _, lane in moves if lane is not None})
        return moved

    async def raw(self, message_id: str) -> AsyncIterator[bytes]:
        content = await self.content(message_id)
        yield content.header
        async for chunk in content.body.chunks():
            yield chunk

    # small texts

    async def remembered(self, prefix: str = "") -> dict[str, str]:
        return await self._read(lambda c: texts.remembered(c, prefix))

    async def remember(self, key: str, value: str | None) -> None:
        await self._writer.run(lambda c: texts.remember(c, key, value))

    async def revise(self, key: str, change: Callable[[str | None], tuple[str | None, T]]) -> T:
        return await self._writer.run(lambda c: texts.revise(c, key, change))


def _names_lane(wanted: str, name: str) -> bool:
    return wanted == name or name.rpartition("/")[2] == wanted.lower()
