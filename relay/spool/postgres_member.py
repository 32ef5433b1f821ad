"""Membership of the group that shares a PostgreSQL spool: who takes part, who works which lane, who is given up.

A replica is a row in ``replica``. Whatever only a member may do (claim, begin, settle, hold, take a lane) first locks
its own row in the same transaction. To give a replica up is to delete its row: that waits until such a transaction
has ended, and none can follow. So what is taken over can no longer be written by the one that was given up, however
late it comes back. Its number (the fence) is never used again: taking part anew is a new row.
"""

from __future__ import annotations

import json
import os
import socket
import sqlite3
from dataclasses import dataclass

import psycopg

from relay import __version__
from relay.errors import SpoolLost
from relay.spool import recovery
from relay.spool.contract import Debt, Recovered
from relay.spool.group import Replica, Taken, Worker
from relay.spool.postgres_link import Row
from relay.spool.records import as_json

GHOSTS = 600_000
"""Milliseconds for which a lost replica's connections may still be open, and what it had begun may still be completed:
Exchange ends an idle session after 5 to 10 minutes (m365: RFC 5321 section 4.5.3.2 has servers wait 5)."""
LAST_REPLIES = 30_000
"""The same for a replica whose sessions have ended: it was killed, and its connections with it; or it is cut off, lets its
idle connections go, and waits for replies to what it had begun."""
PRESENT = 0x72656C62
"""First key of the lock that each member's session holds, its fence being the second: "relb". It ends with the session."""
FREE_FOR = 60
"""Seconds after which a lane that nobody takes has no mail: else somebody would have."""
_SERVER_TIME = "extract(epoch FROM clock_timestamp())"
IS_PRESENT = (
    "EXISTS (SELECT 1 FROM pg_locks l WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2"
    " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    f" AND l.classid::bigint = {PRESENT} AND l.objid::bigint = r.fence)"
)
"""Whether the session of member ``r`` is there."""


def replica_name() -> str:
    """What this process is called in the database: ``RELAY_REPLICA``, or host and process."""
    return os.environ.get("RELAY_REPLICA") or f"{socket.gethostname()}:{os.getpid()}"


@dataclass(slots=True)
class Member:
    """This process as a member; an operator's command is none, and has no fence."""

    name: str
    fence: int = 0
    given_up: bool = False
    """The others have given it up: it must write nothing more, until it has joined anew."""
    config: str = ""
    """Digests of its configuration, as JSON."""

    def join(self, connection: psycopg.Connection[Row]) -> None:
        """Take part, under a new fence."""
        row = connection.execute(
            "INSERT INTO replica (fence, name, host, pid, version, config, started, seen) SELECT"
            f" nextval('replica_fence'), %s, %s, %s, %s, %s, {_SERVER_TIME}, {_SERVER_TIME} RETURNING fence",
            (self.name, socket.gethostname(), os.getpid(), __version__, self.config),
        ).fetchone()
        assert row is not None
        self.fence = int(row[0])
        self.given_up = False

    def introduce(self, connection: psycopg.Connection[Row]) -> None:
        """Tell the session who writes: counts go to rows of its own, lines of a trace carry its name."""
        connection.execute(
            "SELECT set_config('relay.fence', %s, false), set_config('relay.name', %s, false)",
            (str(self.fence), self.name if self.fence else ""),
        )

    def tell_config(self, connection: sqlite3.Connection) -> None:
        """It has another configuration since it joined."""
        connection.execute("UPDATE replica SET config = ? WHERE fence = ?", (self.config, self.fence)).close()


def lost(name: str) -> SpoolLost:
    """What a replica that was given up hears."""
    return SpoolLost(
        f"the other replicas have given this one ({name}) up and taken its work over",
        remedy="Nothing is to be done: it joins them again by itself. It was cut off from the database or stood still;"
        " when that happens often, look at the load of its machine and at its network.",
    )


# lanes


def take(connection: sqlite3.Connection, lane: str, fence: int, *, anyway: bool) -> Taken:
    """Become a free lane's worker; it is for those who have the fewest lanes, ``anyway`` for anybody."""
    if anyway or _has_fewest(connection, fence):
        connection.execute(
            f"INSERT INTO lease SELECT 'lane', ?, ?, {_SERVER_TIME}, 0 ON CONFLICT (kind, name) DO UPDATE"
            " SET replica = excluded.replica, since = excluded.since, connections = 0 WHERE lease.replica = 0",
            (lane, fence),
        )
    row = connection.execute("SELECT replica FROM lease WHERE kind = 'lane' AND name = ?", (lane,)).fetchone()
    if row is None or row[0] == 0:
        return Taken.ENOUGH
    return Taken.MINE if row[0] == fence else Taken.OTHERS


def _has_fewest(connection: sqlite3.Connection, fence: int) -> bool:
    counts = dict(_counts(connection))
    return fence in counts and counts[fence] == min(counts.values())


