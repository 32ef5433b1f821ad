"""The HTTP client handed to msal: verified TLS, every wait bounded, and a note of how the server last answered.

msal has no default time-out, hides the reply behind its own errors, and its own TLS set-up knows only one bundle
(facts 7.4). Import this module in a worker thread only: `requests` is large, and everything here blocks.
"""

from __future__ import annotations

import email.utils
import json
import ssl
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter

from relay.tokens.reasons import local

CONNECT_TIMEOUT = 5.0
"""Seconds for each address of the server."""
LONGEST_READ = 30.0
"""Seconds of silence after which an answer is given up, whatever ``timeout`` of the upstream allows."""
MAX_ANSWER = 1 << 20
"""Octets; a token answer has a few thousand."""


class Answer:
    """One reply, read whole: the four things msal asks of a response, and what diagnosis needs."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status_code = status
        self.headers = dict(headers)
        self.text = body.decode("utf-8", "replace")
        self.received = time.monotonic()

    def __repr__(self) -> str:
        return f"<Answer {self.status_code}>"

    def raise_for_status(self) -> None:
        """Raises ``requests.HTTPError`` from 400 on. (msal wraps answers and uses its own.)"""
        if self.status_code >= 400:
            raise requests.HTTPError(f"HTTP {self.status_code}")

    def header(self, name: str) -> str:
        """A header's value whatever its case; empty when absent."""
        return next((value for key, value in self.headers.items() if key.lower() == name), "")

    def date(self) -> float | None:
        """The server's clock (RFC 9110 section 6.6.1), seconds since 1970."""
        try:
            return email.utils.parsedate_to_datetime(self.header("date")).timestamp()
        except (ValueError, TypeError):
            return None

    def retry_after(self) -> float | None:
        """Seconds the server asks us to wait; the date form is not used by Entra."""
        value = self.header("retry-after").strip()
        return float(value) if value.isdecimal() else None

    def is_json(self) -> bool:
        """Whether the body is a JSON object."""
        try:
            return isinstance(json.loads(self.text), dict)
        except ValueError:
            return False


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """The system's trust plus ``ca_file``, TLS 1.2 or newer, names checked.

    Raises TokenError ``ca-file`` when that file is of no use.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file is not None:
        try:
            context.load_verify_locations(cafile=str(ca_file))
        except (OSError, ssl.SSLError) as fault:
            raise local("ca-file").error(evidence=f"{ca_file}: {fault}") from fault
    return context


class _VerifiedAdapter(HTTPAdapter):
    """Uses our TLS context on every path, and nothing that a caller or the environment says about ``verify``."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__(max_retries=0)  # the pauses between tries are ours

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs, ssl_context=self._context)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        return super().proxy_manager_for(
            proxy, **kwargs, ssl_context=self._context, proxy_ssl_context=self._context
        )

    def build_connection_pool_key_attributes(self, request: Any, verify: Any, cert: Any = None) -> Any:
        where, _ = super().build_connection_pool_key_attributes(request, True, cert)
        return where, {"ssl_context": self._context, "cert_reqs": "CERT_REQUIRED"}

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        conn.cert_reqs = "CERT_REQUIRED"
        conn.ca_certs = conn.ca_cert_dir = None  # the context has them


def proxies_for(url: str, proxy: str | None) -> dict[str, str]:
    """``proxy`` when it is set, else what the environment (HTTPS_PROXY, NO_PROXY) says for that address."""
    if proxy:
        return {"http": proxy, "https": proxy}
    host = urlsplit(url).netloc
    if urllib.request.proxy_bypass(host):
        return {}
    known = urllib.request.getproxies()
    chosen = known.get("https") or known.get("all")
    return {"https": chosen} if chosen else {}


def _session(proxies: dict[str, str]) -> requests.Session:
    """A session that takes nothing from the environment: no .netrc, no other CA bundle, no redirects."""
    session = requests.Session()
    session.trust_env = False
    session.proxies = proxies
    session.max_redirects = 0
    return session


class Http:
    """What msal calls for each request: ``get``, ``post``, ``close``. ``last`` is the latest reply, or None."""

    def __init__(self, session: requests.Session, read_timeout: float) -> None:
        self.session = session
        self.last: Answer | None = None
        self._timeout = (CONNECT_TIMEOUT, read_timeout)

    @classmethod
    def for_entra(cls, authority: str, proxy: str | None, ca_file: Path | None, timeout: float) -> Http:
        """https only. ``timeout`` is the upstream's, in seconds."""
        session = _session(proxies_for(authority, proxy))
        session.adapters.clear()  # a plain http:// address must fail, not leak
        session.mount("https://", _VerifiedAdapter(tls_context(ca_file)))
        return cls(session, min(timeout, LONGEST_READ))

    @classmethod
    def for_identity(cls, timeout: float) -> Http:
        """For the managed identity endpoint of this machine: plain http by design, and never through a proxy."""
        return cls(_session({}), min(timeout, LONGEST_READ))

    @property
    def proxied(self) -> bool:
        """Whether a proxy is in between."""
        return bool(self.session.proxies)

    def get(self, url: str, **kwargs: Any) -> Answer:
        return self._ask("GET", url, **kwargs)

    def post(self, url: str, **kwargs: Any) -> Answer:
        return self._ask("POST", url, **kwargs)

    def close(self) -> None:
        """Drop idle connections; the next request opens new ones."""
        self.session.close()

    def _ask(self, method: str, url: str, **kwargs: Any) -> Answer:
        self.last = None
        started = time.monotonic()
        kwargs["timeout"] = self._timeout
        with self.session.request(method, url, stream=True, **kwargs) as reply:
            deadline = started + sum(self._timeout)
            self.last = Answer(reply.status_code, reply.headers, _read(reply, deadline))
        return self.last


def _read(reply: requests.Response, deadline: float) -> bytes:
    """The body, at most `MAX_ANSWER` octets, and no slower than the deadline: a drip must not hold a thread."""
    parts: list[bytes] = []
    size = 0
    for part in reply.iter_content(16384):
        parts.append(part)
        size += len(part)
        if size > MAX_ANSWER:
            raise requests.ConnectionError("the answer is far too long for a token")
        if time.monotonic() > deadline:
            raise requests.ReadTimeout("the answer came too slowly")
    return b"".join(parts)
