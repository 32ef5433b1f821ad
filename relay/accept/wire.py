"""One client's connection: octets in and out, time-outs, and how it ends.

A subclass of aiosmtpd's protocol that keeps its place (asyncio protocol, Session, Envelope) and replaces its
machinery: no reader and writer streams, no reflection for each connection, no name look-ups, no logging. Octets
gather in one buffer, a task takes what it can from it, and waits only when it is empty; reading pauses when the
buffer is ahead of the task, so memory stays bounded. The task is never cancelled: a client that goes away makes its
next wait fail, and a commit under way is finished (contrast aiosmtpd, which cancels its handler at end of file).
"""

from __future__ import annotations

import asyncio
from typing import Any

from aiosmtpd.smtp import SMTP, Session

from relay import events
from relay.accept import proxy, replies
from relay.accept.limits import Patience
from relay.accept.setup import Roster, Setup

AHEAD = 128 * 1024
"""Octets unread in the buffer beyond which reading pauses."""

LINE_LIMIT = 12288
"""Octets of a command line: RFC 4954 section 4 needs this much for AUTH."""

SKIP_LIMIT = 64 * 1024
"""Octets of an endless line that are skipped before the connection is closed."""

STRANGERS = 200
"""Connections that were turned away and linger; beyond that they are closed at once, so that a flood costs no descriptors."""

LINGER = 2.0
"""Seconds a closed connection still swallows input, so that the last reply is read and not lost to a reset."""

FLUSH_TIME = 10.0
"""Seconds for the last octets to leave before the connection is cut."""

PROXY_TIME = 10.0


class Gone(Exception):
    """The client has left, or was told to: nothing more can be read."""


