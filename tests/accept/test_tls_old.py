"""Old devices and TLS: small keys and TLS 1.0 where ``minimum`` permits them, and a clear line where nothing can."""

from __future__ import annotations

import datetime
import ssl
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from relay import events
from relay.accept.tls import _say_if_forbidden, build
from tests.accept.support import Bench, listener, running, tls, trusting

MESSAGE = b"Subject: scan\r\n\r\nhi\r\n.\r\n"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A certificate with an RSA key of 1,024 bits, as old devices' own tools made them."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "relay.test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    (tmp_path / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "key.pem").write_bytes(private)
    return tmp_path


@pytest.fixture
def told() -> Iterator[list[tuple[str, str]]]:
    """What the log hears."""
    lines: list[tuple[str, str]] = []
    events.plug(lambda level, event, fields: lines.append((event, str(fields))))
    yield lines
    events.plug(None)


def only(version: ssl.TLSVersion, ciphers: str = "DEFAULT:@SECLEVEL=0") -> ssl.SSLContext:
    """A client that speaks that version alone."""
    context = trusting()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
    context.set_ciphers(ciphers)
    return context


async def deliver(bench: Bench, client: ssl.SSLContext) -> None:
    async with bench.session(ssl=client) as session:
        assert (await session.deliver(MESSAGE)).startswith("250")


async def test_small_key_and_old_version(small: Path) -> None:
    """``minimum: 1.0`` takes a key of 1,024 bits, TLS 1.0 and RSA key exchange, on that listener."""
    async with running(listener(tls=tls("implicit", small, "1.0"))) as bench:
        await deliver(bench, only(ssl.TLSVersion.TLSv1, "AES128-SHA:@SECLEVEL=0"))
        await deliver(bench, only(ssl.TLSVersion.TLSv1_2))
        assert [one.message.client.tls for one in bench.spool.stored] == ["TLSv1", "TLSv1.2"]


def test_small_key_on_an_ordinary_listener(small: Path) -> None:
    """The others keep OpenSSL's usual demands, and say why the certificate cannot be used."""
    if ssl.create_default_context().security_level < 2:
        context = build(tls("implicit", small))
        assert context.security_level < 2  # this OpenSSL demands nothing, so there is nothing to say
        return
    with pytest.raises(OSError, match=r"cannot be used.*(?:too small|TOO_SMALL).*minimum"):
        build(tls("implicit", small))


async def test_an_old_device_is_told_apart(pem: Path) -> None:
    """A client that knows only TLS 1.0 leaves a line that names the setting, once, at level info."""
    async with running(listener(tls=tls("implicit", pem))) as bench:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await bench.client(ssl=only(ssl.TLSVersion.TLSv1))
        (line,) = bench.events("rejected")
        assert line["phase"] == "tls"
        assert "tls.minimum is 1.2" in str(line["reason"])


def test_a_forbidding_policy_is_said(pem: Path, told: list[tuple[str, str]]) -> None:
    """Where OpenSSL's build or policy has no TLS 1.0, the start says so instead of leaving devices out in silence."""
    _say_if_forbidden(build(tls("implicit", pem, "1.0")), "1.0")
    assert told == []
    _say_if_forbidden(build(tls("implicit", pem, "1.2")), "1.0")
    assert [event for event, _ in told] == ["advice"]
    assert "does not permit TLS 1.0" in told[0][1]
