"""Entra ID's part: discovery, the token endpoint for the client credentials flow, and the door to `entra_users`.

Follows Microsoft's "OAuth 2.0 client credentials flow" and the AADSTS error reference; statuses as observed
(401 for a wrong or expired secret, 400 for the rest).
"""

from __future__ import annotations

import asyncio
import base64
import re
import uuid
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from relay.simulator import entra_errors as refusal
from relay.simulator import jwt
from relay.simulator.entra_users import DEVICE_CODE, UserFlows
from relay.simulator.faults import Fault, Faults
from relay.simulator.options import EXCHANGE_PERMISSIONS, GRAPH_PERMISSIONS
from relay.simulator.state import State
from relay.simulator.store import Store

FOR_EVER = 86400.0  # seconds; a hang ends with the client's patience or the simulator
JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
REQUEST_BOUND = 64 * 1024  # octets; a token request is a small form
_TENANT = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[a-z0-9-]+(\.[a-z0-9-]+)+", re.I)
_NEEDED = {
    "client_credentials": ("scope",),
    DEVICE_CODE: ("device_code",),
    "refresh_token": ("refresh_token",),
}
"""Grant type -> what its request cannot do without."""
_SHARED_TENANTS = ("common", "organizations", "consumers")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Entra:
    """The token service of one tenant; ``authority`` is set once the port is known."""

    def __init__(self, state: State, faults: Faults, store: Store) -> None:
        self.state = state
        self.faults = faults
        self.store = store
        self.users = UserFlows(state)
        self.authority = ""

    def application(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(middlewares=[self._weather], client_max_size=REQUEST_BOUND)
        app.router.add_get("/common/discovery/instance", self._instance)
        app.router.add_get("/{tenant}/v2.0/.well-known/openid-configuration", self._discovery)
        app.router.add_get("/{tenant}/.well-known/openid-configuration", self._discovery)
        app.router.add_get("/{tenant}/discovery/v2.0/keys", self._keys)
        app.router.add_post("/{tenant}/oauth2/v2.0/token", self._token)
        app.router.add_post("/{tenant}/oauth2/v2.0/devicecode", self._device_code)
        return app

    @web.middleware
    async def _weather(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Every answer tells Microsoft's time."""
        response = await self._answer(request, handler)
        response.headers.setdefault("Date", self.state.http_date())
        return response

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Outage, slowness and faults, before the request is looked at."""
        if self.state.latency:
            await asyncio.sleep(self.state.latency)
        if self.state.https_front == "block-page":
            return block_page()
        if self.state.entra_down == "503":
            return web.Response(status=503, text="Service Unavailable", headers={"Retry-After": "5"})
        if self.state.entra_down == "hang":
            await asyncio.sleep(FOR_EVER)
        if request.path.endswith("/token"):
            self.store.counters["token_requests"] += 1
            if fault := self.faults.take("token"):
                answered = await misbehave(request, fault, self._faulty_answer)
                if answered is not None:
                    return answered
        try:
            return await handler(request)
        except refusal.EntraError as error:
            return self._refused(request, error)

    def _refused(self, request: web.Request, error: refusal.EntraError) -> web.Response:
        if request.path.endswith("/token"):
            self.store.counters["token_failures"] += 1
        correlation = request.headers.get("client-request-id")
        body = error.to_json(self.authority, self.state.clock(), correlation)
        return web.json_response(body, status=error.status, headers=error.headers)

    def _faulty_answer(self, request: web.Request, fault: Fault) -> web.Response:
        """``[STATUS] [AADSTSnumber] [text]``; a plain status has no JSON body, as from Microsoft's front door."""
        headers = {"Retry-After": str(int(fault.seconds))} if fault.seconds else {}
        first, _, rest = fault.reply.partition(" ")
        status = int(first) if first.isdigit() else 0
        if status and not rest:
            return web.Response(status=status, text="Service Unavailable", headers=headers)
        code, _, text = (rest if status else fault.reply).partition(" ")
        digits = code.removeprefix("AADSTS")
        error = refusal.by_number(int(digits) if digits.isdigit() else 90033, text, status)
        error.headers.update(headers)
        return self._refused(request, error)

    async def _instance(self, request: web.Request) -> web.Response:
        """Where the cloud's endpoints are: asked by libraries that do not know the authority."""
        return web.json_response(
            {
                "tenant_discovery_endpoint": f"{self.authority}/{self.state.tenant_id}/v2.0/.well-known/openid-configuration",
                "api-version": "1.1",
                "metadata": [],
            }
        )

    async def _discovery(self, request: web.Request) -> web.Response:
        self._check_tenant(request.match_info["tenant"])
        tenant = f"{self.authority}/{self.state.tenant_id}"
        return web.json_response(
            {
                "token_endpoint": f"{tenant}/oauth2/v2.0/token",
                "token_endpoint_auth_methods_supported": [
                    "client_secret_post",
                    "private_key_jwt",
                    "client_secret_basic",
                ],
                "jwks_uri": f"{tenant}/discovery/v2.0/keys",
                "response_modes_supported": ["query", "fragment", "form_post"],
                "subject_types_supported": ["pairwise"],
                "id_token_signing_alg_values_supported": ["RS256"],
                "response_types_supported": ["code", "id_token", "code id_token", "id_token token"],
                "scopes_supported": ["openid", "profile", "email", "offline_access"],
                "issuer": f"{tenant}/v2.0",
                "authorization_endpoint": f"{tenant}/oauth2/v2.0/authorize",
                "device_authorization_endpoint": f"{tenant}/oauth2/v2.0/devicecode",
                "tenant_region_scope": "EU",
            }
        )

    async def _keys(self, request: web.Request) -> web.Response:
        self._check_tenant(request.match_info["tenant"])
        numbers = jwt.signing_key().public_key().public_numbers()
        key = {
            "kty": "RSA",
            "use": "sig",
            "kid": jwt.key_id(),
            "n": jwt.b64url(numbers.n.to_bytes(256, "big")),
            "e": jwt.b64url(numbers.e.to_bytes(3, "big")),
        }
        return web.json_response({"keys": [key]})

    async def _device_code(self, request: web.Request) -> web.Response:
        """The beginning of a sign-in on another device (RFC 8628 section 3.1)."""
        self._check_tenant(request.match_info["tenant"])
        form = {name: str(value) for name, value in (await request.post()).items()}
        for name in ("client_id", "scope"):
            if not form.get(name):
                raise refusal.missing_parameter(name)
        self._check_app(form)
        return web.json_response(self.users.start(form["scope"]))

    async def _token(self, request: web.Request) -> web.Response:
        tenant = request.match_info["tenant"]
        self._check_tenant(tenant)
        if tenant.lower() in _SHARED_TENANTS:
            raise refusal.common_not_allowed(tenant)
        form = {name: str(value) for name, value in (await request.post()).items()}
        _take_basic_credentials(request, form)
        if self.state.entra_error is not None:
            raise refusal.by_number(int(self.state.entra_error))
        self._check_grant(form)
        self._check_app(form)
        answer = self._tokens(form)
        self.store.counters["tokens"] += 1
        return web.json_response(
            answer, headers={"Cache-Control": "no-store, no-cache", "Pragma": "no-cache"}
        )

    def _tokens(self, form: Mapping[str, str]) -> dict[str, object]:
        """The answer to a token request whose grant and app are known. Raises EntraError."""
        if form["grant_type"] != "client_credentials":
            if not self.state.public_client or form.get("client_secret"):
                self._check_credential(form)
            redeem = self.users.refresh if form["grant_type"] == "refresh_token" else self.users.redeem_device
            return redeem(form, self.authority)
        acr = self._check_credential(form)
        resource = self._resource(form)
        if self.state.conditional_access:
            raise refusal.blocked_by_policy()
        if self.state.assignment_required:
            raise refusal.by_number(501051)
        claims = jwt.app_claims(self.state, self.state.permissions & self._grantable(resource), acr)
        answer: dict[str, object] = {
            "token_type": "Bearer",
            "expires_in": int(self.state.token_lifetime),
            "ext_expires_in": int(self.state.token_lifetime),
            "access_token": jwt.mint(self.state, self.authority, resource, claims),
        }
        if self.state.refresh_in is not None:
            answer["refresh_in"] = self.state.refresh_in
        return answer

    def _check_tenant(self, tenant: str) -> None:
        if tenant.lower() in _SHARED_TENANTS:
            return
        if not _TENANT.fullmatch(tenant):
            raise refusal.tenant_malformed(tenant)
        known = tenant.lower() == self.state.tenant_id.lower() or tenant.lower() in self.state.domains
        if not (known and self.state.tenant_exists):
            raise refusal.tenant_not_found(tenant)

    def _check_grant(self, form: Mapping[str, str]) -> None:
        for name in ("grant_type", "client_id"):
            if not form.get(name):
                raise refusal.missing_parameter(name)
        if form["grant_type"] not in _NEEDED:
            raise refusal.unsupported_grant(form["grant_type"])
        for name in _NEEDED[form["grant_type"]]:
            if not form.get(name):
                raise refusal.missing_parameter(name)

    def _check_app(self, form: Mapping[str, str]) -> None:
        if form["client_id"].lower() != self.state.client_id.lower():
            raise refusal.app_not_found(form["client_id"], self.state.tenant_id)
        if not self.state.service_principal:
            raise refusal.no_service_principal(self.state.client_id)
        if not self.state.app_enabled:
            raise refusal.app_disabled(self.state.client_id)

    def _check_credential(self, form: Mapping[str, str]) -> str:
        """``1`` for a good secret, ``2`` for a good assertion: the claim ``appidacr``."""
        if form.get("client_assertion"):
            if form.get("client_assertion_type") != JWT_BEARER:
                raise refusal.missing_parameter("client_assertion_type")
            self._check_assertion(form["client_assertion"])
            return "2"
        if not form.get("client_secret"):
            raise refusal.no_credential()
        known = [secret for secret in self.state.secrets() if secret.is_value(form["client_secret"])]
        if not known:
            raise refusal.wrong_secret(self.state.client_id)
        if all(self.state.clock() >= secret.expires for secret in known):
            raise refusal.expired_secret(self.state.client_id)
        return "1"

    def _check_assertion(self, assertion: str) -> None:
        try:
            header, claims, signed, signature = jwt.read(assertion)
        except jwt.BadToken as error:
            raise refusal.assertion_malformed(str(error)) from error
        self._check_times(claims)
        if claims.get("iss") != self.state.client_id:  # not made by the app itself: a federated credential
            if (claims.get("iss"), claims.get("sub")) not in self.state.federated:
                raise refusal.federation_unmatched(claims.get("iss"), claims.get("sub"))
            return
        certificate = jwt.certificate_of(header, self.state.registered())
        if certificate is None or not self.state.certificate_is_ready(certificate):
            raise refusal.unknown_certificate("The key was not found.")
        if not certificate.valid_at(self.state.clock()):
            raise refusal.expired_certificate()
        if not jwt.signed_by(certificate, header.get("alg"), signed, signature):
            raise refusal.unknown_certificate(
                "The key was found, but use of the key to verify the signature failed."
            )
        if claims.get("aud") != f"{self.authority}/{self.state.tenant_id}/oauth2/v2.0/token":
            raise refusal.unknown_certificate(
                f"The audience {claims.get('aud')!r} is not this token endpoint."
            )

    def _check_times(self, claims: Mapping[str, object]) -> None:
        start, end, now = claims.get("nbf", 0), claims.get("exp"), self.state.clock()
        if not isinstance(start, int | float) or not isinstance(end, int | float):
            raise refusal.assertion_malformed("exp and nbf are numbers.")
        if not start - jwt.ALLOWED_SKEW <= now <= end + jwt.ALLOWED_SKEW:
            raise refusal.assertion_out_of_time()

    def _resource(self, form: Mapping[str, str]) -> str:
        """The one resource asked for, as it will stand in ``aud``."""
        scopes = form["scope"].split()
        if len(scopes) != 1:
            raise refusal.several_scopes(form["scope"])
        resource, suffix, rest = scopes[0].rpartition("/.default")
        if not suffix or rest:
            raise refusal.scope_not_default(scopes[0])
        if not self._grantable(resource):
            raise refusal.unknown_resource(resource)
        return resource

    def _grantable(self, resource: str) -> frozenset[str]:
        """The permissions this resource knows; none for a resource that does not exist."""
        if resource == self.state.graph_resource:
            return GRAPH_PERMISSIONS
        exchange = {self.state.exchange_resource, self.state.exchange_user_resource}
        return EXCHANGE_PERMISSIONS if resource in exchange else frozenset()


def _take_basic_credentials(request: web.Request, form: dict[str, str]) -> None:
    """A client may send id and secret as HTTP Basic (RFC 6749 section 2.3.1)."""
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return
    try:
        client_id, _, secret = base64.b64decode(value, validate=True).decode().partition(":")
    except ValueError as error:
        raise refusal.no_credential() from error
    form.setdefault("client_id", client_id)
    form.setdefault("client_secret", secret)


def block_page() -> web.Response:
    """What a web filter says in place of the service."""
    page = "<html><body><h1>Access blocked</h1><p>This site is not allowed by policy.</p></body></html>"
    return web.Response(status=403, text=page, content_type="text/html", headers={"Server": "Example-Proxy"})


async def misbehave(
    request: web.Request, fault: Fault, answer: Callable[[web.Request, Fault], web.Response]
) -> web.StreamResponse | None:
    """Carry out a fault of an HTTP service; None when the request is then served as usual."""
    if fault.action == "reply":
        return answer(request, fault)
    if fault.action in ("delay", "hang"):
        await asyncio.sleep(fault.seconds or FOR_EVER)
        if fault.action == "delay":
            return None
    if fault.action in ("drop", "hang") and request.transport is not None:
        request.transport.abort()
    elif fault.action == "close" and request.transport is not None:
        request.transport.close()
    return web.Response(status=503, headers={"request-id": str(uuid.uuid4())})
