"""What the daemon's process denies itself and allows itself before it does anything else."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

DESCRIPTORS = 65536
"""Open files asked for, where the hard limit allows it: 1,000 connections and the spool do not fit into the usual 1,024."""


def harden() -> None:
    """No memory in core dumps, new files for our own account only, room for many connections. Never fails.

    A limit of zero keeps the kernel from writing a core file; the empty filter keeps memory out of what it hands
    to a crash collector, which that limit does not stop (core(5)). Children inherit all of it.
    """
    os.umask(os.umask(0o077) | 0o077)
    with contextlib.suppress(OSError):
        Path("/proc/self/coredump_filter").write_text("0", encoding="ascii")
    try:
        import resource
    except ImportError:  # Windows has none of this
        return
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError, ValueError):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
