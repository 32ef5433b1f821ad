"""Who sends a request a letter at a time keeps a connection from somebody else: it ends when its time is over.

aiohttp bounds the wait between two requests, not the time that the head of one may take (the "slowloris" attack).
"""

from __future__ import annotations

import asyncio

from aiohttp import web

HEAD = 10.0
"""Seconds from the connection to the last octet of a request's head."""
BODY = 30.0
"""Seconds for a form's body; 256 KB at most."""
KEEPALIVE = 30.0
"""Seconds that a connection stays open between two requests."""


class Hurried(asyncio.Protocol):
    """Stands between the socket and aiohttp's handler, and ends the connection while no request comes."""

    def __init__(self, handler: asyncio.Protocol) -> None:
        self._handler = handler
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.BaseTransport | None = None

    def wait(self, seconds: float) -> None:
        """The head of the next request has to be here by then."""
        self.arrived()
        if self._transport is not None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._end)

    def arrived(self) -> None:
        """It is here."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end(self) -> None:
        if isinstance(self._transport, asyncio.Transport):
            self._transport.abort()

    # asyncio.Protocol, handed on

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self.wait(HEAD)
        self._handler.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self._handler.data_received(data)

    def eof_received(self) -> bool | None:
        return self._handler.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self.arrived()
        self._transport = None
        self._handler.connection_lost(exc)

    def pause_writing(self) -> None:
        self._handler.pause_writing()

    def resume_writing(self) -> None:
        self._handler.resume_writing()


def hurried(request: web.Request) -> Hurried | None:
    """What keeps the time of this request's connection; None once the connection is gone."""
    protocol = request.transport.get_protocol() if request.transport is not None else None
    return protocol if isinstance(protocol, Hurried) else None
