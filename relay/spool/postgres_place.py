"""The place of the one relay that works on a PostgreSQL spool: who has it, who waits for it, who has lost it.

The place is a session lock on the writer's own connection: it ends with the session, and what does not come over that
session is not written. So a relay that was cut off or stood still cannot write what another one has taken over.
"""

from __future__ import annotations

import time
import uuid

import psycopg

from relay.errors import SpoolBusy
from relay.spool.postgres_link import Row
from relay.spool.postgres_schema import LOCKS, OWNING

_KEY = "spool:owner"
"""Under which the database remembers who had the place last."""
_STALLED = 20.0
"""Seconds of silence after which a relay that has the place, and speaks with its database every second, is given up."""
_LAST_ONE_LEAVES = 1.0
"""Seconds that the server may take to see that the relay before us has ended: no reason to speak of standing by."""
_HOLDER = (
    " FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.locktype = 'advisory' AND l.granted"
    " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " AND l.classid::bigint = %s AND l.objid::bigint = %s"
)
_END_A_STALLED_ONE = (
    # a role may end sessions of its own (PostgreSQL documentation 9.27.2)
    f"SELECT pg_terminate_backend(a.pid){_HOLDER} AND clock_timestamp() - a.state_change > %s * interval '1 second'"
)


class Place:
    """One relay's claim to the place."""

    def __init__(self, name: str) -> None:
        self._me = f"{name} {uuid.uuid4().hex}"
        self._had_it = False
        self.lost = False
        """Another relay has been at work since we were: what we had under way is its, and only a start begins anew."""

    def take(self, connection: psycopg.Connection[Row]) -> None:
        """Take it, or take it up again after the connection broke. Raises SpoolBusy when it is another's."""
        deadline = time.monotonic() + _LAST_ONE_LEAVES
        while time.monotonic() < deadline:
            row = connection.execute("SELECT pg_try_advisory_lock(%s, %s)", (LOCKS, OWNING)).fetchone()
            if row == (True,):
                self._sit_down(connection)
                return
            connection.execute(_END_A_STALLED_ONE, (LOCKS, OWNING, _STALLED))
            time.sleep(0.1)
        self._check_not_lost(connection)
        other = connection.execute(f"SELECT a.application_name{_HOLDER}", (LOCKS, OWNING)).fetchone()
        name = other[0].removeprefix("relay ") if other else "which has just left"
        raise SpoolBusy(
            f"another relay ({name}) is running on this spool",
            remedy="Stop it first, or give this one a spool.url of its own (another database).",
        )

    def _sit_down(self, connection: psycopg.Connection[Row]) -> None:
        if self._had_it:
            self._check_not_lost(connection)
            return
        connection.execute(
            "INSERT INTO memory VALUES (%s, %s) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            (_KEY, self._me),
        )
        self._had_it = True

    def _check_not_lost(self, connection: psycopg.Connection[Row]) -> None:
        row = connection.execute("SELECT value FROM memory WHERE key = %s", (_KEY,)).fetchone()
        if self._had_it and row != (self._me,):
            self.lost = True
            raise SpoolBusy(
                "another relay took this spool over while this one was cut off or stood still",
                remedy="Restart relay, as its service does by itself: then it stands by.",
            )
