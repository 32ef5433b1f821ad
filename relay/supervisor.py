"""The service manager's side of life: sockets that it holds open for us, and telling it how we are (systemd).

Two small protocols, spoken here directly: `sd_listen_fds(3)` and `sd_notify(3)`. Where nobody supervises (a terminal, a
container, Windows) their variables are not set, and everything here does nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
import time
from collections.abc import MutableMapping

_FIRST = 3
"""Descriptor of the first socket that is passed (SD_LISTEN_FDS_START)."""
_ANY = {"0.0.0.0", "::"}  # noqa: S104 (compared, not bound)


class Inherited:
    """Listening sockets that were open before us and stay open after us; see `systemd/relay.socket`.

    A listener takes a copy of the one with its address. The original stays, so that a listener which a reload took away
    can come back.
    """

    def __init__(self, sockets: list[socket.socket] | None = None) -> None:
        self._sockets = sockets or []
        self._taken: set[tuple[str, int]] = set()

    def take(self, host: str, port: int) -> socket.socket | None:
        """A copy of the socket that listens there; None when none was passed. Closing it leaves the port open."""
        for one in self._sockets:
            address = _address(one)
            if address[1] == port and _same(address[0], host):
                self._taken.add(address)
                return one.dup()
        return None

    def idle(self) -> list[str]:
        """Addresses nobody took: clients can connect there, and nobody answers them."""
        addresses = {_address(one) for one in self._sockets} - self._taken
        return sorted(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in addresses)

    def close(self) -> None:
        """Let go of them; whoever passed them has them still."""
        for one in self._sockets:
            one.close()


def inherited(environment: MutableMapping[str, str] | None = None) -> Inherited:
    """The sockets passed to this very process, if any. The variables are taken away, so that no child believes them."""
    variables = os.environ if environment is None else environment
    count, pid = variables.pop("LISTEN_FDS", ""), variables.pop("LISTEN_PID", "")
    variables.pop("LISTEN_FDNAMES", None)
    if not count.isdigit() or pid != str(os.getpid()):
        return Inherited()
    sockets = []
    for number in range(_FIRST, _FIRST + int(count)):
        os.set_inheritable(number, False)
        one = socket.socket(fileno=number)
        if one.type == socket.SOCK_STREAM and one.family in (socket.AF_INET, socket.AF_INET6):
            sockets.append(one)
        else:
            one.close()
    return Inherited(sockets)


def _address(one: socket.socket) -> tuple[str, int]:
    host, port = one.getsockname()[:2]
    return str(host), int(port)


def _same(bound: str, wanted: str) -> bool:
    """Whether a socket bound to one address serves a listener of the other; ``::`` takes IPv4 as well."""
    if wanted == "localhost":
        return bound in ("127.0.0.1", "::1")
    if bound in _ANY and wanted in (*_ANY, ""):
        return bound == wanted or bound == "::"
    try:
        return ipaddress.ip_address(bound) == ipaddress.ip_address(wanted)
    except ValueError:
        return False


def notify(*lines: str) -> None:
    """Tell the service manager, as in ``READY=1``. Never fails and never waits: nobody may be listening."""
    where = os.environ.get("NOTIFY_SOCKET", "")
    if not where or not hasattr(socket, "AF_UNIX"):
        return
    address = "\0" + where[1:] if where.startswith("@") else where
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.setblocking(False)
        channel.sendto("\n".join(lines).encode(), address)


def reloading() -> None:
    """A reload begins; `ready` ends it."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def ready(words: str) -> None:
    """It serves; ``words`` are shown by `systemctl status`."""
    notify("READY=1", f"STATUS={words}")


def watchdog_interval() -> float | None:
    """Seconds in which the manager wants to hear from this process; None: it does not watch."""
    text = os.environ.get("WATCHDOG_USEC", "")
    if (
        not text.isdigit()
        or int(text) == 0
        or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid())
    ):
        return None
    return int(text) / 1_000_000


async def keep_watched() -> None:
    """Give a sign of life for as long as the event loop turns: one that hangs is killed and started again."""
    interval = watchdog_interval()
    while interval is not None:
        notify("WATCHDOG=1")
        await asyncio.sleep(interval / 3)
