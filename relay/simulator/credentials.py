"""The credentials of the app registration: several secrets and certificates at once, as an administrator rolls them."""

from __future__ import annotations

import datetime
import hashlib
import hmac
import uuid
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding


def iso(moment: float) -> str:
    """Unix time as Graph writes it."""
    return datetime.datetime.fromtimestamp(moment, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class Secret:
    """One client secret. ``expires`` in Unix time."""

    value: str
    expires: float
    name: str = "relay"
    key_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    @classmethod
    def from_json(cls, data: object, expires: float) -> Secret:
        """A secret from the control address: its value, or an object. Raises ValueError."""
        if isinstance(data, str):
            return cls(data, expires)
        known = {item.name for item in fields(cls)}
        if not isinstance(data, dict) or not set(data) <= known or not isinstance(data.get("value"), str):
            raise ValueError(f"a secret is a text, or an object with value and any of {sorted(known)}")
        return cls(**{"expires": expires, **data})

    def to_json(self) -> dict[str, Any]:
        """Every field, for the control address."""
        return asdict(self)

    def is_value(self, given: str) -> bool:
        """Whether this is the secret, compared in constant time."""
        return hmac.compare_digest(given.encode(), self.value.encode())

    def shown(self) -> dict[str, Any]:
        """As Graph's passwordCredential: the value is never readable again."""
        return {
            "customKeyIdentifier": None,
            "displayName": self.name,
            "endDateTime": iso(self.expires),
            "hint": self.value[:3],
            "keyId": self.key_id,
            "secretText": None,
            "startDateTime": None,
        }


@dataclass(frozen=True)
class Certificate:
    """One registered public certificate."""

    pem: str

    @property
    def x509(self) -> x509.Certificate:
        """The certificate, parsed."""
        return x509.load_pem_x509_certificate(self.pem.encode())

    @property
    def key_id(self) -> str:
        """The id under which it can be removed; always the same for the same certificate."""
        return str(uuid.uuid5(uuid.NAMESPACE_OID, self.thumbprint))

    @property
    def thumbprint(self) -> str:
        """SHA-1 in hexadecimal, as the portal shows it."""
        der = self.x509.public_bytes(Encoding.DER)
        return hashlib.sha1(der, usedforsecurity=False).hexdigest().upper()

    def valid_at(self, now: float) -> bool:
        """Whether its dates hold."""
        moment = datetime.datetime.fromtimestamp(now, datetime.UTC)
        return self.x509.not_valid_before_utc <= moment < self.x509.not_valid_after_utc

    def shown(self, key: str | None = None) -> dict[str, Any]:
        """As Graph's keyCredential; ``key`` is shown only to who selected it."""
        return {
            "customKeyIdentifier": self.thumbprint,
            "displayName": self.x509.subject.rfc4514_string(),
            "endDateTime": iso(self.x509.not_valid_after_utc.timestamp()),
            "key": key,
            "keyId": self.key_id,
            "startDateTime": iso(self.x509.not_valid_before_utc.timestamp()),
            "type": "AsymmetricX509Cert",
            "usage": "Verify",
        }
