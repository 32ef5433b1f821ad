"""Names, ports and TLS of the three services, without a credential: what a firewall or a proxy does in between."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from relay.check import certificates
from relay.check.bounds import brief, connect_bound, in_thread
from relay.check.certificates import Facts
from relay.deliver.classify import Fallen
from relay.deliver.courier import tls_context
from relay.deliver.tunnel import dial, proxy_name, tunnel
from relay.settings import Upstream

INSPECTION = (
    "A device in between opens TLS. Exempt {host} from TLS inspection; or put the inspecting authority's "
    "certificate into a PEM file and name it in `ca_file`."
)


@dataclass(frozen=True, slots=True)
class Place:
    """One address to reach. ``proxy``: through which; None: straight."""

    host: str
    port: int
    proxy: str | None = None

    @property
    def words(self) -> str:
        """For people."""
        way = f" through the proxy {proxy_name(self.proxy)}" if self.proxy else ""
        return f"{self.host} port {self.port}{way}"


@dataclass(frozen=True, slots=True)
class Seen:
    """What trying came to: ``problem`` is None when all is well, else a slug."""

    words: str
    problem: str | None = None
    remedy: str = ""
    doubt: bool = False
    """It works, and looks odd."""


def smtp_place(upstream: Upstream) -> Place:
    """Where SMTP goes: only the configured proxy counts."""
    return Place(upstream.host, upstream.port, upstream.proxy)


def https_place(upstream: Upstream, url: str) -> Place:
    """Where tokens or Graph are: the configured proxy, else the environment's, as the token requests do it."""
    from relay.tokens.wire import proxies_for

    parts = urlsplit(url)
    return Place(parts.hostname or "", parts.port or 443, proxies_for(url, upstream.proxy).get("https"))


async def resolve(upstream: Upstream, places: list[Place]) -> dict[str, Seen]:
    """Each name that must be resolved here; a proxy resolves the others."""
    hosts = {urlsplit(one.proxy).hostname or one.proxy if one.proxy else one.host: one.port for one in places}
    found = await asyncio.gather(
        *(_resolve(host, port, connect_bound(upstream)) for host, port in hosts.items())
    )
    return dict(zip(hosts, found, strict=True))


async def _resolve(host: str, port: int, seconds: float) -> Seen:
    try:
        rows = await in_thread(lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM), seconds)
    except TimeoutError:
        return Seen(f"{host}: timed out, the name server did not answer within {seconds:g} s", "dns-timeout")
    except OSError as error:
        return Seen(f"{host}: {brief(error)}", "dns-failure")
    addresses = sorted({str(row[4][0]) for row in rows})
    return Seen(f"{host}: {', '.join(addresses[:3])}")


async def reach(upstream: Upstream, place: Place, *, tls: bool) -> Seen:
    """A TCP connection, and with ``tls`` a verified handshake; nothing is said over it."""
    seconds = connect_bound(upstream)
    try:
        async with asyncio.timeout(seconds), connected(place) as sock:
            pass_on = f"{place.words} answers"
            return await _handshake(upstream, place, sock) if tls else Seen(pass_on)
    except TimeoutError:
        return Seen(
            f"{place.words} does not answer: timed out after {seconds:g} s, as when a firewall drops it",
            "port-blocked",
            _firewall(place),
        )
    except (Fallen, OSError) as error:
        return _unreachable(place, error)


@contextlib.asynccontextmanager
async def connected(place: Place) -> AsyncIterator[socket.socket]:
    """A non-blocking socket to the place, by the proxy where there is one. Raises OSError or Fallen."""
    sock = await (
        tunnel(place.proxy, place.host, place.port) if place.proxy else dial(place.host, place.port)
    )
    try:
        yield sock
    finally:
        sock.close()


def _unreachable(place: Place, error: Exception) -> Seen:
    if isinstance(error, Fallen) or place.proxy:
        remedy = (
            f"Let the proxy allow CONNECT to {place.host}:{place.port}, and check its address (and its user name and "
            "password) in `proxy`."
        )
        return Seen(f"{place.words}: the proxy did not connect: {brief(error)}", "proxy", remedy)
    return Seen(f"{place.words} cannot be reached: {brief(error)}", "port-blocked", _firewall(place))


def _firewall(place: Place) -> str:
    if place.proxy:
        return f"Check that the proxy {proxy_name(place.proxy)} is up, and let it allow CONNECT to {place.host}:{place.port}."
    return (
        f"Allow outbound TCP {place.port} from this machine to {place.host} in the firewall, without a filter in "
        f"between. To try it: nc -vz {place.host} {place.port}, or in PowerShell: Test-NetConnection {place.host} "
        f"-Port {place.port}"
    )


async def _handshake(upstream: Upstream, place: Place, sock: socket.socket) -> Seen:
    try:
        context = await asyncio.to_thread(tls_context, upstream.ca_file)
        facts = await _peer(sock, context, place.host)
    except ssl.SSLCertVerificationError as error:
        facts = await _peek(place)
        shown = f": {facts.words}" if facts else ""
        words = f"{place.words} shows a certificate that is not trusted ({error.verify_message}){shown}"
        return Seen(words, "tls-intercepted", INSPECTION.format(host=place.host))
    except (ssl.SSLError, ConnectionError) as error:
        words = f"{place.words} answers, but no TLS connection can be made ({brief(error)})"
        return Seen(words, "tls-failed", f"Look for a proxy or firewall that handles {place.words}.")
    words = f"{place.words} answers over TLS, {facts.words}" if facts else f"{place.words} answers over TLS"
    if facts and certificates.stranger(place.host, facts):
        return Seen(words, None, INSPECTION.format(host=place.host), doubt=True)
    return Seen(words)


async def _peer(sock: socket.socket, context: ssl.SSLContext, host: str) -> Facts | None:
    """The certificate shown in a handshake on this socket."""
    _, writer = await asyncio.open_connection(sock=sock.dup(), ssl=context, server_hostname=host)
    try:
        return certificates.shown_in(writer.get_extra_info("ssl_object"))
    finally:
        writer.transport.abort()


async def _peek(place: Place) -> Facts | None:
    """Who signed what we do not trust: a second connection, on which nothing is said."""
    try:
        async with connected(place) as sock:
            return await _peer(sock, certificates.unverified_context(), place.host)
    except (OSError, Fallen):
        return None  # only a hint; the fault itself is reported either way
