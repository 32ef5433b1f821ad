"""aiosmtplib's protocol, able to have many commands under way at once (PIPELINING, RFC 2920).

aiosmtplib reads one reply per command written; ours counts the replies that are owed and queues them as they come.
Its parser, its bounds on a reply, its flow control and its STARTTLS upgrade are used as they are.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from typing import cast

from aiosmtplib import (
    SMTPReadTimeoutError,
    SMTPResponse,
    SMTPResponseException,
    SMTPServerDisconnected,
)
from aiosmtplib.protocol import MAX_LINE_LENGTH, MAX_RESPONSE_LENGTH, SMTPProtocol

from relay.deliver.classify import Fallen

MOST_QUEUED = 2048
"""Replies waiting to be read: more than a message may have recipients (RFC 2920), so more is misbehaviour."""

Answer = SMTPResponse | SMTPResponseException


class Wire(SMTPProtocol):
    """One connection's dialogue: write any number of commands, then read their replies in order.

    Not for concurrent use: one dialogue at a time. ``unasked`` holds a reply nobody waited for (a 421 between
    messages); after one, after a malformed reply or a time-out, the connection is ``broken``.
    """

    def __init__(self) -> None:
        super().__init__(loop=asyncio.get_running_loop())
        self._answers: deque[Answer] = deque()
        self._owed = 1
        self._reader: asyncio.Future[None] | None = None
        self._lost: SMTPServerDisconnected | None = None
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.unasked: SMTPResponse | None = None
        self.broken = False

    @property
    def alive(self) -> bool:
        """Whether another command makes sense."""
        return not self.broken and self._lost is None and self.is_connected

    @property
    def early(self) -> bool:
        """Whether something came that nobody asked for yet: while a body is streamed, the server gave up on it."""
        return self.unasked is not None or self._lost is not None or self.broken

    # called by the transport

    def data_received(self, data: bytes) -> None:
        self._buffer.extend(data)
        if len(self._buffer) > MAX_RESPONSE_LENGTH * 2:
            self._take(SMTPResponseException(-1, "Response too long"))
            return
        while self._buffer and not self.broken:
            try:
                answer = self._one_line() or self._read_response_from_buffer()
            except SMTPResponseException as error:
                self._take(error)
                return
            if answer is None:
                break
            self._take(answer)
        if len(self._buffer) > MAX_RESPONSE_LENGTH:
            self._take(SMTPResponseException(-1, "Response too long"))

    def _one_line(self) -> SMTPResponse | None:
        """The next reply when it is whole and has one line, as nearly all have: aiosmtplib's parser takes five times as long."""
        buffer = self._buffer
        end = buffer.find(b"\n")
        if not 4 <= end < MAX_LINE_LENGTH or buffer[3] != 32 or not buffer[:3].isdigit():
            return None
        code, words = int(buffer[:3]), buffer[4:end].strip(b" \t\r\n")
        del buffer[: end + 1]
        return SMTPResponse(code, words.decode("utf-8", "surrogateescape"))

    def eof_received(self) -> bool:
        self._lose(SMTPServerDisconnected("The server closed the connection"))
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        lost = SMTPServerDisconnected("Connection lost")
        lost.__cause__ = exc
        self._lose(lost)
        self._disarm()
        super().connection_lost(exc)

    def _take(self, answer: Answer) -> None:
        if isinstance(answer, SMTPResponseException) or len(self._answers) >= MOST_QUEUED:
            del self._buffer[:]
            self.broken = True
        if self._owed:
            self._owed -= 1
            self._answers.append(answer)
            self._wake()
        else:
            self.broken = True
            self.unasked = answer if isinstance(answer, SMTPResponse) else SMTPResponse(-1, answer.message)

    def _lose(self, error: SMTPServerDisconnected) -> None:
        if self._lost is None:
            self._lost = error
        self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    # called by the dialogue

    def send(self, data: bytes, replies: int) -> None:
        """Write one or more whole commands (each with CRLF) that ``replies`` replies will answer.

        Raises SMTPServerDisconnected when there is nobody to write to.
        """
        if self._lost is not None:
            raise self._lost
        self._owed += replies
        self.write(data)

    async def read_response(self, timeout: float | None = None) -> SMTPResponse:
        """The next reply, within ``timeout`` seconds.

        Raises SMTPResponseException (code -1) for a malformed one, SMTPReadTimeoutError, SMTPServerDisconnected.
        """
        while not self._answers:
            if self._lost is not None:
                raise self._lost
            if self.broken:
                raise SMTPServerDisconnected("The dialogue is out of step")
            await self._await_answer(timeout or 0.0)
        answer = self._answers.popleft()
        if isinstance(answer, SMTPResponseException):
            raise answer
        if answer.code == 421:  # RFC 5321 section 3.8: it closes the channel, whatever was under way
            self.broken = True
        return answer

    async def _await_answer(self, timeout: float) -> None:
        self._reader = self._loop.create_future()
        self._arm(timeout)
        try:
            await self._reader
        finally:
            self._reader = None

    def _arm(self, timeout: float) -> None:
        """Set the deadline. One timer serves many reads: it is moved when it fires, not at each reply."""
        self._deadline = self._loop.time() + timeout
        if self._timer is not None and self._timer.when() > self._deadline:
            self._disarm()
        if self._timer is None:
            self._timer = self._loop.call_at(self._deadline, self._tick)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        self._timer = None
        if self._reader is None or self._reader.done():
            return
        if self._loop.time() >= self._deadline:
            self.broken = True
            self._reader.set_exception(SMTPReadTimeoutError("The server did not answer in time"))
        else:
            self._timer = self._loop.call_at(self._deadline, self._tick)

    async def command(self, line: bytes, timeout: float) -> SMTPResponse:
        """One command without its CRLF, and its reply."""
        self.send(line + b"\r\n", 1)
        return await self.read_response(timeout)

    async def drained(self, timeout: float) -> None:
        """Wait until the transport takes more; ``timeout`` seconds without any progress raise TimeoutError.

        Lets the loop turn once in any case: a lost connection is only then noticed, and others get their turn.
        """
        await asyncio.sleep(0)
        if self._paused:
            async with asyncio.timeout(timeout):
                await self._drain_helper()

    async def secure(self, context: ssl.SSLContext, host: str, timeout: float) -> SMTPResponse:
        """STARTTLS (RFC 3207). Raises Fallen when text was slipped in before TLS began, ssl.SSLError and the like."""
        self._owed += 1
        answer = await self.start_tls(context, host, timeout)
        if self.unasked is not None or self._answers:
            raise Fallen("starttls-injected")
        return answer

    def tls_version(self) -> str:
        """``TLSv1.3`` and the like; empty in clear."""
        found = self.transport.get_extra_info("ssl_object") if self.transport is not None else None
        return found.version() or "" if found is not None else ""

    def abort(self) -> None:
        """Drop the connection at once, without a word; whoever waits for a reply hears that it is lost."""
        self.broken = True
        self._disarm()
        self._wake()
        if self.transport is not None:
            cast(asyncio.Transport, self.transport).abort()
