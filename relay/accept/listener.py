"""A listening address: binds, keeps its connections, stops in good order."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Collection, Sequence

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
        self,
        listener: Listener,
        intake: Intake,
        *,
        hostname: str,
        sock: socket.socket | None = None,
        sockets: Sequence[socket.socket] = (),
    ) -> None:
        """``hostname`` is our name in the banner where ``intake`` has none; ``sock``, ``sockets``: bound already."""
        self._listener = listener
        self._intake = intake
        intake.hostname = intake.hostname or hostname
        self._sockets = [sock] if sock is not None else list(sockets)
        self._certificates = Certificates()
        self._servers: list[asyncio.Server] = []
        self._roster: Roster | None = None
        self._address = (listener.host, listener.port)
        self.elsewhere: dict[object, tuple[int, int]] = {}
        """Clients connected now and refusals since, by helper process that accepts here too."""

    @property
    def address(self) -> tuple[str, int]:
        """Host and port as bound; the port the system chose where 0 was asked for."""
        return self._address

    @property
    def listener(self) -> Listener:
        """The settings of new connections."""
        return self._listener

    @property
    def roster(self) -> Roster:
        """Who is connected, and the counts by client. Only after `prepare` or `start`."""
        assert self._roster is not None
        return self._roster

    @property
    def connections(self) -> int:
        """Clients connected now."""
        here = len(self._roster.channels) if self._roster else 0
        return here + sum(connections for connections, _ in self.elsewhere.values())

    @property
    def accepted(self) -> int:
        """Messages accepted since the start."""
        return self._roster.accepted if self._roster else 0

    @property
    def rejected(self) -> int:
        """Connections, logins, senders, recipients and messages refused since the start."""
        here = self._roster.rejected if self._roster else 0
        return here + sum(rejected for _, rejected in self.elsewhere.values())

    def prepare(self) -> None:
        """Read the certificate. Raises OSError that says what is wrong with it."""
        tls = self._certificates.context(self._listener.tls)
        self._roster = Roster(Setup(self._listener, self._intake, tls), asyncio.get_running_loop())

    async def start(self) -> None:
        """Listen. Raises OSError that says what is wrong and what to do (address in use, no right, certificate)."""
        if self._roster is None:
            self.prepare()
        loop, roster = asyncio.get_running_loop(), self.roster
        try:
            if self._sockets:
                for one in self._sockets:
                    server = await loop.create_server(lambda: Connection(roster), sock=one, backlog=BACKLOG)
                    self._servers.append(server)
            else:
                self._servers = [
                    await loop.create_server(
                        lambda: Connection(roster), self._listener.host, self._listener.port, backlog=BACKLOG
                    )
                ]
        except OSError as error:
            raise explained(error, self._listener) from error
        self._address = self._servers[0].sockets[0].getsockname()[:2]

    def copies(self) -> list[socket.socket]:
        """The listening sockets once more, for another process to accept on."""
        open_now = [one for server in self._servers for one in server.sockets]
        return [socket.socket(fileno=os.dup(one.fileno())) for one in open_now]

    def _deafen(self) -> None:
        """Accept nobody more; who was accepted a turn ago still becomes a client.

        asyncio's own loop accepts in one turn and makes the transport in the next; a server that was closed in between
        leaves that client without a word. (uvloop does both at once, and has nothing to take away here.)
        """
        loop = asyncio.get_running_loop()
        for server in self._servers:
            for one in server.sockets:
                with contextlib.suppress(NotImplementedError, RuntimeError):  # no such loop: Windows
                    loop.remove_reader(one.fileno())

    @property
    def paused(self) -> bool:
        """Whether another process accepts for it."""
        return self._roster is not None and not self._servers and not self._roster.draining

    async def resume(self) -> None:
        """Accept again after `pause_all`."""
        if not self.roster.draining:
            await self.start()

    @staticmethod
    async def pause_all(servers: Collection[ListenerServer]) -> None:
        """Accept no more on these, without closing the ports: another process accepts on copies of the sockets.

        Connections that were accepted a moment ago are counted when it returns.
        """
        for one in servers:
            one._sockets = one.copies()
            one._deafen()
        await _turns()
        for one in servers:
            one._close()
        await _turns()

    def _close(self) -> None:
        for server in self._servers:
            server.close()
        self._servers = []

    def update(self, listener: Listener, intake: Intake) -> None:
        """After a reload: new connections follow these settings, open ones keep theirs."""
        intake.hostname = intake.hostname or self._intake.hostname
        self._listener, self._intake = listener, intake
        if self._roster is not None:
            self._roster.setup = Setup(listener, intake, self._certificates.renewed(listener.tls))

    def renew(self) -> bool:
        """Use a certificate whose files have changed, for new connections; whether there was one."""
        if self._roster is None or not self._certificates.changed(self._listener.tls):
            return False
        before = self._roster.setup.tls
        self.update(self._listener, self._intake)
        if self._roster.setup.tls is not before:
            events.notice(what="certificate read again", listener=self._listener.bind)
        return self._roster.setup.tls is not before

    async def drain(self, deadline: float) -> None:
        """Stop accepting; idle clients get 421 4.3.2, those in a message up to ``deadline`` seconds, then 421 too."""
        roster = self._roster
        if roster is None:
            return
        roster.draining = True
        self._deafen()
        await _turns()
        self._close()
        for one in self._sockets:
            one.close()
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


async def _turns() -> None:
    """Let the event loop finish with what it has just accepted."""
    for _ in range(2):
        await asyncio.sleep(0)


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
