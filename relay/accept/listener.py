"""A listening address: binds, keeps its connections, stops in good order."""

from __future__ import annotations

import asyncio
import errno
import socket

from relay import events
from relay.accept.intake import Intake
from relay.accept.session import Connection
from relay.accept.setup import Roster, Setup
from relay.accept.tls import Certificates
from relay.settings import Listener

BACKLOG = 1024
"""Connections the kernel may hold ready; a burst of devices at the hour must not see refusals."""


class ListenerServer:
    """Accepts plain SMTP on one address and port."""

    def __init__(
        self, listener: Listener, intake: Intake, *, hostname: str, sock: socket.socket | None = None
    ) -> None:
        """``hostname`` is our name in the banner where ``intake`` has none; ``sock``: bound already (systemd)."""
        self._listener = listener
        self._intake = intake
        intake.hostname = intake.hostname or hostname
        self._sock = sock
        self._certificates = Certificates()
        self._server: asyncio.Server | None = None
        self._roster: Roster | None = None
        self._address = (listener.host, listener.port)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port as bound; the port the system chose where 0 was asked for."""
        return self._address

    @property
    def connections(self) -> int:
        """Clients connected now."""
        return len(self._roster.channels) if self._roster else 0

    @property
    def accepted(self) -> int:
        """Messages accepted since the start."""
        return self._roster.accepted if self._roster else 0

    @property
    def rejected(self) -> int:
        """Connections, logins, senders, recipients and messages refused since the start."""
        return self._roster.rejected if self._roster else 0

    async def start(self) -> None:
        """Listen. Raises OSError that says what is wrong and what to do (address in use, no right, certificate)."""
        loop = asyncio.get_running_loop()
        tls = self._certificates.context(self._listener.tls)
        roster = self._roster = Roster(Setup(self._listener, self._intake, tls), loop)
        try:
            if self._sock is not None:
                self._server = await loop.create_server(
                    lambda: Connection(roster), sock=self._sock, backlog=BACKLOG
                )
            else:
                self._server = await loop.create_server(
                    lambda: Connection(roster), self._listener.host, self._listener.port, backlog=BACKLOG
                )
        except OSError as error:
            raise explained(error, self._listener) from error
        self._address = self._server.sockets[0].getsockname()[:2]

    def update(self, listener: Listener, intake: Intake) -> None:
        """After a reload: new connections follow these settings, open ones keep theirs."""
        intake.hostname = intake.hostname or self._intake.hostname
        self._listener, self._intake = listener, intake
        if self._roster is not None:
            self._roster.setup = Setup(listener, intake, self._certificates.renewed(listener.tls))

    def renew(self) -> None:
        """Use a certificate whose files have changed, for new connections."""
        if self._roster is None or not self._certificates.changed(self._listener.tls):
            return
        before = self._roster.setup.tls
        self.update(self._listener, self._intake)
        if self._roster.setup.tls is not before:
            events.notice(what="certificate read again", listener=self._listener.bind)

    async def drain(self, deadline: float) -> None:
        """Stop accepting; idle clients get 421 4.3.2, those in a message up to ``deadline`` seconds, then 421 too."""
        roster = self._roster
        if self._server is None or roster is None:
            return
        self._server.close()
        roster.draining = True
        for channel in tuple(roster.channels):
            channel.retire(at_once=False)
        try:
            await asyncio.wait_for(roster.empty.wait(), deadline)
        except TimeoutError:
            await self._cut_off(roster)

    async def _cut_off(self, roster: Roster) -> None:
        for channel in tuple(roster.channels):
            channel.retire(at_once=True)
        try:
            await asyncio.wait_for(roster.empty.wait(), 1.0)
        except TimeoutError:
            return  # a client that does not close, or a commit under way, which finishes by itself


def explained(error: OSError, listener: Listener) -> OSError:
    """The same error in words an administrator can act on."""
    where = f"cannot listen on {listener.bind}"
    if error.errno == errno.EADDRINUSE:
        hint = (
            "another program uses this port (perhaps Postfix, or this relay already); stop it or change bind"
        )
    elif error.errno in (errno.EACCES, errno.EPERM):
        hint = (
            "ports below 1024 need a right: CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities), "
            "or use a port such as 2525"
        )
    elif error.errno == errno.EADDRNOTAVAIL:
        hint = "this machine has no such address; see its addresses, or bind 0.0.0.0"
    else:
        hint = "check bind"
    return OSError(error.errno, f"{where}: {error.strerror or error}; {hint}")
