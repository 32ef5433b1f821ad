"""Writing stored messages to files, for `relay queue export`."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from relay.cli.spooled import pages
from relay.errors import RelayError, SpoolError

if TYPE_CHECKING:
    from relay.spool.contract import Filter, Spool


@dataclass(slots=True)
class Exported:
    """What an export did."""

    found: set[str] = field(default_factory=set)
    written: int = 0
    failed: list[str] = field(default_factory=list)
    """One sentence for each message that could not be written."""


async def to_stdout(spool: Spool, message_id: str) -> None:
    """The stored octets of one message on standard output. Raises SpoolError when there is no such message."""
    async for chunk in spool.raw(message_id):
        sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()


async def to_directory(spool: Spool, wanted: Filter, directory: Path) -> Exported:
    """One ``ID.eml`` for each message, readable by its owner alone, complete or not there at all.

    Names come from our own ids and nothing else, so no sender can choose one. Raises RelayError when the
    directory cannot be used.
    """
    _make(directory)
    done = Exported()
    async for page in pages(spool, wanted):
        for view in page:
            done.found.add(view.id)
            try:
                await _write(spool.raw(view.id), directory / f"{view.id}.eml")
            except SpoolError as error:  # finished and gone between the list and the read
                done.failed.append(f"{view.id}: {error}")
            else:
                done.written += 1
    return done


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RelayError(
            f"cannot make {directory}: {error.strerror}", remedy="Choose another --to."
        ) from error


async def _write(octets: AsyncIterator[bytes], path: Path) -> None:
    part = path.with_suffix(".part")
    try:
        with _private(part) as file:
            async for chunk in octets:
                file.write(chunk)
        part.replace(path)
    except OSError as error:
        raise RelayError(f"cannot write {path}: {error.strerror}", remedy="Choose another --to.") from error
    finally:
        part.unlink(missing_ok=True)


def _private(path: Path) -> BinaryIO:
    """A new file that only its owner may read: mail is private."""
    path.unlink(missing_ok=True)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
