"""The one writer: a thread that runs many callers' changes in one transaction and one fsync.

While a commit waits for the disk, further changes gather; the next transaction takes them all. So the
cost of durability is shared by whoever is waiting, and a lone caller waits for one commit only.
A change that fails is rolled back alone (savepoint); the others of its transaction go on.
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
from typing import Any, TypeVar

from relay import events
from relay.errors import SpoolBusy, SpoolError, SpoolFull

T = TypeVar("T")
Change = Callable[[sqlite3.Connection], T]

_MOST_PER_COMMIT = 512
"""Bounds how long one transaction keeps the others waiting (about 50 ms of small changes)."""


@dataclass(slots=True)
class _Waiting:
    change: Change[Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
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
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
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
        await ready

    async def stop(self) -> None:
        """Run what was asked before, then end the thread."""
        if self._thread is not None:
            thread, self._thread = self._thread, None
            self._queue.put(None)
            await asyncio.to_thread(thread.join)

    def submit(self, change: Change[T]) -> asyncio.Future[T]:
        """Queue a change; the future resolves after the commit that holds it is on disk."""
        if self._thread is None:
            raise SpoolError("the spool is closed")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._queue.put(_Waiting(change, loop, future))
        return future

    async def run(self, change: Change[T]) -> T:
        """Queue a change and wait; cancelling the caller does not undo it."""
        return await asyncio.shield(self.submit(change))

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
        batch: list[_Waiting] = []
        item = self._queue.get()
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
        if batch:
            self._transact(connection, batch)
        return going

    def _transact(self, connection: sqlite3.Connection, batch: list[_Waiting]) -> None:
        began = time.monotonic()
        try:
            connection.execute("BEGIN IMMEDIATE")
            for waiting in batch:
                self._apply(connection, waiting)
            connection.execute("COMMIT")
            self.commits += 1
            self.changes += len(batch)
            events.took("commit", time.monotonic() - began)
        except BaseException as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            for waiting in batch:
                waiting.error = waiting.error or error
        _answer(batch)

    def _apply(self, connection: sqlite3.Connection, waiting: _Waiting) -> None:
        connection.execute("SAVEPOINT one")
        try:
            waiting.result = waiting.change(connection)
        except Exception as error:
            waiting.error = error
            if not connection.in_transaction:  # SQLite itself rolled back, as it does when the disk is full
                raise
            connection.execute("ROLLBACK TO one")
        connection.execute("RELEASE one")


def _answer(batch: list[_Waiting]) -> None:
    """Hand the results back, with one wake-up for each loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Waiting]] = {}
    for waiting in batch:
        by_loop.setdefault(waiting.loop, []).append(waiting)
    for loop, group in by_loop.items():
        try:
            loop.call_soon_threadsafe(_resolve, group)
        except RuntimeError:  # that loop is gone, and its callers with it
            continue


def _resolve(group: list[_Waiting]) -> None:
    for waiting in group:
        if waiting.future.done():
            continue
        if waiting.error is not None:
            waiting.future.set_exception(plain_error(waiting.error))
        else:
            waiting.future.set_result(waiting.result)
