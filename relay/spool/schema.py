"""Opening a SQLite spool: pragmas, migrations by number, and the lock that keeps a second daemon away."""

from __future__ import annotations

import os
import re
import sqlite3
from importlib import resources
from pathlib import Path
from typing import IO

from relay.errors import SpoolBusy, SpoolError, SpoolVersion

_LOG_PAGES = 32_000
"""Pages of the write-ahead log (4 kB each) at which a commit itself moves them into the database: only when
`SqliteSpool` could not keep it far below that beside the writer."""
_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")


def connect(path: Path, *, busy_seconds: float = 15.0) -> sqlite3.Connection:
    """A connection in autocommit mode with the durability this spool promises: WAL, fsync at each commit.

    SQLite documentation, "PRAGMA synchronous": FULL syncs the WAL after each transaction.
    """
    connection = sqlite3.connect(path, isolation_level=None, timeout=busy_seconds, check_same_thread=False)
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = OFF")
    connection.execute("PRAGMA recursive_triggers = OFF")
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute("PRAGMA cache_size = -8000")
    connection.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES:d}")
    connection.execute("PRAGMA journal_size_limit = 67108864")
    return connection


def migrations() -> list[tuple[int, str]]:
    """Number and text of every migration, in order."""
    found = []
    for entry in (resources.files("relay.spool") / "migrations").iterdir():
        match = _NAME.fullmatch(entry.name)
        if match:
            found.append((int(match.group(1)), entry.read_text(encoding="utf-8")))
    return sorted(found)


def migrate(connection: sqlite3.Connection) -> int:
    """Bring the schema up to date, each step in its own transaction; the version afterwards.

    Raises SpoolVersion when a newer release wrote it: going back would need a backup from before.
    """
    steps = migrations()
    newest = steps[-1][0]
    version = _version(connection)
    if version > newest:
        raise SpoolVersion(
            f"the spool has schema version {version}, this release knows {newest}",
            remedy="Run the newer release again, or restore the spool's backup from before the upgrade.",
        )
    for number, text in steps:
        if number > version:
            _apply(connection, number, text)
    return newest


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _apply(connection: sqlite3.Connection, number: int, text: str) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        if _version(connection) < number:  # another process may have been quicker
            for statement in _statements(text):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number:d}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _statements(text: str) -> list[str]:
    """The statements of a script; triggers hold semicolons, so SQLite itself says where one ends."""
    found, start = [], 0
    for match in re.finditer(";", text):
        piece = text[start : match.end()]
        if sqlite3.complete_statement(piece):
            found.append(piece)
            start = match.end()
    return found


class OwnerLock:
    """One daemon for one spool file: a lock that dies with the process."""

    def __init__(self, database: Path) -> None:
        self._path = database.with_name(database.name + ".lock")
        self._file: IO[bytes] | None = None

    def take(self) -> None:
        """Raises SpoolBusy when another daemon has it."""
        handle = os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600)
        file = os.fdopen(handle, "r+b", buffering=0)
        try:
            _lock(file)
        except OSError as error:
            owner = file.read(32).decode("ascii", "replace").strip() if os.name != "nt" else ""
            file.close()
            who = f" (process {owner})" if owner.isdigit() else ""
            raise SpoolBusy(
                f"another relay{who} is running on this spool",
                remedy="Stop it first (systemctl stop relay), or give this one its own spool.url.",
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()).encode())
        self._file = file

    def release(self) -> None:
        """Let the next one in."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _lock(file: IO[bytes]) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
    else:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)


def prepare_folder(path: Path) -> None:
    """The folder of the database, made if need be, and the database file readable by us alone."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise SpoolError(
            f"the spool {path} cannot be opened: {error.strerror or error}",
            remedy="Create the folder and give the account that runs relay the right to write there, "
            "or set spool.url (RELAY_SPOOL_URL) to a place where it may.",
        ) from error
