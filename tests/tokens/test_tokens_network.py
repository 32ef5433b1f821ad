"""Network faults are temporary and say where to look; nothing waits without a bound; proxies are used as configured."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay.errors import TokenError
from relay.tokens import entra as module
from relay.tokens.contract import Resource, Token
from relay.tokens.entra import EntraTokens
from tests.tokens.fake_entra_server import FakeClock, FakeEntra, Identity, Make, make_identity, make_upstream


async def refused(tokens: EntraTokens) -> TokenError:
    """The error of one request."""
    with pytest.raises(TokenError) as caught:
        await tokens.token(Resource.SMTP)
    return caught.value


@contextlib.asynccontextmanager
async def serving(handler: object, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A raw server on loopback; gives its port."""
    server = await asyncio.start_server(handler, "127.0.0.1", 0, ssl=tls)  # type: ignore[arg-type]
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Accepts, and says nothing until the client goes."""
    with contextlib.suppress(OSError):
        await reader.read()
    writer.close()


async def test_a_hang_is_bounded(entra: FakeEntra, make: Make) -> None:
    """A server that takes the request and never answers: the upstream's time-out applies."""
    entra.gate.clear()
    error = await refused(make(timeout=0.2))
    assert (error.code, error.temporary) == ("timed-out", True)


