"""Runs `relay` as if on Windows, as far as that can be had here: no uvloop, no Unix-only module or function.

What is taken away before relay is loaded: the modules of `GONE`, Unix sockets, signal handlers of the event loop, the
signals and functions that Windows lacks. `msvcrt` is there, its lock made of the real one. What stays as it is here:
paths, processes, and the kernel. (`os.statvfs` stays for `shutil.disk_usage`, which on Windows has another way.)
"""

from __future__ import annotations

import _socket
import asyncio
import asyncio.unix_events
import fcntl
import multiprocessing  # noqa: F401 (loads what it needs while that is there)
import os
import signal
import socket
import subprocess  # noqa: F401
import sys
import tempfile  # noqa: F401
import types
from importlib.abc import MetaPathFinder

GONE = {
    "uvloop",
    "fcntl",
    "pwd",
    "grp",
    "resource",
    "termios",
    "tty",
    "readline",
    "pty",
    "syslog",
    "posix",
    "spwd",
    "crypt",
    "nis",
}
FUNCTIONS = """
    chown fchmod fchown lchown chroot confstr fork forkpty getegid geteuid getgid getgroups getloadavg getpgid
    getpriority getresuid getsid getuid initgroups killpg memfd_create mkfifo mknod nice openpty pathconf pipe2
    posix_fadvise posix_fallocate pread preadv pwrite pwritev register_at_fork sched_getaffinity sched_setaffinity
    sched_yield sendfile setegid seteuid setgid setgroups setpgid setpriority setresuid setsid setuid splice sync
    sysconf uname wait3 wait4 eventfd getxattr setxattr copy_file_range fdatasync O_CLOEXEC O_DIRECTORY O_NOFOLLOW
    O_NONBLOCK O_SYNC O_DSYNC O_TMPFILE
"""
"""Of `os`, what Windows lacks."""
_flock, _pair = fcntl.flock, _socket.socketpair
_UNIX = socket.AF_UNIX


class Blocked(MetaPathFinder):
    """Finds none of the modules that Windows lacks."""

    def find_spec(self, name, path=None, target=None):
        if name in GONE:
            raise ModuleNotFoundError(f"No module named {name!r} (there is none on Windows)", name=name)
        return


def _locking(handle: int, mode: int, _count: int) -> None:
    _flock(handle, fcntl_exclusive)


def _refused(*_args: object, **_more: object) -> None:
    raise NotImplementedError


def _socketpair(*_args: object, **_more: object) -> tuple[socket.socket, socket.socket]:
    """For the event loop's own use, as Windows' Python has one too."""
    one, two = _pair(_UNIX, socket.SOCK_STREAM, 0)
    return socket.socket(fileno=one.detach()), socket.socket(fileno=two.detach())


fcntl_exclusive = fcntl.LOCK_EX | fcntl.LOCK_NB


def become_windows() -> None:
    """From here on."""
    msvcrt = types.ModuleType("msvcrt")
    msvcrt.locking, msvcrt.LK_NBLCK = _locking, 2  # type: ignore[attr-defined]
    for name in GONE:
        sys.modules.pop(name, None)
    sys.meta_path.insert(0, Blocked())
    sys.modules["msvcrt"] = msvcrt
    socket.socketpair = _socketpair  # type: ignore[assignment]
    del socket.AF_UNIX
    for name in ("start_unix_server", "open_unix_connection"):
        delattr(asyncio, name)
    for loop in (asyncio.unix_events._UnixSelectorEventLoop, asyncio.AbstractEventLoop):
        loop.add_signal_handler = _refused  # type: ignore[assignment,method-assign]
    for name in (
        "SIGHUP",
        "SIGUSR1",
        "SIGUSR2",
        "SIGPIPE",
        "SIGKILL",
        "SIGALRM",
        "SIGCHLD",
        "SIGQUIT",
        "pthread_sigmask",
    ):
        delattr(signal, name)
    for name in FUNCTIONS.split():
        if hasattr(os, name):
            delattr(os, name)
    for name in ("SO_REUSEPORT", "MSG_DONTWAIT", "MSG_NOSIGNAL", "send_fds", "recv_fds", "CMSG_LEN"):
        delattr(socket, name)


if __name__ == "__main__":
    become_windows()
    from relay.cli.app import main

    main()
