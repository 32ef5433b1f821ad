"""Housekeeping in bounded steps, so that delivery never waits for it."""

from __future__ import annotations

import sqlite3

from relay.spool.delivery import marks

_STEP = 200
"""Rows removed in one transaction: a few milliseconds."""
_PAGES = 256
"""Pages of 4 kB given back in one go: some milliseconds, in which nobody else writes."""
_DAY = 86_400


def forget_finished(connection: sqlite3.Connection, before_ms: int) -> tuple[int, list[int]]:
    """Traces older than ``spool.history``, some at a time; how many went, and which of them had a body in a file."""
    numbers = [
        number
        for (number,) in connection.execute(
            "SELECT id FROM message WHERE state = 4 AND finished < ? ORDER BY finished LIMIT ?",
            (before_ms, _STEP),
        )
    ]
    inside = marks(len(numbers))
    filed = connection.execute(
        f"SELECT message FROM content WHERE body IS NULL AND message IN ({inside})", numbers
    ).fetchall()
    for table, column in (
        ("event", "message"),
        ("recipient", "message"),
        ("content", "message"),
        ("message", "id"),
    ):
        connection.execute(f"DELETE FROM {table} WHERE {column} IN ({inside})", numbers)
    return len(numbers), [number for (number,) in filed]


def forget_turns(connection: sqlite3.Connection) -> int:
    """Turns that the lane has passed: a source without mail ahead needs none."""
    rows = connection.execute(
        "SELECT s.lane, s.name FROM source s JOIN lane l ON l.id = s.lane WHERE s.turn < l.turn LIMIT ?",
        (_STEP,),
    ).fetchall()
    connection.executemany("DELETE FROM source WHERE lane = ? AND name = ?", rows)
    return len(rows)


def forget_usage(connection: sqlite3.Connection, now: float) -> None:
    """Submissions that no limit looks at any more."""
    connection.execute("DELETE FROM usage WHERE span = 1 AND at < ?", (int(now) - 120,))
    connection.execute("DELETE FROM usage WHERE span = 60 AND at < ?", (int(now) - _DAY - 120,))
    connection.execute("DELETE FROM usage WHERE messages <= 0 AND recipients <= 0")


def shrink(connection: sqlite3.Connection) -> int:
    """Give a few free pages back to the disk; how many are left.

    As a script, since that runs the statement to its end: `execute` stops after its first step, which is one page.
    """
    connection.executescript(f"PRAGMA incremental_vacuum({_PAGES:d})")
    return int(connection.execute("PRAGMA freelist_count").fetchone()[0])
