"""An SMTP server that takes everything and keeps nothing: where relay and Postfix deliver to, both over STARTTLS.

`python -m benchmarks.sink --certificate server.pem` prints ``{"port": .., "control": ..}`` and serves until SIGTERM. Each
connection to the control port is answered with one line of counters, so that asking costs the measured programs nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import signal
import ssl
import sys
import time
from collections import deque
from typing import cast

import uvloop

_GREETING = b"220 sink.example ESMTP\r\n"
_HELLO = (
    b"250-sink.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-DSN\r\n250-SIZE 157286400\r\n"
)
_END = b"\r\n.\r\n"
_MARK = re.compile(rb"^X-Bench: (\S+)", re.MULTILINE)
_THROTTLED = b"432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded\r\n"
_ANSWERS = {
    b"MAIL": b"250 2.1.0 Sender OK\r\n",
    b"RCPT": b"250 2.1.5 Recipient OK\r\n",
    b"RSET": b"250 2.0.0 OK\r\n",
    b"NOOP": b"250 2.0.0 OK\r\n",
    b"AUTH": b"235 2.7.0 Authentication successful\r\n",
    b"DATA": b"354 Start mail input; end with <CRLF>.<CRLF>\r\n",
}


class Counters:
    """What all connections together have seen."""

    def __init__(self) -> None:
        self.connections = self.handshakes = self.logins = self.messages = self.octets = self.refused = 0
        self.stamps: list[tuple[float, str]] = []
        """Monotonic times of messages, and what their X-Bench field says; only kept when asked for."""
        self.keep_stamps = False

    def took(self, octets: int, mark: str) -> None:
        """One message arrived whole."""
        self.messages += 1
        self.octets += octets
        if self.keep_stamps:
            self.stamps.append((time.monotonic(), mark))


class Limit:
    """Exchange's: so many messages in any 60 s, counted at MAIL, refused ones included. 0: none."""

    def __init__(self, per_minute: int) -> None:
        self._most = per_minute
        self._times: deque[float] = deque()

    def admit(self) -> bool:
        """Count one more; whether it may go."""
        now = time.monotonic()
        while self._times and self._times[0] <= now - 60:
            self._times.popleft()
        self._times.append(now)
        return not self._most or len(self._times) <= self._most


class Session(asyncio.Protocol):
    """One connection. Commands are answered as they come; the message is searched for its end and dropped."""

    def __init__(self, counters: Counters, context: ssl.SSLContext, limit: Limit, latency: float) -> None:
        self._counters = counters
        self._context = context
        self._limit = limit
        self._latency = latency
        self._mark = ""
        self._refusing = False
        self._buffer = b""
        self._in_data = False
        self._size = 0
        self._tail = b""
        self._secure = False
        self._upgrading: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own class
        if not self._secure:
            self._counters.connections += 1
            self._say(_GREETING)

    def _say(self, answer: bytes) -> None:
        """Now, or a round trip later."""
        assert self._transport is not None
        if self._latency:
            asyncio.get_running_loop().call_later(self._latency, self._transport.write, answer)
        else:
            self._transport.write(answer)

    def data_received(self, data: bytes) -> None:
        while data:
            data = self._content(data) if self._in_data else self._commands(data)

    def _content(self, data: bytes) -> bytes:
        """Take message octets; what follows the end is returned."""
        window = self._tail + data
        if self._counters.keep_stamps and not self._size:
            found = _MARK.search(data[:4096])
            self._mark = found[1].decode() if found else ""
        end = window.find(_END)
        if end < 0:
            self._size += len(data)
            self._tail = window[-4:]
            return b""
        self._in_data = False
        used = end + len(_END) - len(self._tail)
        self._counters.took(self._size + used, self._mark)
        self._say(b"250 2.0.0 OK\r\n")
        return data[used:]

    def _commands(self, data: bytes) -> bytes:
        self._buffer += data
        answers = b""
        rest = b""
        while b"\r\n" in self._buffer:
            line, _, self._buffer = self._buffer.partition(b"\r\n")
            verb = line[:4].upper()
            if verb == b"STAR":
                self._buffer = b""
                self._upgrade()
                return b""
            if verb == b"MAIL":
                self._refusing = not self._limit.admit()
            if self._refusing and verb in (b"MAIL", b"RCPT", b"DATA"):
                answers += _THROTTLED if verb == b"MAIL" else b"503 5.5.1 MAIL first\r\n"
                self._counters.refused += verb == b"MAIL"
                continue
            answers += self._answer(verb)
            if verb == b"DATA":
                self._in_data, self._size, self._tail = True, 0, b"\r\n"
                rest, self._buffer = self._buffer, b""
                break
        if answers:
            self._say(answers)
        return rest

    def _answer(self, verb: bytes) -> bytes:
        if verb in (b"EHLO", b"HELO"):
            return _HELLO + (b"250 AUTH LOGIN XOAUTH2\r\n" if self._secure else b"250 STARTTLS\r\n")
        if verb == b"QUIT":
            assert self._transport is not None
            self._transport.write(b"221 2.0.0 Bye\r\n")
            self._transport.close()
            return b""
        if verb == b"AUTH":
            self._counters.logins += 1
        return _ANSWERS.get(verb, b"502 5.5.1 Not here\r\n")

    def _upgrade(self) -> None:
        assert self._transport is not None
        transport = self._transport
        transport.write(b"220 2.0.0 Ready\r\n")
        self._secure = True
        self._upgrading = asyncio.ensure_future(self._handshake(transport))

    async def _handshake(self, transport: asyncio.Transport) -> None:
        loop = asyncio.get_running_loop()
        try:
            secure = await loop.start_tls(transport, self, self._context, server_side=True)
        except (OSError, ConnectionError):
            transport.abort()
            return
        self._transport = secure
        self._counters.handshakes += 1


async def serve(certificate: str, port: int, per_minute: int, latency: float, stamps: bool) -> None:
    """Until SIGTERM."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate)
    counters, loop, stop = Counters(), asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    limit = Limit(per_minute)
    counters.keep_stamps = stamps
    server = await loop.create_server(
        lambda: Session(counters, context, limit, latency), "127.0.0.1", port, backlog=1024
    )

    async def control(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        word = (await reader.readline()).strip()
        if word == b"stamps":
            counters.keep_stamps = True
        shown = {
            name: value for name, value in vars(counters).items() if name != "stamps" or word == b"stamps"
        }
        writer.write(json.dumps(shown).encode() + b"\n")
        writer.close()

    asking = await asyncio.start_server(control, "127.0.0.1", 0)
    ports = {"port": server.sockets[0].getsockname()[1], "control": asking.sockets[0].getsockname()[1]}
    sys.stdout.write(json.dumps(ports) + "\n")
    sys.stdout.flush()
    await stop.wait()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--certificate", required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--per-minute", type=int, default=0, help="messages in any 60 s; 0: no limit")
    parser.add_argument("--stamps", action="store_true", help="keep times and marks from the start")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds added to every reply")
    options = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(
            serve(options.certificate, options.port, options.per_minute, options.latency, options.stamps)
        )


if __name__ == "__main__":
    main()
