"""The place at a PostgreSQL spool: one relay of the release before, or any number of this one.

The release before knows one relay at a time, which has the place to itself: an exclusive session lock. Replicas of this
release hold the same lock in shared mode, on the connection that writes. So the two never work beside each other, and
hosts are upgraded one after the other: a new one stands by until the old one has left.
"""

from __future__ import annotations

import time

import psycopg

from relay.errors import SpoolBusy, SpoolError
from relay.spool.postgres_link import Row, connect
from relay.spool.postgres_schema import LOCKS, OWNING

_STALLED = 20.0
"""Seconds of silence after which a relay that has the place, and speaks with its database every second, is given up."""
_LAST_ONE_LEAVES = 1.0
"""Seconds that the server may take to see that the relay before us has ended: no reason to speak of standing by."""
_HOLDER = (
    " FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.locktype = 'advisory' AND l.granted"
    " AND l.mode = 'ExclusiveLock' AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " AND l.classid::bigint = %s AND l.objid::bigint = %s"
)
_END_A_STALLED_ONE = (
    # a role may end sessions of its own (PostgreSQL documentation 9.27.2)
    f"SELECT pg_terminate_backend(a.pid){_HOLDER} AND clock_timestamp() - a.state_change > %s * interval '1 second'"
)


def refuse_shared_sessions(connection: psycopg.Connection[Row], url: str) -> None:
    """Raises SpoolError for a pooler that gives a session's connection to others between two transactions.

    Through a pooler the number of the server's process is another one than the client was told. If it is shared, a
    second client gets this one's (PgBouncer takes the one that became free last), or this one gets another.
    """
    mine = _process(connection)
    if mine == connection.info.backend_pid:
        return
    with connect(url, "relay looking") as second, second.transaction():
        if _process(second) != mine and _process(connection) == mine:
            return
    raise SpoolError(
        "spool.url leads to a pooler that shares connections between transactions; relay needs sessions of its own,"
        " for their locks and for LISTEN",
        remedy="Name the server itself in spool.url, or set pool_mode = session for this database in the pooler.",
    )


def _process(connection: psycopg.Connection[Row]) -> int:
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    assert row is not None
    return int(row[0])


def take_place(connection: psycopg.Connection[Row]) -> None:
    """A shared place, for as long as the session lives. Raises SpoolBusy while an older release has it for itself."""
    deadline = time.monotonic() + _LAST_ONE_LEAVES
    while time.monotonic() < deadline:
        row = connection.execute("SELECT pg_try_advisory_lock_shared(%s, %s)", (LOCKS, OWNING)).fetchone()
        if row == (True,):
            return
        connection.execute(_END_A_STALLED_ONE, (LOCKS, OWNING, _STALLED))
        time.sleep(0.1)
    other = connection.execute(f"SELECT a.application_name{_HOLDER}", (LOCKS, OWNING)).fetchone()
    name = other[0].removeprefix("relay ") if other else "which has just left"
    raise SpoolBusy(
        f"a relay of an older release ({name}) is running on this spool, and shares it with nobody",
        remedy="Stop it: this one goes on by itself then. Or give this one a spool.url of its own (another database).",
    )