def surplus(connection: sqlite3.Connection, fence: int) -> int:
    """How many lanes more than its share it has: shares differ by one at most, those with more now have the larger."""
    counts = _counts(connection)
    lanes = connection.execute("SELECT count(*) FROM lease WHERE kind = 'lane'").fetchone()[0]
    least, larger = divmod(int(lanes), max(1, len(counts)))
    shares = {one: (held, least + (place < larger)) for place, (one, held) in enumerate(counts)}
    held, share = shares.get(fence, (0, 0))
    return max(0, held - share)


def _counts(connection: sqlite3.Connection) -> list[tuple[int, int]]:
    """Members that do not leave, and how many lanes each works; those with most first."""
    rows = connection.execute(
        "SELECT r.fence, count(lease.name) AS held FROM replica r LEFT JOIN lease ON lease.replica = r.fence"
        " AND lease.kind = 'lane' WHERE r.leaving = 0 GROUP BY r.fence ORDER BY held DESC, r.fence"
    ).fetchall()
    return [(int(fence), int(held)) for fence, held in rows]


def let_go(connection: sqlite3.Connection, lane: str, fence: int, *, idle: bool) -> None:
    """The lane is free; ``idle``: it has no mail, and need not be shared out until there is some."""
    connection.execute(
        "DELETE FROM lease WHERE kind = 'lane' AND name = ? AND replica = ?"
        if idle
        else f"UPDATE lease SET replica = 0, since = {_SERVER_TIME} WHERE kind = 'lane' AND name = ? AND replica = ?",
        (lane, fence),
    )


def note_connections(connection: sqlite3.Connection, lane: str, fence: int, connections: int) -> None:
    """From now on its worker may have so many connections open at the lane's mailbox."""
    connection.execute(
        "UPDATE lease SET connections = ? WHERE kind = 'lane' AND name = ? AND replica = ?",
        (connections, lane, fence),
    )


def _free(connection: sqlite3.Connection, whose: str, *values: int) -> None:
    """Leases of members that are no more."""
    connection.execute(f"DELETE FROM lease WHERE kind = 'task' AND {whose}", values)
    connection.execute(
        f"UPDATE lease SET replica = 0, since = {_SERVER_TIME} WHERE replica <> 0 AND {whose}", values
    )


def on_duty(connection: sqlite3.Connection, task: str, fence: int) -> bool:
    """Whether this replica has the task, which it takes when nobody has it."""
    connection.execute(
        f"INSERT INTO lease SELECT 'task', ?, ?, {_SERVER_TIME} ON CONFLICT DO NOTHING", (task, fence)
    )
    row = connection.execute("SELECT replica FROM lease WHERE kind = 'task' AND name = ?", (task,)).fetchone()
    return row is not None and row[0] == fence


# coming and going


def leave(connection: sqlite3.Connection, fence: int) -> None:
    """A replica that has finished takes no part any more. What it could not give back is nobody's: see `recover`."""
    connection.execute("DELETE FROM replica WHERE fence = ?", (fence,))
    _free(connection, "replica = ?", fence)
    connection.execute("SELECT fold_parts(false)").close()


_OWE = (
    "INSERT INTO debt (lane, until, connections, messages, fence, host, pid)"
    " SELECT l.id, ?, {connections}, {messages}, lease.replica, ?, ? FROM lease JOIN lane l ON l.name = lease.name"
    " CROSS JOIN LATERAL (SELECT count(*) FROM message m WHERE m.lane = l.id AND m.state = 1"
    " AND m.replica = lease.replica AND m.begun IS NOT NULL) begun WHERE lease.kind = 'lane' AND lease.replica = ?"
)


def give_up(
    connection: sqlite3.Connection,
    fence: int,
    seen: float,
    now_ms: int,
    *,
    hold_uncertain: bool,
    silent: bool = True,
) -> Recovered | None:
    """A replica that is lost takes no part any more; its work is anybody's. None: it has been heard of since ``seen``.

    ``silent``: it may stand still, with all of its connections open; else its sessions have just ended.
    """
    row = connection.execute(
        "DELETE FROM replica WHERE fence = ? AND seen = ? RETURNING name, host, pid", (fence, seen)
    ).fetchone()
    if row is None:
        return None
    kept, replies = "lease.connections", now_ms + LAST_REPLIES
    if not silent:
        connection.execute(
            _OWE.format(connections="least(lease.connections, begun.count)", messages="0"),
            (replies, *row[1:], fence),
        )
        kept = "0"
    connection.execute(
        _OWE.format(connections=kept, messages="begun.count"), (now_ms + GHOSTS, *row[1:], fence)
    )
    _free(connection, "replica = ?", fence)
    who = f"the replica {row[0]} was lost"
    return recover(connection, now_ms, hold_uncertain=hold_uncertain, who=who)


