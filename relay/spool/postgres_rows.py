"""What a PostgreSQL spool does in ways of its own: storing, large bodies in pieces, and forgetting what is old.

Large bodies are ``bytea`` rows of at most `CHUNK` octets and not PostgreSQL's large objects: those belong to the role
that made them, are read inside one transaction only (which would stay open as long as a submission lasts and keep
vacuum from working), leave orphans that only a tool of its own finds, and are not part of logical replication.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from relay.spool.intake import NewRow, lane_for_insert, take_turn
from relay.spool.records import QUEUED, pack_details

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


def insert_all(connection: sqlite3.Connection, rows: Sequence[NewRow]) -> None:
    """All rows of new messages, in the running transaction."""
    for row in rows:
        _insert(connection, row)


def _insert(connection: sqlite3.Connection, row: NewRow) -> None:
    message = row.message
    lane, turn, held = lane_for_insert(connection, message.lane, row.received)
    turn = take_turn(connection, lane, turn, message.source)
    size = len(message.header) + row.body_size
    connection.execute(
        "INSERT INTO message (id, received, lane, state, turn, size, sender, client, source, message_id,"
        " subject, pool, details, held_base, direct) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
        (
            row.number, row.received, lane, QUEUED, turn, size, message.envelope.sender, message.client.address,
            message.source, message.message_id, message.subject,
            json.dumps(message.pool) if message.pool else None, pack_details(message), held, message.direct,
        ),
    )  # fmt: skip
    connection.execute(
        "INSERT INTO content (message, size, header, body, body_size) VALUES (?,?,?,?,?)",
        (row.number, size, message.header, row.body, row.body_size),
    )
    connection.executemany(
        "INSERT INTO recipient (message, n, address, notify, orcpt, state) VALUES (?,?,?,?,?,0)",
        [
            (row.number, n, one.address, one.notify, one.orcpt)
            for n, one in enumerate(message.envelope.recipients)
        ],
    )


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
