"""The credential of an upstream, made ready for msal, and kept out of every text.

Blocking (files, cryptography): call from a worker thread, except `scrub`.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from relay.settings import (
    Certificate,
    ClientSecret,
    Credential,
    FederatedTokenFile,
    Secret,
    Upstream,
    UserLogin,
)
from relay.tokens.reasons import local

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.x509 import Certificate as X509

GUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
_JWT = re.compile(r"eyJ[\w-]{8,}\.[\w-]+(\.[\w-]*)?")
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
MAX_FILE = 256 * 1024
"""Octets of a certificate or token file; larger is a mistake in the path."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """The private key and the leaf certificate that belongs to it."""

    key: RSAPrivateKey
    leaf: X509

    def leaf_pem(self) -> str:
        """The leaf alone: Entra refuses a chain in its place (facts 7.2, 700027)."""
        from cryptography.hazmat.primitives.serialization import Encoding

        return self.leaf.public_bytes(Encoding.PEM).decode()


def for_msal(credential: Credential) -> object:
    """What ``ConfidentialClientApplication(client_credential=...)`` wants (facts 7.4).

    Raises TokenError when a file is missing, unreadable, or not what it should be.
    """
    if isinstance(credential, ClientSecret):
        return credential.secret.reveal()
    if isinstance(credential, Certificate):
        pair = load_certificate(credential)
        return {"private_key": pair.key, "public_certificate": pair.leaf_pem()}
    if isinstance(credential, FederatedTokenFile):
        read_assertion(credential.file)  # a missing file should be named before anything goes out
        return {"client_assertion": _reader(credential.file)}
    raise TypeError(f"{type(credential).__name__} does not go through an app registration")


def _reader(file: Path) -> Callable[[], str]:
    """msal calls it for each request, so a token the platform has rotated is picked up."""
    return lambda: read_assertion(file)


def read_assertion(file: Path) -> str:
    """The federated token; TokenError ``federated-token-file`` when there is none."""
    try:
        text = _read(file).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as fault:
        raise local("federated-token-file").error(evidence=f"{file}: {_brief(fault)}") from fault
    if not text:
        raise local("federated-token-file").error(evidence=f"{file}: empty")
    return text


def load_certificate(certificate: Certificate) -> KeyPair:
    """From PFX or PEM, told apart by content. Raises TokenError ``certificate-...``."""
    try:
        blob = _read(certificate.file)
    except OSError as fault:
        raise local("certificate-missing").error(evidence=f"{certificate.file}: {_brief(fault)}") from fault
    passphrase = certificate.passphrase.reveal().encode() if certificate.passphrase else None
    try:
        key, leaves = _from_pem(blob, passphrase) if b"-----BEGIN" in blob else _from_pfx(blob, passphrase)
        return _pair(key, leaves)
    except (ValueError, TypeError) as fault:
        raise _certificate_fault(certificate, fault) from None  # the cause may quote the passphrase's bytes


def _from_pfx(blob: bytes, passphrase: bytes | None) -> tuple[object, list[X509]]:
    from cryptography.hazmat.primitives.serialization import pkcs12

    key, leaf, others = pkcs12.load_key_and_certificates(blob, passphrase)
    return key, [*([leaf] if leaf else []), *others]


def _from_pem(blob: bytes, passphrase: bytes | None) -> tuple[object, list[X509]]:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    leaves = [x509.load_pem_x509_certificate(one) for one in _PEM.findall(blob)]
    without = _PEM.sub(b"", blob)
    if b"PRIVATE KEY-----" not in without:
        raise ValueError("no private key in the file")
    # a passphrase given for a key that needs none is not worth a refusal
    encrypted = b"ENCRYPTED" in without
    try:
        return load_pem_private_key(without, passphrase if encrypted else None), leaves
    except ValueError as fault:
        # a wrong passphrase may by chance leave valid padding: then the garbage fails to parse, whatever the words
        raise ValueError("the key could not be decrypted" if encrypted else str(fault)) from None


def _pair(key: object, leaves: list[X509]) -> KeyPair:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    if not isinstance(key, RSAPrivateKey):
        raise ValueError("no RSA private key in the file")
    for leaf in leaves:
        if leaf.public_key() == key.public_key():
            return KeyPair(key, leaf)
    raise ValueError("no certificate in the file belongs to its private key")


def _certificate_fault(certificate: Certificate, fault: Exception) -> Exception:
    text = str(fault).lower()
    locked = isinstance(fault, TypeError) or any(word in text for word in ("password", "decrypt", "mac"))
    reason = local("certificate-passphrase" if locked else "certificate-unusable")
    shown = "wrong or missing passphrase" if locked else _brief(fault)
    return reason.error(evidence=f"{certificate.file}: {shown}")


def expires(upstream: Upstream) -> datetime.datetime | None:
    """When the first credential itself ends (UTC): the certificate's own date, or ``client_secret_expires``.

    None when it is not known; `relay.tokens.expiry` knows more. Raises TokenError when the certificate cannot be read.
    """
    if isinstance(upstream.credential, Certificate):
        return load_certificate(upstream.credential).leaf.not_valid_after_utc
    if isinstance(upstream.credential, ClientSecret) and upstream.client_secret_expires:
        return datetime.datetime.combine(upstream.client_secret_expires, datetime.time(), tzinfo=datetime.UTC)
    return None


def stamp(credential: Credential) -> tuple[int, int] | None:
    """Changes when the certificate's file does, so that a renewed one is used without a restart."""
    if not isinstance(credential, Certificate):
        return None
    try:
        status = credential.file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def scrub(text: str, credential: Credential) -> str:
    """The text without our secret and without anything that looks like a token."""
    secrets: list[Secret | None] = []
    if isinstance(credential, ClientSecret):
        secrets.append(credential.secret)
    elif isinstance(credential, Certificate):
        secrets.append(credential.passphrase)
    elif isinstance(credential, UserLogin):
        secrets.append(credential.key)
    for secret in secrets:
        if secret is not None and secret.reveal():
            text = text.replace(secret.reveal(), "[secret]")
    return _JWT.sub("[token]", text)


def scrub_proxy(text: str, proxy: str | None) -> str:
    """The text without the proxy's user name and password."""
    login = urlsplit(proxy or "").netloc.rpartition("@")[0]
    return text.replace(login, "[proxy login]") if login else text


def looks_like_secret_id(credential: Credential) -> bool:
    """A client secret that is a GUID is its ID, copied instead of its Value (guide step 5)."""
    return isinstance(credential, ClientSecret) and bool(GUID.fullmatch(credential.secret.reveal().strip()))


def _read(file: Path) -> bytes:
    if file.stat().st_size > MAX_FILE:
        raise OSError("the file is too large")
    return file.read_bytes()


def _brief(fault: BaseException) -> str:
    return fault.strerror or str(fault) if isinstance(fault, OSError) else str(fault)
