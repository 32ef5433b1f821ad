"""Holds: why a lane, a sender or an upstream is not tried, and how long its mail was kept from going."""

from __future__ import annotations

import sqlite3

from relay.spool.contract import Hold
from relay.spool.records import ms, read_hold

_COVERED = (
    "EXISTS (SELECT 1 FROM hold h WHERE (h.scope = 'lane' AND h.key = lane.name)"
    " OR (h.scope = 'upstream' AND substr(lane.name, 1, length(h.key) + 1) = h.key || '/'))"
)


def set_hold(connection: sqlite3.Connection, hold: Hold) -> None:
    """Set or replace; a replaced hold keeps the time it began."""
    connection.execute(
        "INSERT INTO hold VALUES (?,?,?,?,?,?,?,?,?,?) ON CONFLICT (scope, key) DO UPDATE SET code = excluded.code,"
        " reason = excluded.reason, remedy = excluded.remedy, evidence = excluded.evidence,"
        " probes = excluded.probes, next_probe = excluded.next_probe, at_login = excluded.at_login",
        (
            hold.scope, hold.key, hold.code, hold.reason, hold.remedy, hold.evidence, ms(hold.since), hold.probes,
            None if hold.next_probe is None else ms(hold.next_probe), hold.at_login,
        ),
    )  # fmt: skip
    connection.execute(
        f"UPDATE lane SET held_since = ? WHERE held_since IS NULL AND {_COVERED}",
        (ms(hold.since),),
    )


def end_hold(connection: sqlite3.Connection, scope: str, key: str, now_ms: int) -> bool:
    """End it; lanes that no other hold covers stop counting held time."""
    gone = connection.execute("DELETE FROM hold WHERE scope = ? AND key = ?", (scope, key)).rowcount > 0
    connection.execute(
        "UPDATE lane SET held_ms = held_ms + max(0, ? - held_since), held_since = NULL"
        f" WHERE held_since IS NOT NULL AND NOT {_COVERED}",
        (now_ms,),
    )
    return gone


def all_holds(connection: sqlite3.Connection) -> list[Hold]:
    """Every hold, oldest first."""
    rows = connection.execute(
        "SELECT scope, key, code, reason, remedy, evidence, since, probes, next_probe, at_login FROM hold ORDER BY since, key"
    )
    return [read_hold(row) for row in rows]
