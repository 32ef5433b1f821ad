"""What every Graph request passes first: outage, faults, token, permission, throttling and size."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from relay.simulator import graph_errors as refusal
from relay.simulator import jwt
from relay.simulator.entra import misbehave
from relay.simulator.faults import Fault
from relay.simulator.services import Services

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

REQUEST_WINDOW, UPLOAD_WINDOW = 600.0, 300.0  # seconds; "Outlook service limits" of Graph's throttling page
_RBAC = {"Mail.Send": "rbac-mail-send", "Mail.ReadWrite": "rbac-mail-readwrite"}


class Gate:
    """Guards the handlers; used as a middleware and asked by them."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._running = 0
        self.peak = 0
        self._requests: defaultdict[str, deque[float]] = defaultdict(deque)
        self._uploads: defaultdict[str, deque[tuple[float, int]]] = defaultdict(deque)
        self.throttled: Counter[str] = Counter()

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Every answer carries request-id and, when given, client-request-id."""
        request_id = str(uuid.uuid4())
        client_id = request.headers.get("client-request-id", request_id)
        self._services.store.counters["graph_requests"] += 1
        try:
            response = await self._weather(request, handler)
        except refusal.GraphError as error:
            self._services.store.refuse("graph", None, str(error))
            body = error.to_json(self._services.state.clock(), request_id, client_id)
            response = web.json_response(body, status=error.status, headers=error.headers)
        except web.HTTPNotFound:
            missing = refusal.no_such_path(request.path.rsplit("/", 1)[-1])
            body = missing.to_json(self._services.state.clock(), request_id, client_id)
            response = web.json_response(body, status=missing.status)
        response.headers.setdefault("request-id", request_id)
        response.headers.setdefault("client-request-id", client_id)
        return response

    async def _weather(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        state = self._services.state
        if state.latency:
            await asyncio.sleep(state.latency)
        if state.graph_down:
            raise refusal.GraphError(
                503, "ErrorServerBusy", "The server cannot service this request right now."
            )
        fault = self._services.faults.take("graph", mailbox=request.match_info.get("user"))
        if fault is not None and fault.action == "drop-after-accept":
            answer = await self._counted(request, handler)
            if request.transport is not None:
                request.transport.abort()
            return answer
        if fault is not None:
            answered = await misbehave(request, fault, self._faulty_answer)
            if answered is not None:
                return answered
        return await self._counted(request, handler)

    def _faulty_answer(self, request: web.Request, fault: Fault) -> web.Response:
        """``STATUS [code] [text]``, with Retry-After when the fault has seconds."""
        status, _, rest = fault.reply.partition(" ")
        code, _, text = rest.partition(" ")
        headers = {"Retry-After": str(int(fault.seconds))} if fault.seconds else {}
        raise refusal.GraphError(int(status), code or "ErrorServerBusy", text or "Please try again.", headers)

    async def _counted(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """No more requests at once than the app may have."""
        limit = self._services.state.limits.graph_concurrency
        if limit and self._running >= limit:
            self.throttled["concurrency"] += 1
            raise refusal.throttled("Application is over its MailboxConcurrency limit.", 1)
        self._running += 1
        self.peak = max(self.peak, self._running)
        try:
            return await handler(request)
        finally:
            self._running -= 1

    def claims(self, request: web.Request) -> dict[str, Any]:
        """The claims of the bearer token. Raises GraphError."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise refusal.bad_token("Access token is empty.")
        try:
            return jwt.verify_own(token, self._services.state, self._services.state.graph_resource)
        except jwt.BadToken as error:
            raise refusal.bad_token(str(error)) from error

    def admit(self, request: web.Request, permission: str) -> str:
        """The mailbox this request is for. Raises GraphError without the permission or beyond the rate."""
        claims = self.claims(request)
        user = request.match_info["user"]
        mailbox = self._mailbox(user)
        if not self._granted(claims, permission, mailbox):
            raise refusal.access_denied()
        if mailbox is None:
            raise refusal.unknown_user(user)
        if mailbox in self._services.state.unlicensed:
            raise refusal.no_mailbox()
        self._count_request(mailbox)
        return mailbox

    def _mailbox(self, user: str) -> str | None:
        """By address, user principal name or object id."""
        state = self._services.state
        if state.is_mailbox(user):
            return user.lower()
        return next((mailbox for mailbox in state.mailboxes if state.user_id(mailbox) == user.lower()), None)

    def _granted(self, claims: dict[str, Any], permission: str, mailbox: str | None) -> bool:
        """Consent in Entra (narrowed by an access policy) and Exchange RBAC add up."""
        state = self._services.state
        if permission in claims.get("roles", []):
            return state.graph_scope is None or mailbox is None or mailbox in state.graph_scope
        if _RBAC.get(permission) in state.permissions:
            return state.rbac_scope is None or mailbox in state.rbac_scope
        return False

    def _count_request(self, mailbox: str) -> None:
        limit, now = self._services.state.limits.graph_requests, self._services.state.clock()
        recent = self._requests[mailbox]
        while recent and recent[0] <= now - REQUEST_WINDOW:
            recent.popleft()
        recent.append(now)  # refused requests count too
        if limit and len(recent) > limit:
            self.throttled["requests"] += 1
            raise refusal.throttled(
                "Application is over its request limit.", recent[0] + REQUEST_WINDOW - now
            )

    def count_upload(self, mailbox: str, size: int) -> None:
        """Count octets towards the upload bandwidth. Raises GraphError beyond it."""
        limit, now = self._services.state.limits.graph_upload_rate, self._services.state.clock()
        recent = self._uploads[mailbox]
        while recent and recent[0][0] <= now - UPLOAD_WINDOW:
            recent.popleft()
        if limit and size + sum(octets for _, octets in recent) > limit:
            self.throttled["upload"] += 1
            raise refusal.throttled("Application is over its upload limit.", UPLOAD_WINDOW)
        recent.append((now, size))

    async def body(self, request: web.Request) -> bytes:
        """The whole request body. Raises GraphError beyond about 4 MB."""
        bound = self._services.state.limits.graph_request_size
        if bound and (request.content_length or 0) > bound:
            raise refusal.request_too_large()
        parts, size = [], 0
        async for part in request.content.iter_any():
            parts.append(part)
            size += len(part)
            if bound and size > bound:
                raise refusal.request_too_large()
        return b"".join(parts)
