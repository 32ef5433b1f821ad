"""How busy the event loop's thread is: whether another process would help."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path

QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Where a control group (cgroup v2) says how much of the processors it may use."""
_SCHEDSTAT = "/proc/self/task/{}/schedstat"


def cores() -> int:
    """Processors this process may use, by its affinity and its container's quota."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:
        count = os.cpu_count() or 1
    return max(1, min(count, _quota(count)))


def _quota(unlimited: int) -> int:
    """Of the control group, in whole processors."""
    with contextlib.suppress(OSError, ValueError):
        most, period = QUOTA.read_text(encoding="ascii").split()
        return unlimited if most == "max" else int(most) // int(period)
    return unlimited


class Busy:
    """Measures the thread that makes it: the share of time in which it ran, or would have, had it been let."""

    def __init__(self) -> None:
        self._path = _SCHEDSTAT.format(threading.get_native_id())
        self._before = self._used(), time.monotonic()

    def since(self) -> float:
        """The share since the last question, 0 to 1."""
        now = self._used(), time.monotonic()
        before, self._before = self._before, now
        elapsed = now[1] - before[1]
        return (now[0] - before[0]) / elapsed if elapsed > 0 else 0.0

    def _used(self) -> float:
        """Seconds on a processor, and waiting for one."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            ran, waited = Path(self._path).read_text(encoding="ascii").split()[:2]
            return (int(ran) + int(waited)) / 1e9
        return time.thread_time()
