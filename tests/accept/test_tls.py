"""TLS in all modes, on asyncio's loop and on uvloop: upgrade, implicit, a hello on the SMTP port, and misuse."""

from __future__ import annotations

import asyncio
import os
import ssl
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path

import argon2
import pytest
import uvloop

from relay import settings
from relay.accept.tls import Certificates, build
from tests.accept.conftest import write_certificate
from tests.accept.support import WAIT, all_settings, listener, running, tls, trusting

HASH = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash("secret")
LOOPS: list[Callable[[], asyncio.AbstractEventLoop]] = [asyncio.new_event_loop, uvloop.new_event_loop]
MESSAGE = b"From: a@scanners.local\r\n\r\n" + b"x" * 76 + b"\r\n"
AUTH_PLAIN = "AUTH PLAIN AHNjYW5uZXItMwBzZWNyZXQ="
both_loops = pytest.mark.parametrize("factory", LOOPS, ids=["asyncio", "uvloop"])


def logins() -> settings.Settings:
    return all_settings(clients=(settings.ClientLogin("scanner-3", settings.Secret(HASH), ("*",)),))


def run(factory: Callable[[], asyncio.AbstractEventLoop], story: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(story(), 4 * WAIT)

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(bounded())


@both_loops
def test_starttls(factory: Callable[[], asyncio.AbstractEventLoop], pem: Path) -> None:
    """STARTTLS, AUTH without a new EHLO (Nim), a large message; a second STARTTLS is 503, not a crash (S18)."""

    async def story() -> None:
        async with running(listener(tls=tls("starttls", pem), auth="required"), config=logins()) as bench:
            async with bench.session() as client:
                assert "STARTTLS" in await client.ask("EHLO x")
                assert (await client.ask("STARTTLS")).startswith("220 2.0.0")
                await client.start_tls(trusting())
                assert (await client.ask(AUTH_PLAIN)).startswith("235")
                assert "STARTTLS" not in await client.ask("EHLO x")
                assert (await client.ask("STARTTLS")).startswith("503")
                assert (await client.deliver(MESSAGE * 8000 + b".\r\n")).startswith("250")
            stored = bench.spool.stored[0]
            assert stored.message.client.tls == "TLSv1.3"
            assert b"with ESMTPSA (using TLSv1.3)" in stored.message.header
            assert stored.content.endswith(MESSAGE * 7999)
            assert bench.events("trouble") == []

    run(factory, story)


@both_loops
def test_commands_before_the_handshake_are_discarded(
    factory: Callable[[], asyncio.AbstractEventLoop], pem: Path
) -> None:
    """CVE-2024-34083: what was sent in clear behind STARTTLS is never executed, nor is the HELO kept."""

    async def story() -> None:
        async with running(listener(tls=tls("starttls", pem))) as bench, bench.session() as client:
            await client.ask("EHLO in-clear")
            client.send(b"STARTTLS\r\nMAIL FROM:<evil@x.y>\r\n")
            assert (await client.reply()).startswith("220")
            await client.start_tls(trusting())
            assert (await client.ask("RCPT TO:<b@example.com>")).startswith("503")
            await client.ask("MAIL FROM:<a@scanners.local>")
            await client.ask("RCPT TO:<b@example.com>")
            await client.ask("DATA")
            assert (await client.ask(".")).startswith("250")
            assert bench.spool.stored[0].message.client.helo == ""
            assert bench.spool.stored[0].message.envelope.sender == "a@scanners.local"

    run(factory, story)


@both_loops
@pytest.mark.parametrize("mode", ["implicit", "auto"])
def test_tls_from_the_first_octet(
    factory: Callable[[], asyncio.AbstractEventLoop], mode: str, pem: Path
) -> None:
    """S16: TLS from the start, with AUTH offered and working; in ``auto`` on the same port as plain SMTP (HP)."""

    async def story() -> None:
        async with running(listener(tls=tls(mode, pem), auth="optional"), config=logins()) as bench:
            async with bench.session(ssl=trusting()) as client:
                assert "AUTH PLAIN LOGIN" in await client.ask("EHLO x")
                assert (await client.ask(AUTH_PLAIN)).startswith("235")
                assert (await client.deliver(MESSAGE * 3000 + b".\r\n")).startswith("250")
            assert bench.spool.stored[0].message.client.tls == "TLSv1.3"
            assert bench.events("trouble") == []

    run(factory, story)


@both_loops
def test_auto_serves_plain_clients(factory: Callable[[], asyncio.AbstractEventLoop], pem: Path) -> None:
    """``auto``: who waits for the banner gets it, who talks early too, and STARTTLS works."""

    async def story() -> None:
        async with running(listener(tls=tls("auto", pem))) as bench:
            async with bench.session() as client:
                assert "STARTTLS" in await client.ask("EHLO x")
                await client.ask("STARTTLS")
                await client.start_tls(trusting())
                assert (await client.deliver(MESSAGE + b".\r\n")).startswith("250")
            early = await bench.client()
            early.send(b"NOOP\r\n")
            assert (await early.reply(), await early.reply()) == ("220 relay.test ESMTP", "250 2.0.0 Ok")
            early.close()

    run(factory, story)


@both_loops
def test_garbage_instead_of_a_handshake(factory: Callable[[], asyncio.AbstractEventLoop], pem: Path) -> None:
    """S18: garbage after 220, or on an implicit port, closes quietly; the listener goes on."""

    async def story() -> None:
        for mode in ("starttls", "implicit"):
            async with running(listener(tls=tls(mode, pem))) as bench:
                client = await bench.client()
                if mode == "starttls":
                    await client.reply()
                    await client.ask("STARTTLS")
                client.send(b"EHLO this is no handshake\r\n" * 3)
                await client.closed()
                client.close()
                await asyncio.wait_for(gone(bench.server), WAIT)
                assert "TLS handshake failed" in str(bench.events("connection"))
                assert bench.events("trouble") == []

    async def gone(server: object) -> None:
        while server.connections:  # type: ignore[attr-defined]
            await asyncio.sleep(0)

    run(factory, story)


async def test_auth_waits_for_tls(pem: Path) -> None:
    """S17: beyond loopback AUTH is neither offered nor taken in clear, unless the listener says so."""
    away = "PROXY TCP4 10.0.0.7 10.0.0.1 1 2\r\n"
    import ipaddress

    balancers = (ipaddress.ip_network("127.0.0.0/8"),)
    for in_clear in (False, True):
        conf = listener(
            tls=tls("starttls", pem), auth="required", auth_in_clear=in_clear, proxy_protocol_from=balancers
        )
        async with running(conf, config=logins()) as bench:
            client = await bench.client()
            client.send(away.encode())
            await client.reply()
            assert ("AUTH" in await client.ask("EHLO x")) is in_clear
            mail = await client.ask("MAIL FROM:<a@b.c>")
            assert mail.startswith("530 5.7.0")
            assert ("STARTTLS" in mail) is not in_clear
            assert (await client.ask(AUTH_PLAIN)).startswith("235" if in_clear else "538 5.7.11")
            client.close()


async def test_certificate_is_read_again(tmp_path: Path) -> None:
    """A reload takes a new certificate for new connections; broken files leave the old one in use, and say so."""
    write_certificate(tmp_path, "first.test")
    conf = listener(tls=tls("implicit", tmp_path))

    async def served() -> bytes:
        client = await bench.client(ssl=trusting())
        certificate = client.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        client.close()
        return bytes(certificate)

    async with running(conf) as bench:
        first = await served()
        write_certificate(tmp_path, "second-name.test")
        bench.server.update(conf, bench.intake)
        second = await served()
        (tmp_path / "key.pem").write_text("broken")
        bench.server.update(conf, bench.intake)
        assert await served() == second
        assert b"first.test" in first
        assert b"second-name.test" in second
        assert "stays in use" in str(bench.events("trouble"))


def test_context_is_kept_while_nothing_changes(pem: Path) -> None:
    """The context is built again only when files or settings change."""
    certificates = Certificates()
    first = certificates.context(tls("starttls", pem))
    assert certificates.context(tls("starttls", pem)) is first
    os.utime(pem / "cert.pem", ns=(1, 1))
    assert certificates.context(tls("starttls", pem)) is not first
    assert certificates.context(tls("none")) is None


@both_loops
def test_old_devices(factory: Callable[[], asyncio.AbstractEventLoop], pem: Path) -> None:
    """``minimum: 1.0`` really lets a TLS 1.0 client in; the default does not."""

    def old_client() -> ssl.SSLContext:
        context = trusting()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = ssl.TLSVersion.TLSv1
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        return context

    async def story() -> None:
        async with running(listener(tls=tls("implicit", pem, "1.0"))) as bench:
            async with bench.session(ssl=old_client()) as client:
                assert (await client.deliver(MESSAGE + b".\r\n")).startswith("250")
            assert bench.spool.stored[0].message.client.tls == "TLSv1"
        async with running(listener(tls=tls("implicit", pem))) as bench:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await bench.client(ssl=old_client())

    run(factory, story)


def test_faults_are_explained(tmp_path: Path) -> None:
    """A missing or unusable certificate says which file."""
    with pytest.raises(OSError, match="not found"):
        build(tls("starttls", tmp_path / "nowhere"))
    (tmp_path / "cert.pem").write_text("x")
    (tmp_path / "key.pem").write_text("x")
    with pytest.raises(OSError, match="cannot be used"):
        build(tls("starttls", tmp_path))
    with pytest.raises(OSError, match="not set"):
        build(tls("starttls"))
