"""A message that arrives: its body kept in memory up to a bound, beyond it in a file as it comes."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from typing import Any, BinaryIO, Protocol

from relay.spool import ids
from relay.spool.bodies import BodyFiles
from relay.spool.contract import NewMessage
from relay.spool.draft import OneUse
from relay.spool.procedure import Procedure
from relay.spool.records import QUEUED, as_json, columns, ms, pack_details
from relay.spool.writer import plain_error

BODY_IN_DATABASE = 128 * 1024
"""Octets; larger bodies are files. SQLite's own measurements put the break-even of blob and file near here."""
_BUFFER = 256 * 1024
"""Octets gathered before one write to the file: a thread hop per write, so not too small."""


class Home(Protocol):
    """The spool of a draft, as the draft needs it."""

    bodies: BodyFiles

    def now(self) -> float:
        """Wall time."""
        ...

    def reserve(self, size: int) -> None:
        """Count octets that are arriving and not yet stored."""
        ...

    def store(self, row: NewRow, reserved: int) -> asyncio.Future[None]:
        """Write an acceptance and free what was reserved for it. Raises SpoolError, or the future does."""
        ...


class SqliteDraft(OneUse):
    """See `relay.spool.contract.Draft`."""

    __slots__ = ("_file", "_parts", "_pending", "_spool", "_written", "id", "number", "size")

    def __init__(self, spool: Home, number: int) -> None:
        super().__init__()
        self._spool = spool
        self.number = number
        self.id = ids.show(number)
        self._parts: list[bytes] = []
        self._pending = 0
        self._written = 0
        self._file: BinaryIO | None = None
        self.size = 0

    async def write(self, data: bytes) -> None:
        self._parts.append(bytes(data))
        self.size += len(data)
        self._pending += len(data)
        self._spool.reserve(len(data))
        if self._pending >= _BUFFER or (self._file is None and self.size > BODY_IN_DATABASE):
            await self._spill()

    async def _spill(self) -> None:
        data = b"".join(self._parts)
        self._parts.clear()
        self._pending = 0
        try:
            await asyncio.to_thread(self._append, data)
        except OSError as error:
            raise plain_error(error) from error

    def _append(self, data: bytes) -> None:
        if self._file is None:
            self._file = self._spool.bodies.create(self.number)
        view = memoryview(data)
        while view:
            written = self._file.write(view)
            view = view[written:]
        self._written += len(data)

    def _seal(self) -> None:
        if self._parts:
            self._append(b"".join(self._parts))
            self._parts.clear()
        if self._file is not None:
            self._spool.bodies.seal(self.number, self._file)

    async def commit(self, message: NewMessage) -> None:
        """Runs to its end even when the caller goes away: see the contract."""
        self._use()
        if self._file is not None:
            await asyncio.shield(asyncio.ensure_future(self._commit_file(message)))
            return
        body = b"".join(self._parts)
        self._parts.clear()
        row = NewRow(self.number, self._spool.now(), message, body, self.size)
        await asyncio.shield(self._spool.store(row, self.size))

    async def _commit_file(self, message: NewMessage) -> None:
        try:
            await asyncio.to_thread(self._seal)
        except BaseException as error:
            self._spool.reserve(-self.size)
            await self._forget()
            raise plain_error(error) from error
        try:
            row = NewRow(self.number, self._spool.now(), message, None, self.size)
            await self._spool.store(row, self.size)
        except BaseException as error:
            await self._forget()
            raise plain_error(error) from error

    async def discard(self) -> None:
        if not self._drop():
            return
        self._spool.reserve(-self.size)
        await self._forget()

    async def _forget(self) -> None:
        self._parts.clear()
        if self._file is not None:
            self._file.close()
            await asyncio.to_thread(self._spool.bodies.remove, self.number)


class NewRow:
    """One acceptance as it is written."""

    __slots__ = ("body", "body_size", "message", "number", "received")

    def __init__(
        self, number: int, received: float, message: NewMessage, body: bytes | None, body_size: int
    ) -> None:
        self.number = number
        self.received = ms(received)
        self.message = message
        self.body = body
        self.body_size = body_size

    @property
    def size(self) -> int:
        """Octets of header and body."""
        return len(self.message.header) + self.body_size


def insert_all(connection: sqlite3.Connection, rows: list[NewRow]) -> list[None]:
    """All rows of new messages, in the running transaction: a few statements, however many messages.

    Texts travel as one JSON value and contents as one blob, cut apart again by SQLite; a text that is no valid Unicode
    raises UnicodeEncodeError, as it would when bound by itself.
    """
    turns = Turns(connection)
    messages = as_json([message_values(row, *turns.take(row)) for row in rows])
    first, *more = _portions(rows)
    recipients = as_json(recipient_values(rows))
    STORING.run(connection, messages, *_contents(first), recipients, as_json(turns.last()))
    for some in more:
        connection.execute(_INSERT_CONTENTS, _contents(some))
    return [None] * len(rows)


def recipient_values(rows: list[NewRow]) -> list[tuple[Any, ...]]:
    """The columns of `INSERT_RECIPIENTS`."""
    return [
        (row.number, n, one.address, one.notify, one.orcpt)
        for row in rows
        for n, one in enumerate(row.message.envelope.recipients)
    ]


_PORTION = 4 * 1024 * 1024
"""Octets of content bound to one statement: bounds the copy that this makes."""

