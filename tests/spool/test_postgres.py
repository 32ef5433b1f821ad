"""The PostgreSQL spool on a real server: the common suite, and what only it promises."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import sys
import threading
import time

import psycopg
import pytest

from relay.errors import SpoolError, SpoolVersion
from relay.spool.contract import Filter
from relay.spool.factory import build_spool
from relay.spool.postgres import PostgresSpool
from relay.spool.postgres_dialect import translate
from relay.spool.postgres_link import connect
from relay.spool.postgres_rows import CHUNK
from relay.spool.postgres_schema import Migration, migrate, migrations
from tests.fakes.spool import LANE, SENT, accept, new_message, spool_settings
from tests.spool.postgres_kit import Maker, ask, eventually, make, server
from tests.spool.suite import (
    HeldRecipients,
    HeldTime,
    NoticesAndAnswers,
    SpoolSuite,
    body_of,
    claim_one,
    settle,
    tend_until_quiet,
)

__all__ = ["make", "server"]


class TestPostgres(SpoolSuite, NoticesAndAnswers, HeldRecipients, HeldTime):
    """The common suite."""


async def test_many_connections_share_commits(make):
    spool = await make()
    before = spool._writer.commits
    await asyncio.gather(*(accept(spool) for _ in range(100)))
    assert spool._writer.commits - before < 50


@pytest.mark.parametrize("statement", ["INSERT INTO lane (name) VALUES ('half done')", "SELECT 1 / 0"])
async def test_one_failing_change_takes_no_other_with_it(make, statement):
    spool = await make()

    def broken(connection: sqlite3.Connection) -> None:
        connection.execute(statement)
        raise ValueError("broken")

    results = await asyncio.gather(
        accept(spool), spool._writer.run(broken), accept(spool), return_exceptions=True
    )
    assert isinstance(results[1], SpoolError)
    assert len(await spool.find(Filter())) == 2
    assert [one.lane for one in await spool.lanes()] == [LANE]


async def test_a_relay_goes_on_with_its_claims_when_the_connection_breaks(make):
    spool = await make()
    await accept(spool)
    claim = await claim_one(spool, make.clock.now())
    await ask(
        make, "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objid = 3"
    )
    await eventually(lambda: settle(spool, claim, SENT, make.clock.now()))
    assert [trace.state for trace in await spool.trace(claim.id)] == ["sent"]


async def test_operators_open_the_spool_beside_the_relay(make):
    spool = await make()
    message_id = await accept(spool)
    beside = PostgresSpool(spool_settings(make.folder, url=make.url))
    await beside.open(owner=False)
    try:
        assert [one.id for one in await beside.find(Filter())] == [message_id]
        assert (await beside.operate("delete", Filter(), make.clock.now())).changed == 1
    finally:
        await beside.close()
    assert await spool.find(Filter()) == []


async def test_a_database_that_goes_away_is_an_error_at_once_and_comes_back_by_itself(make):
    """What was accepted is there, what was claimed may be settled, and nothing has to be started again."""
    spool = await make()
    kept = await accept(spool, b"x" * 700_000)
    claim = await claim_one(spool, make.clock.now())
    make.server.stop()
    try:
        with pytest.raises(SpoolError, match="cannot be used") as caught:
            await accept(spool)
        assert "goes on by itself" in caught.value.remedy
        began = time.monotonic()
        with pytest.raises(SpoolError):
            await spool.has_room(1)
        with pytest.raises(SpoolError):
            await spool.find(Filter())
        assert time.monotonic() - began < 1
    finally:
        make.server.start()
    later = await eventually(lambda: accept(spool))
    assert (await body_of(spool, kept)).endswith(b"x" * 700_000)
    await settle(spool, claim, SENT, make.clock.now())
    assert [one.id for one in await spool.find(Filter())] == [later]
    assert await spool.has_room(1)


async def test_room_is_found_again_though_nobody_stores_anything(make):
    spool = await make()
    make.server.stop()
    try:
        async with asyncio.timeout(30):
            while spool._database.trouble is None:
                await asyncio.sleep(0.05)
    finally:
        make.server.start()
    assert await eventually(lambda: spool.has_room(1))


@pytest.mark.parametrize("took_place", [True, False])
async def test_a_commit_whose_answer_is_lost_is_looked_up(make, monkeypatch, took_place):
    """The client hears 250 exactly when its message is stored."""
    spool = await make()
    execute = psycopg.Connection.execute
    cut: list[str] = []

    def cutting(self, query, *values, **more):
        if query == "COMMIT" and not cut and threading.current_thread().name == "spool-writer":
            cut.append(query)
            if took_place:
                execute(self, query)
            self.close()
            raise psycopg.OperationalError("server closed the connection unexpectedly")
        return execute(self, query, *values, **more)

    monkeypatch.setattr(psycopg.Connection, "execute", cutting)
    if took_place:
        await accept(spool)
    else:
        with pytest.raises(SpoolError, match="closed the connection"):
            await accept(spool)
    assert cut == ["COMMIT"]
    assert len(await eventually(lambda: spool.find(Filter()))) == took_place


async def test_a_number_that_a_crashed_server_gave_out_again_is_not_taken_for_ours(make, monkeypatch):
    """Lost with the crash, and its number is another one's now, which is committed: the client must not hear 250."""
    spool = await make()
    await ask(make, "CHECKPOINT")
    execute = psycopg.Connection.execute
    cut: list[str] = []

    def crashing(self, query, *values, **more):
        if query == "COMMIT" and not cut and threading.current_thread().name == "spool-writer":
            cut.append(str(execute(self, "SELECT pg_current_xact_id()::text").fetchone()[0]))
            make.server.stop()
            make.server.start()
            with psycopg.connect(make.url) as other:
                while int(other.execute("SELECT pg_current_xact_id()::text").fetchone()[0]) < int(cut[0]):
                    other.commit()
                other.commit()
                found = other.execute("SELECT pg_xact_status(%s::text::xid8)", (cut[0],))
                cut.append(str(found.fetchone()[0]))
        return execute(self, query, *values, **more)

    monkeypatch.setattr(psycopg.Connection, "execute", crashing)
    for _ in range(
        5
    ):  # on a slow machine the number may have reached the disk before the crash: then it is used up
        with pytest.raises(SpoolError):
            await accept(spool)
        make.server.stop()
        make.server.start()  # it ends with the thread that started it: from here on this one (tests.fakes.tied)
        assert await eventually(lambda: spool.find(Filter())) == []
        if cut[1] == "committed":
            break
        await eventually(lambda: spool.has_room(0))
        await ask(make, "CHECKPOINT")
        cut.clear()
    assert cut[1:] == ["committed"]


