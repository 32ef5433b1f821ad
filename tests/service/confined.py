"""Runs a command with the system calls that relay.service leaves it: python tests/service/confined.py COMMAND...

The unit's own lines (`SystemCallFilter=`, `SystemCallErrorNumber=EPERM`), their groups as systemd knows them, loaded by
libseccomp, which systemd itself uses.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import os
import re
import subprocess
import sys
from pathlib import Path

UNIT = Path(__file__).parents[2] / "systemd" / "relay.service"
ALLOW = 0x7FFF0000
REFUSE = 0x00050000 | errno.EPERM


def calls_of(group: str) -> set[str]:
    """The system calls of a group such as ``@system-service``, groups within it resolved."""
    words = ["systemd-analyze", "--no-pager", "syscall-filter", group]
    lines = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()[1:]
    names = {line.strip() for line in lines if line.strip() and not line.strip().startswith("#")}
    groups = {one for one in names if one.startswith("@")}
    return (names - groups).union(*map(calls_of, groups))


def allowed() -> set[str]:
    """What the unit lets through: a list without ``~`` allows, and ``@default`` with it; one with it takes away again."""
    left = calls_of("@default")
    for line in re.findall(r"^SystemCallFilter=(.+)$", UNIT.read_text(), re.MULTILINE):
        groups = set[str]().union(*map(calls_of, line.removeprefix("~").split()))
        left = left - groups if line.startswith("~") else left | groups
    return left


def confine(names: set[str]) -> None:
    """From here on, this process and what it starts."""
    library = ctypes.CDLL(ctypes.util.find_library("seccomp") or "libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(REFUSE)))
    for name in sorted(names):
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:  # there on this processor
            assert library.seccomp_rule_add(context, ctypes.c_uint32(ALLOW), number, 0) == 0, name
    assert library.seccomp_load(context) == 0


if __name__ == "__main__":
    confine(allowed())
    os.execvp(sys.argv[1], sys.argv[1:])
