"""A small Entra ID on loopback: TLS from a CA of its own, tenant discovery, the token endpoint, faults on request."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import datetime
import ipaddress
import json
import ssl
import time
from collections.abc import Callable
from pathlib import Path

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from relay import settings
from relay.tokens.entra import EntraTokens

TENANT = "11111111-2222-3333-4444-555555555555"
CLIENT = "66666666-7777-8888-9999-aaaaaaaaaaaa"
SECRET = "s3cr~et.Value-of-the-app"
OUTLOOK = "https://outlook.office365.com"
GRAPH = "https://graph.microsoft.com"

Make = Callable[..., EntraTokens]
Fault = Callable[[web.Request], "web.StreamResponse | None"]


class FakeClock:
    """Time that moves only when told; starts now, since msal and TLS look at the real clock."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self._wall = time.time()
        self._start = 1000.0

    def now(self) -> float:
        return self._wall + self.ahead

    def monotonic(self) -> float:
        return self._start + self.ahead

    def advance(self, seconds: float) -> None:
        self.ahead += seconds

    async def sleep(self, seconds: float) -> None:
        self.ahead += max(0.0, seconds)
        await asyncio.sleep(0)


@dataclasses.dataclass
class Identity:
    """A key and its certificate, as objects."""

    key: rsa.RSAPrivateKey
    certificate: x509.Certificate

    def key_pem(self, passphrase: bytes | None = None) -> bytes:
        lock: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if passphrase:
            lock = serialization.BestAvailableEncryption(passphrase)
        form = serialization.PrivateFormat.PKCS8
        return self.key.private_bytes(serialization.Encoding.PEM, form, lock)

    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)


def make_identity(name: str, signer: Identity | None = None, *, ca: bool = False) -> Identity:
    """A certificate for ``name``, signed by ``signer`` or itself; good for localhost and 127.0.0.1."""
    key = rsa.generate_private_key(65537, 2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer_key = signer.key if signer else key
    now = datetime.datetime.now(datetime.UTC)
    addresses = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signer.certificate.subject if signer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
        .add_extension(x509.SubjectAlternativeName(addresses), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
        )
    )
    if ca:
        usage = x509.KeyUsage(*(name in ("cert", "crl") for name in _USAGES))
        builder = builder.add_extension(usage, critical=True)
    return Identity(key, builder.sign(issuer_key, hashes.SHA256()))


_USAGES = ("signature", "commitment", "key", "data", "agreement", "cert", "crl", "encipher", "decipher")


def make_token(**claims: object) -> str:
    """An unsigned JWT: nobody in the tokens room verifies one."""

    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return f"{part({'alg': 'none', 'typ': 'JWT'})}.{part(claims)}.c2lnbmF0dXJl"


class FakeEntra:
    """``requests`` are the forms posted; ``fault`` may answer instead; ``gate`` cleared makes requests wait."""

    def __init__(self, folder: Path, ca: Identity) -> None:
        self.ca = ca
        self.ca_file = folder / "ca.pem"
        self.ca_file.write_bytes(ca.certificate_pem())
        self._chain = folder / "server.pem"
        server = make_identity("localhost", ca)
        self._chain.write_bytes(server.key_pem() + server.certificate_pem())
        self.tenants = {TENANT}
        self.secret = SECRET
        self.roles: list[str] | None = ["Mail.Send", "SMTP.SendAsApp"]
        self.expires_in = 3600
        self.fault: Fault | None = None
        self.discovery_fault: Fault | None = None
        self.check: Callable[[dict[str, str]], tuple[int, str] | None] = self._check_secret
        self.requests: list[dict[str, str]] = []
        self.discoveries: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.arrived = asyncio.Event()
        self.port = 0
        self._runner: web.AppRunner | None = None

    @property
    def authority(self) -> str:
        return f"https://localhost:{self.port}"

    async def start(self) -> None:
        """Listen again on the same port if there was one."""
        app = web.Application()
        app.router.add_get("/{tenant}/v2.0/.well-known/openid-configuration", self._discovery)
        app.router.add_post("/{tenant}/oauth2/v2.0/token", self._token)
        self._add_routes(app)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._chain)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "localhost", self.port, ssl_context=context)
        await site.start()
        self.port = self.port or self._runner.addresses[0][1]

    def _add_routes(self, app: web.Application) -> None:
        """For fakes that know more."""

    async def stop(self) -> None:
        """The port then refuses connections."""
        self.gate.set()
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    async def _discovery(self, request: web.Request) -> web.StreamResponse:
        tenant = request.match_info["tenant"]
        self.discoveries.append(tenant)
        if self.discovery_fault and (answer := self.discovery_fault(request)):
            return answer
        if tenant not in self.tenants:
            return refusal(400, 90002, "invalid_tenant", f"Tenant '{tenant}' not found.")
        base = f"{self.authority}/{tenant}"
        return web.json_response({
            "issuer": f"{base}/v2.0",
            "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
            "token_endpoint": f"{base}/oauth2/v2.0/token",
            "device_authorization_endpoint": f"{base}/oauth2/v2.0/devicecode",
        })  # fmt: skip

    async def _token(self, request: web.Request) -> web.StreamResponse:
        form = {key: str(value) for key, value in (await request.post()).items()}
        self.requests.append(form)
        self.arrived.set()
        await self.gate.wait()
        if self.fault and (answer := self.fault(request)):
            return answer
        if refused := self.check(form):
            code, text = refused
            return refusal(401, code, "invalid_client", text)
        return web.json_response(self._grant(form))

    def _check_secret(self, form: dict[str, str]) -> tuple[int, str] | None:
        if form.get("client_secret") == self.secret:
            return None
        given = form.get("client_secret")
        return 7000215, f"Invalid client secret provided ({given}) for app '{form.get('client_id')}'."

    def _grant(self, form: dict[str, str]) -> dict[str, object]:
        now = int(time.time())
        claims: dict[str, object] = {
            "aud": form["scope"].removesuffix("/.default"), "tid": TENANT, "appid": form["client_id"],
            "iat": now, "nbf": now - 300, "exp": now + self.expires_in, "uti": str(len(self.requests)),
        }  # fmt: skip
        if self.roles is not None:
            claims["roles"] = self.roles
        return {"token_type": "Bearer", "expires_in": self.expires_in, "access_token": make_token(**claims)}


def refusal(
    status: int, code: int, error: str, text: str, headers: dict[str, str] | None = None
) -> web.Response:
    """Entra's error answer (facts 7.2)."""
    said = f"AADSTS{code}: {text} Trace ID: t Correlation ID: c Timestamp: 2026-11-23 10:00:00Z"
    body = {
        "error": error,
        "error_description": said,
        "error_codes": [code],
        "trace_id": "t",
        "correlation_id": "c",
    }
    return web.json_response(body, status=status, headers=headers)


def make_upstream(authority: str, ca_file: Path | None, **changes: object) -> settings.Upstream:
    """An upstream that points at a fake."""
    whole = settings.Upstream(
        name="Microsoft 365", from_email="notifications@contoso.com", tenant_id=TENANT, client_id=CLIENT,
        credential=settings.ClientSecret(settings.Secret(SECRET)), host="localhost", port=587, timeout=20.0,
        batch_size=30, transport="auto", cloud="public", authority=authority, graph_url=GRAPH,
        smtp_scope=f"{OUTLOOK}/.default", graph_scope=f"{GRAPH}/.default", ca_file=ca_file, proxy=None,
        limits=settings.MailboxLimits(2, 30, 10000, 500, 35 << 20),
    )  # fmt: skip
    return dataclasses.replace(whole, **changes)  # type: ignore[arg-type]
