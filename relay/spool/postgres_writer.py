"""The writer of a PostgreSQL spool: many callers' changes in one transaction, as `relay.spool.writer` has it.

Replicas commit side by side. A change locks the rows that it looks at before it writes (``FOR UPDATE``), and counts in
rows of its own replica; two changes that lock one another out all the same (a deadlock) are noticed by PostgreSQL, and
made again. Waiting for the disk is shared by everything that gathered meanwhile.

When the connection breaks during COMMIT nobody knows at first whether it took place. Then PostgreSQL is asked as soon
as it answers again (``pg_xact_status``, documentation 9.27.8), so that a client hears 250 for what is stored.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable
from typing import cast

import psycopg

from relay import events
from relay.errors import SpoolError, SpoolLost, SpoolUncertain
from relay.spool.postgres_faults import plain_error
from relay.spool.postgres_link import Row, Statements, connect
from relay.spool.postgres_member import Member, lost
from relay.spool.writer import Waiting, Writer, answer_all, apply_all

_AGAIN = 1.0
"""Seconds between tries to connect; meanwhile every change fails at once, so that listeners answer 451 at once."""
_DECIDED_WITHIN = 10.0
"""Seconds to find out what became of a commit: longer than a restart of the server takes, shorter than clients wait."""
_HANGS = 10.0
"""Seconds in one transaction after which the database counts as away: longer than the locks of a replica that stands still
are kept (`postgres_watch` ends those), shorter than clients wait."""
_RUN = "extract(epoch FROM pg_postmaster_start_time())::text"
"""Which run of the server this is. After a crash it gives the numbers out again that no commit has put on the disk, so
that "committed" may be said of another transaction; "aborted" is right in any case."""
_WHICH = f"SELECT pg_current_xact_id()::text, {_RUN}"
_TRIES = 5
"""Times that a transaction is made when it and another one lock each other out."""
_COLLIDED = frozenset({"40P01", "40001", "23505"})
"""SQLSTATE deadlock_detected, serialization_failure, unique_violation (two made the same row)."""

Prepare = Callable[["psycopg.Connection[Row]"], None]


class Session:
    """The connection of the writer's thread, made anew when it was lost."""

    def __init__(self, url: str, name: str, prepare: Prepare) -> None:
        self._url = url
        self._name = name
        self._prepare = prepare
        self._connection: psycopg.Connection[Row] | None = None
        self._next_try = 0.0
        self.trouble: SpoolError | None = None
        """Why the database is away; None while it answers."""

    def connection(self) -> psycopg.Connection[Row]:
        """A connection that works as far as is known. Raises SpoolError, at once when it was tried just before."""
        if self._connection is not None and not broken(self._connection):
            return self._connection
        self.close()
        if self.trouble is not None and time.monotonic() < self._next_try:
            raise self.trouble
        try:
            self._connection = self._open()
        except Exception as error:
            self.trouble = plain_error(error)
            self._next_try = time.monotonic() + _AGAIN
            raise self.trouble from error
        self.trouble = None
        return self._connection

    def _open(self) -> psycopg.Connection[Row]:
        connection = connect(self._url, self._name)
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def broke(self, error: BaseException) -> None:
        """The connection is gone: say so to everybody until there is another."""
        self.trouble = plain_error(error)
        self._next_try = 0.0

    def close(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()


def broken(connection: psycopg.Connection[Row]) -> bool:
    """Whether nothing more can come of this connection."""
    return connection.closed or connection.broken


class PostgresWriter(Writer):
    """Runs changes on one connection, in order, in shared transactions; connects again by itself."""

    def __init__(self, url: str, member: Member, prepare: Prepare) -> None:
        self._member = member
        self._session = Session(url, f"relay {member.name}", prepare)
        self._since: float | None = None
        """When the transaction under way began; None between two."""
        super().__init__(self._first)

    @property
    def trouble(self) -> SpoolError | None:
        """Why changes cannot be made just now; None while they can."""
        return self._session.trouble

    @property
    def hangs(self) -> SpoolError | None:
        """Why nothing new should wait for it, although the connection stands: it does not answer; None while it does."""
        since = self._since
        if since is None or (waited := time.monotonic() - since) < _HANGS:
            return None
        return SpoolError(
            f"the database of the spool has not answered for {waited:.0f} s",
            remedy="Look whether the server, a pooler in between or its disk stands still; mail is taken again when it answers.",
        )

    def _first(self) -> sqlite3.Connection:
        self._session.connection()
        return cast(
            "sqlite3.Connection", self._session
        )  # what `Writer` hands through to `_transact`, and closes

    def _transact(self, connection: sqlite3.Connection, batch: list[Waiting]) -> None:
        self._since = time.monotonic()
        try:
            self._try(batch)
        finally:
            self._since = None
        answer_all(batch)

    def _try(self, batch: list[Waiting], tries: int = 1) -> None:
        began = time.monotonic()
        try:
            self._together(self._session.connection(), batch)
        except Exception as error:
            if getattr(error, "sqlstate", None) in _COLLIDED and tries < _TRIES and not self.trouble:
                time.sleep(random.uniform(0, 0.01 * 2**tries))  # noqa: S311 - spreading, not secrecy
                self._try(batch, tries + 1)
            else:
                self._apart(batch, error)
        else:
            self.commits += 1
            self.changes += len(batch)
            events.took("commit", time.monotonic() - began)

    def _together(self, connection: psycopg.Connection[Row], batch: list[Waiting]) -> None:
        try:
            with connection.pipeline() as pipeline:
                connection.execute("BEGIN")
                started = psycopg.RawCursor(connection).execute(_WHICH)
                statements = Statements(connection, pipeline)
                self._apply(statements, batch)
                row = started.fetchone()
            assert row is not None
        except BaseException as error:
            self._roll_back(connection, error)
            raise
        self._commit(connection, str(row[0]), str(row[1]))

    def _apply(self, statements: Statements, batch: list[Waiting]) -> None:
        """Raises SpoolLost when this replica was given up: of that, a message that it has not got is only the sign."""
        try:
            apply_all(statements.as_sqlite(), batch, apart=False)
        except SpoolLost:
            if statements.members():
                raise
            raise lost(self._member.name) from None
        if not statements.members():
            raise lost(self._member.name)

    def _roll_back(self, connection: psycopg.Connection[Row], error: BaseException) -> None:
        try:
            connection.execute("ROLLBACK")
        except psycopg.Error:
            connection.close()
        if broken(connection):
            self._session.broke(error)

    def _apart(self, batch: list[Waiting], error: Exception) -> None:
        """What failed together is done one by one, so that one bad change takes no other with it."""
        if len(batch) == 1 or self._session.trouble is not None or isinstance(error, SpoolUncertain):
            for waiting in batch:
                waiting.error = plain_error(error)
            return
        for waiting in batch:
            self._try([waiting])

    def _commit(self, connection: psycopg.Connection[Row], transaction: str, run: str) -> None:
        try:
            connection.execute("COMMIT")
        except psycopg.Error as error:
            if not broken(connection):
                self._roll_back(connection, error)
                raise
            self._session.broke(error)
            # a crash of one of the server's processes begins anew without a new run
            crashed = isinstance(error, psycopg.errors.CrashShutdown)
            if not self._was_committed(transaction, "" if crashed else run):
                raise

    def _was_committed(self, transaction: str, run: str) -> bool:
        """What became of a commit whose answer was lost. Raises SpoolUncertain when that cannot be found out in time."""
        deadline = time.monotonic() + _DECIDED_WITHIN
        while time.monotonic() < deadline:
            try:
                found = self._session.connection().execute(
                    f"SELECT pg_xact_status(%s::text::xid8), {_RUN}", (transaction,)
                )
                row = found.fetchone()
                if row is None or row[0] not in ("in progress", "committed"):
                    return False
                if row[1] != run:
                    break
                if row[0] == "committed":
                    return True
            except (SpoolError, psycopg.Error):
                pass
            time.sleep(0.1)
        raise SpoolUncertain(
            "the database of the spool went away during a commit, and it is not known whether it took place"
        )
