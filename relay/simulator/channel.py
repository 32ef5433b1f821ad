"""One SMTP connection's bytes: lines and chunks in, replies out, and the change to TLS.

A protocol of its own instead of asyncio's streams, because what a client sent in clear before the TLS
handshake has to be thrown away (RFC 3207 section 4.2), and because a body is taken in large pieces.
"""

from __future__ import annotations

import asyncio
import math
import ssl
from collections.abc import Callable
from typing import cast

HIGH_WATER = 512 * 1024  # octets received and not yet read, beyond which the sender has to wait
COMMAND_BOUND = 16 * 1024  # octets; AUTH lines may be 12,288 (RFC 4954 section 4.1)


class Ended(ConnectionError):
    """The client went away."""


class LineTooLong(ValueError):
    """A command line beyond the bound; it has been skipped to its end."""


class Channel(asyncio.Protocol):
    """The connection. Reading gives up with TimeoutError after ``idle`` seconds, or at the loop time ``ends``."""

    def __init__(self, opened: Callable[[Channel], None], latency: Callable[[], float]) -> None:
        self.transport: asyncio.Transport | None = None
        self.peer = ""
        self.tls = False
        self.idle = 0.0  # 0: no bound
        self.ends = math.inf
        self.closed = asyncio.Event()
        self._opened = opened
        self._latency = latency
        self._buffer = bytearray()
        self._out: list[bytes] = []
        self._waiter: asyncio.Future[None] | None = None
        self._eof = False
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio once for each connection."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        peername = transport.get_extra_info("peername")
        self.peer = str(peername[0]) if peername else ""
        self._opened(self)

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        self._buffer += data
        if len(self._buffer) > HIGH_WATER and not self._paused and self.transport is not None:
            self._paused = True
            self.transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        """Called by asyncio; the connection then closes."""
        self._eof = True
        self._wake()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """Called by asyncio."""
        self._eof = True
        self.closed.set()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _more(self) -> None:
        """Wait until something new has arrived. Replies not yet sent go out first."""
        await self.flush()
        if self._eof:
            raise Ended("the client closed the connection")
        self._resume()
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        deadline = min(self.ends, loop.time() + self.idle if self.idle else math.inf)
        timer = None if math.isinf(deadline) else loop.call_at(deadline, self._expire, self._waiter)
        try:
            await self._waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    @staticmethod
    def _expire(waiter: asyncio.Future[None]) -> None:
        if not waiter.done():
            waiter.set_exception(TimeoutError())

    def _resume(self) -> None:
        if self._paused and self.transport is not None and not self._eof:
            self._paused = False
            self.transport.resume_reading()

    async def line(self) -> bytes:
        """The next line without its LF (a CR stays). Raises Ended, TimeoutError, LineTooLong."""
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            if len(self._buffer) > COMMAND_BOUND:
                await self._skip_line()
            searched = len(self._buffer)
            await self._more()
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        if end > COMMAND_BOUND:
            raise LineTooLong
        return line

    async def _skip_line(self) -> None:
        while (end := self._buffer.find(b"\n")) < 0:
            self._buffer.clear()
            await self._more()
        del self._buffer[: end + 1]
        raise LineTooLong

    async def chunk(self) -> bytes:
        """Everything that has arrived, at least one octet. Raises Ended, TimeoutError."""
        while not self._buffer:
            await self._more()
        data = bytes(self._buffer)
        self._buffer.clear()
        self._resume()
        return data

    def unread(self, data: bytes) -> None:
        """Put back what belongs to the next command."""
        self._buffer[:0] = data

    def write(self, reply: str) -> None:
        """Queue a reply, given without its CRLF; several wait for one `flush`, as pipelining allows."""
        self._out.append(reply.encode() + b"\r\n")

    async def flush(self) -> None:
        """Send what is queued, after the latency of a round trip."""
        if not self._out:
            return
        if seconds := self._latency():
            await asyncio.sleep(seconds)
        if self.transport is not None and not self._eof:
            self.transport.write(b"".join(self._out))
        self._out.clear()

    async def start_tls(self, context: ssl.SSLContext, seconds: float) -> None:
        """Shake hands; everything received in clear is dropped. Raises ssl.SSLError, OSError."""
        await self.flush()
        self._buffer.clear()
        if self.transport is None or self._eof:
            raise Ended("the client left before the handshake")
        transport = await asyncio.get_running_loop().start_tls(
            self.transport, self, context, server_side=True, ssl_handshake_timeout=seconds
        )
        if transport is None:
            raise Ended("the client left during the handshake")
        self.transport = transport
        self.tls = True

    def abort(self) -> None:
        """Cut the connection at once, unsent replies and all."""
        self._out.clear()
        if self.transport is not None:
            self.transport.abort()

    async def close(self) -> None:
        """Send what is queued, then close in order."""
        await self.flush()
        if self.transport is not None:
            self.transport.close()
