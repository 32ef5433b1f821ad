"""Exchange Online's SMTP submission port: the listening socket and the sessions on it."""

from __future__ import annotations

import asyncio
import itertools
import logging
import ssl

from relay.simulator.channel import Channel
from relay.simulator.services import Services
from relay.simulator.session import Session

HOST_NAME = "SIM0PR01CA0001.outlook.office365.com"
BACKLOG = 1024

_log = logging.getLogger(__name__)


class Exchange:
    """The SMTP service; it can be taken down and brought back on the same port."""

    def __init__(self, services: Services, context: ssl.SSLContext, host: str, port: int) -> None:
        self.port = port
        self._services = services
        self._context = context
        self._host = host
        self._server: asyncio.Server | None = None
        self._numbers = itertools.count(1)
        self._sessions: dict[asyncio.Task[None], Channel] = {}

    async def start(self) -> None:
        """Listen; a port of 0 is replaced by the one the system chose. Raises OSError."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._channel, self._host, self.port, backlog=BACKLOG)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and cut every connection."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task, channel in list(self._sessions.items()):
            task.cancel()
            channel.abort()
        await asyncio.gather(*self._sessions, return_exceptions=True)

    async def follow(self, *, down: bool) -> None:
        """Be down, or up, as the state says."""
        if down and self._server is not None:
            await self.stop()
        elif not down and self._server is None:
            await self.start()

    def _channel(self) -> Channel:
        return Channel(self._opened, lambda: self._services.state.latency)

    def _opened(self, channel: Channel) -> None:
        counters = self._services.store.counters
        counters["connections"] += 1
        session = Session(self._services, channel, HOST_NAME, next(self._numbers), self._context)
        task = asyncio.get_running_loop().create_task(session.run())
        self._sessions[task] = channel
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        channel = self._sessions.pop(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._services.store.counters["faults_of_the_simulator"] += 1
            _log.error("an SMTP session of the simulator failed", exc_info=error)
            channel.abort()
