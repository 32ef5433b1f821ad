"""A certificate authority of its own, and one server certificate under the names Microsoft's services have."""

from __future__ import annotations

import datetime
import ipaddress
import os
import ssl
from collections.abc import Callable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SERVICE_NAMES = ("localhost", "smtp.office365.com", "login.microsoftonline.com", "graph.microsoft.com")
SERVICE_ADDRESSES = ("127.0.0.1", "::1")
LIFETIME = datetime.timedelta(days=825)  # the longest that every TLS library accepts for a server certificate


def prepare(directory: Path, extra_names: tuple[str, ...] = ()) -> tuple[Path, Path]:
    """Return (``ca.pem``, ``server.pem``) of the directory, made when missing or not fitting.

    They are kept between runs, so that a relay set up against this simulator keeps trusting it.
    """
    ca_file, server_file = directory / "ca.pem", directory / "server.pem"
    known = (*SERVICE_NAMES, *SERVICE_ADDRESSES)
    names = (*SERVICE_NAMES, *(name for name in extra_names if name not in known))
    if not (ca_file.exists() and server_file.exists() and _fits(server_file, names)):
        _make(ca_file, server_file, names)
    return ca_file, server_file


def server_context(
    server_file: Path,
    interceptor: ssl.SSLContext | None = None,
    intercepted: Callable[[], bool] | None = None,
) -> ssl.SSLContext:
    """TLS as Exchange Online speaks it: version 1.2 or newer.

    While ``intercepted`` says so, the handshake is the ``interceptor``'s instead: a proxy in between.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(server_file)
    if interceptor is not None and intercepted is not None:

        def choose(connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, _: ssl.SSLContext) -> None:
            if intercepted():
                connection.context = interceptor

        context.sni_callback = choose  # called once for each handshake, with or without a name
    return context


def interceptor_context(directory: Path, extra_names: tuple[str, ...] = ()) -> ssl.SSLContext:
    """The TLS of a proxy that breaks it open: the right names, but issued by an authority of its own."""
    directory.mkdir(exist_ok=True)
    ca_file, server_file = directory / "ca.pem", directory / "server.pem"
    _make(ca_file, server_file, (*SERVICE_NAMES, *extra_names), "Example Proxy Inspection CA")
    return server_context(server_file)


def _fits(server_file: Path, names: tuple[str, ...]) -> bool:
    """Whether the kept certificate bears all names and lasts another month."""
    certificate = x509.load_pem_x509_certificate(server_file.read_bytes())
    alternative = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    month = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=30)
    return set(names) <= {str(item.value) for item in alternative} and certificate.not_valid_after_utc > month


def _make(
    ca_file: Path, server_file: Path, names: tuple[str, ...], authority: str = "Relay simulator CA"
) -> None:
    ca_key, leaf_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca = _certificate(authority, ca_key, None, names=())
    leaf = _certificate("localhost", leaf_key, (ca, ca_key), names=names)
    ca_file.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    private = leaf_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with os.fdopen(os.open(server_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(leaf.public_bytes(serialization.Encoding.PEM) + private)


def _certificate(
    common_name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None,
    names: tuple[str, ...],
) -> x509.Certificate:
    """A CA certificate when there is no issuer, else a server certificate for the names."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    now = datetime.datetime.now(datetime.UTC)
    signing_key = issuer[1] if issuer else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key()), critical=False
        )
        .add_extension(_key_usage(authority=issuer is None), critical=True)
    )
    if names:
        alternative = [_alternative(name) for name in (*names, *SERVICE_ADDRESSES)]
        builder = builder.add_extension(x509.SubjectAlternativeName(alternative), critical=False)
        builder = builder.add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
    return builder.sign(signing_key, hashes.SHA256())


def _alternative(name: str) -> x509.GeneralName:
    """A name, or an address, as clients look for it (RFC 5280 section 4.2.1.6)."""
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )
