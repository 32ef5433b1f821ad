"""The embedded spool: one SQLite file, bodies of large messages in files beside it.

All changes go through one writer thread (`writer.py`); reads use a connection and a thread of their own.
Commands of an operator open the same file from another process (``owner=False``).
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from relay.clock import Clock, SystemClock
from relay.errors import SpoolError
from relay.message import Body, BytesBody, Content, Outcome
from relay.settings import SpoolSettings
from relay.spool import delivery, holding, ids, operators, search, upkeep
from relay.spool.bodies import BodyFiles, FileBody
from relay.spool.contract import (
    Changed,
    Claim,
    Filter,
    Hold,
    LaneSummary,
    MessageView,
    Part,
    Recovered,
    Settlement,
    SpoolStats,
    Trace,
    Usage,
    Wake,
)
from relay.spool.desk import Desk
from relay.spool.group import Alone
from relay.spool.intake import NewRow, SqliteDraft, insert_all
from relay.spool.reading import (
    is_filed,
    known,
    last_id_and_bytes,
    open_and_bytes,
    prefetch,
    sent_last_minute,
    stored_bytes,
    summaries,
    usage_of,
)
from relay.spool.records import LOCK, ms
from relay.spool.schema import OwnerLock, connect, migrate, prepare_folder
from relay.spool.together import Beginning, Ending, begin_all, is_plain, settle_plain
from relay.spool.writer import Writer, plain_error

T = TypeVar("T")
WriteDown = Callable[[sqlite3.Connection, Settlement, int], bool | None]

_RESERVE = 16 * 1024 * 1024
"""Octets of disk that new mail must leave free, so that outcomes can still be written down."""


def path_of(url: str) -> Path:
    """The file of a ``sqlite:`` URL: three slashes relative, four absolute."""
    if not url.startswith("sqlite:///"):
        raise SpoolError(f"{url} is not a sqlite: URL", remedy="Write sqlite:////absolute/path/spool.db")
    return Path(url.removeprefix("sqlite:///"))


class SqliteSpool(Alone):
    """See `relay.spool.contract.Spool`."""

    standing_by = False  # a second daemon on the same file is a mistake, and refused

    def __init__(self, settings: SpoolSettings, clock: Clock | None = None) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        self._path = path_of(settings.url)
        self._writer = Writer(lambda: connect(self._path))
        self._readers: Desk | None = None
        self._upkeep: Desk | None = None
        self._unwritten = 0
        self._checkpointing: asyncio.Task[None] | None = None
        self._lock: OwnerLock | None = None
        self._ids = ids.Ids()
        self._wakes: list[Wake] = []
        self._arriving = 0
        self._stored = 0
        """Octets of content: counted along here, and read anew with each upkeep and each change that is not counted."""
        self._free = (0.0, 0)
        self._prefetched: dict[str, Content] = {}
        self._nowhere: tempfile.TemporaryDirectory[str] | None = None
        self._swept = False
        self._first_id = 0
        self.bodies = BodyFiles(self._path.with_name(self._path.name + ".bodies"))

    # opening and closing

    async def open(self, *, owner: bool = True) -> None:
        if not owner and not self._path.exists():
            # nothing was accepted yet: an empty spool elsewhere, since a command run as root must not leave
            # a database that the daemon's account cannot open
            self._nowhere = tempfile.TemporaryDirectory(prefix="relay-")
            self._path = Path(self._nowhere.name) / "spool.db"
        await asyncio.to_thread(prepare_folder, self._path)
        if owner:
            self._lock = OwnerLock(self._path)
            self._lock.take()
        try:
            await asyncio.to_thread(self._prepare)
            await self._writer.start()
        except BaseException as error:
            self._unlock()
            raise plain_error(error) from error
        self._readers = Desk("spool-reader", lambda: connect(self._path))
        self._upkeep = Desk("spool-upkeep", lambda: connect(self._path))
        last, self._stored = await self._read(last_id_and_bytes)
        self._ids = ids.Ids(last)
        self._first_id = self._ids.next(self.now())

    def _prepare(self) -> None:
        connection = connect(self._path)
        try:
            migrate(connection)
        finally:
            connection.close()

    async def close(self) -> None:
        if self._checkpointing is not None:
            await self._checkpointing
        await self._writer.stop()
        desks, self._readers, self._upkeep = (self._readers, self._upkeep), None, None
        for desk in desks:
            if desk is not None:
                await desk.close()
        self._unlock()
        if self._nowhere is not None:
            self._nowhere.cleanup()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def subscribe(self, wake: Wake) -> None:
        self._wakes.append(wake)

    @property
    def clock(self) -> Clock:
        """See `relay.spool.group.Group.clock`."""
        return self._clock

    def now(self) -> float:
        """Wall time of the spool's clock."""
        return self._clock.now()

    async def _read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        if self._readers is None:
            raise SpoolError("the spool is closed")
        try:
            return await self._readers.run(read)
        except (sqlite3.Error, OSError) as error:
            raise plain_error(error) from error

    # accepting

    def draft(self) -> SqliteDraft:
        return SqliteDraft(self, self._ids.next(self.now()))

    # accepting by helper processes (`relay.spool.outpost`)

    def outpost(self) -> tuple[Path, int]:
        """What a helper must know: the folder of large bodies, and the newest id there is."""
        return self.bodies.folder, self._ids.last

    def take_in(self, row: NewRow) -> asyncio.Future[None]:
        """Store what a helper has accepted."""
        return self.store(row, 0)

    def relieved(self, by_helper: bool) -> None:
        """Whether a helper does the accepting: this process is less busy then."""
        self._writer.relieved(by_helper)

    def room(self) -> int:
        """Octets that can still be taken, by ``max_size`` and the disk as it was a moment ago."""
        most = self._settings.max_size - self._stored - self._arriving
        return max(0, min(most, self._disk_free() - _RESERVE - self._arriving))

    async def abandon(self, node: int) -> None:
        """A helper has died: files that it wrote and never handed over go."""
        await self._writer.run(lambda c: None)  # what it did hand over is stored
        await self._apart(
            lambda c: self.bodies.sweep(lambda n: ids.node_of(n) == node, lambda n: known(c, n))
        )

    def reserve(self, size: int) -> None:
        """Count octets that are arriving and not yet stored."""
        self._arriving += size

    async def has_room(self, size: int) -> bool:
        after = self._stored + self._arriving + size
        return after <= self._settings.max_size and size + self._arriving + _RESERVE <= self._disk_free()

    def _disk_free(self) -> int:
        checked, free = self._free
        if abs(time.monotonic() - checked) > 0.5:
            free = shutil.disk_usage(self._path.parent).free
            self._free = (time.monotonic(), free)
        return free

    def store(self, row: NewRow, reserved: int) -> asyncio.Future[None]:
        """Write an acceptance, free what was reserved for it, and wake its lane: also when nobody waits any more.

        Raises SpoolError when the spool is closed; the future fails with SpoolFull or SpoolError.
        """
        try:
            future = self._writer.submit_one_of(insert_all, row)
        except SpoolError:
            self.reserve(-reserved)
            raise
        future.add_done_callback(lambda done: self._stored_one(row, reserved, done))
        return future

    def _stored_one(self, row: NewRow, reserved: int, done: asyncio.Future[None]) -> None:
        self.reserve(-reserved)
        if not done.cancelled() and done.exception() is None:
            self._stored += row.size
            checked, free = self._free
            self._free = checked, free - row.size  # what came since the last look at the disk
            self._grown(row.size)
            self._wake(row.message.lane)

    def _wake(self, *lanes: str) -> None:
        for wake in self._wakes:
            for lane in lanes:
                wake(lane)

    # delivering

    async def recover(self) -> Recovered:
        now, hold = ms(self.now()), self._settings.on_uncertain == "hold"
        return await self._writer.run(lambda c: delivery.recover(c, now, hold_uncertain=hold))

    async def lanes(self) -> list[LaneSummary]:
        return await self._read(lambda c: summaries(c, None))

    async def lane(self, name: str) -> LaneSummary:
        found = await self._read(lambda c: summaries(c, name))
        return found[0] if found else LaneSummary(name, 0, 0, 0, 0, None, None)

    async def claim(self, lane: str, limit: int, now: float) -> list[Claim]:
        def change(connection: sqlite3.Connection) -> tuple[list[Claim], dict[str, Content]]:
            claims = delivery.claim(connection, lane, limit, ms(now))
            return claims, prefetch(connection, claims)

        claims, contents = await self._writer.run(change)
        self._prefetched.update(contents)
        return claims

    async def unclaim(self, ids_: Sequence[str]) -> None:
        numbers = [_number(text) for text in ids_]
        for text in ids_:
            self._prefetched.pop(text, None)
        await self._writer.run(lambda c: delivery.unclaim(c, numbers))

    async def begin(
        self, claim_id: str, now: float, recipients: int, sent: Mapping[str, Outcome] | None = None
    ) -> None:
        number, done = _number(claim_id), dict(sent or {})
        if done:
            await self._writer.run(lambda c: delivery.begin(c, number, ms(now), recipients, done))
        else:
            await self._writer.run_one_of(begin_all, Beginning(number, ms(now), recipients))

    async def settle(self, settlement: Settlement, now: float) -> None:
        if not is_plain(settlement):
            await self._write_down(delivery.settle, settlement, now)
            return
        number = _number(settlement.id)
        self._prefetched.pop(settlement.id, None)
        filed, octets = await self._writer.run_one_of(settle_plain, Ending(number, ms(now), settlement))
        self._stored -= octets
        self._grown(0)
        if filed:
            await asyncio.to_thread(self.bodies.remove, number)

    async def decide(self, settlement: Settlement, now: float) -> bool:
        return await self._write_down(delivery.decide, settlement, now) is not None

    async def _write_down(self, write: WriteDown, settlement: Settlement, now: float) -> bool | None:
        number = _number(settlement.id)
        rows = [
            NewRow(self._ids.next(self.now()), self.now(), mail.message, mail.body, len(mail.body))
            for mail in settlement.notices
        ]

        def change(connection: sqlite3.Connection) -> tuple[bool | None, bool, int]:
            filed = is_filed(connection, number)
            gone = write(connection, settlement, ms(now))
            if gone is not None and rows:
                insert_all(connection, rows)
            return gone, filed, stored_bytes(connection)

        self._prefetched.pop(settlement.id, None)
        gone, filed, self._stored = await self._writer.run(change)
        if gone and filed:
            await asyncio.to_thread(self.bodies.remove, number)
        self._wake(*([settlement.move_to] if settlement.move_to else []), *(row.message.lane for row in rows))
        return gone

    async def overdue(
        self, before: float, *, unnoticed: bool, after: tuple[float, str] | None = None, limit: int = 100
    ) -> list[Claim]:
        start = (ms(after[0]), _number(after[1])) if after else (0, 0)
        now = ms(self.now())
        return await self._read(
            lambda c: delivery.overdue(c, ms(before), start, limit, now, unnoticed=unnoticed)
        )

    async def content(self, message_id: str) -> Content:
        ready = self._prefetched.pop(message_id, None)
        if ready is not None:
            return ready
        number = _number(message_id)
        row = await self._read(
            lambda c: c.execute(
                "SELECT header, body, body_size FROM content WHERE message = ?", (number,)
            ).fetchone()
        )
        if row is None:
            raise SpoolError(f"the content of message {message_id} is gone")
        header, body, size = row
        return Content(header, self._body(number, body, size))

    def _body(self, number: int, body: bytes | None, size: int) -> Body:
        if body is not None:
            return BytesBody(body)
        return FileBody(self.bodies.path(number), size)

    async def usage(self, lane: str, now: float) -> Usage:
        return await self._read(lambda c: usage_of(c, lane, now))

    async def sent_last_minute(self, now: float) -> dict[str, int]:
        return await self._read(lambda c: sent_last_minute(c, now))

    async def reassign(self, lane: str, to: str, limit: int) -> int:
        now = ms(self.now())
        moved = await self._writer.run(lambda c: delivery.reassign(c, lane, to, limit, now))
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
            for number in set(changed) & set(filed):
                await asyncio.to_thread(self.bodies.remove, number)
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

    async def stats(self) -> SpoolStats:
        messages, size = await self._read(open_and_bytes)
        free = min(self._disk_free() - _RESERVE, self._settings.max_size - size)
        return SpoolStats(self._settings.url, messages, size, max(0, free))

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
            moved += await self._writer.run(lambda c, m=moves: _move_all(c, m, ms(now)))  # type: ignore[misc]
            self._wake(*{lane for _, lane in moves if lane is not None})
        return moved

    # small texts

    async def remembered(self, prefix: str = "") -> dict[str, str]:
        rows = await self._read(
            lambda c: c.execute(
                "SELECT key, value FROM memory WHERE substr(key, 1, ?) = ?", (len(prefix), prefix)
            ).fetchall()
        )
        return dict(rows)

    async def remember(self, key: str, value: str | None) -> None:
        await self._writer.run(
            lambda c: (
                c.execute("INSERT OR REPLACE INTO memory VALUES (?, ?)", (key, value)).close()
                if value is not None
                else c.execute("DELETE FROM memory WHERE key = ?", (key,)).close()
            )
        )

    async def revise(self, key: str, change: Callable[[str | None], tuple[str | None, T]]) -> T:
        return await self._writer.run(lambda c: _revise(c, key, change))

    # upkeep

    async def tend(self, now: float) -> float:
        if not self._swept:
            self._swept = True
            await self._apart(
                lambda c: self.bodies.sweep(lambda n: n < self._first_id, lambda n: known(c, n))
            )
        spent = await self._apart(lambda c: upkeep.spent(c, now))
        before = ms(now - self._settings.history)
        gone, filed, self._stored = await self._writer.run(lambda c: upkeep.forget(c, before, spent))
        for number in filed:
            await asyncio.to_thread(self.bodies.remove, number)
        left = await self._apart(upkeep.shrink)
        await self._checkpoint()
        return 0.025 if gone or left else 30.0

    async def _apart(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """On upkeep's own connection and thread: neither the writer nor readers wait for it."""
        if self._upkeep is None:
            raise SpoolError("the spool is closed")
        try:
            return await self._upkeep.run(work)
        except (sqlite3.Error, OSError) as error:
            raise plain_error(error) from error

    def _grown(self, octets: int) -> None:
        """The write-ahead log has grown by a change and so much content."""
        self._unwritten += octets + upkeep.OCTETS_A_CHANGE
        if self._unwritten > upkeep.CHECKPOINT_AFTER and (
            self._checkpointing is None or self._checkpointing.done()
        ):
            self._unwritten = 0
            self._checkpointing = asyncio.ensure_future(self._checkpoint_quietly())

    async def _checkpoint_quietly(self) -> None:
        try:
            await self._checkpoint()
        except SpoolError:  # closing; or the disk is in trouble, which the next change will say
            return

    async def _checkpoint(self) -> None:
        """Most of the log goes to the database beside the writer; what came meanwhile is little, and then it starts anew.

        The writer's share is one short pause. SQLite itself would do all of it in the middle of a commit.
        """
        for _ in range(upkeep.MOST_PASSES):
            if await self._apart(upkeep.checkpoint) <= upkeep.LITTLE:
                await self._writer.run_between(upkeep.checkpoint)
                return

    async def raw(self, message_id: str) -> AsyncIterator[bytes]:
        content = await self.content(message_id)
        yield content.header
        async for chunk in content.body.chunks():
            yield chunk


def _revise(
    connection: sqlite3.Connection, key: str, change: Callable[[str | None], tuple[str | None, T]]
) -> T:
    # first a row, so that there is one to lock
    connection.execute("INSERT INTO memory VALUES (?, '') ON CONFLICT DO NOTHING", (key,))
    row = connection.execute(f"SELECT value FROM memory WHERE key = ?{LOCK}", (key,)).fetchone()
    text, result = change(row[0] or None if row is not None else None)
    if text is None:
        connection.execute("DELETE FROM memory WHERE key = ?", (key,))
    else:
        connection.execute("INSERT OR REPLACE INTO memory VALUES (?, ?)", (key, text))
    return result


def _number(text: str) -> int:
    number = ids.read(text)
    if number is None:
        raise SpoolError(f"{text!r} is no message id")
    return number


def _names_lane(wanted: str, name: str) -> bool:
    return wanted == name or name.rpartition("/")[2] == wanted.lower()


def _move_all(connection: sqlite3.Connection, moves: list[tuple[Claim, str | None]], now_ms: int) -> int:
    moved = 0
    for claim, lane in moves:
        number = _number(claim.id)
        row = connection.execute(f"SELECT state FROM message WHERE id = ?{LOCK}", (number,)).fetchone()
        if lane is not None and row is not None and row[0] in (0, 2, 3):
            delivery.move(connection, number, lane, now_ms)
            moved += 1
    return moved
