"""`alerts.webhook`: one POST of JSON over verified TLS, tried three times. The address is as good as a password."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import re
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from relay.alert.forms import form_for
from relay.alert.news import News, WayFailed, clean

if TYPE_CHECKING:
    import aiohttp

TIMEOUT = 15.0
"""Seconds for one try, from the name look-up to the answer."""
BACK_OFF = (2.0, 5.0)
"""Seconds between the three tries: all of it fits into the minute an alert may take."""
_LONGEST_WAIT = 10.0
"""Seconds of a Retry-After that are waited out here; a longer one is left to the next look."""
_AGAIN = {408, 425, 429}
"""Answers under 500 after which waiting can help."""
_CONNECTOR_FAILED = "webhook message delivery failed"
"""Office 365 connectors answer 200 and say in the text that nothing was posted (MicrosoftDocs/msteams-docs issue 7425)."""

Pause = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Answer:
    """What one try came to; ``why`` is empty when the alert was taken."""

    why: str = ""
    remedy: str = ""
    again: bool = False
    wait: float | None = None


class Webhook:
    """Posts news to one address. ``proxy`` for addresses beyond this machine; ``ca_file`` is trusted in addition."""

    def __init__(
        self,
        url: str,
        *,
        host: str,
        proxy: str | None = None,
        ca_file: Path | None = None,
        pause: Pause = asyncio.sleep,
        timeout: float = TIMEOUT,
    ) -> None:
        self._url, self._host, self._proxy, self._ca_file = url, host, proxy, ca_file
        self._pause, self._timeout = pause, timeout
        self._tls: ssl.SSLContext | None = None

    def __repr__(self) -> str:
        return f"Webhook({place(self._url)})"

    async def tell(self, news: News) -> None:
        """Three tries at most. Raises WayFailed, which names the host and nothing else of the address."""
        check(self._url)
        form = form_for(urlsplit(self._url).hostname or "")
        body = json.dumps(form(news, self._host), ensure_ascii=False).encode()
        answer = await self._try(body)
        for wait in BACK_OFF:
            if not answer.again:
                break
            await self._pause(min(max(wait, answer.wait or 0.0), _LONGEST_WAIT))
            answer = await self._try(body)
        if answer.why:
            raise WayFailed(f"{place(self._url)}: {answer.why}", remedy=answer.remedy)

    async def _try(self, body: bytes) -> _Answer:
        import aiohttp  # only a relay with a webhook and something to tell loads it

        try:
            return await self._post(aiohttp.ClientTimeout(total=self._timeout), body)
        except (aiohttp.ClientSSLError, ssl.SSLError) as error:
            return _Answer(f"TLS failed: {self._words(error)}", _TLS_REMEDY)
        except TimeoutError:
            return _Answer(f"no answer within {self._timeout:g} s", _NETWORK_REMEDY, again=True)
        except aiohttp.InvalidURL:  # its text is the address
            return _Answer("the address cannot be read", _ADDRESS_REMEDY)
        except aiohttp.ClientResponseError as error:  # so would its text be
            return _Answer(
                f"the answer, or the proxy's, cannot be used ({error.status})", _NETWORK_REMEDY, again=True
            )
        except (aiohttp.ClientError, OSError) as error:
            return _Answer(self._words(error), _NETWORK_REMEDY, again=True)

    async def _post(self, timeout: aiohttp.ClientTimeout, body: bytes) -> _Answer:
        import aiohttp

        headers = {"Content-Type": "application/json; charset=utf-8", "User-Agent": "relay"}
        connector = aiohttp.TCPConnector(ssl=await self._context(), force_close=True)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False) as session,
            # a redirect could lead to a host that was not configured, or to clear text
            session.post(
                self._url, data=body, headers=headers, proxy=self._way_out(), allow_redirects=False
            ) as response,
        ):
            words = (await response.content.read(500)).decode("utf-8", "replace")
            return self._judge(response.status, words, response.headers.get("Retry-After", ""))

    def _judge(self, status: int, words: str, retry_after: str) -> _Answer:
        if 200 <= status < 300:
            if not words.lower().startswith(_CONNECTOR_FAILED):
                return _Answer()
            return _Answer(f"{status}, but {self._without_address(words)}", _REFUSED_REMEDY, again=True)
        why = f"{status} {self._without_address(words)}".strip()
        if status >= 500 or status in _AGAIN:
            wait = float(retry_after) if retry_after.isascii() and retry_after.isdigit() else None
            return _Answer(why, "The service is busy or broken; it is asked again.", True, wait)
        if 300 <= status < 400:
            return _Answer(f"{status}: it redirects, which is not followed", _ADDRESS_REMEDY)
        return _Answer(why, _REFUSED_REMEDY)

    async def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = await asyncio.to_thread(_tls, self._ca_file)
        return self._tls

    def _way_out(self) -> str | None:
        """The configured proxy, else the environment's; never for this machine itself."""
        parts = urlsplit(self._url)
        name = parts.hostname or ""
        if is_loopback(name):
            return None
        if self._proxy or proxy_bypass(name):
            return self._proxy
        return getproxies().get(parts.scheme)

    def _words(self, error: BaseException) -> str:
        return self._without_address(str(error)) or type(error).__name__

    def _without_address(self, words: str) -> str:
        """A server or a library may quote the address: its telling parts are taken out."""
        parts = urlsplit(self._url)
        words = words.replace(self._url, place(self._url))
        named = [part for part in re.split(r"[/&=?;,]", f"{parts.path}/{parts.query}") if len(part) >= 6]
        named += [unquote(part) for part in named] + [parts.password or "", parts.username or ""]
        for part in sorted(named, key=len, reverse=True):
            words = words.replace(part, "***") if part else words
        return clean(" ".join(words.split()), 200)


def check(url: str) -> None:
    """Raises WayFailed unless it is https, or http to this machine."""
    parts = urlsplit(url)
    if parts.scheme == "https" and parts.hostname:
        return
    if parts.scheme == "http" and is_loopback(parts.hostname or ""):
        return
    raise WayFailed(
        f"{place(url)}: alerts are posted over https only (http to this machine itself)",
        remedy=_ADDRESS_REMEDY,
    )


def place(url: str) -> str:
    """What may be shown of an address: scheme and host."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or '?'}/..."


def is_loopback(name: str) -> bool:
    """``localhost``, 127.0.0.0/8 or ::1."""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name.lower().rstrip(".") == "localhost"


def _tls(ca_file: Path | None) -> ssl.SSLContext:
    """Verifies, as everything of ours does. Reads files: not for the event loop."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    return context


_ADDRESS_REMEDY = "Correct `alerts.webhook`: the whole address, beginning with https://."
_NETWORK_REMEDY = "Look whether this machine reaches that host on port 443 (firewall, proxy, name look-up)."
_REFUSED_REMEDY = (
    "The webhook may have been removed or renewed: make a new one (docs/alerts.md), "
    "and put its address into `alerts.webhook`."
)
_TLS_REMEDY = "If a proxy opens TLS here, name its CA in `ca_file`; else look at that host's certificate."
