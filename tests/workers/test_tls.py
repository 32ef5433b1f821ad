"""TLS, AUTH over it and a balancer's PROXY header, spoken by the helper: each as the daemon itself would."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import os
import ssl
from pathlib import Path

import argon2
import pytest

from relay.settings import ClientLogin, Listener, Secret
from tests.accept.conftest import write_certificate
from tests.accept.support import TestClient, limits, listener, networks, tls, trusting
from tests.workers.house import House, house, until

MAIL = b"From: a@scanners.local\r\nSubject: hello\r\n\r\n" + b"x" * 76 + b"\r\n"
LARGE = MAIL * 4000


def plain(password: str) -> str:
    return "AUTH PLAIN " + base64.b64encode(b"\0scanner\0" + password.encode()).decode()


def logins() -> tuple[ClientLogin, ...]:
    hasher = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    return (ClientLogin("scanner", Secret(hasher.hash("right")), ("*@scanners.local",)),)


async def connect(here: House, **how: object) -> TestClient:
    return await TestClient.open(here.server.address, **how)


async def stored_over_tls(here: House, protocol: str = "ESMTPSA") -> None:
    """The one message that is stored came over TLS, from the helper, and says so as ever."""
    (view,) = await here.stored()
    content = await here.spool.content(view.id)
    assert f"with {protocol} (using TLSv1.3)".encode() in content.header
    assert here.server.roster.channels == set()  # no connection of the daemon's own
    assert here.server.accepted == 1
    assert here.events("trouble") == []


async def test_starttls_and_auth(tmp_path: Path) -> None:
    """Upgraded, wrong and right password, a large message; what was said in clear behind STARTTLS is dropped."""
    conf = listener(tls=tls("starttls", write_certificate(tmp_path, "relay.test")), auth="required")
    async with house(tmp_path, [conf], clients=logins()) as here:
        await here.helper()
        client = await connect(here)
        await client.reply()
        assert "STARTTLS" in await client.ask("EHLO client")
        client.send(b"STARTTLS\r\nMAIL FROM:<evil@scanners.local>\r\n")
        assert (await client.reply()).startswith("220 2.0.0")
        await client.start_tls(trusting())
        assert (await client.ask("MAIL FROM:<a@scanners.local>")).startswith("530")
        assert "AUTH PLAIN LOGIN" in await client.ask("EHLO client")
        assert (await client.ask(plain("wrong"))).startswith("535")
        assert (await client.ask(plain("right"))).startswith("235")
        assert (await client.ask("MAIL FROM:<a@elsewhere.example>")).startswith("550")
        assert (await client.deliver(LARGE + b".\r\n")).startswith("250")
        await stored_over_tls(here)
        client.close()


@pytest.mark.parametrize("mode", ["implicit", "auto"])
async def test_tls_from_the_first_octet(mode: str, tmp_path: Path) -> None:
    """AUTH LOGIN inside; with ``auto`` a plain client is served on the same port."""
    conf = listener(tls=tls(mode, write_certificate(tmp_path, "relay.test")), auth="optional")
    async with house(tmp_path, [conf], clients=logins()) as here:
        await here.helper()
        client = await connect(here, ssl=trusting())
        await client.reply()
        await client.ask("EHLO client")
        assert (await client.ask("AUTH LOGIN")).startswith("334")
        assert (await client.ask(base64.b64encode(b"scanner"))).startswith("334")
        assert (await client.ask(base64.b64encode(b"right"))).startswith("235")
        assert (await client.deliver(LARGE + b".\r\n")).startswith("250")
        client.close()
        await stored_over_tls(here)
        if mode == "auto":
            async with here.client() as in_clear:
                assert (await in_clear.deliver(MAIL + b".\r\n")).startswith("250")


async def test_an_old_clients_handshake_fails_with_the_daemons_words(tmp_path: Path) -> None:
    """The log names the listener's setting, and the count of refusals is the daemon's."""
    conf = listener(tls=tls("implicit", write_certificate(tmp_path, "relay.test"), minimum="1.3"))
    old = trusting()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    async with house(tmp_path, [conf]) as here:
        await here.helper()
        with pytest.raises((ssl.SSLError, OSError)):
            await connect(here, ssl=old)
        (refused,) = await until(lambda: here.events("rejected"))
        assert refused["phase"] == "tls"
        assert "tls.minimum is 1.3" in str(refused["reason"])
        await until(lambda: here.server.rejected == 1)


async def test_a_renewed_certificate_reaches_new_clients(tmp_path: Path) -> None:
    """The helper that had the old one retires, and its client stays; the next helper shows the new one."""
    pem = write_certificate(tmp_path, "old.test")
    async with house(tmp_path, [listener(tls=tls("implicit", pem))]) as here:
        old = await here.helper()
        client = await connect(here, ssl=trusting())
        await client.reply()
        assert b"old.test" in shown(client)
        write_certificate(tmp_path, "new.test")
        os.utime(pem / "cert.pem", (1, 1))
        assert here.server.renew()
        await here.acceptance.renew()
        await until(lambda: here.acceptance.on_duty not in (None, old))
        other = await connect(here, ssl=trusting())
        await other.reply()
        assert b"new.test" in shown(other)
        other.close()
        assert (await client.deliver(MAIL + b".\r\n")).startswith("250")
        client.close()
        await asyncio.wait_for(old.ended.wait(), 30)


def shown(client: TestClient) -> bytes:
    """The server's certificate."""
    certificate: bytes = client.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    return certificate


