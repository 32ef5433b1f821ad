"""The app's own registration, as Graph shows it, and rolling its certificates.

Follows application: get, addKey and removeKey; the refusal of a bad proof is the one seen in the field.
"""

from __future__ import annotations

import base64
import re
import urllib.parse
from typing import Any

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from relay.simulator import graph_errors as refusal
from relay.simulator import graph_schema, jwt
from relay.simulator.credentials import Certificate
from relay.simulator.graph_gate import Gate, read_json
from relay.simulator.services import Services

PROOF_AUDIENCE = "00000002-0000-0000-c000-000000000000"
PROOF_LIFE = 600  # seconds between nbf and exp
_RESOURCE = re.compile(
    r"(applications|servicePrincipals)(?:\(appId='([^']*)'\)|/([0-9a-fA-F-]{36}))(?:/(\w+))?"
)
_READERS = frozenset({"Application.Read.All", "Application.ReadWrite.OwnedBy"})


class Directory:
    """Answers about the app registration and its service principal."""

    def __init__(self, services: Services, gate: Gate) -> None:
        self._state = services.state
        self._gate = gate

    def add_routes(self, app: web.Application) -> None:
        """Reading the registration, adding and removing keys."""
        for kind in ("applications", "servicePrincipals"):
            path = f"/v1.0/{{resource:{kind}.*}}"
            self._gate.add_route(app, "GET", path, self._get, "graph-application")
        self._gate.add_route(app, "POST", "/v1.0/{resource:applications.*}", self._post, "graph-key")

    def _asked(self, request: web.Request) -> tuple[str, str]:
        """(kind, action) of a path that names this tenant's app. Raises GraphError."""
        asked = _RESOURCE.fullmatch(urllib.parse.unquote(request.match_info["resource"]))
        if asked is None:
            raise refusal.no_such_path(request.path.rsplit("/", 1)[-1])
        kind, app_id, object_id, action = asked.groups()
        state = self._state
        own = state.application_id() if kind == "applications" else state.service_principal_id()
        named, known = (app_id, state.client_id) if object_id is None else (object_id, own)
        if named.lower() != known.lower():
            raise refusal.GraphError(404, "Request_ResourceNotFound", f"Resource '{named}' does not exist.")
        return kind, action or ""

    async def _get(self, request: web.Request) -> web.Response:
        """The registration or the service principal, for who may read it; ``$select`` narrows it."""
        roles = set(self._gate.claims(request).get("roles", []))
        if not roles & _READERS:
            raise refusal.directory_denied()
        kind, action = self._asked(request)
        if action:
            raise refusal.no_such_path(action)
        selected = [name for name in request.query.get("$select", "").split(",") if name]
        whole = self._registration(selected) if kind == "applications" else self._service_principal()
        if unknown := [name for name in selected if name not in whole]:
            raise refusal.bad_request(
                f"Could not find a property named '{unknown[0]}' on type 'microsoft.graph.{kind[:-1]}'."
            )
        context = f"https://{request.host}/v1.0/$metadata#{kind}"
        shown = {name: whole[name] for name in selected} if selected else whole
        narrowed = f"({','.join(selected)})" if selected else ""
        return web.json_response({"@odata.context": f"{context}{narrowed}/$entity", **shown})

    def _registration(self, selected: list[str]) -> dict[str, Any]:
        """The public keys themselves are shown only to who selects ``keyCredentials``."""
        state = self._state
        keys = "keyCredentials" in selected
        return {
            "id": state.application_id(),
            "appId": state.client_id,
            "displayName": "relay (simulated)",
            "isFallbackPublicClient": state.public_client,
            "signInAudience": "AzureADMyOrg",
            "passwordCredentials": [secret.shown() for secret in state.secrets()],
            "keyCredentials": [
                certificate.shown(_der(certificate) if keys else None) for certificate in state.registered()
            ],
        }

    def _service_principal(self) -> dict[str, Any]:
        state = self._state
        return {
            "id": state.service_principal_id(),
            "appId": state.client_id,
            "displayName": "relay (simulated)",
            "accountEnabled": state.app_enabled,
            "appRoleAssignmentRequired": state.assignment_required,
        }

    async def _post(self, request: web.Request) -> web.Response:
        """``addKey`` and ``removeKey``: no permission is needed, the proof of a key held is the right."""
        self._gate.claims(request)
        _, action = self._asked(request)
        if action not in ("addKey", "removeKey"):
            raise refusal.no_such_path(action)
        given = graph_schema.check_parameters(action, read_json(request, await self._gate.body(request)))
        self._check_proof(given["proof"])
        return self._add(given) if action == "addKey" else self._remove(given)

    def _check_proof(self, proof: str) -> None:
        """Signed by a certificate that is registered and in its time, for the directory, by this application."""
        try:
            header, claims, signed, signature = jwt.read(proof)
        except jwt.BadToken as error:
            raise refusal.bad_proof() from error
        start, end, now = claims.get("nbf"), claims.get("exp"), self._state.clock()
        if not isinstance(start, int | float) or not isinstance(end, int | float):
            raise refusal.bad_proof()
        in_time = start - jwt.ALLOWED_SKEW <= now < end + jwt.ALLOWED_SKEW and end - start <= PROOF_LIFE
        meant = claims.get("aud") == PROOF_AUDIENCE and claims.get("iss") == self._state.application_id()
        held = any(
            jwt.signed_by(certificate, header.get("alg"), signed, signature)
            for certificate in self._state.registered()
            if certificate.valid_at(now)
        )
        if not (in_time and meant and held):
            raise refusal.bad_proof()

    def _add(self, given: dict[str, Any]) -> web.Response:
        key = given["keyCredential"]
        if (key["type"], key["usage"]) != ("AsymmetricX509Cert", "Verify"):
            raise refusal.bad_key("The key's type and usage should be AsymmetricX509Cert and Verify.")
        certificate = _read_certificate(base64.b64decode(key["key"]))
        if not certificate.valid_at(self._state.clock()):
            raise refusal.bad_key("Key credential end date is invalid.")
        self._state.certificate_add(certificate)
        return web.json_response(certificate.shown())

    def _remove(self, given: dict[str, Any]) -> web.Response:
        for certificate in self._state.registered():
            if certificate.key_id == given["keyId"].lower():
                self._state.certificates.remove(certificate.pem)
                return web.Response(status=204)
        raise refusal.bad_key("No credentials found to be removed.")


def _read_certificate(data: bytes) -> Certificate:
    """A public certificate as DER, or as PEM. Raises GraphError."""
    try:
        read = (
            x509.load_pem_x509_certificate(data)
            if data.startswith(b"-----BEGIN CERTIFICATE")
            else x509.load_der_x509_certificate(data)
        )
    except ValueError as error:
        raise refusal.bad_key("Key credential is invalid: it is no X.509 certificate.") from error
    return Certificate(read.public_bytes(Encoding.PEM).decode())


def _der(certificate: Certificate) -> str:
    return base64.b64encode(certificate.x509.public_bytes(Encoding.DER)).decode()
