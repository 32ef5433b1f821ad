"""Where the replicas of a test run: each in a network namespace of its own, or each on a loopback address of its own.

Namespaces need root with CAP_SYS_ADMIN and CAP_NET_ADMIN, which a build container seldom has. They live as long as the
process that holds each of them, and those end with the tests. Nothing in them has a way out.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from tests.fakes.tied import tied

HOSTS = 4
_NET = 0x40000000
"""CLONE_NEWNET of setns(2); Python has a function for it from 3.12 on."""


class Hosts(Protocol):
    """The hosts of a test: one for what is shared (``hub``), and ``HOSTS`` for replicas, counted from 0."""

    kind: str
    hub: str
    """The address under which every replica reaches what is shared."""

    def address(self, number: int) -> str:
        """Of a replica's host."""

    def on(self, number: int | None, command: list[str]) -> list[str]:
        """The command as it is started on a host; None: the hub."""

    def enter(self) -> None:
        """The calling thread opens sockets at the hub from now on."""

    def at_hub(self) -> contextlib.AbstractContextManager[None]:
        """The same for a while."""

    def plug(self, number: int, *, on: bool) -> bool:
        """Pull a host's network cable, or put it back; False where there is none."""

    def close(self) -> None:
        """Take the hosts away."""


class Loopback:
    """One machine; every replica listens on a loopback address of its own (all of 127.0.0.0/8 is, on Linux)."""

    kind = "loopback addresses"
    hub = "127.0.0.1"

    def address(self, number: int) -> str:
        return f"127.0.0.{10 + number}"

    def on(self, number: int | None, command: list[str]) -> list[str]:
        return command

    def enter(self) -> None:
        return None

    def at_hub(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def plug(self, number: int, *, on: bool) -> bool:
        return False

    def close(self) -> None:
        return None


class Namespaces:
    """A namespace for each host, joined to the hub's by a cable (veth) of its own. Raises OSError where not allowed."""

    kind = "network namespaces"
    hub = "10.99.255.1"

    def __init__(self) -> None:
        self._holders: list[subprocess.Popen[bytes]] = []
        try:
            for number in range(HOSTS + 1):
                self._hold(f"host{number}.test")
            self._wire()
        except BaseException:
            self.close()
            raise

    def _hold(self, name: str) -> None:
        """A process that is in namespaces of its own, with a host name of its own, and says so, then waits."""
        first = f"hostname {name} && ip link set lo up && echo ready && exec sleep infinity"
        holder = subprocess.Popen(
            tied(["unshare", "--net", "--uts", "sh", "-c", first]),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._holders.append(holder)
        assert holder.stdout is not None and holder.stderr is not None
        if holder.stdout.readline() != b"ready\n":
            raise OSError(holder.stderr.read().decode().strip() or "no network namespace")

    def _wire(self) -> None:
        self._ip(None, f"addr add {self.hub}/32 dev lo")
        for number in range(HOSTS):
            cable = f"host{number}"
            there = self._pid(number)
            self._ip(None, f"link add {cable} type veth peer name eth0 netns {there}")
            self._ip(None, f"addr add {self._gateway(number)}/24 dev {cable}")
            self._ip(None, f"link set {cable} up")
            self._ip(number, f"addr add {self.address(number)}/24 dev eth0")
            self._ip(number, "link set eth0 up")
            self._ip(number, f"route add default via {self._gateway(number)}")

    def _pid(self, number: int | None) -> int:
        return self._holders[HOSTS if number is None else number].pid

    def _gateway(self, number: int) -> str:
        return f"10.99.{number}.1"

    def address(self, number: int) -> str:
        return f"10.99.{number}.2"

    def _ip(self, number: int | None, words: str) -> None:
        command = self.on(number, ["ip", *words.split()])
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        if done.returncode:
            raise OSError(f"ip {words}: {done.stderr.strip()}")

    def on(self, number: int | None, command: list[str]) -> list[str]:
        spaces = Path(f"/proc/{self._pid(number)}/ns")
        return ["nsenter", f"--net={spaces / 'net'}", f"--uts={spaces / 'uts'}", "--", *command]

    def enter(self) -> None:
        _set_namespace(Path(f"/proc/{self._pid(None)}/ns/net"))

    @contextlib.contextmanager
    def at_hub(self) -> Iterator[None]:
        home = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY)
        try:
            self.enter()
            yield
        finally:
            _setns(home)
            os.close(home)

    def plug(self, number: int, *, on: bool) -> bool:
        self._ip(None, f"link set host{number} {'up' if on else 'down'}")
        return True

    def close(self) -> None:
        for holder in self._holders:
            holder.kill()
            holder.wait(10)


def _set_namespace(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        _setns(handle)
    finally:
        os.close(handle)


def _setns(handle: int) -> None:
    """Of the calling thread alone, as setns(2) has it. Raises OSError."""
    if ctypes.CDLL(None, use_errno=True).setns(handle, _NET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def best_hosts() -> Hosts:
    """Namespaces where the machine allows them, else loopback addresses."""
    try:
        return Namespaces()
    except OSError as error:
        hosts = Loopback()
        hosts.kind = f"{hosts.kind} (no network namespaces here: {error})"
        return hosts
