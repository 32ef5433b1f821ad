"""What the tests of credentials share: certificates, proofs, and the library that real clients use."""

from __future__ import annotations

import base64
import datetime
import json
from typing import Any

import jwt
import msal
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from tests.simulator.kit import EXCHANGE_SCOPE


def claims_of(token: str) -> dict[str, Any]:
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


def make_certificate(days: float = 1) -> tuple[str, str]:
    """(private key, certificate), both PEM; valid since yesterday and for so many days from now."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "relay")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private.decode(), certificate.public_bytes(serialization.Encoding.PEM).decode()


def msal_token(authority: str, ca_file: str, client_id: str, credential: Any) -> dict[str, Any]:
    app = msal.ConfidentialClientApplication(
        client_id,
        client_credential=credential,
        authority=authority,
        instance_discovery=False,
        verify=ca_file,
        timeout=(5, 5),
    )
    return app.acquire_token_for_client(scopes=[EXCHANGE_SCOPE])


def der_base64(certificate: str) -> str:
    """A PEM certificate as Graph's ``key`` takes it."""
    der = x509.load_pem_x509_certificate(certificate.encode()).public_bytes(serialization.Encoding.DER)
    return base64.b64encode(der).decode()


def make_proof(private: str, issuer: str, now: float, **changes: Any) -> str:
    """A proof of possession for addKey and removeKey."""
    claims = {
        "aud": "00000002-0000-0000-c000-000000000000",
        "iss": issuer,
        "nbf": int(now),
        "exp": int(now) + 600,
        **changes,
    }
    return jwt.encode(claims, private, algorithm="RS256")
