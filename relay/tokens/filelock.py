"""A lock between processes on one file's changes: the daemon's and those of an operator's command. Blocking."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from relay.tokens.keypair import hand_over

_PAUSE = 0.05
"""Seconds between two tries."""


@contextlib.contextmanager
def locked(file: Path, seconds: float) -> Iterator[None]:
    """Hold ``file``'s lock (a file named .lock beside it), which ends with the process at the latest.

    Raises TimeoutError when somebody else holds it for ``seconds``, OSError when the folder cannot be written.
    """
    name = file.with_name(file.name + ".lock")
    handle = os.open(name, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        hand_over(name, file.parent)  # a lock made by root's command must not shut the daemon out
        deadline = time.monotonic() + seconds
        while not _try(handle):
            if time.monotonic() >= deadline:
                raise TimeoutError(f"{name} is held by another process")
            time.sleep(_PAUSE)
        yield
    finally:
        os.close(handle)


def _try(handle: int) -> bool:
    try:
        try:
            import fcntl
        except ImportError:  # Windows
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        else:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
