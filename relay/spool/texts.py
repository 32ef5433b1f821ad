"""Small texts that survive a restart: what is remembered under a key, and changed by one at a time."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import TypeVar

from relay.spool.records import LOCK

T = TypeVar("T")


def remembered(connection: sqlite3.Connection, prefix: str) -> dict[str, str]:
    """The texts of all keys that begin so."""
    return dict(
        connection.execute(
            "SELECT key, value FROM memory WHERE substr(key, 1, ?) = ?", (len(prefix), prefix)
        ).fetchall()
    )


def remember(connection: sqlite3.Connection, key: str, value: str | None) -> None:
    """Set a text; None: forget it."""
    if value is None:
        connection.execute("DELETE FROM memory WHERE key = ?", (key,)).close()
    else:
        connection.execute("INSERT OR REPLACE INTO memory VALUES (?, ?)", (key, value)).close()


def revise(
    connection: sqlite3.Connection, key: str, change: Callable[[str | None], tuple[str | None, T]]
) -> T:
    """See `relay.spool.contract.Spool.revise`."""
    # first a row, so that there is one to lock
    connection.execute("INSERT INTO memory VALUES (?, '') ON CONFLICT DO NOTHING", (key,))
    row = connection.execute(f"SELECT value FROM memory WHERE key = ?{LOCK}", (key,)).fetchone()
    text, result = change(row[0] or None if row is not None else None)
    if text is None:
        connection.execute("DELETE FROM memory WHERE key = ?", (key,))
    else:
        connection.execute("INSERT OR REPLACE INTO memory VALUES (?, ?)", (key, text))
    return result
