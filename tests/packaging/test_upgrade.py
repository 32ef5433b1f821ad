"""Mail that an older release left in its spool is delivered by this one."""

from __future__ import annotations

import sqlite3

import pytest

from relay.spool.contract import Filter, Settlement
from relay.spool.schema import _statements, connect, migrations
from tests.fakes.spool import LANE, SENT, accept, new_message, opened

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
