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
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from relay.clock import Clock
from relay.errors import SpoolError
from relay.message import Body, BytesBody, Content, Outcome
from relay.settings import SpoolSettings
from relay.spool import delivery, ids, recovery, upkeep
from relay.spool.bodies import BodyFiles, FileBody
from relay.spool.contract import (
    Claim,
    Recovered,
    Settlement,
    SpoolStats,
)
from relay.spool.desk import Desk
from relay.spool.intake import NewRow, SqliteDraft, insert_all
from relay.spool.reading import (
    is_filed,
    known,
    last_id_and_bytes,
    open_and_bytes,
    prefetch,
    stored_bytes,
)
from relay.spool.records import ms
from relay.spool.relational import RelationalSpool, WriteDown
from relay.spool.schema import OwnerLock, connect, migrate, prepare_folder
from relay.spool.together import Beginning, Ending, begin_all, is_plain, settle_plain
from relay.spool.writer import Writer, plain_error

T = TypeVar("T")

_RESERVE = 16 * 1024 * 1024
"""Octets of disk that new mail must leave free, so that outcomes can still be written down."""


def path_of(url: str) -> Path:
    """The file of a ``sqlite:`` URL: three slashes relative, four absolute."""
    if not url.startswith("sqlite:///"):
        raise SpoolError(f"{url} is not a sqlite: URL", remedy="Write sqlite:////absolute/path/spool.db")
    return Path(url.removeprefix("sqlite:///"))


class SqliteSpool(RelationalSpool):
    """See `relay.spool.contract.Spool`."""

    standing_by = False  # a second daemon on the same file is a mistake, and refused

    def __init__(self, settings: SpoolSettings, clock: Clock | None = None) -> None:
        super().__init__(settings, clock)
        self._path = path_of(settings.url)
        self._writer = Writer(lambda: connect(self._path))
        self._readers: Desk | None = None
        self._upkeep: Desk | None = None
        self._unwritten = 0
        self._checkpointing: asyncio.Task[None] | None = None
        self._lock: OwnerLock | None = None
        self._free = (0.0, 0)
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

    # delivering

    async def recover(self) -> Recovered:
        now, hold = ms(self.now()), self._settings.on_uncertain == "hold"
        return await self._writer.run(lambda c: recovery.recover(c, now, hold_uncertain=hold))

    async def claim(self, lane: str, limit: int, now: float) -> list[Claim]:
        def change(connection: sqlite3.Connection) -> tuple[list[Claim], dict[str, Content]]:
            claims = delivery.claim(connection, lane, limit, ms(now))
            return claims, prefetch(connection, claims)

        claims, contents = await self._writer.run(change)
        self._prefetched.update(contents)
        return claims

    async def unclaim(self, ids_: Sequence[str]) -> None:
        numbers = [ids.number_of(text) for text in ids_]
        for text in ids_:
            self._prefetched.pop(text, None)
        await self._writer.run(lambda c: delivery.unclaim(c, numbers))

    async def begin(
        self, claim_id: str, now: float, recipients: int, sent: Mapping[str, Outcome] | None = None
    ) -> None:
        number, done = ids.number_of(claim_id), dict(sent or {})
        if done:
            await self._writer.run(lambda c: delivery.begin(c, number, ms(now), recipients, done))
        else:
            await self._writer.run_one_of(begin_all, Beginning(number, ms(now), recipients))

    async def settle(self, settlement: Settlement, now: float) -> None:
        if not is_plain(settlement):
            await self._write_down(delivery.settle, settlement, now)
            return
        number = ids.number_of(settlement.id)
        self._prefetched.pop(settlement.id, None)
        filed, octets = await self._writer.run_one_of(settle_plain, Ending(number, ms(now), settlement))
        self._stored -= octets
        self._grown(0)
        if filed:
            await self._drop_files([number])

    async def _write_down(self, write: WriteDown, settlement: Settlement, now: float) -> bool | None:
        number = ids.number_of(settlement.id)
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
            await self._drop_files([number])
        self._wake(*([settlement.move_to] if settlement.move_to else []), *(row.message.lane for row in rows))
        return gone

    def _body(self, number: int, body: bytes | None, size: int) -> Body:
        if body is not None:
            return BytesBody(body)
        return FileBody(self.bodies.path(number), size)

    async def _drop_files(self, numbers: Collection[int]) -> None:
        for number in numbers:
            await asyncio.to_thread(self.bodies.remove, number)

    # showing

    async def stats(self) -> SpoolStats:
        messages, size = await self._read(open_and_bytes)
        free = min(self._disk_free() - _RESERVE, self._settings.max_size - size)
        return SpoolStats(self._settings.url, messages, size, max(0, free))

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
        await self._drop_files(filed)
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
