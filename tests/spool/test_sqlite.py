"""The SQLite spool: the common suite, and what only it promises (one owner, one fsync for many, orphans swept)."""

from __future__ import annotations

import asyncio
import os
import resource
import sqlite3
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest

from relay.errors import SpoolBusy, SpoolError, SpoolFull, SpoolVersion
from relay.spool import sqlite
from relay.spool.contract import Filter
from relay.spool.schema import _statements, connect, migrate, migrations
from relay.spool.sqlite import SqliteSpool
from tests.fakes.clock import ManualClock
from tests.fakes.spool import FAILED, LANE, SENT, accept, new_message, spool_settings
from tests.spool.suite import (
    HeldRecipients,
    HeldTime,
    NoticesAndAnswers,
    SpoolSuite,
    claim_one,
    settle,
    tend_until_quiet,
)


class Maker:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = ManualClock()
        self.opened: list[SqliteSpool] = []
        self.settings: dict[str, object] = {}

    async def __call__(self, **settings: object) -> SqliteSpool:
        self.settings = settings
        spool = SqliteSpool(spool_settings(self.folder, **settings), self.clock)
        await spool.open()
        self.opened.append(spool)
        return spool

    async def reopen(self, spool: SqliteSpool) -> SqliteSpool:
        await spool.close()
        self.opened.remove(spool)
        return await self(**self.settings)


@pytest.fixture
async def make(tmp_path):
    maker = Maker(tmp_path)
    yield maker
    for spool in maker.opened:
        await spool.close()


class TestSqlite(SpoolSuite, NoticesAndAnswers, HeldRecipients, HeldTime):
    """The common suite."""


async def test_many_connections_share_commits(make):
    spool = await make()
    before = spool._writer.commits
    await asyncio.gather(*(accept(spool) for _ in range(100)))
    assert spool._writer.commits - before < 50


async def test_a_second_daemon_is_refused_with_the_reason(make):
    spool = await make()
    other = SqliteSpool(spool_settings(make.folder))
    with pytest.raises(SpoolBusy, match=f"process {os.getpid()}") as caught:
        await other.open()
    assert "spool.url" in caught.value.remedy
    await accept(spool)
    assert len(await spool.find(Filter())) == 1


async def test_operators_open_the_spool_beside_the_daemon(make):
    spool = await make()
    message_id = await accept(spool)
    beside = SqliteSpool(spool_settings(make.folder))
    await beside.open(owner=False)
    try:
        assert [one.id for one in await beside.find(Filter())] == [message_id]
        assert (await beside.operate("delete", Filter(), make.clock.now())).changed == 1
    finally:
        await beside.close()
    assert await spool.find(Filter()) == []


async def test_an_operators_look_at_no_spool_finds_nothing_and_leaves_nothing(tmp_path):
    beside = SqliteSpool(spool_settings(tmp_path))
    await beside.open(owner=False)
    assert await beside.find(Filter()) == []
    assert (await beside.stats()).messages == 0
    await beside.close()
    assert list(tmp_path.iterdir()) == []


async def test_orphans_are_swept_and_living_bodies_stay(make):
    spool = await make()
    kept = await accept(spool, b"k" * 200_000)
    orphan = spool.bodies.path(12345)
    spool.bodies.create(12345).close()
    spool = await make.reopen(spool)
    fresh = spool.draft()
    await fresh.write(b"f" * 200_000)
    await tend_until_quiet(spool, make.clock.now())
    assert not orphan.exists()
    await fresh.commit(new_message())
    for message_id in (kept, fresh.id):
        assert len(b"".join([chunk async for chunk in spool.raw(message_id)])) > 200_000


async def test_a_finished_messages_file_goes(make):
    spool = await make()
    await accept(spool, b"x" * 500_000)
    claim = await claim_one(spool, make.clock.now())
    files = list(spool.bodies.numbers())
    assert files and files[0]
    await settle(spool, claim, SENT, make.clock.now())
    assert [number for shard in spool.bodies.numbers() for number in shard] == []


async def test_a_file_kept_for_a_failed_message_goes_with_its_history(make):
    spool = await make(history=1000.0)
    await accept(spool, b"x" * 500_000)
    now = make.clock.now()
    await settle(spool, await claim_one(spool, now), FAILED, now)
    assert [number for shard in spool.bodies.numbers() for number in shard]
    await tend_until_quiet(spool, now + 1001)
    assert [number for shard in spool.bodies.numbers() for number in shard] == []


async def test_the_file_shrinks_once_its_mail_is_delivered(make):
    spool = await make()
    await asyncio.gather(*(accept(spool, b"x" * 120_000) for _ in range(300)))
    now = make.clock.now()
    await tend_until_quiet(spool, now)
    full = spool._path.stat().st_size
    assert full > 30_000_000
    for claim in await spool.claim(LANE, 300, now):
        await settle(spool, claim, SENT, now)
    await tend_until_quiet(spool, now)
    assert spool._path.stat().st_size < full / 3


async def test_only_we_may_read_the_spool(make):
    spool = await make()
    await accept(spool, b"x" * 500_000)
    for path in [make.folder / "spool.db", *make.folder.glob("spool.db.bodies/*/*")]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


