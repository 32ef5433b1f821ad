"""`python -m relay.workers FD`: a helper process of the daemon, started by it alone, at the other end of a socket pair."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)


def main() -> None:
    """Serve until the daemon hangs up or dies."""
    for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(
            one, signal.SIG_IGN
        )  # a service manager or a terminal sends them to us, too: the daemon decides
    _die_with_parent(int(sys.argv[2]))
    end = socket.socket(fileno=int(sys.argv[1]))
    import uvloop

    from relay.workers.acceptor import Acceptor

    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(Acceptor().run(end))
        os._exit(0)


def _die_with_parent(parent: int) -> None:
    """Killed when the daemon is killed; its end of the socket pair says so, too, but only to a process that listens."""
    with contextlib.suppress(Exception):
        import ctypes

        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


if __name__ == "__main__":
    main()