def recover(
    connection: sqlite3.Connection, now_ms: int, *, hold_uncertain: bool, who: str = "relay stopped"
) -> Recovered:
    """What was under way at a relay that takes no part any more: back to the queue; others' claims are left alone."""
    nobodys = "NOT EXISTS (SELECT 1 FROM replica r WHERE r.fence = {})"
    rows = connection.execute(
        f"SELECT id, begun, lane FROM message WHERE state = 1 AND {nobodys.format('message.replica')}"
        " ORDER BY id FOR UPDATE"
    ).fetchall()
    waited = connection.execute(
        f"SELECT id FROM message WHERE direct = 1 AND state < 4 AND {nobodys.format('message.home')}"
        f" AND (state <> 1 OR {nobodys.format('message.replica')}) ORDER BY id FOR UPDATE"
    ).fetchall()
    _free(connection, nobodys.format("lease.replica"))
    connection.execute("SELECT fold_parts(false)").close()
    return recovery.take_back(
        connection, rows, [number for (number,) in waited], now_ms, hold_uncertain=hold_uncertain, who=who
    )


def beat(connection: sqlite3.Connection, fence: int) -> None:
    """A sign of life: nobody gives this member up for the next seconds."""
    connection.execute(f"UPDATE replica SET seen = {_SERVER_TIME} WHERE fence = ?", (fence,))


def indebted_of_this_host(connection: sqlite3.Connection) -> list[tuple[int, int]]:
    """Lost members of this host whose connections may still be open: fence and process."""
    return connection.execute(
        "SELECT DISTINCT fence, pid FROM debt WHERE host = ? AND connections > 0", (socket.gethostname(),)
    ).fetchall()


def disconnected(connection: sqlite3.Connection, fences: list[int]) -> None:
    """The connections of these lost members have certainly ended."""
    connection.execute(
        "UPDATE debt SET connections = 0 WHERE fence IN (SELECT value FROM json_each(?))", (as_json(fences),)
    )


def tidy(connection: sqlite3.Connection, now_ms: int) -> None:
    """Forget debts that are over, and add up what members that are gone have counted."""
    connection.execute("DELETE FROM debt WHERE until < ?", (now_ms,))
    connection.execute(f"DELETE FROM lease WHERE replica = 0 AND since < {_SERVER_TIME} - {FREE_FOR}")
    connection.execute("SELECT fold_parts(false)").close()


# looking


def debts_of(connection: sqlite3.Connection, lane: str, now_ms: int) -> tuple[Debt, ...]:
    """What lost replicas may still do at this lane's mailbox."""
    rows = connection.execute(
        "SELECT until, messages, connections FROM debt WHERE lane = (SELECT id FROM lane WHERE name = ?) AND until > ?"
        " ORDER BY until",
        (lane, now_ms),
    )
    return tuple(Debt(until / 1000, messages, connections) for until, messages, connections in rows)


def replicas(connection: sqlite3.Connection, fence: int) -> list[Replica]:
    """All members, oldest first."""
    rows = connection.execute(
        "SELECT r.fence, r.name, r.version, r.host, r.pid, r.started, r.seen, r.leaving,"
        " (SELECT count(*) FROM lease WHERE lease.replica = r.fence AND lease.kind = 'lane'), r.config"
        " FROM replica r ORDER BY r.fence"
    ).fetchall()
    return [
        Replica(
            name,
            version,
            host,
            pid,
            started,
            seen,
            lanes,
            "leaving" if leaving else "working",
            one == fence,
            json.loads(config or "{}"),
        )
        for one, name, version, host, pid, started, seen, leaving, lanes, config in rows
    ]


def workers(connection: sqlite3.Connection, fence: int) -> dict[str, Worker]:
    """Lanes, and those who work them."""
    rows = connection.execute(
        "SELECT lease.name, r.name, r.fence FROM lease JOIN replica r ON r.fence = lease.replica"
        " WHERE lease.kind = 'lane'"
    )
    return {lane: Worker(name, one == fence) for lane, name, one in rows}


def claimants(connection: sqlite3.Connection, numbers: list[int]) -> dict[int, str]:
    """Of these messages, those that a replica has in hand, and its name."""
    rows = connection.execute(
        "SELECT m.id, r.name FROM message m JOIN replica r ON r.fence = m.replica WHERE m.state = 1 AND m.id IN"
        " (SELECT value FROM json_each(?))",
        (as_json(numbers),),
    )
    return dict(rows)


def of_this_host(connection: sqlite3.Connection, fence: int) -> list[tuple[int, float, int, bool]]:
    """Other members of this host: fence, last sign, process, and whether its session is there."""
    return connection.execute(
        f"SELECT r.fence, r.seen, r.pid, {IS_PRESENT} FROM replica r WHERE r.host = ? AND r.fence <> ?",
        (socket.gethostname(), fence),
    ).fetchall()
