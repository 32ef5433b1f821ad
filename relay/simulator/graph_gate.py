"""What every Graph request passes first: outage, faults, token, permission, throttling and size."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from relay.simulator import graph_errors as refusal
from relay.simulator import jwt
from relay.simulator.entra import block_page, misbehave
from relay.simulator.faults import Fault
from relay.simulator.graph_rates import Rates
from relay.simulator.graph_store import GraphStore
from relay.simulator.services import Services

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_RBAC = {"Mail.Send": "rbac-mail-send", "Mail.ReadWrite": "rbac-mail-readwrite"}


@dataclass(frozen=True)
class Caller:
    """Who calls, for which mailbox; ``user`` is the address of the signed-in user, None for an app."""

    mailbox: str
    user: str | None = None


class Gate:
    """Guards the handlers; used as a middleware and asked by them."""

    def __init__(self, services: Services, drafts: GraphStore) -> None:
        self._services = services
        self._drafts = drafts
        self._places: dict[tuple[str, str], str] = {}
        self.rates = Rates(services.state)

    def add_route(self, app: web.Application, method: str, path: str, handler: Handler, place: str) -> None:
        """A route whose faults are called ``place``."""
        route = app.router.add_route(method, path, handler)
        if route.resource is not None:
            self._places[(method, route.resource.canonical)] = place

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Every answer carries Date, request-id and, when given, client-request-id."""
        state = self._services.state
        if state.https_front == "block-page":
            return block_page()
        request_id = str(uuid.uuid4())
        client_id = request.headers.get("client-request-id", request_id)
        self._services.store.counters["graph_requests"] += 1
        mailbox = self._mailbox_of(request)
        self.rates.note_retry(mailbox)
        try:
            response = await self._weather(request, handler, mailbox)
        except refusal.GraphError as error:
            response = self._refused(error, mailbox, request_id, client_id)
        except (web.HTTPNotFound, web.HTTPMethodNotAllowed):
            response = self._refused(self._unrouted(request), mailbox, request_id, client_id)
        response.headers.setdefault("request-id", request_id)
        response.headers.setdefault("client-request-id", client_id)
        response.headers.setdefault("Date", state.http_date())
        return response

    def _refused(
        self, error: refusal.GraphError, mailbox: str | None, request_id: str, client_id: str
    ) -> web.Response:
        self._services.store.refuse("graph", mailbox, str(error))
        if error.status == 429:
            self.rates.penalty(mailbox, float(error.headers.get("Retry-After", 0)))
        body = error.to_json(self._services.state.clock(), request_id, client_id)
        return web.json_response(body, status=error.status, headers=error.headers)

    def _unrouted(self, request: web.Request) -> refusal.GraphError:
        """Why an address leads nowhere; the token is looked at first."""
        try:
            claims = self.claims(request)
        except refusal.GraphError as error:
            return error
        if request.path.startswith("/v1.0/me/") and "upn" not in claims:
            return refusal.no_user()
        return refusal.no_such_path(request.path.rsplit("/", 1)[-1])

    def _place(self, request: web.Request) -> str:
        resource = request.match_info.route.resource
        canonical = resource.canonical if resource is not None else ""
        return self._places.get((request.method, canonical), "graph")

    async def _weather(
        self, request: web.Request, handler: Handler, mailbox: str | None
    ) -> web.StreamResponse:
        state = self._services.state
        if state.latency:
            await asyncio.sleep(state.latency)
        if state.graph_down:
            raise refusal.GraphError(
                503, "ErrorServerBusy", "The server cannot service this request right now."
            )
        fault = self._services.faults.take(self._place(request), mailbox=mailbox)
        if fault is not None:
            self._services.store.counters["faults"] += 1
        if fault is not None and fault.action == "drop-after-accept":
            answer = await self._counted(request, handler, mailbox)
            if request.transport is not None:
                request.transport.abort()
            return answer
        if fault is not None:
            answered = await misbehave(request, fault, self._faulty_answer)
            if answered is not None:
                return answered
        return await self._counted(request, handler, mailbox)

    def _faulty_answer(self, request: web.Request, fault: Fault) -> web.Response:
        """``STATUS [code] [text]``, with Retry-After when the fault has seconds."""
        status, _, rest = fault.reply.partition(" ")
        code, _, text = rest.partition(" ")
        headers = {"Retry-After": str(int(fault.seconds))} if fault.seconds else {}
        raise refusal.GraphError(int(status), code or "ErrorServerBusy", text or "Please try again.", headers)

    async def _counted(
        self, request: web.Request, handler: Handler, mailbox: str | None
    ) -> web.StreamResponse:
        """No more requests at once than the app may have."""
        with self.rates.running(mailbox):
            return await handler(request)

    def claims(self, request: web.Request) -> dict[str, Any]:
        """The claims of the bearer token. Raises GraphError."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise refusal.bad_token("Access token is empty.")
        try:
            return jwt.verify_own(token, self._services.state, self._services.state.graph_resource)
        except jwt.BadToken as error:
            raise refusal.bad_token(str(error)) from error

    def admit(self, request: web.Request, permission: str) -> Caller:
        """Who calls, for which mailbox. Raises GraphError without the permission or beyond the rate."""
        claims = self.claims(request)
        user = claims.get("upn")
        if user is None and "user" not in request.match_info:
            raise refusal.no_user()
        named = request.match_info.get("user", user or "")
        mailbox = self._mailbox(named)
        if not self._granted(claims, permission, mailbox):
            raise refusal.access_denied()
        if mailbox is None:
            raise refusal.unknown_user(named)
        state = self._services.state
        if mailbox in state.unlicensed or mailbox in state.on_premises:
            raise refusal.no_mailbox()
        self.rates.count_request(mailbox)
        return Caller(mailbox, user)

    def _mailbox(self, user: str) -> str | None:
        """By address, user principal name or object id."""
        state = self._services.state
        if state.is_mailbox(user):
            return user.lower()
        return next((mailbox for mailbox in state.mailboxes if state.user_id(mailbox) == user.lower()), None)

    def _mailbox_of(self, request: web.Request) -> str | None:
        """The mailbox a request is about, as far as can be told before it is judged."""
        if "user" in request.match_info:
            return self._mailbox(request.match_info["user"])
        upload = self._drafts.uploads.get(request.query.get("authtoken", ""))
        if upload is not None:
            return upload.draft.mailbox
        if not request.path.startswith("/v1.0/me/"):
            return None
        try:
            return self._mailbox(str(self.claims(request).get("upn", "")))
        except refusal.GraphError:
            return None

    def _granted(self, claims: dict[str, Any], permission: str, mailbox: str | None) -> bool:
        """A user's token serves the user's own mailbox; for an app, Entra's consent and Exchange RBAC add up."""
        state = self._services.state
        if "upn" in claims:
            return permission in str(claims.get("scp", "")).split() and mailbox == str(claims["upn"]).lower()
        if permission in claims.get("roles", []):
            return state.graph_scope is None or mailbox is None or mailbox in state.graph_scope
        if _RBAC.get(permission) in state.permissions:
            return state.rbac_scope is None or mailbox in state.rbac_scope
        return False

    async def body(self, request: web.Request, mailbox: str | None = None) -> bytes:
        """The whole request body, counted towards the mailbox's upload bandwidth. Raises GraphError beyond 4 MB."""
        bound = self._services.state.limits.graph_request_size
        if bound and (request.content_length or 0) > bound:
            raise refusal.request_too_large()
        parts, size = [], 0
        async for part in request.content.iter_any():
            parts.append(part)
            size += len(part)
            if bound and size > bound:
                raise refusal.request_too_large()
        if mailbox is not None:
            self.rates.count_upload(mailbox, size)
        return b"".join(parts)


def read_json(request: web.Request, content: bytes) -> dict[str, Any]:
    """The request as an object. Raises GraphError."""
    if not content:
        raise refusal.bad_request("Empty Payload. JSON content expected.")
    if request.content_type != "application/json":
        raise refusal.unsupported_media(request.content_type)
    try:
        read = json.loads(content.decode("utf-8"))
    except ValueError as error:
        raise refusal.bad_request("Unable to read JSON request payload.") from error
    if not isinstance(read, dict):
        raise refusal.bad_request("Unable to read JSON request payload.")
    return read