async def test_a_certificate_that_cannot_be_read_leaves_it_to_the_daemon(tmp_path: Path) -> None:
    """It keeps the one it has read; the helper, which has none, says why it cannot serve."""
    pem = write_certificate(tmp_path, "relay.test")
    async with house(tmp_path, [listener(tls=tls("implicit", pem))], workers="never") as here:
        (pem / "key.pem").unlink()
        await here.acceptance.update(dataclasses.replace(here.settings, workers="always"))
        (trouble,) = await until(lambda: here.events("trouble"))
        assert "key.pem" in str(trouble["what"])
        client = await connect(here, ssl=trusting())
        await client.reply()
        assert (await client.deliver(MAIL + b".\r\n")).startswith("250")
        client.close()


def balanced(**more: object) -> Listener:
    return listener(proxy_protocol_from=networks("127.0.0.0/8"), **more)


async def test_a_balancer_in_front_of_implicit_tls_and_auth(tmp_path: Path) -> None:
    """PROXY header in clear, then TLS: the stated address is stored, allowed by, and counted for wrong passwords."""
    conf = balanced(
        tls=tls("implicit", write_certificate(tmp_path, "relay.test")), auth="required",
        allow=networks("192.0.2.0/24"), limits=limits(connections_per_client=2),
    )  # fmt: skip
    async with house(tmp_path, [conf], clients=logins()) as here:
        await here.helper()
        client = await connect(here)
        client.send(b"PROXY TCP4 192.0.2.7 127.0.0.1 4711 465\r\n")
        await client.writer.drain()
        await client.start_tls(trusting())
        assert (await client.reply()).startswith("220")
        await client.ask("EHLO client")
        assert (await client.ask(plain("right"))).startswith("235")
        assert (await client.deliver(MAIL + b".\r\n")).startswith("250")
        (view,) = await here.stored()
        assert view.client == "192.0.2.7 (scanner)"
        client.close()
        stranger = await connect(here)
        stranger.send(b"PROXY TCP4 198.51.100.9 127.0.0.1 4711 465\r\n")
        assert await stranger.closed() == b""
        stranger.close()
        judge = here.acceptance._desk.logins()
        for _ in range(10):
            await judge.judge("192.0.2.8", "scanner", "x", "")
        guesser = await connect(here)
        guesser.send(b"PROXY TCP4 192.0.2.8 127.0.0.1 4711 465\r\n")
        await guesser.writer.drain()
        await guesser.start_tls(trusting())
        assert (await guesser.reply()).startswith("220")
        await guesser.ask("EHLO client")
        assert (await guesser.ask(plain("right"))).startswith("421")
        guesser.close()
