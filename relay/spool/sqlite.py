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
from concurrent.futures import ThreadPoolExecutor
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
from relay.spool.intake import NewRow, SqliteDraft
from relay.spool.records import ms
from relay.spool.schema import OwnerLock, connect, migrate, prepare_folder
from relay.spool.writer import Writer, plain_error

T = TypeVar("T")
WriteDown = Callable[[sqlite3.Connection, Settlement, int], bool | None]

_RESERVE = 16 * 1024 * 1024
"""Octets of disk that new mail must leave free, so that outcomes can still be written down."""
_PREFETCH = 4 * 1024 * 1024
"""Octets of small contents read along with a claim."""


def path_of(url: str) -> Path:
    """The file of a ``sqlite:`` URL: three slashes relative, four absolute."""
    if not url.startswith("sqlite:///"):
        raise SpoolError(f"{url} is not a sqlite: URL", remedy="Write sqlite:////absolute/path/spool.db")
    return Path(url.removeprefix("sqlite:///"))


class SqliteSpool:
    """See `relay.spool.contract.Spool`."""

    def __init__(self, settings: SpoolSettings, clock: Clock | None = None) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        self._path = path_of(settings.url)
        self._writer = Writer(lambda: connect(self._path))
        self._readers: ThreadPoolExecutor | None = None
        self._read_connection: sqlite3.Connection | None = None
        self._lock: OwnerLock | None = None
        self._ids = ids.Ids()
        self._wakes: list[Wake] = []
        self._arriving = 0
        self._stored = 0
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
        self._readers = ThreadPoolExecutor(1, thread_name_prefix="spool-reader")
        last, self._stored = await self._read(_last_id_and_bytes)
        self._ids = ids.Ids(last)
        self._first_id = self._ids.next(self.now())

    def _prepare(self) -> None:
        connection = connect(self._path)
        try:
            migrate(connection)
        finally:
            connection.close()

    async def close(self) -> None:
        await self._writer.stop()
        if self._readers is not None:
            readers, self._readers = self._readers, None
            await asyncio.to_thread(readers.shutdown)
        if self._read_connection is not None:
            self._read_connection.close()
            self._read_connection = None
        self._unlock()
        if self._nowhere is not None:
            self._nowhere.cleanup()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def subscribe(self, wake: Wake) -> None:
        self._wakes.append(wake)

    def now(self) -> float:
        """Wall time of the spool's clock."""
        return self._clock.now()

    async def _read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        if self._readers is None:
            raise SpoolError("the spool is closed")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._readers, self._read_now, read)
        except (sqlite3.Error, OSError) as error:
            raise plain_error(error) from error

    def _read_now(self, read: Callable[[sqlite3.Connection], T]) -> T:
        if self._read_connection is None:
            self._read_connection = connect(self._path)
        return read(self._read_connection)

    # accepting

    def draft(self) -> SqliteDraft:
        return SqliteDraft(self, self._ids.next(self.now()))

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

    async def store(self, row: NewRow) -> None:
        """Write an acceptance and wake its lane."""

        def change(connection: sqlite3.Connection) -> int:
            row.insert(connection)
            return _bytes(connection)

        self._stored = await self._writer.run(change)
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
        return await self._read(lambda c: _summaries(c, None))

    async def lane(self, name: str) -> LaneSummary:
        found = await self._read(lambda c: _summaries(c, name))
        return found[0] if found else LaneSummary(name, 0, 0, 0, 0, None, None)

    async def claim(self, lane: str, limit: int, now: float) -> list[Claim]:
        def change(connection: sqlite3.Connection) -> tuple[list[Claim], dict[str, Content]]:
            claims = delivery.claim(connection, lane, limit, ms(now))
            return claims, _prefetch(connection, claims)

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
        await self._writer.run(lambda c: delivery.begin(c, number, ms(now), recipients, done))

    async def settle(self, settlement: Settlement, now: float) -> None:
        await self._write_down(delivery.settle, settlement, now)

    async def decide(self, settlement: Settlement, now: float) -> bool:
        return await self._write_down(delivery.decide, settlement, now) is not None

    async def _write_down(self, write: WriteDown, settlement: Settlement, now: float) -> bool | None:
        number = _number(settlement.id)
        rows = [
            NewRow(self._ids.next(self.now()), self.now(), mail.message, mail.body, len(mail.body))
            for mail in settlement.notices
        ]

        def change(connection: sqlite3.Connection) -> tuple[bool | None, bool, int]:
            filed = _is_filed(connection, number)
            gone = write(connection, settlement, ms(now))
            if gone is not None:
                for row in rows:
                    row.insert(connection)
            return gone, filed, _bytes(connection)

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
        return await self._read(lambda c: _usage(c, lane, now))

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
            filed = [number for number, _ in rows if _is_filed(connection, number)]
            changed, lanes = operators.operate_step(connection, verb, rows, ms(now))
            return changed, lanes, filed, _bytes(connection)

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
        messages, size = await self._read(_open_and_bytes)
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

    # upkeep

    async def tend(self, now: float) -> float:
        if not self._swept:
            self._swept = True
            await self._read(lambda c: self.bodies.sweep(self._first_id, lambda n: _known(c, n)))

        def change(connection: sqlite3.Connection) -> tuple[int, list[int], int]:
            gone, filed = upkeep.forget_finished(connection, ms(now - self._settings.history))
            gone += upkeep.forget_turns(connection)
            upkeep.forget_usage(connection, now)
            return gone, filed, _bytes(connection)

        gone, filed, self._stored = await self._writer.run(change)
        for number in filed:
            await asyncio.to_thread(self.bodies.remove, number)
        left = await self._read(_checkpoint_and_shrink)
        return 0.05 if gone or left else 30.0

    async def raw(self, message_id: str) -> AsyncIterator[bytes]:
        content = await self.content(message_id)
        yield content.header
        async for chunk in content.body.chunks():
            yield chunk


