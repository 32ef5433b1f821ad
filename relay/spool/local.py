"""This host's own spool beside a shared one: mail that was accepted while the shared one was away, until it is there.

A SQLite spool whose messages nobody claims: they are taken in the order in which they were accepted, and go once the
shared spool has them. Only what that needs is added here; see `relay.spool.buffered` for the whole.
"""

from __future__ import annotations

import dataclasses
import json
import sqlite3
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from relay.clock import Clock, ClockOver, SystemClock
from relay.errors import SpoolBusy
from relay.message import Body, BytesBody, Recipient
from relay.settings import SpoolSettings
from relay.spool import ids
from relay.spool.bodies import FileBody
from relay.spool.contract import NewMessage
from relay.spool.intake import NewRow, SqliteDraft
from relay.spool.reading import stored_bytes
from relay.spool.records import as_json, unpack_client, unpack_envelope
from relay.spool.sqlite import SqliteSpool
from relay.spool.upkeep import drop_messages

BATCH = 100
"""Messages taken at once: about what a database stores in some ten milliseconds."""
OCTETS = 8 * 1024 * 1024
"""Octets taken at once, beyond the first message: bounds memory, and how long a batch takes."""

_NAME = "local:name"
_DOUBT = "local:doubt:"
"""Key, before an id, of the time at which a commit in the shared spool was left in doubt."""
_RENAMED = "local:renamed:"
"""Key, before an id, of the one that the message is forwarded under."""


class SteadyClock(ClockOver):
    """A clock whose wall time never goes back, so that what is accepted later is never dated earlier."""

    _last = 0.0

    def not_before(self, moment: float) -> None:
        """What was dated so is in the spool already."""
        self._last = max(self._last, moment)

    def now(self) -> float:
        self._last = max(self._last, super().now())
        return self._last


@dataclass(slots=True)
class Leaving:
    """A message on its way to the shared spool."""

    key: int
    """Its id here."""
    row: NewRow
    """As it is to be stored there; its number is ``key`` unless another message had that."""
    body: Body
    """To be put first when the row has none."""


class LocalSpool(SqliteSpool):
    """See the head of this file. Errors are those of `SqliteSpool`."""

    def __init__(self, settings: SpoolSettings, clock: Clock | None = None) -> None:
        assert settings.local is not None
        self._steady = SteadyClock(clock or SystemClock())
        super().__init__(dataclasses.replace(settings, url=settings.local, local=None), self._steady)
        self.name = ""
        """Tells this spool from every other, also from a later one at the same place."""
        self._doubts: dict[int, float] = {}
        self._renamed: dict[int, int] = {}

    async def open(self, *, owner: bool = True) -> None:
        try:
            await super().open(owner=owner)
        except SpoolBusy as error:
            raise SpoolBusy(
                f"spool.local: {error}",
                remedy="Stop it first, or give each relay on this host a spool.local of its own.",
            ) from error
        latest = await self._read(
            lambda c: c.execute("SELECT max(received) FROM message WHERE state < 4").fetchone()[0]
        )
        self._steady.not_before((latest or 0) / 1000)
        if owner:
            await self._recall()

    async def _recall(self) -> None:
        kept = await self.remembered("local:")
        self.name = kept.get(_NAME, "")
        if not self.name:
            self.name = uuid.uuid4().hex
            await self.remember(_NAME, self.name)
        self._doubts = {number: float(text) for number, text in _numbered(kept, _DOUBT)}
        self._renamed = {number: ids.read(text) or number for number, text in _numbered(kept, _RENAMED)}

    # accepting

    def draft_as(self, number: int) -> SqliteDraft:
        """A message whose id was chosen elsewhere."""
        return SqliteDraft(self, number)

    def new_number(self, proposed: int | None = None) -> int:
        """An id: the ``proposed`` one, unless one as high is in use here (the clock was set back) or there is none."""
        if proposed is not None and self._ids.follow(proposed):
            return proposed
        return self._ids.next(self.now())

    async def doubt(self, number: int) -> None:
        """Before a message is stored here of which nobody knows whether the shared spool has it already."""
        self._doubts[number] = self.now()
        await self.remember(_DOUBT + ids.show(number), str(self._doubts[number]))

    def doubted(self, before: float) -> frozenset[int]:
        """Ids that were left in doubt before a time."""
        return frozenset(number for number, since in self._doubts.items() if since < before)

    # leaving

    async def waiting(self, aside: Collection[int] = ()) -> int:
        """Messages that are to be forwarded, those set ``aside`` not counted."""
        numbers = as_json(sorted(aside))

        def count(connection: sqlite3.Connection) -> int:
            all_of_them = connection.execute("SELECT coalesce(sum(queued), 0) FROM lane").fetchone()[0]
            not_now = connection.execute(_ASIDE, (numbers,)).fetchone()[0] if aside else 0
            return int(all_of_them) - int(not_now)

        return await self._read(count)

    async def oldest(self) -> float | None:
        """When the oldest of them was accepted."""
        found = await self._read(
            lambda c: c.execute("SELECT min(received) FROM message WHERE state < 4").fetchone()[0]
        )
        return None if found is None else found / 1000

    async def has(self, message_id: str) -> bool:
        """Whether the content of that message is here."""
        number = ids.read(message_id)
        return bool(
            await self._read(
                lambda c: c.execute("SELECT 1 FROM content WHERE message = ?", (number,)).fetchone()
            )
        )

    async def next_batch(self, aside: Collection[int] = ()) -> list[Leaving]:
        """The next messages, in the order of their 250; they stay until `remove`."""
        found = await self._read(lambda c: _next_rows(c, sorted(aside)))
        for one in found:
            if one.row.body is None:
                one.body = FileBody(self.bodies.path(one.key), one.row.body_size)
            one.row.number = self._renamed.get(one.key, one.key)
        return found

    async def rename(self, one: Leaving, number: int) -> None:
        """Another message of the shared spool has its id: from now on it is forwarded under this one."""
        await self.remember(_RENAMED + ids.show(one.key), ids.show(number))
        self._renamed[one.key] = one.row.number = number

    async def remove(self, numbers: Sequence[int]) -> list[int]:
        """Forget messages that the shared spool has, by their ids here; those that an operator had deleted meanwhile."""

        def change(connection: sqlite3.Connection) -> tuple[list[int], list[int], int]:
            filed, deleted = _remove(connection, numbers)
            return filed, deleted, stored_bytes(connection)

        filed, deleted, self._stored = await self._writer.run(change)
        for number in numbers:
            self._doubts.pop(number, None)
            self._renamed.pop(number, None)
        await self._drop_files(filed)
        self._grown(0)
        return deleted


