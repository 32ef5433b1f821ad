"""Through an HTTP proxy by CONNECT: TLS is verified end to end, and what the proxy refuses is told plainly."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator

import pytest

from relay.deliver.tunnel import proxy_name
from relay.message import Outcome, Result, Scope, Trouble
from tests.deliver.conftest import MakeDesk
from tests.deliver.desk import MAILBOX, Desk, make_claim, make_content


class FakeProxy:
    """Speaks CONNECT; ``answer`` replaces its 200."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.answer: bytes | None = None
        self.port = 0
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.requests.append(request)
        if self.answer is not None:
            writer.write(self.answer)
            await writer.drain()
            writer.close()
            return
        host, _, port = request.split(" ")[1].rpartition(":")
        inner_reader, inner_writer = await asyncio.open_connection(host, int(port))
        # With the greeting in the same segment as the answer, as a quick proxy sends it.
        writer.write(
            b"HTTP/1.1 200 Connection established\r\nVia: fake\r\n\r\n" + await inner_reader.read(4096)
        )
        await asyncio.gather(self._pump(reader, inner_writer), self._pump(inner_reader, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            writer.transport.abort()
        writer.close()


@pytest.fixture
async def proxy() -> AsyncIterator[FakeProxy]:
    running = FakeProxy()
    await running.start()
    yield running
    await running.stop()


async def trouble_of(desk: Desk) -> Outcome:
    with pytest.raises(Trouble) as caught:
        await desk.courier.open("M365", MAILBOX)
    return caught.value.outcome


async def test_message_through_the_proxy(make_desk: MakeDesk, proxy: FakeProxy) -> None:
    """CONNECT names host and port; TLS, login and message follow through the tunnel."""
    desk = make_desk(proxy=f"http://127.0.0.1:{proxy.port}")
    connection = await desk.courier.open("M365", MAILBOX)
    report = await connection.submit(make_claim(), make_content(), desk.begin)
    await connection.close()
    assert report.outcomes["a@x.example"].result is Result.SENT
    assert proxy.requests[0].startswith(f"CONNECT 127.0.0.1:{desk.server.port} HTTP/1.1\r\n")
    assert "Proxy-Authorization" not in proxy.requests[0]


async def test_proxy_login(make_desk: MakeDesk, proxy: FakeProxy) -> None:
    """User and password of the URL, percent-encoding undone, as Basic."""
    desk = make_desk(proxy=f"http://us%40er:p%3Ass@127.0.0.1:{proxy.port}")
    connection = await desk.courier.open("M365", MAILBOX)
    await connection.close()
    assert f"Proxy-Authorization: Basic {base64.b64encode(b'us@er:p:ss').decode()}" in proxy.requests[0]


@pytest.mark.parametrize(
    ("answer", "code", "result"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "proxy-refused", Result.HELD),
        (b"HTTP/1.1 403 Forbidden\r\nX: y\r\n\r\n", "proxy-refused", Result.HELD),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "proxy-failed", Result.DEFERRED),
        (b"HTTP/1.1 200", "proxy-failed", Result.DEFERRED),
        (b"x" * 20_000, "proxy-failed", Result.DEFERRED),
    ],
)
async def test_refusals_of_the_proxy(
    make_desk: MakeDesk, proxy: FakeProxy, answer: bytes, code: str, result: Result
) -> None:
    """4xx wants an administrator, the rest may pass; the password is never shown."""
    proxy.answer = answer
    desk = make_desk(proxy=f"http://user:hushhush@127.0.0.1:{proxy.port}")
    outcome = await trouble_of(desk)
    assert (outcome.code, outcome.result, outcome.scope) == (code, result, Scope.UPSTREAM)
    assert "hushhush" not in outcome.reason + outcome.remedy
    assert desk.server.talks == []


async def test_proxy_that_is_away(make_desk: MakeDesk, proxy: FakeProxy) -> None:
    """Refused by the proxy's machine: temporary, and named as the proxy's."""
    await proxy.stop()
    outcome = await trouble_of(make_desk(proxy=f"http://127.0.0.1:{proxy.port}"))
    assert (outcome.code, outcome.result) == ("proxy-failed", Result.DEFERRED)
    assert str(proxy.port) in outcome.reason


async def test_proxy_of_another_kind(make_desk: MakeDesk) -> None:
    """Only http:// proxies can carry SMTP here."""
    outcome = await trouble_of(make_desk(proxy="socks5://127.0.0.1:1080"))
    assert (outcome.code, outcome.result) == ("proxy-refused", Result.HELD)


def test_proxy_name_hides_the_login() -> None:
    """What people are shown."""
    assert proxy_name("http://user:pass@proxy.example:3128") == "proxy.example:3128"
    assert proxy_name("http://proxy.example:3128") == "proxy.example:3128"