def _number(text: str) -> int:
    number = ids.read(text)
    if number is None:
        raise SpoolError(f"{text!r} is no message id")
    return number


def _names_lane(wanted: str, name: str) -> bool:
    return wanted == name or name.rpartition("/")[2] == wanted.lower()


def _bytes(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT bytes FROM total").fetchone()[0])


def _last_id_and_bytes(connection: sqlite3.Connection) -> tuple[int, int]:
    last = connection.execute("SELECT max(id) FROM message").fetchone()[0]
    return int(last or 0), _bytes(connection)


def _open_and_bytes(connection: sqlite3.Connection) -> tuple[int, int]:
    count = connection.execute("SELECT sum(queued + active + deferred + held) FROM lane").fetchone()[0]
    return int(count or 0), _bytes(connection)


def _is_filed(connection: sqlite3.Connection, number: int) -> bool:
    row = connection.execute("SELECT body IS NULL FROM content WHERE message = ?", (number,)).fetchone()
    return bool(row and row[0])


def _known(connection: sqlite3.Connection, numbers: list[int]) -> set[int]:
    known: set[int] = set()
    for number in numbers:
        if connection.execute("SELECT 1 FROM content WHERE message = ?", (number,)).fetchone():
            known.add(number)
    return known


def _prefetch(connection: sqlite3.Connection, claims: list[Claim]) -> dict[str, Content]:
    """Small contents of a claim, read while the writer is at these pages anyway."""
    found: dict[str, Content] = {}
    size = 0
    for claim in claims:
        size += claim.size
        if size > _PREFETCH:
            break
        row = connection.execute(
            "SELECT header, body FROM content WHERE message = ?", (_number(claim.id),)
        ).fetchone()
        if row is not None and row[1] is not None:
            found[claim.id] = Content(row[0], BytesBody(row[1]))
    return found


def _summaries(connection: sqlite3.Connection, name: str | None) -> list[LaneSummary]:
    condition, values = (
        ("l.name = ?", (name,)) if name is not None else ("queued + active + deferred + held > 0", ())
    )
    rows = connection.execute(
        "SELECT l.name, queued, active, deferred, held,"
        " (SELECT min(received) FROM message m WHERE m.lane = l.id AND m.state < 4),"
        " (SELECT min(due) FROM message m WHERE m.lane = l.id AND m.state = 2)"
        f" FROM lane l WHERE {condition} ORDER BY l.name",
        values,
    ).fetchall()
    return [
        LaneSummary(lane, queued, active, deferred, held, _seconds(oldest), _seconds(due))
        for lane, queued, active, deferred, held, oldest, due in rows
    ]


def _seconds(value: int | None) -> float | None:
    return None if value is None else value / 1000


def _usage(connection: sqlite3.Connection, lane: str, now: float) -> Usage:
    row = connection.execute("SELECT id FROM lane WHERE name = ?", (lane,)).fetchone()
    if row is None:
        return Usage((), ())
    stamps: list[float] = []
    for at, messages in connection.execute(
        "SELECT at, messages FROM usage WHERE lane = ? AND span = 1 AND at > ? ORDER BY at",
        (row[0], int(now) - 62),
    ):
        stamps += [at + 1.0] * max(0, messages)  # the end of its second: never earlier than it was
    day = connection.execute(
        "SELECT at, recipients FROM usage WHERE lane = ? AND span = 60 AND at > ? ORDER BY at",
        (row[0], int(now) - 86_460),
    ).fetchall()
    return Usage(tuple(stamps), tuple((float(at), count) for at, count in day))


def _move_all(connection: sqlite3.Connection, moves: list[tuple[Claim, str | None]], now_ms: int) -> int:
    moved = 0
    for claim, lane in moves:
        number = _number(claim.id)
        row = connection.execute("SELECT state FROM message WHERE id = ?", (number,)).fetchone()
        if lane is not None and row is not None and row[0] in (0, 2, 3):
            delivery.move(connection, number, lane, now_ms)
            moved += 1
    return moved


def _checkpoint_and_shrink(connection: sqlite3.Connection) -> int:
    """On the reader's connection: moves the log into the database without the writer. Free pages left to give back."""
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    if connection.execute("PRAGMA freelist_count").fetchone()[0] < 2048:
        return 0
    return upkeep.shrink(connection)
