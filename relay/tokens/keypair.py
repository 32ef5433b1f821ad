"""A certificate that the relay makes itself, and files that only the relay's user may read.

Self-signed is what Entra ID expects of an application's certificate: what counts is that exactly this public key was
uploaded (Microsoft, "Create a self-signed public certificate to authenticate your application"). The private key is
made on this host and never leaves it. Blocking: files and cryptography.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from relay.tokens.credentials import KeyPair

if TYPE_CHECKING:
    from cryptography.x509 import Certificate as X509

KEY_BITS = 3072
"""RSA, which is what Entra takes for client assertions; 3072 bits are good beyond 2030 (NIST SP 800-57)."""
HEAD_START = 300.0
"""Seconds by which a certificate begins before now: clocks differ."""


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """What identifies a certificate, as the Entra admin center shows it. Times are wall seconds since 1970."""

    subject: str
    sha1: str
    """Upper-case hexadecimal: the column *Thumbprint* of the portal."""
    sha256: str
    begins: float
    ends: float


def facts(leaf: X509) -> CertificateFacts:
    """The facts of a certificate."""
    from cryptography.hazmat.primitives import hashes

    return CertificateFacts(
        leaf.subject.rfc4514_string(),
        leaf.fingerprint(hashes.SHA1()).hex().upper(),  # noqa: S303 - a name, not a protection
        leaf.fingerprint(hashes.SHA256()).hex().upper(),
        leaf.not_valid_before_utc.timestamp(),
        leaf.not_valid_after_utc.timestamp(),
    )


def make(name: str, lifetime: float, now: float) -> KeyPair:
    """A new RSA key and its self-signed certificate for ``name``, good for ``lifetime`` seconds from ``now``."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = rsa.generate_private_key(65537, KEY_BITS)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    usage = [one == "signature" for one in ("signature", *_OTHER_USES)]
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_moment(now - HEAD_START))
        .not_valid_after(_moment(now + lifetime))
        .add_extension(x509.BasicConstraints(False, None), critical=True)
        .add_extension(x509.KeyUsage(*usage), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
    )
    return KeyPair(key, builder.sign(key, hashes.SHA256()))


_OTHER_USES = ("commitment", "key", "data", "agreement", "certificates", "lists", "encipher", "decipher")


def _moment(when: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(int(when), datetime.UTC)


def to_pem(pair: KeyPair, passphrase: str | None = None) -> bytes:
    """Key and certificate in one PEM text, the key encrypted when there is a passphrase."""
    from cryptography.hazmat.primitives import serialization as form

    lock: form.KeySerializationEncryption = form.NoEncryption()
    if passphrase:
        lock = form.BestAvailableEncryption(passphrase.encode())
    key = pair.key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, lock)
    return key + pair.leaf_pem().encode()


def write_private(file: Path, content: bytes, *, new: bool = False, mode: int = 0o600) -> None:
    """Put a file in place whole or not at all, on disk when it returns, readable by its owner alone.

    ``new``: there must be none yet (FileExistsError). Root's own commands leave it to whoever owns the file that is
    replaced, or else the folder: the daemon has to read it. Raises OSError.
    """
    draft = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(handle, "wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        hand_over(draft, file if file.exists() else file.parent)
        if new:
            os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
        draft.replace(file)
    finally:
        with contextlib.suppress(FileNotFoundError):
            draft.unlink()
    _sync_folder(file.parent)


def hand_over(draft: Path, like: Path) -> None:
    """When root runs this: give a new file the owner of another file or folder. Raises OSError."""
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        owner = like.stat()
        os.chown(draft, owner.st_uid, owner.st_gid)


def _sync_folder(folder: Path) -> None:
    """Makes the new name durable, too. Not possible on Windows."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