@pytest.mark.parametrize("mode", ["step by step", "pipeline"])
async def test_a_frozen_transaction_keeps_others_waiting_only_for_seconds(make, mode):
    """As a relay that is stopped (SIGSTOP) between two statements would: its session is ended."""
    spool = await make()
    await accept(spool)
    frozen = connect(make.url, "relay frozen")
    try:
        with (
            pytest.raises(psycopg.Error),
            frozen.pipeline() if mode == "pipeline" else contextlib.nullcontext(),
        ):
            frozen.execute("BEGIN")
            assert frozen.execute("SELECT 1 FROM source FOR UPDATE").fetchone()
            async with asyncio.timeout(9):
                await accept(spool)
            frozen.execute("COMMIT")
    finally:
        frozen.close()


async def test_a_database_that_answers_nothing_is_away_for_new_mail_until_it_answers(make, monkeypatch):
    """Its connection stands, but a change waits and waits: nobody new is made to wait with it."""
    monkeypatch.setattr("relay.spool.postgres_writer._HANGS", 0.2)
    spool = await make()
    go_on = threading.Event()
    waiting = asyncio.ensure_future(spool._writer.run(lambda _: go_on.wait(30)))

    async def refusal() -> SpoolError:
        try:
            await spool.has_room(1000)
        except SpoolError as error:
            return error
        raise SpoolError("not refused yet")

    try:
        error = await eventually(refusal)
    finally:
        go_on.set()
    assert "has not answered for" in str(error)
    assert error.remedy
    assert await waiting
    assert await spool.has_room(1000)
    await accept(spool)


async def test_pieces_of_a_message_that_never_came_are_forgotten_and_others_stay(make):
    spool = await make()
    stored = await accept(spool, b"s" * 600_000)
    lost = spool.draft()
    await lost.write(b"l" * 600_000)
    make.clock.advance(3600)
    await tend_until_quiet(spool, make.clock.now())
    assert await ask(make, "SELECT count(DISTINCT message) FROM chunk") == [(2,)]
    make.clock.advance(90_000)
    await tend_until_quiet(spool, make.clock.now())
    assert await ask(make, "SELECT count(DISTINCT message) FROM chunk") == [(1,)]
    assert (await body_of(spool, stored)).endswith(b"s" * 600_000)
    await settle(spool, await claim_one(spool, make.clock.now()), SENT, make.clock.now())
    assert await ask(make, "SELECT count(*) FROM chunk") == [(0,)]


