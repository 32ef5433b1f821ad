"""The one writer: a thread that runs many callers' changes in one transaction and one fsync.

While a commit waits for the disk, further changes gather; the next transaction takes them all. So the
cost of durability is shared by whoever is waiting, and a lone caller waits for one commit only.
When a change fails, all are made again with a savepoint around each: it fails alone, and the others go on.

The three changes that every message needs (store, begin, settle) come in kinds: all of one kind in a transaction are
written by the same few statements. Each statement gives up Python's lock and has to win it back from a busy event loop,
so a dozen statements for each message cost more in waiting than SQLite costs in work.
"""

from __future__ import annotations

import asyncio
import errno
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from relay import events
from relay.errors import SpoolBusy, SpoolError, SpoolFull

T = TypeVar("T")
P = TypeVar("P")
Change = Callable[[sqlite3.Connection], T]
Kind = Callable[[sqlite3.Connection, list[P]], list[T]]
"""Makes the same change for many at once; one result each, in order. When it raises, each is tried by itself."""

_MOST_PER_COMMIT = 512
"""Bounds how long one transaction keeps the others waiting (about 50 ms of small changes)."""

_COMPANY = 4
"""Changes in a transaction that show that many wait for each commit, not one."""
_GATHER = 0.002
"""Seconds given to others to join a transaction then: about what the disk takes. A transaction costs two dozen hand-overs
of Python's lock whatever is in it, so under load larger ones leave the event loop in peace; a lone caller never waits."""
_GATHER_LESS = 0.001
"""The same while another process accepts mail: the event loop leaves the lock alone, and clients wait for less."""


@dataclass(slots=True)
class Waiting:
    """One change, and who waits for it."""

    change: Change[Any] | None
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    kind: Kind[Any, Any] | None = None
    value: Any = None
    outside: bool = False
    """Runs after the commit, outside any transaction."""
    result: Any = None
    error: BaseException | None = None


def plain_error(error: BaseException) -> SpoolError:
    """A database or file error as one of ours, in words for an administrator."""
    if isinstance(error, SpoolError):
        return error
    code = getattr(error, "sqlite_errorname", "")
    if code == "SQLITE_IOERR_WRITE" or getattr(error, "errno", None) in (errno.EDQUOT, errno.EFBIG):
        # SQLite calls everything but ENOSPC so: a quota or a limit of file sizes most often
        return SpoolFull(
            f"the disk of the spool takes no more: {error}",
            remedy="Free space, or raise the quota or file size limit there; with room left, check the disk itself.",
        )
    if code == "SQLITE_FULL" or getattr(error, "errno", None) == errno.ENOSPC:
        return SpoolFull(
            "the disk of the spool is full", remedy="Free space on the disk that holds spool.url."
        )
    if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return SpoolBusy(f"the spool is locked by another process ({error})")
    return SpoolError(f"the spool failed: {error}")


