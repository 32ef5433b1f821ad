"""Accepting for a spool that another process owns: drafts are written here, rows are handed over to be stored there.

Small bodies travel with their row. Large ones are files in the spool's own folder, complete and synced before their row is
handed over, as ever. Only for the SQLite spool.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any, Protocol

from relay.clock import Clock
from relay.message import Client, Envelope, Recipient
from relay.spool import ids
from relay.spool.bodies import BodyFiles
from relay.spool.contract import NewMessage
from relay.spool.intake import NewRow, SqliteDraft

FRESH = 1.0
"""Seconds for which what the owner said about its room is believed."""
AMPLE = 256 * 1024 * 1024
"""Octets of room beyond which the owner is not asked: more than arrives before it says so again."""


class Owner(Protocol):
    """The process that owns the spool, as it is reached from here."""

    def store(self, row: NewRow) -> asyncio.Future[None]:
        """Hand a row over; the future resolves once it is on disk, or fails with SpoolError."""
        ...

    async def has_room(self, size: int) -> bool:
        """Ask whether so many octets fit."""
        ...

    def arriving(self, size: int) -> None:
        """Count octets that are arriving; a negative number: no longer."""
        ...


class OutpostSpool:
    """The accepting part of `relay.spool.contract.Spool`, and what a `SqliteDraft` needs of its spool."""

    def __init__(self, folder: Path, owner: Owner, clock: Clock, *, node: int, last: int) -> None:
        """``folder``: of the body files; ``node``: of the ids given out here, never the owner's; ``last``: the newest id."""
        self.bodies = BodyFiles(folder)
        self._owner = owner
        self._clock = clock
        self._ids = ids.Ids(last, node)
        self._room, self._told = 0, 0.0
        self._uncounted = 0

    def draft(self) -> SqliteDraft:
        """Start a message."""
        return SqliteDraft(self, self._ids.next(self.now()))

    def now(self) -> float:
        """Wall time."""
        return self._clock.now()

    def room(self, octets: int) -> None:
        """The owner says how much more it can take."""
        self._room, self._told = octets, time.monotonic()

    async def has_room(self, size: int) -> bool:
        """Whether so many octets fit; asked of the owner when it is not plain."""
        if self._room > size + AMPLE and time.monotonic() - self._told < FRESH:
            return True
        return await self._owner.has_room(size)

    def reserve(self, size: int) -> None:
        """Count octets that are arriving: what is small comes and goes before it is worth telling."""
        self._uncounted += size
        if abs(self._uncounted) >= 256 * 1024:
            self._owner.arriving(self._uncounted)
            self._uncounted = 0

    def store(self, row: NewRow, reserved: int) -> asyncio.Future[None]:
        """See `relay.spool.sqlite.SqliteSpool.store`."""
        future = self._owner.store(row)
        future.add_done_callback(lambda done: self.reserve(-reserved))
        return future


def pack(row: NewRow) -> tuple[Any, ...]:
    """A row in plain values."""
    message = row.message
    client, envelope = message.client, message.envelope
    people = tuple((one.address, one.notify, one.orcpt) for one in envelope.recipients)
    return (
        row.number, row.received, row.body, row.body_size, message.header, message.lane, message.pool, message.source,
        message.header_from, message.message_id, message.subject, message.notes, message.came,
        (client.address, client.port, client.helo, client.user, client.tls, client.listener),
        (envelope.sender, envelope.eight_bit, envelope.smtputf8, envelope.ret, envelope.envid, envelope.long_lines),
        people,
    )  # fmt: skip


def unpack(values: tuple[Any, ...]) -> NewRow:
    """The row again."""
    (number, received, body, body_size, header, lane, pool, source, header_from, message_id, subject, notes, came,
     client, (sender, eight_bit, smtputf8, ret, envid, long_lines), people) = values  # fmt: skip
    recipients = tuple(Recipient(*one) for one in people)
    message = NewMessage(
        Envelope(sender, recipients, eight_bit, smtputf8, ret, envid, long_lines), Client(*client), header, lane, pool,
        source, header_from, message_id, subject, notes, came,
    )  # fmt: skip
    row = NewRow(number, 0.0, message, body, body_size)
    row.received = received
    return row
