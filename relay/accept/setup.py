"""What the connections of one listener share: its settings of the moment, who is connected, and the counts."""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from relay.accept.intake import Intake
from relay.accept.limits import Gate, HeaderRoom, Networks
from relay.settings import Listener

if TYPE_CHECKING:
    from relay.accept.wire import Wire

AUTH_WORDS = (b"AUTH PLAIN LOGIN", b"AUTH=LOGIN PLAIN")


class Setup:
    """A listener's settings, made ready once for many connections; a reload makes a new one."""

    def __init__(self, listener: Listener, intake: Intake, tls: ssl.SSLContext | None) -> None:
        self.listener = listener
        self.limits = listener.limits
        self.intake = intake
        self.clock = intake.clock
        self.tls = tls
        self.implicit_tls = listener.tls.mode == "implicit"
        self.hello_tls = listener.tls.mode == "auto"
        self.starttls = listener.tls.mode in ("starttls", "auto")
        direct = listener.answer_after == "upstream"
        self.patience = listener.answer_within if direct else None
        self.tolerant = listener.newlines == "tolerant"
        self.allow = Networks(listener.allow)
        self.balancers = Networks(listener.proxy_protocol_from)
        host = intake.hostname.encode("ascii", "replace")
        self.banner = b"220 %s ESMTP\r\n" % host
        self.helo = b"250 %s\r\n" % host
        self._ehlo: dict[tuple[bool, bool], bytes] = {}

    def ehlo(self, *, secure: bool, auth: bool) -> bytes:
        """The answer to EHLO on a channel with TLS or without, with AUTH or without."""
        known = self._ehlo.get((secure, auth))
        if known is None:
            known = self._ehlo[secure, auth] = self._compose(secure, auth)
        return known

    def _compose(self, secure: bool, auth: bool) -> bytes:
        words = [
            self.intake.hostname.encode("ascii", "replace"),
            b"SIZE %d" % self.limits.message_size,
            b"8BITMIME",
            b"SMTPUTF8",
            b"PIPELINING",
            b"DSN",
            b"CHUNKING",
        ]
        if self.starttls and not secure:
            words.append(b"STARTTLS")
        if auth:
            words.extend(AUTH_WORDS)
        words.append(b"ENHANCEDSTATUSCODES")
        lines = [b"250-%s\r\n" % word for word in words[:-1]]
        return b"".join(lines) + b"250 %s\r\n" % words[-1]


class Roster:
    """Who is connected to one listener, and what became of their mail."""

    def __init__(self, setup: Setup, loop: asyncio.AbstractEventLoop) -> None:
        self.setup = setup
        self.loop = loop
        self.gate = Gate()
        self.header_room = HeaderRoom()
        self.channels: set[Wire] = set()
        self.accepted = 0
        self.rejected = 0
        self.joined = 0
        """Connections since the start."""
        self.on_join: Callable[[], None] | None = None
        """Hears of each."""
        self.draining = False
        self.empty = asyncio.Event()
        self.empty.set()

    def join(self, channel: Wire) -> None:
        """A connection begins."""
        self.joined += 1
        if self.on_join is not None:
            self.on_join()
        self.channels.add(channel)
        self.empty.clear()

    def admitted(self) -> dict[str, int]:
        """Connections that were let in here and are open, by client."""
        return dict(Counter(one.client for one in self.channels if one.counted))

    def leave(self, channel: Wire) -> None:
        """A connection has ended; again is harmless."""
        self.channels.discard(channel)
        if not self.channels:
            self.empty.set()
