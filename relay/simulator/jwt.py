"""JSON Web Tokens (RFC 7515, 7519): minting the simulator's own, reading those that clients send."""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import json
import secrets
import uuid
from collections.abc import Iterable
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from relay.simulator.credentials import Certificate
from relay.simulator.state import State

ALLOWED_SKEW = 300.0  # seconds that Microsoft's services forgive


class BadToken(ValueError):
    """The text is no token, or not signed by whom it should be."""


@functools.cache
def signing_key() -> rsa.RSAPrivateKey:
    """The key of this process's Entra; made once, since making one takes a while."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@functools.cache
def key_id() -> str:
    """The ``kid`` under which the key is published."""
    numbers = signing_key().public_key().public_numbers()
    return b64url(hashlib.sha256(str(numbers.n).encode()).digest()[:20])


def b64url(data: bytes) -> str:
    """Base64url without padding (RFC 7515 section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64url(text: str) -> bytes:
    """The reverse. Raises BadToken."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadToken(str(error)) from error


def app_claims(state: State, roles: Iterable[str], acr: str) -> dict[str, Any]:
    """What an app's token says of it; ``acr`` is ``1`` for a secret, ``2`` for a certificate."""
    claims: dict[str, Any] = {
        "appidacr": acr,
        "idtyp": "app",
        "oid": state.service_principal_id(),
        "roles": sorted(roles),
        "sub": state.service_principal_id(),
        "wids": ["0997a1d0-0d1d-4acb-b408-d5ca73121e90"],
    }
    if not claims["roles"]:
        del claims["roles"]
    return claims


def user_claims(state: State, user: str, permissions: Iterable[str]) -> dict[str, Any]:
    """What a signed-in user's token says: ``scp`` in place of ``roles``, and who it is."""
    return {
        "appidacr": "0",
        "idtyp": "user",
        "name": state.display_name(user),
        "oid": state.user_id(user),
        "preferred_username": user,
        "scp": " ".join(permissions),
        "sub": state.user_id(user),
        "unique_name": user,
        "upn": user,
    }


def client_info(state: State, user: str) -> str:
    """The ``client_info`` by which Microsoft's libraries tell accounts apart."""
    return _part({"uid": state.user_id(user), "utid": state.tenant_id})


def mint(state: State, authority: str, resource: str, claims: dict[str, Any]) -> str:
    """A token for this resource with the claims of Microsoft's "access token claims reference"."""
    now = int(state.clock())
    every: dict[str, Any] = {
        "aud": resource,
        "iss": f"https://sts.windows.net/{state.tenant_id}/",
        "iat": now - 300,
        "nbf": now - 300,
        "exp": now + int(state.token_lifetime),
        "aio": b64url(secrets.token_bytes(36)),
        "app_displayname": "relay (simulated)",
        "appid": state.client_id,
        "idp": f"https://sts.windows.net/{state.tenant_id}/",
        "rh": b64url(secrets.token_bytes(48)),
        "sid": str(uuid.uuid4()),
        "tid": state.tenant_id,
        "uti": b64url(secrets.token_bytes(16)),
        "ver": "1.0",
        "xms_authority": authority,
        **claims,
    }
    header = {"typ": "JWT", "nonce": b64url(secrets.token_bytes(32)), "alg": "RS256", "kid": key_id()}
    signed = f"{_part(header)}.{_part(every)}"
    signature = signing_key().sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{signed}.{b64url(signature)}"


def _part(content: dict[str, Any]) -> str:
    return b64url(json.dumps(content, separators=(",", ":")).encode())


def read(token: str) -> tuple[dict[str, Any], dict[str, Any], bytes, bytes]:
    """(header, claims, what was signed, signature), nothing verified. Raises BadToken."""
    pieces = token.split(".")
    if len(pieces) != 3:
        raise BadToken("a token has three parts")
    try:
        header, claims = json.loads(unb64url(pieces[0])), json.loads(unb64url(pieces[1]))
    except (ValueError, UnicodeDecodeError) as error:
        raise BadToken(str(error)) from error
    if not isinstance(header, dict) or not isinstance(claims, dict):
        raise BadToken("header and claims are objects")
    return header, claims, f"{pieces[0]}.{pieces[1]}".encode(), unb64url(pieces[2])


def verify_own(token: str, state: State, *resources: str) -> dict[str, Any]:
    """The claims of a token that this Entra issued for one of these resources and that is in its time.

    Raises BadToken.
    """
    header, claims, signed, signature = read(token)
    if header.get("kid") != key_id():
        raise BadToken("signed by an unknown key")
    try:
        signing_key().public_key().verify(signature, signed, padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature as error:
        raise BadToken("the signature is wrong") from error
    if claims.get("aud") not in resources:
        raise BadToken(f"the token is for {claims.get('aud')}")
    if claims.get("tid") != state.tenant_id:
        raise BadToken("the token is of another tenant")
    if not claims["nbf"] - ALLOWED_SKEW <= state.clock() < claims["exp"]:
        raise BadToken("the token is outside its time")
    return claims


def certificate_of(header: dict[str, Any], registered: Iterable[Certificate]) -> Certificate | None:
    """The registered certificate that an assertion's header names by ``x5t#S256`` or ``x5t`` (padded or not)."""
    named = {str(header.get(field, "")).rstrip("=") for field in ("x5t#S256", "x5t")}
    for certificate in registered:
        der = certificate.x509.public_bytes(Encoding.DER)
        sha1 = hashlib.sha1(der, usedforsecurity=False).digest()  # the legacy thumbprint of x5t
        if named & {b64url(hashlib.sha256(der).digest()), b64url(sha1)}:
            return certificate
    return None


def signed_by(certificate: Certificate, algorithm: object, signed: bytes, signature: bytes) -> bool:
    """Whether the certificate's key made the signature, with RS256 or PS256 (what Entra takes)."""
    key = certificate.x509.public_key()
    if not isinstance(key, rsa.RSAPublicKey):
        return False
    sha256 = hashes.SHA256()
    schemes: dict[object, padding.AsymmetricPadding] = {
        "RS256": padding.PKCS1v15(),
        "PS256": padding.PSS(padding.MGF1(sha256), padding.PSS.DIGEST_LENGTH),
    }
    if algorithm not in schemes:
        return False
    try:
        key.verify(signature, signed, schemes[algorithm], sha256)
    except InvalidSignature:
        return False
    return True
