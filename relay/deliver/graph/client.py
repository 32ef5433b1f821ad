"""`Http` over aiohttp: one session for each upstream, a token for each request, time-outs for each step.

Graph counts requests at once for the app and for the mailbox (facts 6.6), so both shares are kept here, where every
request passes. Microsoft, "Best practices for working with Microsoft Graph": a client-request-id of our own goes along.
"""

from __future__ import annotations

import asyncio
import contextlib
import json as text_of
import socket
import ssl
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from relay import events
from relay.deliver.classify import Names
from relay.deliver.graph.contract import Answer, BodySource, Lost
from relay.deliver.graph.draft import RETRY_AFTER_LIMIT
from relay.deliver.graph.gate import Gate
from relay.deliver.graph.judge import retry_after
from relay.deliver.graph.reading import read_answer
from relay.deliver.tunnel import proxy_name
from relay.errors import SpoolError
from relay.settings import Upstream
from relay.tokens.contract import Resource, Token, TokenSource

MAILBOX_AT_ONCE = 2
"""Requests at once of one mailbox (facts 6.6: stay at 2 to 3)."""
LONGEST_IDLE = 30.0
"""Seconds an idle connection is kept: shorter than any server's, so that none breaks just as it is used again."""


class Feed:
    """A request body on its way: says when all of it was handed over, and keeps the fault that stopped it."""

    def __init__(self, source: BodySource, length: int | None, patience: Patience) -> None:
        self._source = source
        self._length = len(source) if isinstance(source, bytes) else length
        self._patience = patience
        self.length = self._length or 0
        self.started = False
        """There is a connection that takes it."""
        self.complete = False
        """Set before the last piece leaves: from then on the server may have the whole request."""
        self.fault: BaseException | None = None

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body, piece by piece; each one that is taken shows progress."""
        sent, self.started = 0, True
        try:
            async for piece in _pieces(self._source):
                sent += len(piece)
                self.complete = self._length is not None and sent >= self._length
                self._patience.renew()
                yield piece
            self.complete = True
        except (SpoolError, OSError) as error:
            self.fault = error
            raise


async def _pieces(source: BodySource) -> AsyncIterator[bytes]:
    if isinstance(source, bytes):
        yield source
        return
    async for piece in source:
        yield piece


class Patience:
    """A time-out that begins anew with every step that gets somewhere."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.limit = asyncio.timeout(seconds)

    def renew(self) -> None:
        """Something moved."""
        with contextlib.suppress(RuntimeError):  # it is over already: whoever waits has been told
            self.limit.reschedule(asyncio.get_running_loop().time() + self._seconds)


@dataclass(frozen=True, slots=True)
class Request:
    """One request, before its token is known."""

    method: str
    url: str
    body: BodySource | None = None
    length: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    authorized: bool = True

    @property
    def repeatable(self) -> bool:
        """Whether the body can be sent a second time."""
        return self.body is None or isinstance(self.body, bytes)

    def shown(self) -> str:
        """For the log: an upload address is a right to write, and stays untold."""
        return urlsplit(self.url).path if self.authorized else f"(upload) {urlsplit(self.url).hostname}"


@dataclass(slots=True)
class Share:
    """What the connections of one mailbox share."""

    at_once: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAILBOX_AT_ONCE))
    quiet_until: float = 0.0
    """Retry-After is over then (monotonic seconds): it counts for the mailbox, whichever request met it (facts 6.6)."""

    def note(self, answer: Answer) -> None:
        """A throttling answer. One that asks for longer ends the try, and the queue waits."""
        asked = retry_after(answer, time.time()) if answer.status in (429, 503) else None
        if asked is not None and asked <= RETRY_AFTER_LIMIT:
            self.quiet_until = max(self.quiet_until, time.monotonic() + asked)

    async def quiet(self) -> None:
        """Until the mailbox may be asked again."""
        while (left := self.quiet_until - time.monotonic()) > 0:
            await asyncio.sleep(left)


