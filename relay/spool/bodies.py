"""Bodies too large for the database: files beside it, written while they arrive.

``<database>.bodies/<two characters>/<id>``. A file is complete and synced, with its directory, before the
row that names it is committed; it is unlinked after the commit that drops the row. A crash in between
leaves an orphan, which `sweep` removes at the next start.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from relay.spool import ids


def sync_directory(path: Path) -> None:
    """Make new names in a directory durable; Windows has no such call and needs none."""
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class BodyFiles:
    """The folder of body files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._durable: set[str] = set()
        """Names of subfolders that are known to be on disk: one that is merely there may be another process's of just now."""

    def path(self, number: int) -> Path:
        """Where the body of that message is."""
        name = ids.show(number)
        return self.folder / name[-2:] / name

    def create(self, number: int) -> BinaryIO:
        """A new, empty file for that message, readable by us alone."""
        path = self.path(number)
        with self._lock:
            if path.parent.name not in self._durable or not path.parent.exists():
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                sync_directory(self.folder)
                if not self._durable:
                    sync_directory(self.folder.parent)
                self._durable.add(path.parent.name)
        handle = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o600)
        return os.fdopen(handle, "wb", buffering=0)

    def seal(self, number: int, file: BinaryIO) -> None:
        """Everything to disk, name included; closes the file."""
        try:
            os.fsync(file.fileno())
        finally:
            file.close()
        sync_directory(self.path(number).parent)

    def remove(self, number: int) -> None:
        """Take the file away if it is there."""
        self.path(number).unlink(missing_ok=True)

    def numbers(self) -> Iterator[list[int]]:
        """The messages that have a file, one folder at a time."""
        if not self.folder.exists():
            return
        for shard in sorted(self.folder.iterdir()):
            yield [number for entry in shard.iterdir() if (number := ids.read(entry.name)) is not None]

    def sweep(self, gone: Callable[[int], bool], known: Callable[[list[int]], set[int]]) -> int:
        """Remove files of messages that nobody writes any more (``gone``) and that ``known`` does not confirm; how many."""
        removed = 0
        for numbers in self.numbers():
            old = [number for number in numbers if gone(number)]
            for number in set(old) - known(old):
                self.remove(number)
                removed += 1
        return removed


class FileBody:
    """A body that is read from its file in pieces."""

    __slots__ = ("_path", "_size")

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._size = size

    @property
    def size(self) -> int:
        return self._size

    async def chunks(self, size: int = 65536) -> AsyncIterator[bytes]:
        file = await asyncio.to_thread(open, self._path, "rb", 0)
        try:
            while data := await asyncio.to_thread(file.read, size):
                yield data
        finally:
            file.close()
