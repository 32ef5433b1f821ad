"""Processes of the tests end with the tests: also when pytest itself is killed, the kernel ends what it started."""

from __future__ import annotations

import sys


def tied(command: list[str], *, signal: str = "KILL", user: str | None = None) -> list[str]:
    """``command`` as it is started: it gets ``signal`` when the thread that started it has gone (prctl(2),
    PR_SET_PDEATHSIG), so start it from the main thread. With ``user`` it runs as that user, which only root may ask for.
    """
    if sys.platform != "linux":
        return command
    # setpriv (util-linux, on every Debian) becomes the command: the process is the same
    who = [f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user else []
    return ["setpriv", *who, f"--pdeathsig={signal}", "--", *command]