class GraphClient:
    """What the connections of one upstream share: session, tokens and the app's requests at once."""

    def __init__(self, upstream: Upstream, tokens: TokenSource, context: ssl.SSLContext, gate: Gate) -> None:
        self.upstream = upstream
        self.tokens = tokens
        self.gate = gate
        """The app's requests at once; it outlives the client, since a reload may replace that."""
        self._context = context
        self._session: aiohttp.ClientSession | None = None
        self._mailboxes: dict[str, Share] = {}
        self._users = 0
        self._retired = False
        parts = urlsplit(upstream.graph_url)
        self.host, self.port = parts.hostname or "", parts.port or 443

    def __repr__(self) -> str:
        return f"<GraphClient {self.upstream.name!r} at {self.host}>"

    def names(self, mailbox: str) -> Names:
        """What the tables' sentences call by name."""
        up = self.upstream
        proxy = proxy_name(up.proxy) if up.proxy else "<proxy>"
        return Names(mailbox, self.host, str(self.port), f"{up.timeout:g}", proxy, up.client_id)

    def http(self, mailbox: str) -> MailboxHttp:
        """Requests for one mailbox."""
        return MailboxHttp(self, mailbox, self._mailboxes.setdefault(mailbox.lower(), Share()))

    def session(self) -> aiohttp.ClientSession:
        """The session; made at first use, on the loop that uses it."""
        if self._session is None:
            connector = aiohttp.TCPConnector(ssl=self._context, limit=0, keepalive_timeout=LONGEST_IDLE)
            self._session = aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None, sock_read=None),
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=["User-Agent"],
            )
        return self._session

    @property
    def proxy(self) -> str | None:
        """The proxy as aiohttp wants it."""
        proxy = self.upstream.proxy
        return proxy if proxy is None or "://" in proxy else f"http://{proxy}"

    def enter(self) -> None:
        """A connection begins to use it."""
        self._users += 1

    async def leave(self) -> None:
        """A connection has ended; the last one after `retire` turns off the light."""
        self._users -= 1
        await self._close_when_idle()

    async def retire(self) -> None:
        """A reload: let go once nothing is under way any more."""
        self._retired = True
        await self._close_when_idle()

    async def _close_when_idle(self) -> None:
        if self._retired and self._users <= 0:
            await self.close()

    async def close(self) -> None:
        """Let go of all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None


class MailboxHttp:
    """`relay.deliver.graph.contract.Http` for one mailbox."""

    def __init__(self, client: GraphClient, mailbox: str, share: Share) -> None:
        self._client = client
        self._mailbox = mailbox
        self._share = share
        self.latest: dict[str, str] = {}
        """request-id and client-request-id of the latest exchange, for the trace and Microsoft's support."""

    async def call(
        self,
        method: str,
        target: str,
        *,
        json: Mapping[str, Any] | None = None,
        body: BodySource | None = None,
        length: int | None = None,
        content_type: str | None = None,
        headers: Mapping[str, str] | None = None,
        authorized: bool = True,
    ) -> Answer:
        """See the contract. Raises Lost; TokenError when there is no token; SpoolError when the body cannot be read."""
        fields = dict(headers or {})
        if json is not None:
            body, content_type = text_of.dumps(json).encode(), content_type or "application/json"
        if content_type:
            fields["Content-Type"] = content_type
        url = target if "://" in target else f"{self._client.upstream.graph_url}/v1.0{target}"
        request = Request(method, url, body, length, fields, authorized)
        while True:
            if method != "DELETE":  # clearing away is short, and may be all that a stop leaves time for
                await self._share.quiet()
            async with self._share.at_once:
                if method != "DELETE" and self._share.quiet_until > time.monotonic():
                    continue  # told while this one stood in line
                async with self._client.gate:
                    answer = await (
                        self._with_token(request) if authorized else self._exchange(request, None)
                    )
                self._share.note(answer)
                return answer

    async def _with_token(self, request: Request) -> Answer:
        tokens = self._client.tokens
        token = await tokens.token(Resource.GRAPH)
        answer = await self._exchange(request, token)
        if answer.status == 401:
            tokens.discard(token)
        elif answer.status == 403:  # the token may only be older than a consent
            tokens.doubt(token)
        else:
            return answer
        if not request.repeatable:
            return answer
        fresh = await tokens.token(Resource.GRAPH)
        helps = fresh.value != token.value if answer.status == 401 else fresh.permissions != token.permissions
        return await self._exchange(request, fresh) if helps else answer

    async def _exchange(self, request: Request, token: Token | None) -> Answer:
        started, number = time.monotonic(), str(uuid.uuid4())
        self.latest = {"client_request_id": number}
        answer = None
        try:
            answer = await self._send(request, self._fields(request, token, number), token)
        finally:
            if answer is not None and answer.headers.get("request-id"):
                self.latest["request_id"] = answer.headers["request-id"]
            status = f"{answer.status} {answer.code}".strip() if answer is not None else "none"
            seconds = round(time.monotonic() - started, 3)
            events.requested(mailbox=self._mailbox, method=request.method, target=request.shown(), status=status,
                             seconds=seconds, **self.latest)  # fmt: skip
        return answer

    def _fields(self, request: Request, token: Token | None, number: str) -> dict[str, str]:
        fields = {"Accept": "application/json", "Accept-Encoding": "identity", **request.headers}
        if request.authorized:
            fields |= {"client-request-id": number, "return-client-request-id": "true"}
        if token is not None:
            fields["Authorization"] = f"Bearer {token.value}"
        return fields

    async def _send(self, request: Request, fields: dict[str, str], token: Token | None) -> Answer:
        patience = Patience(self._client.upstream.timeout)
        feed = Feed(request.body, request.length, patience) if request.body is not None else None
        if feed is not None:
            fields["Content-Length"] = str(feed.length)
        try:
            async with patience.limit:
                answering = self._client.session().request(
                    request.method, request.url, data=feed.pieces() if feed else None, headers=fields,
                    allow_redirects=False, proxy=self._client.proxy)  # fmt: skip
                async with answering as response:
                    patience.renew()
                    answer = await read_answer(response, patience.renew, token, self._mailbox)
                    if feed is not None and not feed.complete:
                        response.close()  # refused early: the rest of the body is nobody's any more
                    return answer
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if feed is not None and feed.fault is not None:
                raise _spool(feed.fault) from error
            raise self._lost(error, feed) from error

    def _lost(self, error: BaseException, feed: Feed | None) -> Lost:
        complete = feed.complete if feed is not None else _was_sent(error)
        code, why = fault_of(error)
        if code == "timed-out" and feed is not None and not feed.started:
            code, why = "connect-timed-out", ""
        elif code == "timed-out":
            why = f"no progress within {self._client.upstream.timeout:g} seconds"
        return Lost(why, complete=complete, code=code)