class Writer:
    """Runs changes on one connection, in order, in shared transactions."""

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._queue: queue.SimpleQueue[Waiting | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._busy = False
        """The last transaction was shared by several: it pays to wait a moment for more."""
        self.gather = _GATHER
        self.commits = 0
        self.changes = 0

    async def start(self) -> None:
        """Open the connection in the thread; raises what opening raises."""
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        self._thread = threading.Thread(
            target=self._work, args=(loop, ready), name="spool-writer", daemon=True
        )
        self._thread.start()
        try:
            await ready
        except Exception:
            self._thread = None  # it has ended: whoever asks for a change now must not wait for it
            raise

    async def stop(self) -> None:
        """Run what was asked before, then end the thread."""
        if self._thread is not None:
            thread, self._thread = self._thread, None
            self._queue.put(None)
            await asyncio.to_thread(thread.join)

    def relieved(self, by_helper: bool) -> None:
        """Whether another process does the accepting."""
        self.gather = _GATHER_LESS if by_helper else _GATHER

    def submit(self, change: Change[T], *, outside: bool = False) -> asyncio.Future[T]:
        """Queue a change; the future resolves after the commit that holds it is on disk."""
        return self._put(change, outside=outside)

    def submit_one_of(self, kind: Kind[P, T], value: P) -> asyncio.Future[T]:
        """Queue a change that is made together with others of its kind (the same function)."""
        return self._put(None, kind=kind, value=value)

    def _put(self, change: Change[Any] | None, **more: Any) -> asyncio.Future[Any]:
        if self._thread is None:
            raise SpoolError("the spool is closed")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._queue.put(Waiting(change, loop, future, **more))
        return future

    async def run(self, change: Change[T]) -> T:
        """Queue a change and wait; cancelling the caller does not undo it (it only cancels the future)."""
        return await self.submit(change)

    async def run_one_of(self, kind: Kind[P, T], value: P) -> T:
        """The same for a change with others of its kind."""
        return await self.submit_one_of(kind, value)

    async def run_between(self, change: Change[T]) -> T:
        """Run something between two transactions, on the writer's connection."""
        return await self.submit(change, outside=True)

    def _work(self, loop: asyncio.AbstractEventLoop, ready: asyncio.Future[None]) -> None:
        try:
            connection = self._connect()
        except BaseException as error:
            loop.call_soon_threadsafe(ready.set_exception, plain_error(error))
            return
        loop.call_soon_threadsafe(ready.set_result, None)
        try:
            while self._turn(connection):
                pass
        finally:
            connection.close()

    def _turn(self, connection: sqlite3.Connection) -> bool:
        batch: list[Waiting] = []
        item = self._queue.get()
        if self._busy:
            time.sleep(self.gather)
        going = item is not None
        while item is not None:
            batch.append(item)
            if len(batch) >= _MOST_PER_COMMIT:
                break
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                break
            going = item is not None
        self._busy = len(batch) >= _COMPANY
        if batch:
            self._transact(connection, batch)
        return going

    def _transact(self, connection: sqlite3.Connection, batch: list[Waiting]) -> None:
        inside = [waiting for waiting in batch if not waiting.outside]
        if inside and not self._committed(connection, inside, apart=False):
            self._committed(connection, inside, apart=True)
        for waiting in batch:
            if waiting.outside:
                _alone(connection, waiting)
        answer_all(batch)

    def _committed(self, connection: sqlite3.Connection, batch: list[Waiting], *, apart: bool) -> bool:
        """All in one transaction; ``apart``: a change that fails fails alone, which costs savepoints. False: try that."""
        began = time.monotonic()
        try:
            connection.execute("BEGIN IMMEDIATE")
            apply_all(connection, batch, apart=apart)
            connection.execute("COMMIT")
        except BaseException as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if not apart:
                return False
            for waiting in batch:
                waiting.error = waiting.error or error
        else:
            self.commits += 1
            self.changes += len(batch)
            events.took("commit", time.monotonic() - began)
        return True


def apply_all(connection: sqlite3.Connection, batch: list[Waiting], *, apart: bool) -> None:
    """Make the changes in the running transaction; ``apart``: under a savepoint each."""
    kinds: dict[Kind[Any, Any], list[Waiting]] = {}
    for waiting in batch:
        if waiting.kind is not None:
            kinds.setdefault(waiting.kind, []).append(waiting)
    for kind, group in kinds.items():
        if apart:
            for waiting in group:
                _apply_apart(connection, waiting, partial(_one_of, kind, waiting.value))
            continue
        results = kind(connection, [waiting.value for waiting in group])
        for waiting, result in zip(group, results, strict=True):
            waiting.result = result
    for waiting in batch:
        if waiting.change is not None and apart:
            _apply_apart(connection, waiting, waiting.change)
        elif waiting.change is not None:
            waiting.result = waiting.change(connection)


def _one_of(kind: Kind[P, T], value: P, connection: sqlite3.Connection) -> T:
    return kind(connection, [value])[0]


def _apply_apart(connection: sqlite3.Connection, waiting: Waiting, change: Change[Any]) -> None:
    """Under a savepoint. Raises only when SQLite itself rolled back, as it does when the disk is full."""
    connection.execute("SAVEPOINT one")
    try:
        waiting.result = change(connection)
    except Exception as error:
        waiting.error = error
        if not connection.in_transaction:
            raise
        connection.execute("ROLLBACK TO one")
    connection.execute("RELEASE one")


def _alone(connection: sqlite3.Connection, waiting: Waiting) -> None:
    try:
        if waiting.change is not None:
            waiting.result = waiting.change(connection)
    except Exception as error:
        waiting.error = error


def answer_all(batch: list[Waiting]) -> None:
    """Hand the results back, with one wake-up for each loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Waiting]] = {}
    for waiting in batch:
        by_loop.setdefault(waiting.loop, []).append(waiting)
    for loop, group in by_loop.items():
        try:
            loop.call_soon_threadsafe(_resolve, group)
        except RuntimeError:  # that loop is gone, and its callers with it
            continue


def _resolve(group: list[Waiting]) -> None:
    for waiting in group:
        if waiting.future.done():
            continue
        if waiting.error is not None:
            waiting.future.set_exception(plain_error(waiting.error))
        else:
            waiting.future.set_result(waiting.result)
