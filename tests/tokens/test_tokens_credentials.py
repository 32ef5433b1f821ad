"""Secret, certificate, federated token file and managed identity: each proves itself as Microsoft asks for it."""

from __future__ import annotations

import datetime
import hashlib
import time
from pathlib import Path

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)

from relay.errors import TokenError
from relay.settings import Certificate, ClientSecret, FederatedTokenFile, ManagedIdentity, Secret
from relay.tokens import credentials
from relay.tokens.contract import Resource
from relay.tokens.entra import EntraTokens
from tests.tokens.fake_entra_server import (
    CLIENT,
    OUTLOOK,
    TENANT,
    FakeEntra,
    Identity,
    Make,
    make_identity,
    make_token,
    make_upstream,
)

PASS = "pässphrase"


@pytest.fixture(scope="module")
def identity() -> Identity:
    return make_identity("relay application")


def certificate_check(entra: FakeEntra, identity: Identity) -> None:
    """Make the fake verify the assertion as Entra does: signature, audience, time, thumbprint."""

    def check(form: dict[str, str]) -> tuple[int, str] | None:
        assert form["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
        assert "client_secret" not in form
        header = jwt.get_unverified_header(form["client_assertion"])
        thumbprint = hashlib.sha256(identity.certificate.public_bytes(Encoding.DER)).digest()
        assert header["alg"] == "PS256"
        assert header["x5t#S256"].rstrip("=") == jwt.utils.base64url_encode(thumbprint).decode()
        claims = jwt.decode(
            form["client_assertion"],
            identity.key.public_key(),
            algorithms=["PS256"],
            audience=f"{entra.authority}/{TENANT}/oauth2/v2.0/token",
            options={"require": ["exp", "iat", "jti", "sub", "iss"]},
        )
        assert (claims["iss"], claims["sub"]) == (CLIENT, CLIENT)
        return None

    entra.check = check


def write_pfx(identity: Identity, file: Path, passphrase: str | None) -> Path:
    """A PKCS #12 file."""
    lock = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    file.write_bytes(
        pkcs12.serialize_key_and_certificates(b"app", identity.key, identity.certificate, None, lock)
    )
    return file


def write_pem(identity: Identity, file: Path, passphrase: str | None, *, first: bytes = b"") -> Path:
    """Key and certificate in one PEM file."""
    key = identity.key_pem(passphrase.encode() if passphrase else None)
    file.write_bytes(first + key + identity.certificate_pem())
    return file


def certificate(file: Path, passphrase: str | None = None) -> Certificate:
    return Certificate(file, Secret(passphrase) if passphrase else None)


async def refused(tokens: EntraTokens, resource: Resource = Resource.SMTP) -> TokenError:
    """The error of one request."""
    with pytest.raises(TokenError) as caught:
        await tokens.token(resource)
    return caught.value


@pytest.mark.parametrize("passphrase", [None, PASS])
@pytest.mark.parametrize("write", [write_pfx, write_pem])
async def test_a_certificate_signs_the_request(
    entra: FakeEntra, make: Make, identity: Identity, tmp_path: Path, write: object, passphrase: str | None
) -> None:
    """PFX and PEM, encrypted or not: the assertion is signed by the key and names the certificate."""
    certificate_check(entra, identity)
    file = write(identity, tmp_path / "app", passphrase)  # type: ignore[operator]
    assert (await make(credential=certificate(file, passphrase)).token(Resource.SMTP)).value
    assert len(entra.requests) == 1


async def test_a_chain_in_the_file_is_no_obstacle(
    entra: FakeEntra, make: Make, identity: Identity, tmp_path: Path, authority_ca: Identity
) -> None:
    """The certificate that belongs to the key is used, wherever it stands."""
    certificate_check(entra, identity)
    file = write_pem(identity, tmp_path / "app.pem", None, first=authority_ca.certificate_pem())
    assert (await make(credential=certificate(file)).token(Resource.SMTP)).value


async def test_an_unneeded_passphrase_is_ignored(
    entra: FakeEntra, make: Make, identity: Identity, tmp_path: Path
) -> None:
    """The key is not encrypted: nothing to refuse."""
    certificate_check(entra, identity)
    file = write_pem(identity, tmp_path / "app.pem", None)
    assert (await make(credential=certificate(file, PASS)).token(Resource.SMTP)).value


@pytest.mark.parametrize("given", [None, "wrong"])
@pytest.mark.parametrize("write", [write_pfx, write_pem])
async def test_a_wrong_passphrase(
    entra: FakeEntra, make: Make, identity: Identity, tmp_path: Path, write: object, given: str | None
) -> None:
    """Named as such, without showing it; nothing is sent to the token endpoint."""
    file = write(identity, tmp_path / "app", PASS)  # type: ignore[operator]
    error = await refused(make(credential=certificate(file, given)))
    assert (error.code, error.temporary) == ("certificate-passphrase", False)
    assert entra.requests == []
    assert given is None or "wrong passphrase" not in error.evidence


async def test_certificate_files_of_no_use(make: Make, identity: Identity, tmp_path: Path) -> None:
    """Missing; no key; a key of another kind; a key whose certificate is another's; not a certificate at all."""
    other = make_identity("another")
    curve = ec.generate_private_key(ec.SECP256R1())
    curve_pem = curve.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    files = {
        "none.pem": identity.certificate_pem(),
        "curve.pem": curve_pem + identity.certificate_pem(),
        "other.pem": identity.key_pem() + other.certificate_pem(),
        "text": b"hello",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        error = await refused(make(credential=certificate(tmp_path / name)))
        assert (error.code, error.temporary) == ("certificate-unusable", False), name
    missing = await refused(make(credential=certificate(tmp_path / "missing.pfx")))
    assert missing.code == "certificate-missing"
    assert "missing.pfx" in missing.evidence


async def test_a_renewed_certificate_is_used(entra: FakeEntra, make: Make, tmp_path: Path) -> None:
    """The file is replaced while the relay runs: the next request is signed with the new key."""
    old, new = make_identity("old"), make_identity("new")
    file = write_pem(old, tmp_path / "app.pem", None)
    tokens = make(credential=certificate(file))
    certificate_check(entra, old)
    tokens.discard(await tokens.token(Resource.SMTP))
    write_pem(new, file, None, first=b"renewed\n")
    certificate_check(entra, new)
    assert (await tokens.token(Resource.SMTP)).value
    assert len(entra.requests) == 2


async def test_a_federated_token_is_read_at_each_request(
    entra: FakeEntra, make: Make, tmp_path: Path
) -> None:
    """The platform rotates the file; the relay follows."""
    file = tmp_path / "token"
    file.write_text(make_token(sub="one") + "\n")
    entra.check = lambda form: None
    tokens = make(credential=FederatedTokenFile(file))
    tokens.discard(await tokens.token(Resource.SMTP))
    file.write_text(make_token(sub="two"))
    await tokens.token(Resource.SMTP)
    sent = [form["client_assertion"] for form in entra.requests]
    assert sent == [make_token(sub="one"), make_token(sub="two")]


async def test_a_federated_file_that_is_missing_or_empty(
    entra: FakeEntra, make: Make, tmp_path: Path
) -> None:
    """Named with its path; it may vanish later, too."""
    file = tmp_path / "token"
    tokens = make(credential=FederatedTokenFile(file))
    for content in (None, " \n", "\xff\xfe"):
        if content is not None:
            file.write_text(content, encoding="latin-1")
        tokens.retry_now()
        error = await refused(tokens)
        assert (error.code, error.temporary) == ("federated-token-file", False)
        assert str(file) in error.evidence
    assert entra.requests == []


async def test_a_federated_file_that_vanishes(entra: FakeEntra, make: Make, tmp_path: Path) -> None:
    """msal calls back for the file in the midst of its work: the reason survives that."""
    file = tmp_path / "token"
    file.write_text(make_token(sub="one"))
    entra.check = lambda form: None
    tokens = make(credential=FederatedTokenFile(file))
    tokens.discard(await tokens.token(Resource.SMTP))
    file.unlink()
    assert (await refused(tokens)).code == "federated-token-file"


async def test_a_federation_mismatch_hides_the_token(entra: FakeEntra, make: Make, tmp_path: Path) -> None:
    """Entra quotes what it got; we do not."""
    assertion = make_token(sub="system:serviceaccount:mail:relay", iss="https://issuer")
    file = tmp_path / "token"
    file.write_text(assertion)
    entra.check = lambda form: (700213, f"No matching federated identity record found for {assertion}")
    error = await refused(make(credential=FederatedTokenFile(file)))
    assert error.code == "federation-mismatch"
    assert assertion not in error.evidence
    assert "[token]" in error.evidence


class IdentityEndpoint:
    """The managed identity endpoint of an App Service: plain http on loopback, found by environment variables."""

    def __init__(self) -> None:
        self.asked: list[dict[str, str]] = []
        self.status = 200
        self.refusal: dict[str, object] | None = None

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.append({**request.query, "header": request.headers["X-IDENTITY-HEADER"]})
        if self.refusal is not None:
            return web.json_response(self.refusal, status=self.status)
        token = make_token(aud=OUTLOOK, tid=TENANT, roles=["SMTP.SendAsApp"])
        ends = int(time.time()) + 86400
        return web.json_response({"access_token": token, "expires_on": str(ends), "token_type": "Bearer"})


@pytest.fixture
async def endpoint(monkeypatch: pytest.MonkeyPatch) -> object:
    handler = IdentityEndpoint()
    runner = web.ServerRunner(web.Server(handler))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"http://127.0.0.1:{runner.addresses[0][1]}/msi/token")
    monkeypatch.setenv("IDENTITY_HEADER", "header-secret")
    yield handler
    await runner.cleanup()


@pytest.mark.parametrize("client_id", [None, CLIENT])
async def test_a_managed_identity(
    endpoint: IdentityEndpoint, make: Make, monkeypatch: pytest.MonkeyPatch, client_id: str | None
) -> None:
    """System or user assigned; asked for the resource without /.default, and never through a proxy."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    tokens = make(credential=ManagedIdentity(client_id), proxy="http://127.0.0.1:1")
    token = await tokens.token(Resource.SMTP)
    assert token.roles == ("SMTP.SendAsApp",)
    assert token.expires == pytest.approx(time.time() + 86400, abs=10)
    (asked,) = endpoint.asked
    assert asked["resource"] == OUTLOOK
    assert asked.get("client_id") == client_id


async def test_a_discarded_identity_token_is_asked_for_again(endpoint: IdentityEndpoint, make: Make) -> None:
    """msal's own memory does not hand the refused token back."""
    tokens = make(credential=ManagedIdentity(None))
    tokens.discard(await tokens.token(Resource.SMTP))
    await tokens.token(Resource.SMTP)
    assert len(endpoint.asked) == 2


async def test_an_identity_that_is_refused(endpoint: IdentityEndpoint, make: Make) -> None:
    """There is none on this machine: an administrator's matter."""
    endpoint.status, endpoint.refusal = 400, {"statusCode": 400, "message": "No managed identity found"}
    error = await refused(make(credential=ManagedIdentity(None)))
    assert (error.code, error.temporary) == ("identity-refused", False)
    assert "No managed identity found" in error.evidence


async def test_an_identity_endpoint_in_trouble(endpoint: IdentityEndpoint, make: Make) -> None:
    """A server error there is temporary."""
    endpoint.status, endpoint.refusal = 500, {"statusCode": 500, "message": "busy"}
    assert (await refused(make(credential=ManagedIdentity(None)))).temporary


async def test_no_identity_endpoint(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not on Azure: says where managed identities exist."""
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:1")
    error = await refused(make(credential=ManagedIdentity(None)))
    assert (error.code, error.temporary) == ("identity-unreachable", True)
    assert "only on Azure" in error.remedy


def test_expiry_of_the_credential(identity: Identity, tmp_path: Path) -> None:
    """A certificate knows its own day; a secret's must be told; the others have none."""
    file = write_pem(identity, tmp_path / "app.pem", None)
    day = datetime.date(2028, 11, 1)
    with_certificate = make_upstream("https://localhost", None, credential=certificate(file))
    assert credentials.expires(with_certificate) == identity.certificate.not_valid_after_utc
    with_secret = make_upstream("https://localhost", None, client_secret_expires=day)
    assert credentials.expires(with_secret) == datetime.datetime(2028, 11, 1, tzinfo=datetime.UTC)
    assert credentials.expires(make_upstream("https://localhost", None)) is None


def test_scrubbing() -> None:
    """Secret and tokens go, the rest stays."""
    secret = ClientSecret(Secret("abc123"))
    text = f"got abc123 and {make_token(a=1)} in trace 42"
    assert credentials.scrub(text, secret) == "got [secret] and [token] in trace 42"
    assert credentials.scrub("abc123", FederatedTokenFile(Path("x"))) == "abc123"


def test_the_thumbprint_is_of_the_leaf(identity: Identity, tmp_path: Path) -> None:
    """What an administrator compares in the admin center."""
    pair = credentials.load_certificate(certificate(write_pfx(identity, tmp_path / "a.pfx", PASS), PASS))
    assert pair.leaf.fingerprint(hashes.SHA256()) == identity.certificate.fingerprint(hashes.SHA256())
    assert pair.leaf_pem().count("BEGIN CERTIFICATE") == 1