async def test_a_newer_schema_is_not_touched(make):
    spool = await make()
    await spool.close()
    make.opened.clear()
    with sqlite3.connect(make.folder / "spool.db") as connection:
        connection.execute("PRAGMA user_version = 999")
    with pytest.raises(SpoolVersion, match="999"):
        await make()


async def test_a_folder_that_may_not_be_written_is_named(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    spool = SqliteSpool(spool_settings(blocked))
    with pytest.raises(SpoolError, match=r"spool\.db") as caught:
        await spool.open()
    assert "RELAY_SPOOL_URL" in caught.value.remedy


async def test_a_disk_that_fills_is_reported_as_full_and_recovers(make):
    spool = await make()
    await accept(spool)
    pages = await spool._read(lambda c: c.execute("PRAGMA page_count").fetchone()[0])
    await spool._writer.run(lambda c: c.execute(f"PRAGMA max_page_count = {pages}").fetchone())
    with pytest.raises(SpoolFull):
        for _ in range(100):
            await accept(spool, b"x" * 100_000)
    await spool._writer.run(lambda c: c.execute("PRAGMA max_page_count = 1000000").fetchone())
    await accept(spool)
    assert len(await spool.claim(LANE, 50, make.clock.now())) >= 2


async def test_what_was_stored_since_the_last_look_at_the_disk_is_no_room_any_more(make, monkeypatch):
    """The disk is looked at now and then; a fast client must not eat the reserve for outcomes in between."""
    spool = await make()
    free = sqlite._RESERVE + 1_000_000
    monkeypatch.setattr(sqlite.shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    monkeypatch.setattr(sqlite.time, "monotonic", lambda: 1000.0)
    assert await spool.has_room(900_000)
    assert spool.room() == 1_000_000
    await accept(spool, b"x" * 500_000)
    assert not await spool.has_room(900_000)
    assert spool.room() < 500_000


async def test_a_limit_of_file_sizes_or_a_quota_is_no_room_and_recovers(make):
    spool = await make()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, before[1]))
    try:
        with pytest.raises(SpoolFull, match="takes no more"):  # in the database
            for _ in range(20):
                await accept(spool, b"x" * 100_000)
        with pytest.raises(SpoolFull, match="takes no more"):  # in a file beside it
            await accept(spool, b"x" * 1_000_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    await accept(spool, b"x" * 1_000_000)
    assert len(await spool.claim(LANE, 50, make.clock.now())) >= 2


async def test_one_failing_change_does_not_take_others_with_it(make):
    spool = await make()

    def broken(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO lane (name) VALUES ('half done')")
        raise ValueError("broken")

    results = await asyncio.gather(
        accept(spool), spool._writer.run(broken), accept(spool), return_exceptions=True
    )
    assert isinstance(results[1], SpoolError)
    assert len(await spool.find(Filter())) == 2
    assert [one.lane for one in await spool.lanes()] == [LANE]


def test_migrations_are_numbered_without_gaps_and_run_twice_harmlessly(tmp_path):
    steps = [number for number, _ in migrations()]
    assert steps == list(range(1, len(steps) + 1))
    connection = connect(tmp_path / "a.db")
    assert migrate(connection) == migrate(connection) == steps[-1]
    connection.close()


def test_a_spool_of_schema_1_is_brought_up_to_date_with_its_mail(tmp_path):
    connection = connect(tmp_path / "a.db")
    for statement in _statements(dict(migrations())[1]):
        connection.execute(statement)
    connection.execute("PRAGMA user_version = 1")
    connection.execute("INSERT INTO lane (id, name) VALUES (1, 'U/m@c')")
    connection.execute(
        "INSERT INTO message (id, received, lane, state, turn, size, sender, client, source, message_id, subject, details)"
        " VALUES (7, 1, 1, 0, 0, 1, 's', 'c', 'x', 'm', 'j', '{}')"
    )
    assert migrate(connection) == migrations()[-1][0]
    row = connection.execute("SELECT id, direct, delay_noticed, untold FROM message").fetchone()
    assert row == (7, 0, 0, 0)
    connection.close()


def test_every_query_of_delivery_uses_an_index(tmp_path):
    connection = connect(tmp_path / "a.db")
    migrate(connection)
    queries = [
        "SELECT id FROM message WHERE lane = 1 AND state = 2 AND due <= 5 ORDER BY due LIMIT 3",
        "SELECT id, turn FROM message WHERE lane = 1 AND state = 0 ORDER BY turn, id LIMIT 3",
        "SELECT min(received) FROM message m WHERE m.lane = 1 AND m.state < 4",
        "SELECT min(due) FROM message m WHERE m.lane = 1 AND m.state = 2",
        "SELECT id FROM message WHERE state < 4 AND state <> 1 AND received < 9 AND (received, id) > (1, 2)"
        " AND direct = 0 AND delay_noticed = 0 ORDER BY received, id LIMIT 5",
        "SELECT id FROM message WHERE state < 4 AND state <> 1 AND received < 9 AND (received, id) > (1, 2)"
        " AND direct = 0 ORDER BY received, id LIMIT 5",
        "SELECT id FROM message WHERE state = 4 AND finished < 5 ORDER BY finished LIMIT 3",
    ]
    for query in queries:
        plan = " ".join(str(row) for row in connection.execute(f"EXPLAIN QUERY PLAN {query}"))
        assert "INDEX message_" in plan and "TEMP B-TREE" not in plan, (query, plan)
    connection.close()
