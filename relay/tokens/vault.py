"""Where a user's sign-in is kept: the refresh token encrypted, the rest in clear, so that status can show it.

The file is JSON of mode 0600. The token is encrypted with Fernet (AES-128-CBC and HMAC-SHA256), by a key that lies in
a file of its own beside it (mode 0600), or is derived with scrypt (RFC 7914) from the secret that ``user_login.key``
names. What that protects against is said in docs/credentials.md. Blocking.
"""

from __future__ import annotations

import base64
import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from relay.errors import TokenError
from relay.settings import UserLogin
from relay.tokens.keypair import write_private
from relay.tokens.reasons import local

UNUSED_DAYS = 90
"""After so many days without use Entra ends a refresh token (Microsoft, "Refresh tokens in the identity platform")."""
LOCK_SECONDS = 60.0
"""Longest wait for another process (or thread) that renews the same sign-in."""
_VERSION = 1
_LARGEST = 256 * 1024


@dataclass(frozen=True, slots=True)
class SignIn:
    """A user's sign-in. Times are wall seconds since 1970."""

    user: str
    """The name the user signed in with."""
    tenant_id: str
    client_id: str
    signed_in: float
    used: float
    refresh_token: str = field(repr=False, default="")
    """Empty when only the clear part was read."""

    @property
    def lapses(self) -> float:
        """When it ends unless it is used before."""
        return self.used + UNUSED_DAYS * 86400


def peek(login: UserLogin) -> SignIn | None:
    """Who signed in, and when, without any decryption; None when nobody did.

    Raises TokenError ``user-login-unreadable``.
    """
    document = _document(login.file)
    return _sign_in(document, login.file) if document is not None else None


def read(login: UserLogin) -> SignIn:
    """The sign-in with its refresh token. Raises TokenError ``user-login-missing`` or ``user-login-unreadable``."""
    document = _document(login.file)
    if document is None:
        raise local("user-login-missing").error(evidence=str(login.file))
    known = _sign_in(document, login.file)
    from cryptography.fernet import Fernet, InvalidToken

    try:
        salt = base64.b64decode(str(document["salt"]))
        token = Fernet(_key(login, salt)).decrypt(str(document["data"]).encode()).decode()
    except (InvalidToken, ValueError, KeyError, OSError) as fault:
        evidence = f"{login.file}: {type(fault).__name__}"
        raise local("user-login-unreadable").error(evidence=evidence) from None
    return replace(known, refresh_token=token)


def write(login: UserLogin, sign_in: SignIn) -> None:
    """Keep it, durably and whole. Raises TokenError ``user-login-unwritable``."""
    from cryptography.fernet import Fernet

    salt = os.urandom(16)
    try:
        data = Fernet(_key(login, salt, make=True)).encrypt(sign_in.refresh_token.encode())
        document = {
            "version": _VERSION,
            **_clear(sign_in),
            "salt": base64.b64encode(salt).decode(),
            "data": data.decode(),
        }
        write_private(login.file, json.dumps(document, indent=1).encode() + b"\n")
    except OSError as fault:
        raise unwritable(login, fault) from fault


def unwritable(login: UserLogin, fault: OSError) -> TokenError:
    """The error for a file that cannot be written."""
    return local("user-login-unwritable").error(evidence=f"{login.file}: {fault.strerror or fault}")


def key_file(login: UserLogin) -> Path:
    """Where the key is when the configuration names none."""
    return login.file.with_name(login.file.name + ".key")


def _key(login: UserLogin, salt: bytes, *, make: bool = False) -> bytes:
    """The Fernet key. Raises OSError when its file cannot be read (or, with ``make``, written)."""
    if login.key is not None:
        from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

        derived = Scrypt(salt=salt, length=32, n=2**14, r=8, p=1).derive(login.key.reveal().encode())
        return base64.urlsafe_b64encode(derived)
    file = key_file(login)
    if make and not file.exists():
        write_private(file, base64.urlsafe_b64encode(os.urandom(32)))
    return file.read_bytes().strip()


def _clear(sign_in: SignIn) -> dict[str, object]:
    return {name: value for name, value in asdict(sign_in).items() if name != "refresh_token"}


def _document(file: Path) -> dict[str, object] | None:
    try:
        if file.stat().st_size > _LARGEST:
            raise ValueError("too large")
        document = json.loads(file.read_bytes())
        if not isinstance(document, dict) or document.get("version") != _VERSION:
            raise ValueError("not a sign-in of this release")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as fault:
        said = fault.strerror or str(fault) if isinstance(fault, OSError) else "not what `relay login` wrote"
        raise local("user-login-unreadable").error(evidence=f"{file}: {said}") from None
    return document


def _sign_in(document: dict[str, object], file: Path) -> SignIn:
    try:
        names = [str(document[name]) for name in ("user", "tenant_id", "client_id")]
        times = [float(str(document[name])) for name in ("signed_in", "used")]
        return SignIn(names[0], names[1], names[2], times[0], times[1])
    except (KeyError, ValueError):
        raise local("user-login-unreadable").error(evidence=f"{file}: incomplete") from None
