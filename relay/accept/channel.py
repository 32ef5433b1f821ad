"""How a connection begins: admission, PROXY header, TLS from the first octet; and the upgrade by STARTTLS.

What is said afterwards is `relay.accept.session`.
"""

from __future__ import annotations

import asyncio
import ssl

from aiosmtpd.smtp import Session

from relay.accept import proxy, replies
from relay.accept.intake import trouble
from relay.accept.wire import STRANGERS, Gone, Wire

HELLO_WAIT = 0.4
"""Seconds the banner waits in ``tls.mode: auto``: TLS clients speak first, and a banner would spoil their hello."""

HANDSHAKE_TIME = 30.0
"""Seconds for a TLS handshake."""

OLD_DEVICE = frozenset({
    "UNSUPPORTED_PROTOCOL", "NO_SHARED_CIPHER", "NO_SUITABLE_SIGNATURE_ALGORITHM",
    "VERSION_TOO_LOW", "NO_PROTOCOLS_AVAILABLE", "TLSV1_ALERT_PROTOCOL_VERSION", "WRONG_SSL_VERSION",
    "NO_SHARED_SIGNATURE_ALGORITHMS", "UNSUPPORTED_SSL_VERSION",
})  # fmt: skip
"""OpenSSL's reasons when a client knows only what is too old for this listener."""


class Channel(Wire):
    """A wire whose client is let in, and may speak TLS on it."""

    __slots__ = ()

    # admission

    def _enter(self) -> None:
        """Let the client in or turn it away, by its (stated) address."""
        setup = self._setup
        refusal = None
        if setup.allow and self._address not in setup.allow:
            refusal = replies.CLOSE_NETWORK
        elif self._roster.draining:
            refusal = replies.CLOSE_STOPPING
        else:
            refusal = self._roster.gate.enter(self._address, setup.limits)
            self._entered = refusal is None
        if refusal:
            self._note_refusal("connection", refusal)
            crowded = len(self._roster.channels) - self._roster.gate.open > STRANGERS
            self._hang_up(b"" if setup.implicit_tls else refusal, linger=not crowded)
        elif setup.hello_tls:
            self._roster.loop.call_later(HELLO_WAIT, self._greet)
        elif not setup.implicit_tls:
            self._greet()

    def _greet(self) -> None:
        """The banner, once."""
        if not (self._greeted or self._closing or self._lost):
            self._greeted = True
            self._patience.since = self._setup.clock.monotonic()
            self._wire.write(self._setup.banner)

    async def _serve(self) -> None:
        """The connection's life, from its first octet on."""
        try:
            await self._begin()
            if not self._closing:
                await self._converse()
        except Gone:
            pass
        except Exception as error:
            trouble("accept.channel", error)
            self._hang_up(replies.INTERNAL)
        finally:
            try:
                await self._tidy()
            finally:
                self._hang_up(linger=False)
                if self._lost:
                    self._roster.leave(self)

    async def _begin(self) -> None:
        """What may come before SMTP: a PROXY header, a TLS hello."""
        if self._balanced:
            await self._take_proxy_header()
        if self._closing:
            raise Gone
        while not self._buffer:
            await self._more()
        hello = self._buffer[0] == 0x16
        if self._setup.implicit_tls or (hello and self._setup.hello_tls and not self._greeted):
            self._greeted = True
            await self._upgrade(early=True)
            self._say(self._setup.banner)
        elif hello:
            hint = "a TLS hello, and this listener speaks none at once: tls.mode auto or implicit would"
            self._note_refusal("connection", b"", hint)
            self._hang_up()
        elif self._buffer.startswith(proxy.SIGNATURE[:5]):
            self._note("PROXY header from an address that is not in proxy_protocol_from")
            self._hang_up(replies.UNKNOWN)
        else:
            self._greet()

    async def _take_proxy_header(self) -> None:
        try:
            while (stated := proxy.read_header(bytes(self._buffer[: proxy.V2_LIMIT]))) is None:
                await self._more()
        except proxy.BadProxyHeader as error:
            self._note_refusal("connection", replies.CLOSE_PROXY, str(error))
            self._hang_up(replies.CLOSE_PROXY)
            return
        del self._buffer[: stated.length]
        if stated.address is not None:
            self._address, self._port = stated.address, stated.port
        self._patience.idle = self._setup.limits.idle
        self._enter()

    # the session's part

    async def _converse(self) -> None:
        """Commands and answers."""
        raise NotImplementedError

    async def _tidy(self) -> None:
        """Let go of what a broken session left."""
        raise NotImplementedError

    # TLS

    async def _upgrade(self, *, early: bool) -> None:
        """Begin TLS (RFC 3207). ``early``: the client's hello is (partly) in the buffer already."""
        self._flush()
        try:
            await self._start_tls(early)
        except (OSError, ssl.SSLError, TimeoutError, EOFError) as error:
            self._explain(error)
            self._wire.abort()
            self.connection_lost(error)
            raise Gone from error
        self._tls = self._wire.get_extra_info("ssl_object").version()
        self.session = Session(self._roster.loop)

    def _explain(self, error: Exception) -> None:
        """One line on a handshake that failed; louder where a setting decides whether the device gets in."""
        words = replies.clean(str(error)) or type(error).__name__
        if getattr(error, "reason", "") in OLD_DEVICE:
            words += (
                f"; an old device? tls.minimum is {self._setup.listener.tls.minimum}, 1.0 serves the oldest"
            )
            self._note_refusal("tls", b"", words)
        else:
            self._note(f"TLS handshake failed: {words}")

    async def _start_tls(self, early: bool) -> None:
        loop = self._roster.loop
        limit = min(HANDSHAKE_TIME, self._patience.idle)
        if self._setup.tls is None:
            raise OSError("no certificate is loaded")
        upgrade = loop.start_tls(
            self._wire, self, self._setup.tls, server_side=True, ssl_handshake_timeout=limit
        )
        if early:
            task = loop.create_task(upgrade)
            await asyncio.sleep(0)
            loop.call_soon(self._hand_over)
            wire = await task
        else:
            wire = await upgrade
        if wire is None or self._lost:
            raise EOFError("the client left")
        self._wire = wire
        self._held = False

    def _hand_over(self) -> None:
        """Give the TLS layer what was read before it was there; it runs before the socket is read again."""
        layer = self._wire.get_protocol()
        if layer is self or self._wire.is_closing():
            return
        data = self._take(len(self._buffer))
        while data:
            room = layer.get_buffer(len(data))
            size = min(len(room), len(data))
            room[:size] = data[:size]
            layer.buffer_updated(size)
            data = data[size:]
