"""Reading: what a start, a status report and a claim ask. Each is answered by an index, whatever is queued."""

from __future__ import annotations

import sqlite3

from relay.message import BytesBody, Content
from relay.spool import ids
from relay.spool.contract import Claim, LaneSummary, Usage
from relay.spool.records import COUNTS, as_json

PREFETCH = 4 * 1024 * 1024
"""Octets of small contents read along with a claim."""


def stored_bytes(connection: sqlite3.Connection) -> int:
    """Octets of stored content."""
    return int(connection.execute("SELECT bytes FROM total").fetchone()[0])


def last_id_and_bytes(connection: sqlite3.Connection) -> tuple[int, int]:
    """The highest id, and the octets of stored content."""
    last = connection.execute("SELECT max(id) FROM message").fetchone()[0]
    return int(last or 0), stored_bytes(connection)


def open_and_bytes(connection: sqlite3.Connection) -> tuple[int, int]:
    """Unfinished messages, and octets."""
    count = connection.execute("SELECT sum(queued + active + deferred + held) FROM lane").fetchone()[0]
    return int(count or 0), stored_bytes(connection)


def is_filed(connection: sqlite3.Connection, number: int) -> bool:
    """Whether the body of a message is a file."""
    row = connection.execute("SELECT body IS NULL FROM content WHERE message = ?", (number,)).fetchone()
    return bool(row and row[0])


def known(connection: sqlite3.Connection, numbers: list[int]) -> set[int]:
    """Those of the messages that have content."""
    known: set[int] = set()
    for number in numbers:
        if connection.execute("SELECT 1 FROM content WHERE message = ?", (number,)).fetchone():
            known.add(number)
    return known


def prefetch(connection: sqlite3.Connection, claims: list[Claim]) -> dict[str, Content]:
    """Small contents of a claim, read while the writer is at these pages anyway."""
    wanted: list[int] = []
    size = 0
    for claim in claims:
        size += claim.size
        if size > PREFETCH:
            break
        wanted.append(ids.read(claim.id) or 0)
    rows = connection.execute(
        "SELECT message, header, body FROM content WHERE body IS NOT NULL"
        " AND message IN (SELECT value FROM json_each(?))",
        (as_json(wanted),),
    )
    return {ids.show(number): Content(header, BytesBody(body)) for number, header, body in rows}


def summaries(connection: sqlite3.Connection, name: str | None) -> list[LaneSummary]:
    """One lane by name, or all that hold unfinished mail."""
    condition, values = (
        ("l.name = ?", (name,)) if name is not None else ("queued + active + deferred + held > 0", ())
    )
    rows = connection.execute(
        "SELECT l.name, queued, active, deferred, held,"
        " (SELECT min(received) FROM message m WHERE m.lane = l.id AND m.state < 4),"
        " (SELECT min(due) FROM message m WHERE m.lane = l.id AND m.state = 2)"
        f" FROM {COUNTS} l WHERE {condition} ORDER BY l.name",
        values,
    ).fetchall()
    return [
        LaneSummary(lane, queued, active, deferred, held, _seconds(oldest), _seconds(due))
        for lane, queued, active, deferred, held, oldest, due in rows
    ]


def _seconds(value: int | None) -> float | None:
    return None if value is None else value / 1000


def sent_last_minute(connection: sqlite3.Connection, now: float) -> dict[str, int]:
    """Messages of each lane that count under the limit of a minute."""
    rows = connection.execute(
        "SELECT l.name, sum(u.messages) FROM usage u JOIN lane l ON l.id = u.lane WHERE u.span = 1 AND u.at > ?"
        " GROUP BY l.name",
        (int(now) - 60,),
    )
    return {lane: int(count) for lane, count in rows if count > 0}


def usage_of(connection: sqlite3.Connection, lane: str, now: float) -> Usage:
    """See `relay.spool.contract.Usage`."""
    row = connection.execute("SELECT id FROM lane WHERE name = ?", (lane,)).fetchone()
    if row is None:
        return Usage((), ())
    stamps: list[float] = []
    for at, messages in connection.execute(
        "SELECT at, messages FROM usage WHERE lane = ? AND span = 1 AND at > ? ORDER BY at",
        (row[0], int(now) - 62),
    ):
        stamps += [at + 1.0] * max(0, messages)  # the end of its second: never earlier than it was
    day = connection.execute(
        "SELECT at, recipients FROM usage WHERE lane = ? AND span = 60 AND at > ? ORDER BY at",
        (row[0], int(now) - 86_460),
    ).fetchall()
    return Usage(tuple(stamps), tuple((float(at), count) for at, count in day))
