"""What the daemon asks of its spool costs the same however much is queued: every statement is answered by an index."""

from __future__ import annotations

import re
import sqlite3

import pytest

from relay.message import Outcome, Result
from relay.spool import sqlite
from relay.spool.contract import Hold, Settlement
from relay.spool.intake import STORING
from relay.spool.schema import connect
from relay.spool.sqlite import SqliteSpool
from relay.spool.together import BEGINNING, ENDING
from tests.fakes.clock import ManualClock
from tests.fakes.spool import DEFERRED, LANE, OTHER, SENT, accept, spool_settings
from tests.spool.suite import every, settle

HELD = Outcome(Result.HELD, reason="denied")
_SMALL = {"lane", "l", "hold", "h", "memory", "total", "back", "j", "json_each", "o2", "found"}
"""Tables with a row for each mailbox or cause at most, and what a statement brings along or has found itself."""
_PARTIAL = {"message_active", "message_held", "message_direct"}
"""Indexes of nothing but the rows that are asked for."""


@pytest.fixture
def said(monkeypatch):
    """The statements of the writer and the reader, as they were executed."""
    statements: list[str] = []

    def watched(path, **more):
        connection = connect(path, **more)
        connection.set_trace_callback(statements.append)
        return connection

    monkeypatch.setattr(sqlite, "connect", watched)
    return statements


async def a_day(spool: SqliteSpool, now: float) -> None:
    """Everything that listener, scheduler and notices ask for."""
    await spool.recover()
    for source in "abcde":
        await accept(spool, source=source, pool=(LANE, OTHER))
    await accept(spool, lane=OTHER)
    first, second, third, *rest = await spool.claim(LANE, 5, now)
    for claim in (first, second, third, rest[0]):
        await spool.begin(claim.id, now, 1)
    await spool.begin(first.id, now, 1, every(first, SENT))
    await spool.content(first.id)
    await settle(spool, first, SENT, now)
    await settle(spool, second, DEFERRED, now, due=now + 60)
    await settle(spool, third, HELD, now, hold_key="LANE|c@x")
    await spool.unclaim([one.id for one in rest])
    await spool.decide(Settlement(second.id, every(second, DEFERRED), due=now + 90), now)
    for unnoticed in (True, False):
        await spool.overdue(now, unnoticed=unnoticed)
    await spool.reassign(LANE, OTHER, 1)
    for scope, key in (("lane", LANE), ("upstream", LANE.rpartition("/")[0])):
        await spool.hold(Hold(scope, key, "code", "reason", "remedy", "evidence", now))
        await accept(spool)
        await spool.unhold(scope, key, now)
    await spool.release_key("LANE|c@x", now)
    await spool.release_key(None, now)
    await spool.lanes()
    await spool.lane(LANE)
    await spool.usage(LANE, now)
    await spool.stats()


def plans(path, statements: list[str]) -> set[tuple[str, str]]:
    connection = connect(path)
    found = set()
    for text in statements:
        if re.match(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH)", text):
            try:
                marks = {int(n) for n in re.findall(r"\?(\d+)", text)}
                values = [None] * (max(marks) if marks else text.count("?"))
                steps = connection.execute("EXPLAIN QUERY PLAN " + text, values).fetchall()
            except sqlite3.OperationalError:  # a call of several statements: see ``called`` below
                continue
            found |= {(step[3], text) for step in steps}
    return found


async def test_no_statement_looks_through_a_table(said, tmp_path):
    clock = ManualClock()
    spool = SqliteSpool(spool_settings(tmp_path), clock)
    await spool.open()
    try:
        await a_day(spool, clock.now())
    finally:
        await spool.close()
    called = [text for one in (STORING, BEGINNING, ENDING) for text, _ in one.steps]
    assert all(
        any(f"INSERT INTO temp.{one}" in text for text in said) for one in ("storing", "beginning", "ending")
    )
    found = plans(tmp_path / "spool.db", said + called)
    scans = {
        (step, text) for step, text in found if (m := re.match(r"SCAN (\S+)", step)) and m[1] not in _SMALL
    }
    scans = {(step, text) for step, text in scans if step.rpartition(" ")[2] not in _PARTIAL}
    assert len(found) > 40
    assert not scans
