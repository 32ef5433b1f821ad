"""What we say to Exchange, judged by somebody else's code: Postfix with Dovecot checking XOAUTH2 bearer tokens."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from relay.clock import SystemClock
from relay.deliver.courier import RelayCourier
from relay.message import BytesBody, Content, Result, Trouble
from tests.accept.support import Bench, free_port, listener, running
from tests.deliver.desk import Begin, FakeRouter, FakeTokens, make_claim, make_settings, make_upstream
from tests.interop.kit import Root, until
from tests.interop.postfix import SUBMISSION, Dovecot, Introspection, Postfix, copy_certificate

MAILBOX = "scans@contoso.com"
TOKEN = "eyJ0eXAiOiJKV1QifQ." + "x1" * 800
"""As long as Microsoft's are."""
BODY = b"one\r\n.\r\n..two\r\nFrom here\r\ncaf\xc3\xa9\r\n"
HEADER = b"From: old@scanners.local\r\nTo: anna@example.net\r\nBcc: v@x.y\r\nSubject: interop\r\n"


def authority(folder: Path) -> Path:
    """A certificate for 127.0.0.1 that vouches for itself, as cert.pem and key.pem."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mx.example")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2)).add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True).sign(key, hashes.SHA256())
    )  # fmt: skip
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(private)
    return folder / "cert.pem"


@asynccontextmanager
async def exchange(folder: Path) -> AsyncIterator[tuple[Postfix, Bench]]:
    """Postfix as Exchange; what it accepted it hands to the bench's listener, where it can be looked at."""
    authority(folder)
    root = Root(folder)
    copy_certificate(root, folder)
    async with (
        running(listener()) as bench,
        Introspection({TOKEN: MAILBOX}) as judge,
        Postfix(root, free_port(), bench.server.address[1], SUBMISSION) as postfix,
        Dovecot(root, judge.port),
    ):
        yield postfix, bench


def courier(postfix: Postfix, folder: Path, token: str) -> RelayCourier:
    upstream = make_upstream(postfix.port, folder / "cert.pem", timeout=20.0)
    tokens = {"M365": FakeTokens(token)}
    return RelayCourier(
        make_settings(upstream), tokens, FakeRouter(), hostname="relay.contoso.com", clock=SystemClock()
    )


async def test_a_batch_over_one_login(tmp_path: Path) -> None:
    """STARTTLS, XOAUTH2, several messages with hostile content: accepted by Postfix, whole at the other end."""
    async with exchange(tmp_path) as (postfix, bench):
        connection = await courier(postfix, tmp_path, TOKEN).open("M365", MAILBOX)
        for body in (BODY, b"long " * 400 + b"\r\n", b""):
            claim = make_claim("anna@example.net", "bert@example.net", long_lines=len(body) > 998)
            report = await connection.submit(claim, Content(HEADER + b"\r\n", BytesBody(body)), Begin())
            assert {one.result for one in report.outcomes.values()} == {Result.SENT}, report
        await connection.close()
        await until(lambda: len(bench.spool.stored) == 3, postfix.log)
        contents = sorted((one.content for one in bench.spool.stored), key=len)
        assert contents[1].endswith(b"\r\n\r\n" + BODY)
        assert b"Content-Transfer-Encoding: quoted-printable" in contents[2]
        assert all(b"From: scans@contoso.com\r\n" in one and b"v@x.y" not in one for one in contents)
        log = postfix.log()
        assert log.count("sasl_method=XOAUTH2, sasl_username=scans@contoso.com") == 3, log
        assert b"using TLSv1.3" in contents[0], contents[0]
        assert "warning" not in log, log


async def test_a_wrong_token_is_told(tmp_path: Path) -> None:
    """Dovecot's refusal, with its challenge in between, ends in a hold of the lane, not in a hang."""
    async with exchange(tmp_path) as (postfix, bench):
        with pytest.raises(Trouble) as caught:
            await asyncio.wait_for(courier(postfix, tmp_path, "stale").open("M365", MAILBOX), 60)
        assert caught.value.outcome.reply is not None
        assert caught.value.outcome.reply.code == 535
        assert bench.spool.stored == []
