"""Two hosts that exist for one test: `outside` (192.0.2.1) and `inside` (192.0.2.2), with a cable between them.

They are network namespaces below one process. When that ends, or the test does in whatever way, every process, mount and
interface of theirs ends with it.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import IO

OUTSIDE, INSIDE = "192.0.2.1", "192.0.2.2"
"""Addresses for documentation (RFC 5737): nobody else's."""
HOSTS = {"microsoft.test": OUTSIDE, "relay.test": INSIDE}
NEEDED = ("buildah", "crun", "debootstrap", "ip", "nsenter", "setpriv", "swaks", "unshare")
_MAKE = """
mount -t tmpfs tmpfs /run  # state of ours that nobody else sees
umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup  # crun wants one tree, and counts nothing in it
ip link set lo up
ip netns add inside
ip link add outside type veth peer name eth0 netns inside
ip address add "$OUTSIDE/24" dev outside
ip link set outside up
ip -n inside address add "$INSIDE/24" dev eth0
ip -n inside link set eth0 up
ip -n inside link set lo up
echo ready
exec sleep infinity
"""
# a process of its own: it is killed with us, and takes all that is below it along
ALONE = (
    "setpriv",
    "--pdeathsig",
    "KILL",
    "unshare",
    "--mount",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
)


def tools() -> None:
    """Fail, naming what is missing: a part that was not tried is not taken for a part that works."""
    missing = [one for one in NEEDED if shutil.which(one) is None]
    assert not missing, f"not installed: {' '.join(missing)}; `make test-image` installs them"


class Stage:
    """The two hosts; programs run on the outside one unless they say otherwise."""

    def __init__(self, files: Path) -> None:
        """``files``: a folder for the names of the hosts."""
        self.hosts = files / "hosts"
        lines = [f"{address} {name}\n" for name, address in HOSTS.items()]
        self.hosts.write_text("127.0.0.1 localhost\n" + "".join(lines))
        self.hosts.chmod(0o644)
        self._started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Stage:
        tools()
        self._process = subprocess.Popen(
            [*ALONE, "--net", "bash", "-euc", _MAKE],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "OUTSIDE": OUTSIDE, "INSIDE": INSIDE},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            raise AssertionError(f"no network of its own: {self._process.communicate(timeout=30)[1]}")
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        (self._first,) = children.read_text().split()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        for one in (self._process, *self._started):
            one.communicate(timeout=30)

    def start(self, *words: str, output: IO[bytes] | int = subprocess.PIPE) -> subprocess.Popen[bytes]:
        """A program that goes on there, until the hosts end."""
        process = subprocess.Popen(
            self.command(*words), stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        self._started.append(process)
        return process

    def command(self, *words: str) -> list[str]:
        """The words that run a program there."""
        return ["nsenter", "--target", self._first, "--net", "--mount", "--pid", "--", *words]

    def run(self, *words: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """A program to its end there, whatever that is."""
        return subprocess.run(
            self.command(*words), capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL
        )