async def test_a_message_whose_pieces_were_lost_while_it_arrived_is_not_acknowledged(make):
    """As by a crash of the server, or a failover, between its pieces and its end; what comes with it is stored."""
    spool = await make()
    draft = spool.draft()
    await draft.write(b"l" * 600_000)
    await ask(make, "DELETE FROM chunk WHERE n = 0")
    results = await asyncio.gather(draft.commit(new_message()), accept(spool), return_exceptions=True)
    assert isinstance(results[0], SpoolError)
    assert [one.id for one in await spool.find(Filter())] == [results[1]]
    assert await ask(make, "SELECT count(*) FROM chunk") == [(0,)]


async def test_a_body_never_travels_in_pieces_above_the_bound(make):
    spool = await make()
    message_id = await accept(spool, b"b" * 1_000_000)
    assert await ask(make, "SELECT max(length(data)), count(*) FROM chunk") == [(CHUNK, 4)]
    content = await spool.content(message_id)
    assert max([len(piece) async for piece in content.body.chunks(10_000)]) == 10_000


async def test_texts_that_postgresql_cannot_hold_are_stored_all_the_same(make):
    spool = await make()
    await accept(spool, subject="a\0b", header_from=("x\0y@legacy.local", "plain@legacy.local"))
    (view,) = await spool.find(Filter(sender="plain@legacy.local"))
    assert view.subject == "a\ufffdb"


async def test_several_relays_may_create_the_schema_at_once(make):
    spools = [PostgresSpool(spool_settings(make.folder, url=make.url)) for _ in range(4)]
    await asyncio.gather(*(spool.open(owner=False) for spool in spools))
    for spool in spools:
        await spool.close()
    assert await ask(make, "SELECT number FROM version ORDER BY number") == [
        (one.number,) for one in migrations()
    ]


async def test_this_release_works_on_the_schema_of_the_next(make):
    """A migration that only adds, run by the first host that is upgraded, does not stop the others."""
    await upgrade(make, oldest=migrations()[-1].number)
    spool = await make()
    message_id = await accept(spool)
    await settle(spool, await claim_one(spool, make.clock.now()), SENT, make.clock.now())
    assert [trace.state for trace in await spool.trace(message_id)] == ["sent"]


async def test_a_schema_that_this_release_cannot_live_with_is_refused(make):
    await upgrade(make, oldest=999)
    with pytest.raises(SpoolVersion, match="999"):
        await make()


async def upgrade(make: Maker, *, oldest: int) -> None:
    """What the next release would do first."""
    text = "ALTER TABLE message ADD COLUMN later integer NOT NULL DEFAULT 0; CREATE TABLE later (id bigint);"
    connection = connect(make.url, "the next release")
    steps = migrations()
    assert migrate(connection, [*steps, Migration(steps[-1].number + 1, oldest, text)]) == len(steps) + 1
    connection.close()


def test_migrations_are_numbered_without_gaps():
    assert [one.number for one in migrations()] == list(range(1, len(migrations()) + 1))


async def test_a_database_of_another_encoding_is_refused_with_the_remedy(make):
    await ask(make, "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")
    spool = PostgresSpool(spool_settings(make.folder, url=make.server.url("latin")))
    with pytest.raises(SpoolError, match="LATIN1") as caught:
        await spool.open()
    assert "UTF8" in caught.value.remedy


async def test_a_server_that_is_not_there_is_named_with_the_remedy(tmp_path):
    spool = PostgresSpool(spool_settings(tmp_path, url=f"postgresql://relay@/spool?host={tmp_path}"))
    with pytest.raises(SpoolError, match="cannot be used") as caught:
        await spool.open()
    assert "spool.url" in caught.value.remedy


async def test_the_first_of_several_hosts_that_takes_changes_is_used(make):
    make.url = f"postgresql:///postgres?user=relay&host={make.folder},{make.server.folder}"
    spool = await make()
    await accept(spool)
    assert (await spool.stats()).messages == 1


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("SELECT 1 WHERE a = ? AND b = ?", "SELECT 1 WHERE a = $1 AND b = $2"),
        ("SELECT ?1 WHERE a = ?1 LIMIT ?", "SELECT $1 WHERE a = $1 LIMIT $2"),
        ("a LIKE ? ESCAPE '!'", "a ILIKE $1 ESCAPE '!'"),
    ],
)
def test_parameters_keep_their_numbers(ours, theirs):
    assert translate(ours) == theirs


async def test_a_missing_driver_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "relay.spool.postgres", None)
    with pytest.raises(SpoolError, match="driver") as caught:
        build_spool(spool_settings(tmp_path, url="postgresql://u@h/db"))
    assert "relay[postgresql]" in caught.value.remedy
