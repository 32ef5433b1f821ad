"""A real PostgreSQL server for measurements: fsync on, its processor time, and a queue that is loaded by SQL."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import psycopg

from relay.spool.contract import NewMessage
from relay.spool.factory import build_spool
from tests.fakes.postgres import PostgresServer
from tests.fakes.spool import accept, new_message, spool_settings

SETTINGS = {
    "fsync": "on",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "max_connections": "200",
    "autovacuum_naptime": "10s",
    "checkpoint_timeout": "15min",
}
"""What a server for this is given; all else is Debian's default."""
SOURCES = 100
_STEP = 1 << 12
"""Between the ids of two loaded messages."""


class Database:
    """One server of its own, and one database in it."""

    def __init__(self) -> None:
        self._server = PostgresServer()
        with psycopg.connect(self._server.url("postgres"), autocommit=True) as connection:
            for name, value in SETTINGS.items():
                connection.execute(f"ALTER SYSTEM SET {name} = '{value}'".encode())
            row = connection.execute("SHOW data_directory").fetchone()
        assert row is not None
        self._folder = Path(row[0])
        self._server.stop(mode="fast")
        self._server.start()

    @property
    def url(self) -> str:
        """Of the one database."""
        return self._server.url("postgres")

    def empty(self) -> str:
        """Take everything of relay's away; the URL."""
        return self._server.database()

    def execute(self, statement: str) -> list[tuple[object, ...]]:
        """As an administrator."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def cpu(self) -> float:
        """Seconds of processor time of the server so far, all its processes."""
        postmaster = int((self._folder / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        ticks = _ticks(postmaster, ended=True) + sum(_ticks(int(one)) for one in children)
        return ticks / os.sysconf("SC_CLK_TCK")

    def written(self) -> int:
        """Octets of write-ahead log so far."""
        return int(self.execute("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')")[0][0])  # type: ignore[call-overload]

    def size(self) -> int:
        """Octets of relay's tables and indexes."""
        found = self.execute(
            "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE n.nspname = 'relay' AND c.relkind = 'r'"
        )
        return int(found[0][0] or 0)  # type: ignore[call-overload]

    def messages(self) -> int:
        """Messages that there are, finished ones included."""
        return int(self.execute("SELECT count(*) FROM relay.message")[0][0])  # type: ignore[call-overload]

    def finish_all(self) -> None:
        """As if all of them had been sent 40 days ago."""
        self.execute("UPDATE relay.message SET state = 4, finished = received - 40 * 86400000::bigint")
        self.execute("TRUNCATE relay.content, relay.chunk")
        self.execute("VACUUM ANALYZE relay.message")

    def kept(self) -> float:
        """Octets, indexes included, that each finished message takes for as long as ``spool.history`` keeps it; packed."""
        tables = ("message", "recipient", "event")
        for table in tables:
            self.execute(f"VACUUM FULL relay.{table}")
        sizes = " + ".join(f"pg_total_relation_size('relay.{table}')" for table in tables)
        found = self.execute(
            f"SELECT ({sizes})::float / greatest(1, count(*)) FROM relay.message WHERE state = 4"
        )
        return float(found[0][0])  # type: ignore[arg-type]

    def remove(self) -> None:
        """Stop it, and take its files away."""
        self._server.remove()


def _ticks(pid: int, *, ended: bool = False) -> int:
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return sum(int(one) for one in fields[11 : 15 if ended else 13])
    return 0


@contextlib.contextmanager
def running() -> Iterator[Database]:
    """A server for as long as it is needed."""
    one = Database()
    try:
        yield one
    finally:
        one.remove()


def fill(database: Database, lane: str, count: int, folder: Path) -> None:
    """So many messages of 100 sources in one lane, each with its turn: a hundred by relay's own code, the rest copied by SQL."""
    url = database.empty()
    asyncio.run(_first(url, lane, folder))
    with psycopg.connect(url, autocommit=True) as connection:
        # the triggers would count one by one, in a row that each change makes longer; the counts are set at the end
        connection.execute("SET session_replication_role = replica")
        connection.execute("SET search_path = relay")
        connection.execute("SET synchronous_commit = off")
        more = count // SOURCES - 1
        if more > 0:
            _copy(connection, more)
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")


async def _first(url: str, lane: str, folder: Path) -> None:
    spool = build_spool(dataclasses.replace(spool_settings(folder), url=url))
    await spool.open()
    try:
        for number in range(SOURCES):
            await accept(spool, b"A status line.\r\n" * 12, _message(lane, f"source{number}@example.org"))
    finally:
        await spool.close()


def _message(lane: str, source: str) -> NewMessage:
    header = b"From: " + source.encode() + b"\r\nTo: someone@example.net\r\nSubject: status\r\n\r\n"
    return new_message(
        lane, source, ("someone@example.net",), header=header, header_from=(source,), subject="status"
    )


def _copy(connection: psycopg.Connection[tuple[object, ...]], more: int) -> None:
    """Each message so many times again, older and in later turns of its source."""
    connection.execute(
        "CREATE TEMPORARY TABLE copied AS SELECT m.id AS old, g AS nth,"
        f" (SELECT min(id) FROM message) - {_STEP} * (row_number() OVER (ORDER BY g DESC, m.id)) AS id"
        f" FROM message m, generate_series(1, {more}) g".encode()
    )
    for table, key, changed in (
        ("message", "id", {"id": "c.id", "turn": "t.turn + c.nth", "received": "t.received - c.nth"}),
        ("recipient", "message", {"message": "c.id"}),
        ("content", "message", {"message": "c.id"}),
        ("event", "message", {"message": "c.id"}),
    ):
        names = [
            str(row[0])
            for row in connection.execute(
                "SELECT column_name FROM information_schema.columns WHERE table_schema = 'relay' AND table_name = %s"
                " ORDER BY ordinal_position", (table,),
            )
        ]  # fmt: skip
        values = ", ".join(changed.get(name, f't."{name}"') for name in names)
        quoted = ", ".join(f'"{name}"' for name in names)
        connection.execute(
            f"INSERT INTO {table} ({quoted}) SELECT {values} FROM copied c JOIN {table} t ON t.{key} = c.old".encode()
        )
    connection.execute(f"UPDATE source SET turn = turn + {more}".encode())
    connection.execute("UPDATE lane SET queued = queued + (SELECT count(*) FROM copied)")
    connection.execute(
        "UPDATE total SET bytes = bytes + (SELECT sum(size) FROM content JOIN copied ON content.message = copied.id)"
    )
