"""Mail that an older release left in its spool is delivered by this one.

By spools that releases really left (`spools`, kept by `keep_spool.py`), and by today's rows in yesterday's tables.
"""

from __future__ import annotations

import json
import re
import sqlite3
import tarfile
import time

import pytest

from relay.spool.contract import Filter, Settlement
from relay.spool.schema import _statements, connect, migrations
from tests.fakes.spool import LANE, SENT, accept, new_message, opened
from tests.journeys.conftest import fast  # noqa: F401 (a fixture)
from tests.journeys.kit import Relay, running, until
from tests.packaging.keep_spool import BODIES, SPOOLS

KEPT = sorted(SPOOLS.glob("schema-*.tar.xz"))
OLD = [number for number, _ in migrations()][:-1]


def downgrade(new, old, version: int) -> None:
    """A spool as the release with that schema left it, with the rows of ``new``: what it had no place for is dropped."""
    connection = connect(old)
    for number, text in migrations():
        if number <= version:
            for statement in _statements(text):
                connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {version}")
    triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
    for name, _ in triggers:
        connection.execute(f"DROP TRIGGER {name}")
    connection.execute("ATTACH ? AS new", (str(new),))
    for (table,) in connection.execute("SELECT name FROM main.sqlite_master WHERE type = 'table'").fetchall():
        columns = ", ".join(row[1] for row in connection.execute(f"PRAGMA main.table_info({table})"))
        connection.execute(f"DELETE FROM main.{table}")
        connection.execute(f"INSERT INTO main.{table} ({columns}) SELECT {columns} FROM new.{table}")
    for _, sql in triggers:
        connection.execute(sql)
    connection.close()


@pytest.mark.parametrize("version", OLD)
async def test_a_spool_of_every_older_release_goes_on(tmp_path, version):
    """Waiting and large mail is there with its octets, is claimed and settled, and its trace is kept."""
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir(), after.mkdir()
    large = b"x" * 78 + b"\r\n"
    async with opened(before) as spool:
        small = await accept(spool, message=new_message(message_id="<small@legacy.local>"))
        big = await accept(spool, large * 5000, message=new_message(message_id="<big@legacy.local>"))
        done = await accept(
            spool,
            message=new_message(message_id="<done@legacy.local>", lane="Microsoft 365/other@contoso.com"),
        )
        (claim,) = await spool.claim("Microsoft 365/other@contoso.com", 10, 1e10)
        await spool.settle(Settlement(claim.id, {"anna@example.net": SENT}), 1e10)
    downgrade(before / "spool.db", after / "spool.db", version)
    if (before / "spool.db.bodies").exists():
        (before / "spool.db.bodies").rename(after / "spool.db.bodies")
    async with opened(after) as spool:
        await spool.recover()
        assert {one.id for one in await spool.find(Filter())} == {small, big}
        claims = {one.id: one for one in await spool.claim(LANE, 10, 1e10)}
        assert set(claims) == {small, big}
        content = await spool.content(big)
        assert content.body.size == len(large) * 5000
        for one in claims:
            await spool.settle(Settlement(one, {"anna@example.net": SENT}), 1e10)
        assert await spool.find(Filter()) == []
        (trace,) = await spool.trace("<done@legacy.local>")
        assert trace.id == done
    raw = sqlite3.connect(after / "spool.db")
    assert raw.execute("PRAGMA user_version").fetchone()[0] == migrations()[-1][0]
    assert raw.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    raw.close()


def made_now(database) -> None:
    """Move every moment in a kept spool so that the last one is now: neither too old to be sent, nor yet to come.

    Moments are milliseconds since 1970.
    """
    connection = sqlite3.connect(database)
    tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    columns = [
        (table, row[1]) for (table,) in tables for row in connection.execute(f"PRAGMA table_info({table})")
    ]
    moments = "typeof({0}) = 'integer' AND {0} BETWEEN 1600000000000 AND 2200000000000"
    now = time.time_ns() // 1_000_000
    latest = max(
        connection.execute(f"SELECT max({name}) FROM {table} WHERE {moments.format(name)}").fetchone()[0] or 0
        for table, name in columns
    )
    for table, name in columns:
        connection.execute(
            f"UPDATE {table} SET {name} = {name} + ? WHERE {moments.format(name)}", (now - latest,)
        )
    connection.commit()
    connection.close()


def test_there_is_a_spool_of_every_older_schema():
    """`keep_spool.py` makes one; a migration without the spool it is for is not tested at all."""
    assert {int(re.findall(r"\d+", one.name)[0]) for one in KEPT} >= set(OLD)


@pytest.mark.parametrize("kept", KEPT, ids=lambda one: one.name.partition(".")[0])
def test_what_an_older_release_left_is_delivered_octet_for_octet(tmp_path, fast, kept):  # noqa: F811
    """Waiting mail leaves at the start, held mail when it is released, and what was delivered is still told."""
    with tarfile.open(kept) as archive:
        archive.extractall(tmp_path, filter="data")
    made_now(tmp_path / "spool.db")
    with running(Relay(tmp_path, fast.env)) as relay:
        fast.arrived(2)
        (waiting,) = json.loads(relay.command("queue", "list", "--json").stdout)
        assert (waiting["state"], waiting["message_id"]) == ("held", "<kept@legacy.local>")
        relay.command("queue", "release", waiting["id"])
        arrived = {one["message_id"]: fast.raw(one) for one in fast.arrived(3)}
        assert set(arrived) == {f"<{name}@legacy.local>" for name in ("small", "large", "kept")}
        for name, body in BODIES.items():
            if name != "delivered":
                assert arrived[f"<{name}@legacy.local>"].endswith(b"\r\n\r\n" + body.encode()), name
        until(lambda: relay.status()["spool"]["messages"] == 0, what="all is settled")
        traces = json.loads(relay.command("trace", "legacy.local", "--json").stdout)
        told = {one["message_id"]: one["state"] for one in traces}
        assert told == {f"<{name}@legacy.local>": "sent" for name in BODIES}
        assert relay.events("trouble") == []
