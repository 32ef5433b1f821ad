"""The schema of a PostgreSQL spool: migrations by number, safe to start from several relays at once.

A migration only adds, so that the previous release goes on working while hosts are upgraded one after the other; its
first line says which schema is the oldest that a release must know to work on the new one.
"""

from __future__ import annotations

import re
from importlib import resources
from typing import NamedTuple

import psycopg

from relay.errors import SpoolError, SpoolVersion
from relay.spool.postgres_link import SCHEMA, Row

_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")
_OLDEST = re.compile(r"-- oldest: (\d+)\n")

LOCKS = 0x72656C61
"""The first key of our advisory locks: "rela". The second says which."""
MIGRATING, OWNING = 1, 3


class Migration(NamedTuple):
    """One step of the schema."""

    number: int
    oldest: int
    """The newest migration that a release must at least know to work on this schema."""
    text: str


def migrations() -> list[Migration]:
    """Every step, in order."""
    found = []
    for entry in (resources.files("relay.spool") / "migrations" / "postgresql").iterdir():
        match = _NAME.fullmatch(entry.name)
        if match:
            text = entry.read_text(encoding="utf-8")
            head = _OLDEST.match(text)
            assert head is not None, f"{entry.name} does not begin with -- oldest: NUMBER"
            found.append(Migration(int(match.group(1)), int(head.group(1)), text))
    return sorted(found)


def migrate(connection: psycopg.Connection[Row], steps: list[Migration] | None = None) -> int:
    """Bring the schema up to date, each step in its own transaction; the version afterwards.

    Raises SpoolVersion when a newer release has changed it in a way that this one cannot live with.
    """
    steps = migrations() if steps is None else steps
    _check_encoding(connection)
    if _version(connection)[0] == steps[-1].number:
        return steps[-1].number  # as with every connection but the first one of a release
    connection.execute("SELECT pg_advisory_lock(%s, %s)", (LOCKS, MIGRATING))
    try:
        version, oldest = _version(connection)
        if oldest > steps[-1].number:
            raise SpoolVersion(
                f"the spool has schema version {version}, which needs a release that knows version {oldest};"
                f" this one knows {steps[-1].number}",
                remedy="Run the newer release again, or restore the database's backup from before the upgrade.",
            )
        for step in steps:
            if step.number > version:
                _apply(connection, step)
        return max(version, steps[-1].number)
    finally:
        connection.execute("SELECT pg_advisory_unlock(%s, %s)", (LOCKS, MIGRATING))


def _check_encoding(connection: psycopg.Connection[Row]) -> None:
    row = connection.execute("SHOW server_encoding").fetchone()
    if row is None or row[0] != "UTF8":
        raise SpoolError(
            f"the database of the spool has the encoding {row and row[0]}, which cannot hold every address",
            remedy="Create it anew: createdb --encoding=UTF8 --template=template0 NAME",
        )


def _version(connection: psycopg.Connection[Row]) -> tuple[int, int]:
    """The version of the schema and the oldest that may be used on it; 0 for an empty database."""
    if connection.execute("SELECT to_regclass(%s)", (f"{SCHEMA}.version",)).fetchone() == (None,):
        return 0, 0
    row = connection.execute("SELECT max(number), max(oldest) FROM version").fetchone()
    assert row is not None
    return row[0] or 0, row[1] or 0


def _apply(connection: psycopg.Connection[Row], step: Migration) -> None:
    with connection.transaction():
        if step.number == 1:
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
            connection.execute("CREATE TABLE version (number integer PRIMARY KEY, oldest integer NOT NULL)")
        connection.execute(step.text.encode())
        connection.execute("INSERT INTO version VALUES (%s, %s)", (step.number, step.oldest))
