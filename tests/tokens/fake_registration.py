"""The fake Entra with an app registration behind it: several certificates, addKey, removeKey, device codes, refresh."""

from __future__ import annotations

import base64
import hashlib
import json
import time
import uuid
from pathlib import Path
from typing import Any

import jwt
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.tokens.fake_entra_server import CLIENT, TENANT, FakeEntra, Identity, make_token, refusal

OBJECT_ID = "0b1ec7ed-0000-4000-8000-00000000b1ec"
PROOF_AUDIENCE = "00000002-0000-0000-c000-000000000000"
USER = "notifications@contoso.com"


class FakeRegistration(FakeEntra):
    """``certificates`` by key id; ``pending`` counts refusals before a new one is taken, as Entra's replicas lag."""

    def __init__(self, folder: Path, ca: Identity) -> None:
        super().__init__(folder, ca)
        self.certificates: dict[str, x509.Certificate] = {}
        self.secrets: list[dict[str, str]] = []
        self.pending = 0
        self.graph_calls: list[str] = []
        self.graph_fault: int | None = None
        self.user = USER
        self.waiting = 1
        """Polls answered authorization_pending before the user has signed in."""
        self.scopes = {"SMTP.Send", "Mail.Send"}
        self.refresh_token = ""
        self.revoked: tuple[int, str] | None = None
        self.check = self._check_application
        self._fresh: set[str] = set()

    @property
    def graph_url(self) -> str:
        return self.authority

    def register(self, certificate: x509.Certificate) -> str:
        """As by the portal."""
        key_id = str(uuid.uuid4())
        self.certificates[key_id] = certificate
        return key_id

    def _add_routes(self, app: web.Application) -> None:
        app.router.add_get("/v1.0/{application}", self._read)
        app.router.add_post("/v1.0/applications/{id}/addKey", self._add_key)
        app.router.add_post("/v1.0/applications/{id}/removeKey", self._remove_key)
        app.router.add_post("/{tenant}/oauth2/v2.0/devicecode", self._device_code)

    # tokens

    def _check_application(self, form: dict[str, str]) -> tuple[int, str] | None:
        if "client_assertion" not in form:
            return self._check_secret(form)
        thumbprint = jwt.get_unverified_header(form["client_assertion"])["x5t#S256"].rstrip("=")
        for key_id, one in self.certificates.items():
            if _b64url(hashlib.sha256(one.public_bytes(Encoding.DER)).digest()) == thumbprint:
                if key_id in self._fresh and self.pending > 0:
                    self.pending -= 1
                    break
                audience = f"{self.authority}/{TENANT}/oauth2/v2.0/token"
                jwt.decode(form["client_assertion"], one.public_key(), ["PS256"], audience=audience)  # type: ignore[arg-type]
                return None
        return 700027, "Client assertion contains an invalid signature. The key was not found."

    async def _token(self, request: web.Request) -> web.StreamResponse:
        form = {key: str(value) for key, value in (await request.post()).items()}
        grants = {
            "urn:ietf:params:oauth:grant-type:device_code": self._by_code,
            "device_code": self._by_code,
            "refresh_token": self._by_refresh,
        }
        if form.get("grant_type") not in grants:
            return await super()._token(request)
        self.requests.append(form)
        return grants[form["grant_type"]](form)

    async def _device_code(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        self.requests.append({key: str(value) for key, value in form.items()})
        if self.revoked:
            return refusal(401, self.revoked[0], self.revoked[1], "Refused.")
        self._scope = str(form["scope"])
        body = {
            "user_code": "ABC123",
            "device_code": "dev",
            "verification_uri": "https://microsoft.com/devicelogin",
        }
        return web.json_response({**body, "expires_in": 900, "interval": 1, "message": "m"})

    def _by_code(self, form: dict[str, str]) -> web.StreamResponse:
        if self.waiting > 0:
            self.waiting -= 1
            return refusal(400, 70016, "authorization_pending", "Pending.")
        if self.revoked:
            return refusal(400, self.revoked[0], self.revoked[1], "Refused.")
        return self._user_grant(self._scope)

    def _by_refresh(self, form: dict[str, str]) -> web.StreamResponse:
        if self.revoked:
            return refusal(400, self.revoked[0], self.revoked[1], "The grant is no good any more.")
        if form["refresh_token"] != self.refresh_token:
            return refusal(400, 70008, "invalid_grant", "The refresh token was used before.")
        return self._user_grant(form["scope"])

    def _user_grant(self, scope: str) -> web.StreamResponse:
        wanted = next(one for one in scope.split() if "/" in one)
        resource, _, name = wanted.rpartition("/")
        if name not in self.scopes:
            return refusal(400, 65001, "invalid_grant", "The user has not consented.")
        self.refresh_token = f"refresh-{uuid.uuid4()}"
        now = int(time.time())
        claims: dict[str, object] = {
            "aud": resource,
            "tid": TENANT,
            "appid": CLIENT,
            "scp": name,
            "upn": self.user,
        }
        identity = make_token(
            aud=CLIENT, iss=f"{self.authority}/{TENANT}/v2.0", sub="s", iat=now, exp=now + 600,
            preferred_username=self.user, tid=TENANT,
        )  # fmt: skip
        return web.json_response({
            "token_type": "Bearer", "expires_in": 3600, "scope": wanted, "refresh_token": self.refresh_token,
            "access_token": make_token(**claims, iat=now, nbf=now - 300, exp=now + 3600), "id_token": identity,
        })  # fmt: skip

    # Graph

    def _denied(self, request: web.Request) -> web.Response | None:
        self.graph_calls.append(f"{request.method} {request.path.rpartition('/')[2]}")
        assert request.headers["Authorization"].startswith("Bearer eyJ")
        if self.graph_fault:
            return _graph_error(self.graph_fault, "ServiceNotAvailable", "Out of order.")
        return None

    async def _read(self, request: web.Request) -> web.Response:
        if denied := self._denied(request):
            return denied
        assert request.match_info["application"] == f"applications(appId='{CLIENT}')"
        if "Application.Read.All" not in (self.roles or []):
            return _graph_error(403, "Authorization_RequestDenied", "Insufficient privileges.")
        keys = [
            {
                "keyId": key_id,
                "customKeyIdentifier": base64.b64encode(
                    hashlib.sha1(one.public_bytes(Encoding.DER)).digest()
                ).decode(),
                "endDateTime": one.not_valid_after_utc.strftime("%Y-%m-%dT%H:%M:%SZ"),
            }
            for key_id, one in self.certificates.items()
        ]
        return web.json_response(
            {"id": OBJECT_ID, "passwordCredentials": self.secrets, "keyCredentials": keys}
        )

    async def _add_key(self, request: web.Request) -> web.Response:
        if denied := self._denied(request):
            return denied
        body = await self._proven(request)
        if isinstance(body, web.Response):
            return body
        credential = body["keyCredential"]
        assert (credential["type"], credential["usage"]) == ("AsymmetricX509Cert", "Verify")
        assert body["passwordCredential"] is None
        added = x509.load_der_x509_certificate(base64.b64decode(credential["key"]))
        if added in self.certificates.values():
            return _graph_error(400, "Request_BadRequest", "The key is there already.")
        self._fresh.add(self.register(added))
        return web.json_response({"@odata.context": "keyCredential"})

    async def _remove_key(self, request: web.Request) -> web.Response:
        if denied := self._denied(request):
            return denied
        body = await self._proven(request)
        if isinstance(body, web.Response):
            return body
        del self.certificates[body["keyId"]]
        return web.Response(status=204)

    async def _proven(self, request: web.Request) -> dict[str, Any] | web.Response:
        """The proof of possession, as Microsoft documents it."""
        body: dict[str, Any] = json.loads(await request.read())
        for one in self.certificates.values():
            try:
                claims = jwt.decode(
                    body["proof"], one.public_key(), ["RS256"], audience=PROOF_AUDIENCE,  # type: ignore[arg-type]
                    options={"require": ["aud", "iss", "nbf", "exp"]},
                )  # fmt: skip
            except jwt.InvalidSignatureError:
                continue
            if (
                claims["iss"] == OBJECT_ID == request.match_info["id"]
                and claims["exp"] - claims["nbf"] <= 600
            ):
                return body
        return _graph_error(401, "Authentication_MissingOrMalformed", "Access Token missing or malformed.")


def _graph_error(status: int, code: str, message: str) -> web.Response:
    return web.json_response({"error": {"code": code, "message": message}}, status=status)


def _b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