class Wire(SMTP):
    """The transport under a session, and the client's patience with it."""

    __slots__ = (
        "_address", "_balanced", "_buffer", "_choked", "_closing", "_deaf", "_departure", "_entered", "_eof", "_greeted",
        "_held", "_listening", "_lost", "_out", "_patience", "_port", "_roster", "_scanned", "_setup",
        "_skipped", "_task", "_timer", "_tls", "_waiter", "_wire", "_writable", "session",
    )  # fmt: skip
    session: Session

    def __init__(self, roster: Roster) -> None:  # deliberately not the base's: see the head of the file
        self._roster = roster
        self._setup: Setup = roster.setup
        self._buffer = bytearray()
        self._scanned = self._skipped = 0
        self._out: list[bytes] = []
        self._task: asyncio.Task[None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._choked = self._closing = self._deaf = self._entered = self._eof = False
        self._greeted = self._held = self._listening = self._lost = self._balanced = False
        self._tls: str | None = None
        self._departure: asyncio.Event | None = None
        self.session = Session(roster.loop)

    # asyncio's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        self._wire: Any = transport
        peer = transport.get_extra_info("peername") or ("", 0)
        self._address, self._port = proxy.plain(peer[0]), peer[1]
        self._patience = Patience(self._setup.limits.idle, self._setup.clock.monotonic())
        self._roster.join(self)
        self._balanced = bool(self._setup.balancers) and self._address in self._setup.balancers
        if self._balanced:
            self._patience.idle = min(PROXY_TIME, self._patience.idle)
        self._timer = self._roster.loop.call_later(self._patience.idle, self._look)
        if not self._balanced:
            self._enter()

    def data_received(self, data: bytes) -> None:
        """Octets have come."""
        if self._deaf:
            return
        self._buffer += data
        self._patience.octets += len(data)
        if self._task is None:
            self._task = self._roster.loop.create_task(self._serve())
        elif self._listening:
            self._attend()
        elif self._waiter is not None:
            self._wake()
        if len(self._buffer) > AHEAD and not self._held:
            self._held = True
            self._wire.pause_reading()

    def eof_received(self) -> bool:
        """The client will send no more; it may still be waiting for an answer (half-close)."""
        self._eof = True
        self._depart()
        self._wake()
        return self._task is not None and not self._deaf and self._tls is None

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is over, whoever ended it. Also called by us when a TLS handshake failed."""
        if self._lost:
            return
        self._lost = self._eof = True
        self._depart()
        self._timer.cancel()
        if self._task is None and not self._closing:
            self._note("connected and left without a word")
        if self._entered:
            self._roster.gate.leave(self._address)
        self._wake()
        self.resume_writing()
        if self._task is None or self._task.done():
            self._roster.leave(self)

    @property
    def client(self) -> str:
        """Its address, as stated by a balancer where one is believed."""
        return self._address

    @property
    def counted(self) -> bool:
        """Whether the gate counts it."""
        return self._entered and not self._lost

    def _watch_departure(self) -> asyncio.Event:
        """Set when the client leaves before it is answered."""
        self._departure = asyncio.Event()
        self._depart()
        return self._departure

    def _depart(self) -> None:
        """A client that stops sending in the middle of a session has left; one whose last word is QUIT may listen still.

        TCP does not tell a closed connection from one that is closed for sending alone.
        """
        quits = self._eof and self._buffer[-8:].strip().upper().endswith(b"QUIT")
        if self._departure is not None and (self._lost or (self._eof and not quits)):
            self._departure.set()

    def pause_writing(self) -> None:
        """The client does not read its replies."""
        self._choked = True

    def resume_writing(self) -> None:
        """It does again."""
        self._choked = False
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    # what the classes above fill in

    def _enter(self) -> None:
        """Let the client in or turn it away, by its (stated) address."""
        raise NotImplementedError

    async def _serve(self) -> None:
        """The connection's life, from its first octet on."""
        raise NotImplementedError

    def _attend(self) -> None:
        """Commands that came while the task waits for them."""
        raise NotImplementedError

    def _resting(self) -> bool:
        """Whether the client is between messages."""
        return True

    # reading and writing

    def _say(self, line: bytes) -> None:
        """Answer, together with what else is answered before the next wait (RFC 2920 section 3.2)."""
        self._out.append(line)

    def _flush(self) -> None:
        if self._out:
            if not self._lost:
                self._wire.write(b"".join(self._out) if len(self._out) > 1 else self._out[0])
            self._out.clear()

    async def _drained(self) -> None:
        """Send what is owed, and wait while the client does not read it."""
        self._flush()
        while self._choked and not self._lost:
            self._writable = self._roster.loop.create_future()
            await self._writable
            self._writable = None

    async def _more(self) -> None:
        """Send what is owed and wait for octets. Raises Gone at the end of the connection."""
        before = len(self._buffer)
        await self._drained()
        if self._eof or self._closing:
            raise Gone
        if len(self._buffer) > before:
            return  # it came while we waited to be read
        if self._held:
            self._held = False
            self._wire.resume_reading()
        self._waiter = self._roster.loop.create_future()
        await self._waiter
        if self._lost or self._closing:
            raise Gone

    async def _more_within(self, seconds: float) -> bool:
        """The same, but at most so long: False when nothing came (or nothing more will)."""
        if self._eof:
            return False
        before = len(self._buffer)
        timer = self._roster.loop.call_later(seconds, self._wake)
        try:
            await self._more()
        finally:
            timer.cancel()
        return len(self._buffer) > before

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _take_line(self) -> bytes | None:
        """A command line without its end (CRLF or LF); None when there is no complete one."""
        buffer = self._buffer
        end = buffer.find(b"\n", self._scanned)
        if end < 0:
            self._scanned = len(buffer)
            if self._scanned > LINE_LIMIT:
                self._skip_line(len(buffer))
            return None
        line = bytes(buffer[:end]).removesuffix(b"\r")
        del buffer[: end + 1]
        self._scanned = 0
        if self._skipped or len(line) > LINE_LIMIT:
            self._skipped = 0
            return b"\0"  # what is left of a line that was too long: no command is spelt like this
        return line

    def _skip_line(self, size: int) -> None:
        self._skipped += size
        self._buffer.clear()
        self._scanned = 0
        if self._skipped > SKIP_LIMIT:
            self._hang_up(replies.TOO_LONG)

    def _take(self, most: int) -> bytes:
        """Up to so many octets from the buffer."""
        if len(self._buffer) <= most:
            block = bytes(self._buffer)
            self._buffer.clear()
        else:
            block = bytes(self._buffer[:most])
            del self._buffer[:most]
        self._scanned = 0
        return block

    # time

    def _look(self) -> None:
        """The connection's one timer: is the client still worth waiting for?"""
        if self._deaf or self._wire.is_closing():
            self._wire.abort()
            return
        now = self._setup.clock.monotonic()
        if self._task is not None and self._waiter is None and self._writable is None:
            self._patience.restart(now)  # it is we who are busy
        left = self._patience.remaining(now)
        if left > 0:
            self._timer = self._roster.loop.call_later(left, self._look)
        elif self._writable is not None:
            self._note("reads no replies: cut off")
            self._wire.abort()
        else:
            self._note("timed out")
            self._hang_up(b"" if self._setup.implicit_tls and not self._tls else replies.CLOSE_IDLE)

    # the end

    def _hang_up(self, line: bytes = b"", *, linger: bool = True) -> None:
        """Say a last word and close. Input still under way is swallowed for a moment, else a reset may eat it."""
        if self._closing or self._lost:
            return
        self._closing = self._deaf = True
        if line:
            self._say(line)
        self._flush()
        self._buffer.clear()
        self._timer.cancel()
        if not linger and self._tls is None and not self._wire.get_write_buffer_size():
            self._wire.close()  # the usual end after QUIT: nothing left to wait for
            self._wake()
            return
        linger = linger and bool(line) and self._tls is None and not self._eof and self._wire.can_write_eof()
        self._timer = self._roster.loop.call_later(LINGER if linger else FLUSH_TIME, self._look)
        if linger:
            self._wire.write_eof()
            self._wire.resume_reading()
        else:
            self._wire.close()
        self._wake()

    def retire(self, *, at_once: bool) -> None:
        """The relay is stopping: go now if the client is between messages, or in any case when ``at_once``."""
        if self._closing and at_once:
            self._wire.abort()
        waiting = self._task is None or self._waiter is not None
        if waiting and (at_once or (self._resting() and not self._buffer)):
            self._hang_up(replies.CLOSE_STOPPING, linger=bool(self._buffer) or not self._resting())

    # telling

    def _note(self, what: str) -> None:
        events.connection(client=self._address, what=what, listener=self._setup.listener.bind)

    def _note_refusal(self, phase: str, line: bytes, reason: str = "") -> None:
        self._roster.rejected += 1
        shown = replies.show(line)
        events.rejected(
            client=self._address, phase=phase, reply=shown, reason=replies.clean(reason) or shown,
            listener=self._setup.listener.bind,
        )  # fmt: skip