async def test_a_hang_in_the_tls_handshake_is_bounded(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """So is one before TLS is up."""
    monkeypatch.setattr("relay.tokens.wire.CONNECT_TIMEOUT", 0.2)
    async with serving(silent) as port:
        error = await refused(make(authority=f"https://localhost:{port}", timeout=0.2))
    assert error.code == "timed-out"


async def test_a_hanging_thread_is_left_behind(
    make: Make, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no time-out reaches (a resolver, say), the deadline does, and the next try gets a fresh start."""
    stuck = asyncio.Event()
    loop = asyncio.get_running_loop()

    def hang(self: object, resource: Resource) -> Token:
        asyncio.run_coroutine_threadsafe(stuck.wait(), loop).result()
        raise AssertionError("nobody waits any more")

    tokens = make()
    tokens._deadline = 0.05
    with monkeypatch.context() as patch:
        patch.setattr(module._LazyAsker, "fetch", hang)
        assert (await refused(tokens)).code == "timed-out"
    stuck.set()
    tokens._deadline = 60.0
    tokens.retry_now()
    assert (await tokens.token(Resource.SMTP)).value


async def test_an_unknown_host(make: Make) -> None:
    """A name that cannot exist (RFC 6761)."""
    error = await refused(make(authority="https://login.invalid"))
    assert (error.code, error.temporary) == ("dns-failure", True)
    assert "DNS" in error.remedy


async def test_a_refused_connection(entra: FakeEntra, make: Make) -> None:
    """Nothing listens there."""
    await entra.stop()
    error = await refused(make())
    assert (error.code, error.temporary) == ("connection-refused", True)
    assert "443" in error.remedy


async def test_a_broken_connection(entra: FakeEntra, make: Make) -> None:
    """The server takes the request and drops the connection."""

    def drop(request: object) -> None:
        request.transport.abort()  # type: ignore[attr-defined]

    entra.fault = drop
    error = await refused(make())
    assert (error.code, error.temporary) == ("connection-lost", True)


async def test_an_untrusted_certificate_names_its_issuer(make: Make, tmp_path: Path) -> None:
    """An inspecting proxy is named by the authority it signs with."""
    tls = server_tls(make_identity("Snoop", make_identity("Evil Proxy Root", ca=True)), tmp_path)
    async with serving(silent, tls) as port:
        error = await refused(make(authority=f"https://localhost:{port}"))
    assert (error.code, error.temporary) == ("tls-not-trusted", True)
    assert "CN=Evil Proxy Root" in error.remedy


async def test_environment_bundles_do_not_replace_the_trust(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """REQUESTS_CA_BUNDLE does not decide; a server it would trust is still a stranger."""
    root = make_identity("Other Root", ca=True)
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(root.certificate_pem())
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    async with serving(silent, server_tls(make_identity("x", root), tmp_path)) as port:
        error = await refused(make(authority=f"https://localhost:{port}"))
    assert error.code == "tls-not-trusted"


def server_tls(identity: Identity, folder: Path) -> ssl.SSLContext:
    """A server's context with that certificate."""
    chain = folder / f"{identity.certificate.serial_number}.pem"
    chain.write_bytes(identity.key_pem() + identity.certificate_pem())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    return context


async def test_no_tls_at_all(make: Make) -> None:
    """Plain text where TLS should be."""

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 this is not TLS\r\n")
        writer.close()

    async with serving(plain) as port:
        error = await refused(make(authority=f"https://localhost:{port}"))
    assert (error.code, error.temporary) == ("tls-failure", True)


async def test_an_unusable_ca_file(make: Make, tmp_path: Path) -> None:
    """Missing and empty files are an administrator's mistake, named as such."""
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    for file in (empty, tmp_path / "missing.pem"):
        error = await refused(make(ca_file=file))
        assert (error.code, error.temporary) == ("ca-file", False)
        assert file.name in error.evidence


class Proxy:
    """Answers CONNECT: ``reply`` first, then a tunnel if that was 200. ``targets`` are the hosts asked for."""

    def __init__(self, reply: str = "200 OK") -> None:
        self.reply = reply
        self.targets: list[str] = []
        self.heads: list[str] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        target = head.split()[1]
        self.targets.append(target)
        writer.write(f"HTTP/1.1 {self.reply}\r\nContent-Length: 0\r\n\r\n".encode())
        if self.reply.startswith("200"):
            host, _, port = target.rpartition(":")
            other, out = await asyncio.open_connection(host, int(port))
            await asyncio.gather(copy(reader, out), copy(other, writer))
        writer.close()


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One direction of a tunnel."""
    with contextlib.suppress(OSError):
        while part := await reader.read(65536):
            writer.write(part)
            await writer.drain()
    writer.close()


async def test_the_configured_proxy_is_used(
    entra: FakeEntra, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By CONNECT, with its login, and before anything the environment says."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    proxy = Proxy()
    async with serving(proxy) as port:
        token = await make(proxy=f"http://ann:pw@127.0.0.1:{port}").token(Resource.SMTP)
    assert token.value
    assert set(proxy.targets) == {f"localhost:{entra.port}"}
    assert "Proxy-Authorization: Basic YW5uOnB3" in proxy.heads[0]


async def test_the_environment_proxy_is_used(
    entra: FakeEntra, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTTPS_PROXY counts when no proxy is configured."""
    proxy = Proxy()
    async with serving(proxy) as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        await make().token(Resource.SMTP)
    assert set(proxy.targets) == {f"localhost:{entra.port}"}


async def test_no_proxy_is_respected(entra: FakeEntra, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_PROXY exempts the sign-in host."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "localhost")
    assert (await make().token(Resource.SMTP)).value


@pytest.mark.parametrize(
    ("reply", "code"),
    [("407 Proxy Authentication Required", "proxy-authentication"), ("403 Forbidden", "proxy-failure")],
)
async def test_a_proxy_that_refuses(make: Make, reply: str, code: str) -> None:
    """Told apart: a login is missing, or the way is not allowed. The login is not shown."""
    async with serving(Proxy(reply)) as port:
        error = await refused(make(proxy=f"http://ann:hidden@127.0.0.1:{port}"))
    assert (error.code, error.temporary) == (code, True)
    assert "hidden" not in error.evidence


async def test_a_proxy_that_is_not_there(make: Make) -> None:
    """The proxy is to blame, not Microsoft."""
    assert (await refused(make(proxy="http://127.0.0.1:1"))).code == "proxy-failure"


async def test_asking_does_not_block_the_loop(entra: FakeEntra, make: Make) -> None:
    """While a request hangs, the loop that also serves SMTP keeps turning (the fake Entra itself runs on it)."""
    entra.gate.clear()
    tokens = make()
    task = asyncio.create_task(tokens.token(Resource.SMTP))
    await entra.arrived.wait()
    turned = [await asyncio.sleep(0, number) for number in range(100)]
    assert not task.done()
    entra.gate.set()
    assert (await task).value
    assert len(turned) == 100


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    """A relay that has not asked for a token yet has paid neither memory nor time for msal and requests."""
    import subprocess
    import sys

    program = (
        "import sys, relay.tokens.entra, relay.tokens.claims, relay.tokens.aadsts\n"
        "print([name for name in ('msal', 'requests', 'urllib3', 'cryptography') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_deadline_is_known_without_importing_requests() -> None:
    """The two constants that cannot share a module agree."""
    from relay.tokens import wire

    assert module._LONGEST_READ == wire.LONGEST_READ
    assert (
        EntraTokens(make_upstream("https://localhost:1", None, timeout=120.0), clock=FakeClock())._deadline
        == 120
    )