def _numbered(kept: dict[str, str], prefix: str) -> list[tuple[int, str]]:
    found = (
        (ids.read(key.removeprefix(prefix)), text) for key, text in kept.items() if key.startswith(prefix)
    )
    return [(number, text) for number, text in found if number is not None]


_ASIDE = "SELECT count(*) FROM message WHERE state = 0 AND id IN (SELECT value FROM json_each(?))"
_DELETED = "SELECT id FROM message WHERE state <> 0 AND id IN (SELECT value FROM json_each(?))"
_NEXT = (
    # the turn is what tells messages of one source apart that were accepted in the same millisecond
    "SELECT id, size FROM message INDEXED BY message_open WHERE state < 4 AND state = 0"
    " AND id NOT IN (SELECT value FROM json_each(?)) ORDER BY received, turn, id LIMIT ?"
)
_ROWS = (
    "SELECT m.id, m.received, l.name, m.sender, m.client, m.source, m.message_id, m.subject, m.pool, m.details,"
    " c.header, c.body, c.body_size FROM message m JOIN lane l ON l.id = m.lane JOIN content c ON c.message = m.id"
    " WHERE m.id IN (SELECT value FROM json_each(?))"
)
_PEOPLE = (
    "SELECT message, address, notify, orcpt FROM recipient WHERE message IN (SELECT value FROM json_each(?))"
    " ORDER BY message, n"
)


def _next_rows(connection: sqlite3.Connection, aside: Sequence[int]) -> list[Leaving]:
    numbers: list[int] = []
    octets = 0
    for number, size in connection.execute(_NEXT, (as_json(aside), BATCH)):
        octets += size
        if numbers and octets > OCTETS:
            break
        numbers.append(number)
    wanted = (as_json(numbers),)
    people: dict[int, list[Recipient]] = {}
    for number, address, notify, orcpt in connection.execute(_PEOPLE, wanted):
        people.setdefault(number, []).append(Recipient(address, notify=notify, orcpt=orcpt))
    found = {
        row[0]: _leaving(row, tuple(people.get(row[0], ()))) for row in connection.execute(_ROWS, wanted)
    }
    return [found[number] for number in numbers if number in found]


def _leaving(row: tuple[Any, ...], recipients: tuple[Recipient, ...]) -> Leaving:
    (number, received, lane, sender, address, source, message_id, subject, pool, packed,
     header, body, body_size) = row  # fmt: skip
    details = json.loads(packed)
    message = NewMessage(
        envelope=unpack_envelope(sender, recipients, details),
        client=unpack_client(address, details),
        header=header,
        lane=lane,
        pool=tuple(json.loads(pool)) if pool else (),
        source=source,
        header_from=tuple(details["f"]),
        message_id=message_id,
        subject=subject,
        notes=tuple(details["n"]),
    )
    leaving = NewRow(number, 0.0, message, body, body_size)
    leaving.received = received
    return Leaving(number, leaving, BytesBody(body or b""))


def _remove(connection: sqlite3.Connection, numbers: Sequence[int]) -> tuple[list[int], list[int]]:
    wanted = as_json(list(numbers))
    deleted = connection.execute(_DELETED, (wanted,)).fetchall()
    filed = drop_messages(connection, wanted)
    keys = [prefix + ids.show(number) for number in numbers for prefix in (_DOUBT, _RENAMED)]
    connection.execute("DELETE FROM memory WHERE key IN (SELECT value FROM json_each(?))", (as_json(keys),))
    if connection.execute("SELECT coalesce(sum(queued), 0) FROM lane").fetchone()[0] == 0:
        connection.execute("DELETE FROM source")  # turns go on only behind mail that waits
    return filed, [number for (number,) in deleted]
