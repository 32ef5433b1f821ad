"""Holds: why a lane, a sender or an upstream is not tried, and how long its mail was kept from going.

A message's held time never counts twice: while it is held for its own sake (``message.held_since``) its lane's holds
do not count for it. What they came to before is added to ``held_ms`` then, and ``held_base`` starts anew afterwards.
"""

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


def claim_probe(connection: sqlite3.Connection, scope: str, key: str, now_ms: int, later_ms: int) -> bool:
    """Whether the caller may try what is held: the first who asks once the time has come, and nobody before ``later``."""
    return (
        connection.execute(
            "UPDATE hold SET next_probe = ? WHERE scope = ? AND key = ? AND next_probe <= ?",
            (later_ms, scope, key, now_ms),
        ).rowcount
        > 0
    )


_LANES_TIME = (
    "(SELECT l.held_ms + CASE WHEN l.held_since IS NULL THEN 0 ELSE max(0, ?1 - l.held_since) END FROM lane l"
    " WHERE l.id = message.lane)"
)
"""Milliseconds that holds have covered a message's lane, up to now."""


def begin_own_hold(connection: sqlite3.Connection, number: int, now_ms: int) -> None:
    """The message is held for its own sake from now on; nothing changes when it is already."""
    connection.execute(
        f"UPDATE message SET held_ms = held_ms + {_LANES_TIME} - held_base, held_since = ?1"
        " WHERE id = ?2 AND held_since IS NULL",
        (now_ms, number),
    )


def end_own_hold(connection: sqlite3.Connection, number: int, now_ms: int) -> None:
    """It is not any more; from now on its lane's holds count again."""
    connection.execute(
        f"UPDATE message SET held_ms = held_ms + max(0, ?1 - held_since), held_base = {_LANES_TIME},"
        " held_since = NULL WHERE id = ?2 AND held_since IS NOT NULL",
        (now_ms, number),
    )


def keeps(connection: sqlite3.Connection, key: str) -> bool:
    """Whether an unfinished message is, or was last, kept by a sender's or messages' hold."""
    row = connection.execute("SELECT 1 FROM message WHERE state < 4 AND hold_key = ? LIMIT 1", (key,))
    return row.fetchone() is not None


def all_holds(connection: sqlite3.Connection) -> list[Hold]:
    """Every hold, oldest first."""
    rows = connection.execute(
        "SELECT scope, key, code, reason, remedy, evidence, since, probes, next_probe, at_login FROM hold ORDER BY since, key"
    )
    return [read_hold(row) for row in rows]
