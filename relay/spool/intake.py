"""A message that arrives: its body kept in memory up to a bound, beyond it in a file as it comes."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from typing import TYPE_CHECKING, BinaryIO

from relay.message import Client, Envelope, Recipient
from relay.spool import ids
from relay.spool.contract import NewMessage
from relay.spool.records import QUEUED, ms, pack_details
from relay.spool.writer import plain_error

if TYPE_CHECKING:
    from relay.spool.sqlite import SqliteSpool

BODY_IN_DATABASE = 128 * 1024
"""Octets; larger bodies are files. SQLite's own measurements put the break-even of blob and file near here."""
_BUFFER = 256 * 1024
"""Octets gathered before one write to the file: a thread hop per write, so not too small."""


class SqliteDraft:
    """See `relay.spool.contract.Draft`."""

    __slots__ = ("_file", "_over", "_parts", "_pending", "_spool", "_written", "number", "size")

    def __init__(self, spool: SqliteSpool, number: int) -> None:
        self._spool = spool
        self.number = number
        self._parts: list[bytes] = []
        self._pending = 0
        self._written = 0
        self._file: BinaryIO | None = None
        self._over = False
        self.size = 0

    @property
    def id(self) -> str:
        return ids.show(self.number)

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
        await asyncio.shield(asyncio.ensure_future(self._commit(message)))

    async def _commit(self, message: NewMessage) -> None:
        if self._over:
            raise plain_error(RuntimeError("this draft was already used"))
        self._over = True
        body: bytes | None = None
        try:
            if self._file is None:
                body = b"".join(self._parts)
            else:
                await asyncio.to_thread(self._seal)
            row = NewRow(self.number, self._spool.now(), message, body, self.size)
            await self._spool.store(row)
        except BaseException as error:
            await self._forget()
            raise plain_error(error) from error
        finally:
            self._spool.reserve(-self.size)
            self._parts.clear()

    async def discard(self) -> None:
        if self._over:
            return
        self._over = True
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

    def insert(self, connection: sqlite3.Connection) -> None:
        """All rows of the message, in the running transaction."""
        message = self.message
        lane, turn, held = lane_for_insert(connection, message.lane, self.received)
        turn = take_turn(connection, lane, turn, message.source)
        size = len(message.header) + self.body_size
        envelope: Envelope = message.envelope
        client: Client = message.client
        connection.execute(
            "INSERT INTO message (id, received, lane, state, turn, size, sender, client, source, message_id,"
            " subject, pool, details, held_base, direct) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
            (
                self.number, self.received, lane, QUEUED, turn, size, envelope.sender, client.address,
                message.source, message.message_id, message.subject,
                json.dumps(message.pool) if message.pool else None, pack_details(message), held,
                message.direct,
            ),
        )  # fmt: skip
        connection.execute(
            "INSERT INTO content VALUES (?,?,?,?,?)",
            (self.number, size, message.header, self.body, self.body_size),
        )
        insert_recipients(connection, self.number, envelope.recipients)


def insert_recipients(connection: sqlite3.Connection, number: int, recipients: tuple[Recipient, ...]) -> None:
    """The recipients of a new message, in the order of their RCPT commands."""
    connection.executemany(
        "INSERT INTO recipient (message, n, address, notify, orcpt, state) VALUES (?,?,?,?,?,0)",
        [(number, n, one.address, one.notify, one.orcpt) for n, one in enumerate(recipients)],
    )


def lane_for_insert(connection: sqlite3.Connection, name: str, now_ms: int) -> tuple[int, int, int]:
    """Id, present turn and held time (ms, up to now) of a lane, which is made when it is new."""
    row = connection.execute(
        "SELECT id, turn, held_ms, held_since FROM lane WHERE name = ?", (name,)
    ).fetchone()
    if row is None:
        since = connection.execute(
            "SELECT min(since) FROM hold WHERE (scope = 'lane' AND key = ?1)"
            " OR (scope = 'upstream' AND substr(?1, 1, length(key) + 1) = key || '/')",
            (name,),
        ).fetchone()[0]
        cursor = connection.execute(
            "INSERT INTO lane (name, held_since) VALUES (?, ?)", (name, since and now_ms)
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid, 0, 0
    number, turn, held_ms, held_since = row
    return number, turn, held_ms + (0 if held_since is None else now_ms - held_since)


def take_turn(connection: sqlite3.Connection, lane: int, present: int, source: str) -> int:
    """The turn of a source's new message: after its last one, but not before the lane's present turn."""
    row = connection.execute("SELECT turn FROM source WHERE lane = ? AND name = ?", (lane, source)).fetchone()
    turn = present if row is None else max(present, row[0] + 1)
    connection.execute("INSERT OR REPLACE INTO source VALUES (?,?,?)", (lane, source, turn))
    return int(turn)