def _spool(fault: BaseException) -> SpoolError:
    if isinstance(fault, SpoolError):
        return fault
    return SpoolError(f"The stored message cannot be read: {getattr(fault, 'strerror', None) or fault}")


def _was_sent(error: BaseException) -> bool:
    """A request without a body is complete as soon as there is a connection."""
    return not isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ClientHttpProxyError))


def fault_of(error: BaseException) -> tuple[str, str]:
    """Which fault of `table_faults` an exception of aiohttp is, and words for people; the narrow types first."""
    cause: Any = getattr(error, "os_error", None) or error
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return ("proxy-failed" if error.status >= 500 else "proxy-refused"), f"it answered {error.status}"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        found = error.certificate_error
        return "certificate-not-trusted", str(getattr(found, "verify_message", "") or found)
    if isinstance(error, aiohttp.ClientConnectorSSLError) or isinstance(cause, ssl.SSLError):
        return "tls-failed", str(getattr(cause, "reason", None) or cause)
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return "proxy-failed", str(cause.strerror or cause)
    if isinstance(error, aiohttp.ClientConnectorDNSError) or isinstance(cause, socket.gaierror):
        return "name-not-found", ""
    if isinstance(error, TimeoutError):
        return "timed-out", ""
    if isinstance(error, aiohttp.ClientConnectorError):
        refused = isinstance(cause, ConnectionRefusedError)
        return ("connection-refused" if refused else "unreachable"), str(cause.strerror or "")
    return "connection-lost", ""