INSERT_MESSAGES = (
    "INSERT INTO message (id, received, lane, state, turn, size, sender, client, source, message_id, subject, pool,"
    f" details, held_base, direct) SELECT {columns(15)} FROM json_each(?)"
)
INSERT_RECIPIENTS = f"INSERT INTO recipient (message, n, address, notify, orcpt, state) SELECT {columns(5)}, 0 FROM json_each(?)"
_INSERT_CONTENTS = (
    "INSERT INTO content (message, size, header, body, body_size) SELECT json_extract(value, '$[0]'),"
    " json_extract(value, '$[1]'), substr(?2, json_extract(value, '$[2]'), json_extract(value, '$[3]')),"
    " substr(?2, json_extract(value, '$[4]'), json_extract(value, '$[5]')), json_extract(value, '$[6]')"
    " FROM json_each(?1)"
)


_KEEP_TURNS = f"INSERT OR REPLACE INTO source SELECT {columns(3)} FROM json_each(?)"
STORING = Procedure(
    "storing",
    (INSERT_MESSAGES, (0,)),
    (_INSERT_CONTENTS, (1, 2)),
    (INSERT_RECIPIENTS, (3,)),
    (_KEEP_TURNS, (4,)),
)


def message_values(row: NewRow, lane: int, turn: int, held: int) -> tuple[Any, ...]:
    """The columns of a new message."""
    message = row.message
    return (
        row.number, row.received, lane, QUEUED, turn, row.size, message.envelope.sender, message.client.address,
        message.source, message.message_id, message.subject, json.dumps(message.pool) if message.pool else None,
        pack_details(message), held, int(message.direct),
    )  # fmt: skip


def _portions(rows: list[NewRow]) -> Iterator[list[NewRow]]:
    some: list[NewRow] = []
    octets = 0
    for row in rows:
        octets += len(row.message.header) + len(row.body or b"")
        if some and octets > _PORTION:
            yield some
            some, octets = [], len(row.message.header) + len(row.body or b"")
        some.append(row)
    yield some


def _contents(rows: list[NewRow]) -> tuple[str, bytes]:
    """The values of `_INSERT_CONTENTS`. ``substr`` counts from 1; what is cut out at NULL is NULL: a body in a file."""
    cuts: list[tuple[int | None, ...]] = []
    pieces: list[bytes] = []
    at = 1
    for row in rows:
        header, body = row.message.header, row.body
        start = at + len(header)
        place = (None, None) if body is None else (start, len(body))
        cuts.append((row.number, row.size, at, len(header), *place, row.body_size))
        pieces += [header] if body is None else [header, body]
        at = start + len(body or b"")
    return as_json(cuts), b"".join(pieces)


class Turns:
    """Lanes and turns for messages that are stored together: each source of a lane is looked up once."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._last: dict[tuple[str, str], tuple[int, int, int, int | None]] = {}

    def take(self, row: NewRow) -> tuple[int, int, int]:
        """Lane, turn and the lane's held time for a new message."""
        key = row.message.lane, row.message.source
        last = self._last.get(key)
        if last is None:
            lane, turn, held_ms, held_since = self._first(*key, row.received)
        else:
            lane, turn, held_ms, held_since = last[0], last[1] + 1, last[2], last[3]
        self._last[key] = lane, turn, held_ms, held_since
        return lane, turn, held_ms + (0 if held_since is None else row.received - held_since)

    def _first(self, name: str, source: str, now_ms: int) -> tuple[int, int, int, int | None]:
        found = self._connection.execute(_LANE_AND_SOURCE, (source, name)).fetchone()
        if found is None:
            return find_lane(self._connection, name, now_ms)
        lane, present, held_ms, held_since, last = found
        return lane, present if last is None else max(present, last + 1), held_ms, held_since

    def last(self) -> list[tuple[int, str, int]]:
        """Lane, source and the last turn given to it, to be written down."""
        return [(found[0], source, found[1]) for (_, source), found in self._last.items()]

    def keep(self) -> None:
        """Write down the last turn of each source."""
        self._connection.executemany("INSERT OR REPLACE INTO source VALUES (?,?,?)", self.last())


_LANE_AND_SOURCE = (
    "SELECT l.id, l.turn, l.held_ms, l.held_since, s.turn FROM lane l"
    " LEFT JOIN source s ON s.lane = l.id AND s.name = ? WHERE l.name = ?"
)


def lane_for_insert(connection: sqlite3.Connection, name: str, now_ms: int) -> tuple[int, int, int]:
    """Id, present turn and held time (ms, up to now) of a lane, which is made when it is new."""
    number, turn, held_ms, held_since = find_lane(connection, name, now_ms)
    return number, turn, held_ms + (0 if held_since is None else now_ms - held_since)


def find_lane(connection: sqlite3.Connection, name: str, now_ms: int) -> tuple[int, int, int, int | None]:
    """Id, present turn, and how long (ms) and since when it is held, of a lane, which is made when it is new."""
    row = connection.execute(
        "SELECT id, turn, held_ms, held_since FROM lane WHERE name = ?", (name,)
    ).fetchone()
    if row is not None:
        number, turn, held_ms, held_since = row
        return number, turn, held_ms, held_since
    since = connection.execute(
        "SELECT min(since) FROM hold WHERE (scope = 'lane' AND key = ?1)"
        " OR (scope = 'upstream' AND substr(?1, 1, length(key) + 1) = key || '/')",
        (name,),
    ).fetchone()[0]
    cursor = connection.execute("INSERT INTO lane (name, held_since) VALUES (?, ?)", (name, since and now_ms))
    assert cursor.lastrowid is not None
    return cursor.lastrowid, 0, 0, since and now_ms


def take_turn(connection: sqlite3.Connection, lane: int, present: int, source: str) -> int:
    """The turn of a source's new message: after its last one, but not before the lane's present turn."""
    row = connection.execute("SELECT turn FROM source WHERE lane = ? AND name = ?", (lane, source)).fetchone()
    turn = present if row is None else max(present, int(row[0]) + 1)
    connection.execute("INSERT OR REPLACE INTO source VALUES (?,?,?)", (lane, source, turn))
    return turn
