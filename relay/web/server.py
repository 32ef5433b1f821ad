"""The page as a server: started, adjusted after a reload, stopped."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time

from aiohttp import web
from aiohttp.http import HttpProcessingError

from relay import events
from relay.settings import Web
from relay.web import guard
from relay.web.app import build
from relay.web.desk import Desk
from relay.web.gate import Gate
from relay.web.page import Page
from relay.web.saving import Savings
from relay.web.sessions import OneTimeLink, Sessions
from relay.web.slow import KEEPALIVE, Hurried

CLOSING = 3.0
"""Seconds that open requests get when the page goes down."""
HANDSHAKE = 10.0
"""Seconds for a TLS handshake."""
CONNECTIONS = 200
"""Connections at once; further ones are closed at once, so that the page never takes the sockets that mail needs."""


class _NotOurs(logging.Filter):
    """Leaves out what somebody sent that is no HTTP: a scanner of ports would fill the log with tracebacks."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is to be kept."""
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, HttpProcessingError | web.RequestPayloadError)


_logger = logging.getLogger("relay.web.aiohttp")
_logger.addFilter(_NotOurs())


class _Full(asyncio.Protocol):
    """A connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


class WebServer:
    """One page on one address."""

    def __init__(self, desk: Desk, settings: Web) -> None:
        self.settings = settings
        self._page = Page(
            desk=desk,
            sessions=Sessions(time.monotonic),
            gate=Gate(time.monotonic),
            link=OneTimeLink(time.monotonic),
            savings=Savings(desk),
            secure=settings.certificate is not None,
        )
        self._runner = web.AppRunner(
            build(self._page), access_log=None, handle_signals=False, shutdown_timeout=CLOSING,
            keepalive_timeout=KEEPALIVE, logger=_logger,
        )  # fmt: skip
        self._hashed = self._page.hashed
        self._context: ssl.SSLContext | None = None
        self._server: asyncio.Server | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens, once started."""
        assert self._server is not None
        host, port = self._server.sockets[0].getsockname()[:2]
        return str(host), int(port)

    @property
    def url(self) -> str:
        """What to type into a browser on this machine."""
        host = self.settings.host
        host = "localhost" if host in ("0.0.0.0", "::", "") else host  # noqa: S104
        name = f"[{host}]" if ":" in host else host
        return f"{'https' if self._page.secure else 'http'}://{name}:{self.address[1]}/"

    async def start(self) -> None:
        """Listen. Raises OSError (the address is taken) or ssl.SSLError (no usable certificate)."""
        await asyncio.to_thread(guard.own_names)  # asks the resolver, which may take its time
        self._context = _context(self.settings)
        await self._runner.setup()
        try:
            self._server = await asyncio.get_running_loop().create_server(
                self._connection, self.settings.host, self.settings.port, ssl=self._context,
                ssl_handshake_timeout=HANDSHAKE if self._context is not None else None,
            )  # fmt: skip
        except BaseException:
            await self._runner.cleanup()
            raise
        self.invite()

    def _connection(self) -> asyncio.BaseProtocol:
        server = self._runner.server
        return Hurried(server()) if server is not None and len(server.connections) < CONNECTIONS else _Full()

    def serves(self, settings: Web) -> bool:
        """Whether these settings need no new server."""
        mine = self.settings
        return (mine.host, mine.port, mine.certificate, mine.key) == (
            settings.host, settings.port, settings.certificate, settings.key,
        )  # fmt: skip

    def update(self, settings: Web) -> None:
        """After a reload: a renewed certificate counts, another password signs everybody out, none makes a new link.

        Raises OSError or ssl.SSLError when the certificate cannot be read; the old one stays in use.
        """
        self.settings = settings
        if self._context is not None:
            _load(self._context, settings)
        if self._page.hashed != self._hashed:
            self._hashed = self._page.hashed
            self._page.sessions.clear()
        self.invite()

    def renew(self) -> None:
        """The certificate's files have changed. Raises OSError or ssl.SSLError; then the old one stays in use."""
        if self._context is not None:
            _load(self._context, self.settings)

    def invite(self) -> None:
        """Without a password: the one-time link by which one is set, for who reads the log."""
        if self._page.hashed:
            return
        tell = events.trouble if self._page.desk.settings.log.level == "error" else events.advice
        tell(
            where="web",
            what="the admin page has no password yet",
            remedy="Open this link within 30 minutes to set one; it works once. A reload makes a new one.",
            link=f"{self.url}first/{self._page.link.make()}",
        )

    async def stop(self) -> None:
        """Close it."""
        if self._server is not None:
            self._server.close()
        await self._page.savings.stop()
        await self._runner.cleanup()


def _context(settings: Web) -> ssl.SSLContext | None:
    if settings.certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load(context, settings)
    return context


def _load(context: ssl.SSLContext, settings: Web) -> None:
    assert settings.certificate is not None
    # the empty passphrase keeps OpenSSL from asking on the terminal
    context.load_cert_chain(settings.certificate, settings.key, password=lambda: "")
