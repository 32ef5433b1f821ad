"""Housekeeping in bounded steps, so that neither delivery nor acceptance waits for it.

What must be looked for is looked for on a connection of its own; the writer only deletes, a few milliseconds at a time.
"""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass

from relay.spool.reading import stored_bytes
from relay.spool.records import as_json

STEP_SECONDS = 0.004
"""How long one step may keep the writer, its commit not counted."""
CHECKPOINT_AFTER = 16 * 1024 * 1024
"""Octets of log, by estimate, after which they are moved into the database."""
OCTETS_A_CHANGE = 5 * 4096
"""Pages that one change dirties beside its content: an estimate, on the high side when many share a commit."""
LITTLE = 512
"""Pages (2 MB) that the writer itself may move: some milliseconds."""
MOST_PASSES = 4
"""Tries to catch up with the writer; when the disk cannot, the log's own bound has the writer wait."""
_FEW = 10
"""Finished messages forgotten at once, between looks at the clock."""
_SPENT = 200
"""Turns and submissions forgotten in one step."""
_PAGES = 256
"""Pages of 4 kB given back in one go: some milliseconds, in which nobody else writes."""
_FREE_ENOUGH = 2048
"""Free pages that are kept for new mail."""
_DAY = 86_400


@dataclass(frozen=True, slots=True)
class Spent:
    """Rows that are of no more use."""

    turns: list[tuple[int, str]]
    """Lane and source: turns that the lane has passed. A source without mail ahead needs none."""
    usage: list[tuple[int, int, int]]
    """Lane, span, start: submissions that no limit looks at any more."""


def spent(connection: sqlite3.Connection, now: float) -> Spent:
    """Some of them, on a connection that nobody waits for: this looks through whole tables."""
    turns = connection.execute(
        "SELECT s.lane, s.name FROM source s JOIN lane l ON l.id = s.lane WHERE s.turn < l.turn LIMIT ?",
        (_SPENT,),
    ).fetchall()
    usage = connection.execute(
        "SELECT lane, span, at FROM usage WHERE (span = 1 AND at < ?) OR (span = 60 AND at < ?)"
        " OR (messages <= 0 AND recipients <= 0) LIMIT ?",
        (int(now) - 120, int(now) - _DAY - 120, _SPENT),
    ).fetchall()
    return Spent(turns, usage)


def forget(connection: sqlite3.Connection, before_ms: int, old: Spent) -> tuple[int, list[int], int]:
    """Delete what is spent (if it still is), and traces of messages finished before a time, as many as a step allows.

    How many rows went, which messages had their body in a file, and the octets stored now.
    """
    deadline = time.monotonic() + STEP_SECONDS
    connection.executemany(
        "DELETE FROM source WHERE lane = ?1 AND name = ?2 AND turn < (SELECT turn FROM lane WHERE id = ?1)",
        old.turns,
    )
    connection.executemany("DELETE FROM usage WHERE lane = ? AND span = ? AND at = ?", old.usage)
    count = len(old.turns) + len(old.usage)
    filed: list[int] = []
    while True:
        gone, files = _forget_finished(connection, before_ms)
        count += gone
        filed += files
        if gone < _FEW or time.monotonic() > deadline:
            return count, filed, stored_bytes(connection)


def _forget_finished(connection: sqlite3.Connection, before_ms: int) -> tuple[int, list[int]]:
    rows = connection.execute(
        "SELECT id FROM message WHERE state = 4 AND finished < ? ORDER BY finished LIMIT ?", (before_ms, _FEW)
    ).fetchall()
    numbers = as_json([number for (number,) in rows])
    return len(rows), drop_messages(connection, numbers)


def drop_messages(connection: sqlite3.Connection, numbers: str) -> list[int]:
    """Delete all that is known of messages, given as a JSON list of ids; those whose body was in a file."""
    filed = connection.execute(
        "SELECT message FROM content WHERE message IN (SELECT value FROM json_each(?)) AND body IS NULL",
        (numbers,),
    ).fetchall()
    for table, column in (
        ("event", "message"),
        ("recipient", "message"),
        ("content", "message"),
        ("message", "id"),
    ):
        connection.execute(
            f"DELETE FROM {table} WHERE {column} IN (SELECT value FROM json_each(?))", (numbers,)
        )
    return [number for (number,) in filed]


def checkpoint(connection: sqlite3.Connection) -> int:
    """Move the log into the database as far as nobody reads it; pages left there.

    SQLite documentation, "PRAGMA wal_checkpoint": PASSIVE waits for nobody.
    """
    _, pages, moved = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return max(0, int(pages) - int(moved))


def shrink(connection: sqlite3.Connection) -> int:
    """Give a few free pages back to the disk when there are many; how many are left to give.

    As a script, since that runs the statement to its end: `execute` stops after its first step, which is one page.
    """
    if _free_pages(connection) < _FREE_ENOUGH:
        return 0
    connection.executescript(f"PRAGMA incremental_vacuum({_PAGES:d})")
    return _free_pages(connection)


def _free_pages(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA freelist_count").fetchone()[0])
