"""What a certificate says: whose it is, who issued it, until when. Read with `cryptography`, judged elsewhere."""

from __future__ import annotations

import datetime
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import NameOID

KNOWN_ISSUERS = ("DigiCert", "Microsoft", "GlobalSign", "Entrust", "Baltimore")
"""Who issues the certificates of Microsoft's services; anybody else sits in between."""
MICROSOFT = (".office365.com", ".office365.us", ".microsoftonline.com", ".microsoftonline.us", ".microsoft.com",
             ".microsoft.us", ".outlook.cn", ".chinacloudapi.cn")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Facts:
    """One certificate in words."""

    names: tuple[str, ...]
    issuer: str
    ends: datetime.datetime

    @property
    def words(self) -> str:
        """For people, without judgement."""
        shown = ", ".join(self.names[:3]) + (" and others" if len(self.names) > 3 else "")
        return (
            f"certificate for {shown or 'no name'}, issued by {self.issuer}, valid until {self.ends:%Y-%m-%d}"
        )

    def days_left(self, now: datetime.datetime) -> float:
        """Until it ends; negative when it has ended."""
        return (self.ends - now).total_seconds() / 86400


def shown_in(handshake: ssl.SSLObject | None) -> Facts | None:
    """What the other side showed; None when it showed none, or one that cannot be read."""
    der = handshake.getpeercert(binary_form=True) if handshake is not None else None
    try:
        return _facts(x509.load_der_x509_certificate(der)) if der else None
    except ValueError:
        return None  # only to be shown: whether it is trusted, TLS has decided


def read_file(file: Path) -> Facts:
    """The first certificate of a PEM file. Raises OSError or ValueError."""
    return _facts(x509.load_pem_x509_certificate(file.read_bytes()))


def stranger(host: str, facts: Facts) -> bool:
    """Whether a service of Microsoft shows a certificate that Microsoft's issuers did not make."""
    return f".{host}".endswith(MICROSOFT) and not any(name in facts.issuer for name in KNOWN_ISSUERS)


def unverified_context() -> ssl.SSLContext:
    """For looking at a certificate that was refused, and for nothing else: no word is said over it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _facts(certificate: x509.Certificate) -> Facts:
    try:
        alternative = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = tuple(str(one.value) for one in alternative)
    except x509.ExtensionNotFound:
        names = tuple(_common(certificate.subject))
    issuer = ", ".join([*_common(certificate.issuer), *_organisation(certificate.issuer)])
    return Facts(
        names, issuer or certificate.issuer.rfc4514_string() or "nobody", certificate.not_valid_after_utc
    )


def _common(name: x509.Name) -> list[str]:
    return [str(one.value) for one in name.get_attributes_for_oid(NameOID.COMMON_NAME)]


def _organisation(name: x509.Name) -> list[str]:
    return [str(one.value) for one in name.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
