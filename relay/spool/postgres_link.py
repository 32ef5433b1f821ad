"""A connection to PostgreSQL that the shared row functions take for one of `sqlite3`.

Statements are sent in pipeline mode and answered when somebody reads a result, so that a change of many statements
waits for the network as often as it looks at something, not as often as it writes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import psycopg

from relay.spool.postgres_dialect import bound, translate
from relay.spool.postgres_faults import wrong_address
from relay.spool.postgres_newest import NewestPrimary

Row = tuple[Any, ...]

SCHEMA = "relay"
"""Our tables keep to a schema of their own in the database."""
CONNECT_SECONDS = 3
"""Beyond it a server counts as away."""

_SESSION = (
    f"SET search_path = {SCHEMA}",
    "SET synchronous_commit = on",  # PostgreSQL documentation 20.5: the commit is on disk (and on synchronous standbys)
    "SET client_min_messages = warning",
    # a relay that stands still in the middle of a change must not keep others waiting
    "SET idle_in_transaction_session_timeout = '5s'",
    "SET lock_timeout = '10s'",  # within the time after which a silent replica is given up
    "SET tcp_keepalives_idle = 5",
    "SET tcp_keepalives_interval = 3",
    "SET tcp_keepalives_count = 3",
)


def arguments(url: str, name: str) -> dict[str, Any]:
    """What `psycopg.connect` is called with; with several hosts, the one that takes changes. Raises SpoolError."""
    try:
        given = psycopg.conninfo.conninfo_to_dict(url)
    except psycopg.Error:
        raise wrong_address(url) from None
    return {
        "target_session_attrs": "read-write",
        "connect_timeout": CONNECT_SECONDS,
        "keepalives_idle": 5,
        "keepalives_interval": 3,
        "keepalives_count": 3,
        "tcp_user_timeout": 10_000,
        **given,
        "application_name": name,
        "autocommit": True,
    }


def prepare(connection: psycopg.Connection[Row]) -> None:
    """The settings of a session."""
    with connection.pipeline():
        for statement in _SESSION:
            connection.execute(statement)


def connect(url: str, name: str) -> psycopg.Connection[Row]:
    """A connection in autocommit mode, ready for use. Raises psycopg.Error, SpoolError for a wrong address."""
    connection = NewestPrimary.connect(**arguments(url, name))
    try:
        prepare(connection)
    except BaseException:
        connection.close()
        raise
    return connection


class _Answer:
    """The part of a `sqlite3.Cursor` that the row functions use."""

    __slots__ = ("_cursor", "_made", "_pipeline")

    def __init__(self, cursor: psycopg.Cursor[Row], pipeline: psycopg.Pipeline | None) -> None:
        self._cursor = cursor
        self._pipeline = pipeline
        self._made: int | None = None

    def fetchone(self) -> Row | None:
        return self._cursor.fetchone()

    def fetchall(self) -> list[Row]:
        return self._cursor.fetchall()

    def __iter__(self) -> Iterator[Row]:
        return iter(self._cursor.fetchall())

    def close(self) -> None:
        """Nothing to let go."""

    @property
    def lastrowid(self) -> int:
        """The id of the lane that was just made (`postgres_dialect` adds the RETURNING)."""
        if self._made is None:
            row = self._cursor.fetchone()
            assert row is not None
            self._made = int(row[0])
        return self._made

    @property
    def rowcount(self) -> int:
        if self._cursor.rowcount < 0 and self._pipeline is not None:
            self._pipeline.sync()
        return self._cursor.rowcount


class Statements:
    """Runs statements that were written for SQLite."""

    def __init__(self, connection: psycopg.Connection[Row], pipeline: psycopg.Pipeline | None = None) -> None:
        self._connection = connection
        self._pipeline = pipeline
        self._members: dict[int, psycopg.Cursor[Row]] = {}

    def as_member(self, fence: int) -> None:
        """What follows in this transaction is for a member only: nobody gives it up before the end."""
        if fence not in self._members:
            self._members[fence] = cursor = psycopg.RawCursor(self._connection)
            cursor.execute("SELECT 1 FROM replica WHERE fence = $1 FOR KEY SHARE", (fence,))

    def members(self) -> bool:
        """Before the commit: whether it is one."""
        return all(cursor.fetchone() is not None for cursor in self._members.values())

    def execute(self, statement: str, values: Sequence[Any] = ()) -> _Answer:
        cursor = psycopg.RawCursor(self._connection)
        cursor.execute(translate(statement), [bound(value) for value in values])
        return _Answer(cursor, self._pipeline)

    def executemany(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        found = [[bound(value) for value in row] for row in rows]
        if found:
            psycopg.RawCursor(self._connection).executemany(translate(statement), found)

    @property
    def connection(self) -> psycopg.Connection[Row]:
        """What it runs them on."""
        return self._connection

    def as_sqlite(self) -> sqlite3.Connection:
        """This, under the type that the shared functions name."""
        return cast("sqlite3.Connection", self)
