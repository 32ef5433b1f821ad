"""The spool on PostgreSQL, for a database server that is kept safe (and failed over) by other means than this host.

Rows, states and turns are those of the SQLite spool, and so are the functions that change them: this class gives them
another connection (`postgres_link`), another writer (`postgres_writer`) and other bodies (`postgres_rows`). Any number
of relays share it: `postgres_group`.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import psycopg
from psycopg_pool import ConnectionPool, PoolTimeout

from relay import events
from relay.clock import Clock
from relay.dburl import shown_url
from relay.errors import SpoolBusy, SpoolError
from relay.message import Body, BytesBody, Content, Outcome
from relay.settings import SpoolSettings
from relay.spool import delivery, ids, postgres_member, upkeep
from relay.spool.contract import (
    Claim,
    Filter,
    LaneSummary,
    MessageView,
    Part,
    Recovered,
    Settlement,
    SpoolStats,
    Taken,
    Usage,
)
from relay.spool.handover import Adopted, Handover, in_pieces
from relay.spool.intake import NewRow
from relay.spool.outage import Outage
from relay.spool.postgres_adopt import NOTE, adopt, put_piece
from relay.spool.postgres_draft import PostgresDraft
from relay.spool.postgres_faults import plain_error
from relay.spool.postgres_group import GroupSpool
from relay.spool.postgres_link import Row, Statements, arguments, prepare
from relay.spool.postgres_member import debts_of
from relay.spool.postgres_newest import NewestPrimary
from relay.spool.postgres_place import refuse_shared_sessions, take_place
from relay.spool.postgres_rows import (
    CHUNK,
    ChunkBody,
    add_piece,
    drop_pieces,
    forget_orphans,
    insert_all,
    store_all,
)
from relay.spool.postgres_schema import migrate
from relay.spool.postgres_writer import PostgresWriter
from relay.spool.reading import prefetch, stored_bytes
from relay.spool.records import COUNTS, event_times, ms
from relay.spool.relational import WriteDown
from relay.spool.states import State
from relay.spool.together import Beginning, Ending, begin_all, is_plain, settle_plain

T = TypeVar("T")

_READERS = 4
"""Connections for reading, and for the pieces of large bodies."""
_PATIENCE = 2.0
"""Seconds to wait for one of them."""
_LOOK_EVERY = 1.0
"""Seconds between looks whether the database answers: how soon listeners take mail again after it was away."""
_ORPHAN_AGE = 86_400.0
"""Seconds after which a body whose message was never stored is forgotten: no client sends for so long."""


class PostgresSpool(GroupSpool):
    """See `relay.spool.contract.Spool`."""

    def __init__(self, settings: SpoolSettings, clock: Clock | None = None) -> None:
        super().__init__(settings, clock)
        self._owner = False
        self._pool: ConnectionPool[NewestPrimary] | None = None
        self._database = PostgresWriter(settings.url, self._member, self._greet)
        self._writer = self._database
        self._begin_all, self._settle_plain = self._for_members(begin_all), self._for_members(settle_plain)
        self._looking: asyncio.Task[None] | None = None
        self._orphans_until = 0.0
        self._outage = Outage(tells=settings.local is None)

    # opening and closing

    async def open(self, *, owner: bool = True) -> None:
        self._owner = owner
        try:
            await self._start_when_free()
        except Exception as error:
            raise plain_error(error) from error
        name = f"relay {self._member.name} reading"
        self._pool = ConnectionPool(
            self._settings.url,
            connection_class=NewestPrimary,
            kwargs=arguments(self._settings.url, name),
            configure=prepare,
            check=ConnectionPool.check_connection,
            min_size=1,
            max_size=_READERS,
            timeout=_PATIENCE,
            reconnect_timeout=_PATIENCE,
            open=False,
            name="spool",
        )
        await asyncio.to_thread(self._pool.open)
        try:
            last = await self._read(lambda c: c.execute("SELECT max(id) FROM message").fetchone())
            self._ids = ids.Ids(int(last[0] or 0))
            await self._look()
            if owner:
                await self._take_part()
            else:
                await self._ask_time()
        except BaseException:
            await self.close()
            raise
        if owner:
            self._looking = asyncio.ensure_future(self._keep_looking())

    async def _ask_time(self) -> None:
        """For a command, which has no watch: what it writes down is by the server's clock, as all that replicas write."""
        if self._steered is not None:
            before = time.time()
            server = await self._read(
                lambda c: c.execute("SELECT extract(epoch FROM clock_timestamp())").fetchone()
            )
            least, most = float(server[0]) - time.time(), float(server[0]) - before
            self._steered.offset = event_times.offset = min(max(0.0, least), most)

    async def _start_when_free(self) -> None:
        """Stands by while an older release has the spool, whatever else becomes of the database meanwhile."""
        while True:
            try:
                await self._writer.start()
            except SpoolError as error:
                if not self._owner or not (self.standing_by or isinstance(error, SpoolBusy)):
                    raise
                if not self.standing_by:
                    self.standing_by = True
                    events.notice(what=f"standing by: {error}")
                await asyncio.sleep(_LOOK_EVERY)
            else:
                self.standing_by = False
                return

    def _greet(self, connection: psycopg.Connection[Row]) -> None:
        """The writer's new connection: schema up to date, no older release at work, and known to the group."""
        refuse_shared_sessions(connection, self._settings.url)
        migrate(connection)
        if self._owner:
            take_place(connection)
            if not self._member.fence:
                self._member.join(connection)
            else:
                self._member.tell_config(Statements(connection).as_sqlite())
        self._member.introduce(connection)

    async def close(self) -> None:
        if self._looking is not None:
            looking, self._looking = self._looking, None
            looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await looking
        await self._take_leave()
        await self._writer.stop()
        if self._pool is not None:
            pool, self._pool = self._pool, None
            await asyncio.to_thread(pool.close)

    async def _keep_looking(self) -> None:
        """Notices that the database is away, and that it is back, also while nobody asks for anything."""
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            try:
                await self._look()
            except SpoolError as error:
                self._outage.away(error)
            else:
                self._outage.back()

    async def _look(self) -> None:
        self._keep_time()
        self._stored = await self._writer.run(stored_bytes)

    async def _read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        pool = self._pool
        if pool is None:
            raise SpoolError("the spool is closed")
        if self._database.trouble is not None:
            raise self._database.trouble

        def run() -> T:
            with pool.connection() as connection:
                return read(Statements(connection).as_sqlite())

        try:
            return await asyncio.to_thread(run)
        except (psycopg.Error, PoolTimeout) as error:
            raise plain_error(error) from error

    # accepting

    def draft(self) -> PostgresDraft:
        return self.draft_as(self._ids.next(self.now()))

    def draft_as(self, number: int) -> PostgresDraft:
        """See `relay.spool.handover.Shared.draft_as`."""
        return PostgresDraft(self, number)

    async def has_room(self, size: int) -> bool:
        """By ``max_size``; what the server's disk has left shows when it refuses. Raises SpoolError while it is away."""
        away = self._database.trouble or self._database.hangs
        if away is not None:
            raise away
        return self._stored + self._arriving + size <= self._settings.max_size

    async def keep(self, row: NewRow) -> None:
        """Write an acceptance and wake its lane."""
        await self._writer.run_one_of(store_all, row)
        self._stored += row.size
        self._wake(row.message.lane)

    async def add_chunk(self, number: int, n: int, data: bytes) -> None:
        """A piece of a large body. Not waited for on the disk: the message's commit, later in the log, is."""
        await self._read(lambda c: add_piece(c, number, n, data))

    async def drop_chunks(self, number: int) -> None:
        """The pieces of a message that does not come; upkeep finds them later when the database is away."""
        with contextlib.suppress(SpoolError):
            await self._read(lambda c: drop_pieces(c, number))

    async def put_body(self, number: int, body: Body) -> bool:
        """See `relay.spool.handover.Shared.put_body`."""
        n = 0
        async for piece in in_pieces(body, CHUNK):
            if not await self._read(lambda c, n=n, piece=piece: put_piece(c, number, n, piece)):  # type: ignore[misc]
                return False
            n += 1
        return True

    async def adopt(self, given: Handover) -> Adopted:
        """See `relay.spool.handover.Shared.adopt`."""

        def change(connection: sqlite3.Connection) -> tuple[Adopted, int]:
            taken = adopt(connection, given)
            return taken, stored_bytes(connection)

        taken, self._stored = await self._writer.run(change)
        self._wake(*{row.message.lane for row in taken.stored})
        return taken

    async def forget_giver(self, giver: str) -> None:
        """See `relay.spool.handover.Shared.forget_giver`."""
        await self.remember(NOTE + giver, None)

    def _body(self, number: int, body: bytes | None, size: int) -> Body:
        return BytesBody(body) if body is not None else ChunkBody(number, size, self._chunk)

    async def _chunk(self, number: int, n: int) -> bytes:
        row = await self._read(
            lambda c: c.execute("SELECT data FROM chunk WHERE message = ? AND n = ?", (number, n)).fetchone()
        )
        if row is None:
            raise SpoolError(f"the content of message {ids.show(number)} is gone")
        return bytes(row[0])

    # delivering

    async def recover(self) -> Recovered:
        now, hold = ms(self.now()), self._settings.on_uncertain == "hold"
        return await self._as_member(lambda c: postgres_member.recover(c, now, hold_uncertain=hold))

    async def lanes(self) -> list[LaneSummary]:
        found, workers = await super().lanes(), await self.workers()
        return [
            dataclasses.replace(one, replica=workers[one.lane].name if one.lane in workers else "")
            for one in found
        ]

    async def claim(self, lane: str, limit: int, now: float) -> list[Claim]:
        """Only the lane's replica claims; a lane that is free is taken by it."""
        if await self.take(lane, anyway=True) is not Taken.MINE:
            return []

        def change(connection: sqlite3.Connection) -> tuple[list[Claim], dict[str, Content]]:
            claims = delivery.claim(connection, lane, limit, ms(now))
            return claims, prefetch(connection, claims)

        claims, contents = await self._as_member(change)
        self._prefetched.update(contents)
        return claims

    async def unclaim(self, ids_: Sequence[str]) -> None:
        numbers = [ids.number_of(text) for text in ids_]
        for text in ids_:
            self._prefetched.pop(text, None)
        await self._as_member(lambda c: delivery.unclaim(c, numbers))

    async def begin(
        self, claim_id: str, now: float, recipients: int, sent: Mapping[str, Outcome] | None = None
    ) -> None:
        number, done = ids.number_of(claim_id), dict(sent or {})
        if done:
            await self._as_member(lambda c: delivery.begin(c, number, ms(now), recipients, done))
        else:
            await self._as_members(self._begin_all, Beginning(number, ms(now), recipients))

    async def settle(self, settlement: Settlement, now: float) -> None:
        self._prefetched.pop(settlement.id, None)
        if is_plain(settlement):
            ending = Ending(ids.number_of(settlement.id), ms(now), settlement)
            _, octets = await self._as_members(self._settle_plain, ending)
            self._stored -= octets
        else:
            await self._write_down(delivery.settle, settlement, now)

    async def usage(self, lane: str, now: float) -> Usage:
        found = await super().usage(lane, now)
        return dataclasses.replace(found, debts=await self._read(lambda c: debts_of(c, lane, ms(now))))

    async def _write_down(self, write: WriteDown, settlement: Settlement, now: float) -> bool | None:
        rows = [
            NewRow(self._ids.next(self.now()), self.now(), mail.message, mail.body, len(mail.body))
            for mail in settlement.notices
        ]

        def change(connection: sqlite3.Connection) -> tuple[bool | None, int]:
            gone = write(connection, settlement, ms(now))
            if gone is not None:
                insert_all(connection, rows)
            return gone, stored_bytes(connection)

        gone, self._stored = await self._as_member(change)
        self._wake(*([settlement.move_to] if settlement.move_to else []), *(row.message.lane for row in rows))
        return gone

    # operators

    async def find(self, wanted: Filter, *, limit: int = 1000, after: str | None = None) -> list[MessageView]:
        return await self._with_replicas(await super().find(wanted, limit=limit, after=after))

    async def find_within(
        self, wanted: Filter, *, seconds: float, limit: int = 1000, after: str | None = None
    ) -> Part[MessageView]:
        found = await super().find_within(wanted, seconds=seconds, limit=limit, after=after)
        return dataclasses.replace(found, found=await self._with_replicas(found.found))

    async def _with_replicas(self, views: list[MessageView]) -> list[MessageView]:
        """Those under way with the name of the replica that has them."""
        active = [ids.number_of(one.id) for one in views if one.state == State.ACTIVE]
        if not active:
            return views
        names = await self._read(lambda c: postgres_member.claimants(c, active))
        return [dataclasses.replace(one, replica=names.get(ids.number_of(one.id), "")) for one in views]

    async def stats(self) -> SpoolStats:
        row = await self._read(
            lambda c: c.execute(
                f"SELECT (SELECT sum(queued + active + deferred + held) FROM {COUNTS}), (SELECT bytes FROM total)"
            ).fetchone()
        )
        free = max(0, self._settings.max_size - row[1])
        return SpoolStats(shown_url(self._settings.url), int(row[0] or 0), int(row[1]), free)

    # upkeep

    async def tend(self, now: float) -> float:
        before, orphans = ms(now - self._settings.history), ids.Ids().next(now - _ORPHAN_AGE)
        old = await self._read(lambda c: upkeep.spent(c, now))
        gone, _, self._stored = await self._writer.run(lambda c: upkeep.forget(c, before, old))
        await self._writer.run(lambda c: postgres_member.tidy(c, ms(now)))
        if now >= self._orphans_until:
            gone += await self._writer.run(lambda c: forget_orphans(c, orphans))
        if not gone:
            self._orphans_until = now + 3600.0
        return 0.05 if gone else 30.0
