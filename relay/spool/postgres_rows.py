"""What a PostgreSQL spool does in ways of its own: storing, large bodies in pieces, and forgetting what is old.

Large bodies are ``bytea`` rows of at most `CHUNK` octets and not PostgreSQL's large objects: those belong to the role
that made them, are read inside one transaction only (which would stay open as long as a submission lasts and keep
vacuum from working), leave orphans that only a tool of its own finds, and are not part of logical replication.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from relay.errors import SpoolError
from relay.spool.intake import (
    INSERT_MESSAGES,
    INSERT_RECIPIENTS,
    NewRow,
    find_lane,
    message_values,
    recipient_values,
)
from relay.spool.records import as_json

BODY_IN_ROW = 128 * 1024
"""Octets of the largest body that is stored with its header, in the transaction of its message."""
CHUNK = 256 * 1024
"""Octets of one piece: bounds what one message keeps in memory on either side, and what one statement carries."""
LOCK_PIECES = "SELECT pg_advisory_xact_lock(8243118316933771619)"
"""Whoever forgets pieces and whoever stores a message around pieces that are there (`postgres_adopt`) take turns, until
the end of their transactions: so none forgets what the other one has just counted. The number means nothing."""
_STEP = 200
"""Messages whose pieces are forgotten in one transaction."""

ReadChunk = Callable[[int, int], Awaitable[bytes]]


def insert_all(connection: sqlite3.Connection, rows: list[NewRow]) -> list[None]:
    """All rows of new messages, in the running transaction: a few statements, however many messages."""
    connection.execute(INSERT_MESSAGES, (as_json(_with_turns(connection, rows)),))
    connection.executemany(
        "INSERT INTO content (message, size, header, body, body_size) VALUES (?,?,?,?,?)",
        [(row.number, row.size, row.message.header, row.body, row.body_size) for row in rows],
    )
    connection.execute(INSERT_RECIPIENTS, (as_json(recipient_values(rows)),))
    return [None] * len(rows)


def store_all(connection: sqlite3.Connection, rows: list[NewRow]) -> list[None]:
    """`insert_all` of drafts whose pieces came before. Raises SpoolError when one's are not all there.

    Nobody waited for the disk when they were written: a server that crashed since, or the standby that took its place,
    may have lost them, and a message must not be acknowledged without its content.
    """
    expected = {row.number: -(-row.body_size // CHUNK) for row in rows if row.body is None}
    if expected:
        found = connection.execute(
            "SELECT message, count(*) FROM chunk WHERE message IN (SELECT value FROM json_each(?)) GROUP BY message",
            (as_json(list(expected)),),
        )
        if dict(found.fetchall()) != expected:
            raise SpoolError("the database has lost pieces of a message while it arrived")
    return insert_all(connection, rows)


def _with_turns(connection: sqlite3.Connection, rows: list[NewRow]) -> list[tuple[Any, ...]]:
    """The columns of the messages, each with its source's next turn.

    The turns of a source are given out in one statement, since other replicas accept mail of the same source meanwhile;
    sources are taken in an order that is the same for all, so that no two wait for each other.
    """
    lanes = {
        name: find_lane(connection, name, rows[0].received)
        for name in sorted({row.message.lane for row in rows})
    }
    counts = Counter((lanes[row.message.lane][0], row.message.source) for row in rows)
    presents = {lane[0]: lane[1] for lane in lanes.values()}
    taken = {
        (lane, source): connection.execute(_TAKE_TURNS, (lane, source, presents[lane], count))
        for (lane, source), count in sorted(counts.items())
    }
    turns = {key: int(answer.fetchone()[0]) - counts[key] for key, answer in taken.items()}
    values = []
    for row in rows:
        lane, _, held_ms, held_since = lanes[row.message.lane]
        turns[lane, row.message.source] += 1
        held = held_ms + (0 if held_since is None else row.received - held_since)
        values.append(message_values(row, lane, turns[lane, row.message.source], held))
    return values


_TAKE_TURNS = (
    "INSERT INTO source VALUES (?1, ?2, ?3 + ?4 - 1) ON CONFLICT (lane, name)"
    " DO UPDATE SET turn = greatest(source.turn + 1, ?3) + ?4 - 1 RETURNING turn"
)
"""The last one of so many turns (the fourth value) for a lane's source; the lane's present turn is the third."""


class ChunkBody:
    """A body that is read piece by piece, each in a short read of its own."""

    __slots__ = ("_number", "_read", "_size")

    def __init__(self, number: int, size: int, read: ReadChunk) -> None:
        self._number = number
        self._size = size
        self._read = read

    @property
    def size(self) -> int:
        return self._size

    async def chunks(self, size: int = 65536) -> AsyncIterator[bytes]:
        for n in range(-(-self._size // CHUNK)):
            piece = await self._read(self._number, n)
            for start in range(0, len(piece), size):
                yield piece[start : start + size]


def add_piece(connection: sqlite3.Connection, number: int, n: int, data: bytes, more: str = "") -> int:
    """Store a piece in a transaction of its own that does not wait for the disk; how many rows that made.

    ``more``: SQL for the end of the statement.
    """
    made = 0

    def add() -> None:
        nonlocal made
        connection.execute("SET LOCAL synchronous_commit = off")
        made = connection.execute(f"INSERT INTO chunk VALUES (?, ?, ?){more}", (number, n, data)).rowcount

    _in_transaction(connection, add)
    return made


def _in_transaction(connection: sqlite3.Connection, work: Callable[[], object]) -> None:
    connection.execute("BEGIN")
    try:
        work()
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def drop_pieces(connection: sqlite3.Connection, number: int) -> None:
    """Forget the pieces of a message that did not come. Those of one that is stored stay, whoever stored it meanwhile."""

    def drop() -> None:
        connection.execute(LOCK_PIECES)
        connection.execute(
            "DELETE FROM chunk WHERE message = ?"
            " AND NOT EXISTS (SELECT 1 FROM content WHERE content.message = chunk.message)",
            (number,),
        )

    _in_transaction(connection, drop)


def forget_orphans(connection: sqlite3.Connection, before: int) -> int:
    """Pieces whose message was never stored, since its client or its relay went away; how many messages.

    ``before``: the id of a message that came so long ago that no client is still sending it.
    """
    connection.execute(LOCK_PIECES)
    rows = connection.execute(
        "SELECT DISTINCT message FROM chunk c WHERE message < ? AND NOT EXISTS"
        " (SELECT 1 FROM content WHERE content.message = c.message) LIMIT ?",
        (before, _STEP),
    ).fetchall()
    connection.executemany("DELETE FROM chunk WHERE message = ?", rows)
    return len(rows)
