"""Answers that are none, too long or broken off; bodies that stop; time-outs; and what the table makes of them."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import email.utils
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from relay.deliver.graph.contract import Answer, Lost
from relay.deliver.graph.judge import judge_answer, judge_lost, retry_after
from relay.deliver.graph.large import LargeResult
from relay.deliver.graph.mime import encoded_size, send_mime
from relay.deliver.graph.reading import words_of
from relay.errors import SpoolError
from relay.message import BytesBody, Result, Scope
from relay.simulator.faults import Fault
from tests.deliver.desk import Begin, make_settings
from tests.deliver.graph.kit import Tenant, tenant

NOW = 1_795_000_000.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("17", 17.0), ("0", 1.0), ("999999999999", 3600.0), ("", None), ("soon", None), ("-3", None),
     (email.utils.formatdate(NOW + 42, usegmt=True), 42.0), (email.utils.formatdate(NOW - 42, usegmt=True), 1.0)],
)  # fmt: skip
def test_retry_after_is_a_number_or_a_date(text: str, seconds: float | None) -> None:
    assert retry_after(Answer(429, {"Retry-After": text}), NOW) == seconds


@given(st.integers(100, 599), st.sampled_from(["", "ErrorX", "ErrorAccessDenied"]), st.text(max_size=20))
def test_the_table_is_total_and_only_202_is_sent(status: int, code: str, text: str) -> None:
    outcome = judge_answer(Answer(status, {}, code, text), now=NOW)
    assert (outcome.result is Result.SENT) == (status == 202)
    assert outcome.scope is Scope.MESSAGE or outcome.result is not Result.FAILED
    assert outcome.result is Result.SENT or outcome.reason


def test_a_break_is_judged_by_how_far_the_request_got() -> None:
    assert judge_lost(Lost("gone", complete=True)).uncertain
    before = judge_lost(Lost("gone", complete=False, code="name-not-found"))
    assert (before.result, before.code, before.uncertain) == (Result.DEFERRED, "name-not-found", False)
    assert judge_lost(Lost("gone", complete=False, code="never heard of")).code == "connection-lost"


def test_words_of_html_are_its_text() -> None:
    page = b"<html><style>p {}</style><body><h1>Blocked</h1>\r\n<p>by\tthe proxy</p></body>"
    assert words_of({}, page) == ("", "Blocked by the proxy")
    assert words_of({"error": {"code": "X", "message": "a\r\nb"}}, b"") == ("X", "a b")
    assert words_of({"error": "text"}, b"") == ("", "")


@given(st.binary(max_size=200), st.binary(max_size=200_000))
def test_the_length_is_known_in_advance(header: bytes, body: bytes) -> None:
    class Taker:
        """Takes one request and keeps its body."""

        async def call(self, method: str, target: str, **how: object) -> Answer:
            source = how["body"]
            assert not isinstance(source, bytes)
            self.taken = b"".join([piece async for piece in source])  # type: ignore[attr-defined]
            assert len(self.taken) == how["length"] == encoded_size(len(header) + len(body))
            assert target == "/users/a%2Fb@x.example/sendMail"
            return Answer(202)

    async def run() -> bytes:
        http = Taker()
        await send_mime(http, "a/b@x.example", header, BytesBody(body), _nothing)  # type: ignore[arg-type]
        return http.taken

    if header or body:
        assert base64.b64decode(asyncio.run(run()), validate=True) == header + body


async def _nothing() -> None:
    return None


class Halting:
    """A body that stops half-way (the piece before is on its way then) until told to go on, or breaks there."""

    def __init__(self, size: int, go_on: Callable[[], bool], error: Exception | None = None) -> None:
        self.size = size
        self._go_on = go_on
        self._error = error

    async def chunks(self, size: int = 65536) -> AsyncIterator[bytes]:
        yield b"x" * (self.size // 4)
        yield b"x" * (self.size // 4)
        async with asyncio.timeout(10):
            while not self._go_on():
                await asyncio.sleep(0.01)
        if self._error is not None:
            raise self._error
        yield b"x" * (self.size - self.size // 4 * 2)


async def test_a_break_before_the_request_was_complete_is_certain(tmp_path: Path) -> None:
    async with tenant(tmp_path, "Mail.Send") as one:
        fault = one.sim.faults.add(Fault("graph", "drop"))
        outcome = await one.send(body=Halting(2_000_000, lambda: fault.hits > 0))
        assert (outcome.result, outcome.uncertain, outcome.code) == (
            Result.DEFERRED,
            False,
            "connection-lost",
        )
        assert outcome.counts is False
        assert one.begin.calls == 0


async def test_a_stored_message_that_cannot_be_read_is_the_spools_fault(tmp_path: Path) -> None:
    async with tenant(tmp_path, "Mail.Send") as one:
        with pytest.raises(SpoolError, match="no such device"):
            await one.send(body=Halting(100_000, lambda: True, OSError(19, "no such device")))
        assert one.sim.messages == []
        assert (await one.send()).result is Result.SENT


async def test_an_attempt_that_cannot_be_written_down_is_not_made(tmp_path: Path) -> None:
    async def fail() -> None:
        raise SpoolError("the disk is full")

    async with tenant(tmp_path, "Mail.Send") as one:
        one.begin = Begin(fail)
        with pytest.raises(SpoolError, match="the disk is full"):
            await one.send()
        assert one.sim.messages == []


async def test_a_server_that_takes_nothing_is_given_up_in_time(tmp_path: Path) -> None:
    async with tenant(tmp_path, "Mail.Send", timeout=0.5) as one:
        outcome = await one.send(body=Halting(2_000_000, lambda: False))
        assert (outcome.code, outcome.uncertain) == ("timed-out", False)


TOO_LARGE = ["413 RequestEntityTooLarge big", "400 ErrorMessageSizeExceeded big", "200 OK nothing"]


@pytest.mark.parametrize("reply", TOO_LARGE)
async def test_a_refusal_of_size_from_two_megabytes_on_tries_the_large_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reply: str
) -> None:
    tried: list[str] = []

    async def large(http: object, mailbox: str, *_: object) -> LargeResult:
        tried.append(mailbox)
        return LargeResult(None, Answer(202), None, "send", ())

    monkeypatch.setattr("relay.deliver.graph.connection.send_large", large)
    async with tenant(tmp_path, "Mail.Send") as one:
        one.sim.faults.add(Fault("graph", "reply", reply))
        assert (await one.send(body=b"x" * 2_400_000)).result is Result.SENT
        assert tried == ["notifications@contoso.com"]


@pytest.mark.parametrize("reply", TOO_LARGE[:2])
async def test_a_refusal_of_size_below_is_the_mailboxs(tmp_path: Path, reply: str) -> None:
    async with tenant(tmp_path, "Mail.Send") as one:
        one.sim.faults.add(Fault("graph", "reply", reply))
        outcome = await one.send(body=b"x" * 1000)
        assert outcome.result is Result.FAILED
        assert "MaxSendSize" in outcome.remedy
        assert outcome.reply is not None
        assert (outcome.reply.code, outcome.reply.enhanced) == (554, "5.3.4")


class Odd:
    """An HTTPS server that answers everything the same way, whatever is asked."""

    def __init__(self, answer: Callable[[web.Request], web.StreamResponse]) -> None:
        self._answer = answer
        self.seen: list[web.Request] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(request)
        return self._answer(request)

    async def start(self, certificate: Path) -> tuple[web.AppRunner, str]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self.handle)
        runner = web.AppRunner(app)
        await runner.setup()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        assert runner.addresses
        return runner, f"https://127.0.0.1:{runner.addresses[0][1]}"


@pytest.mark.parametrize("answer", [
    lambda request: web.Response(status=403, text="<html><h1>No</h1>" + "x" * 5_000_000, content_type="text/html"),
    lambda request: web.Response(status=500, body=b""),
    lambda request: web.Response(status=502, body=b"\xff\xfe{", content_type="application/json"),
    lambda request: web.Response(status=400, text='{"error": [' * 5000, content_type="application/json"),
    lambda request: web.Response(status=403, text=request.headers["Authorization"]),
], ids=["huge", "empty", "broken", "nested", "echo"])  # fmt: skip
async def test_whatever_comes_is_borne(
    tmp_path: Path, certificates: tuple[Path, Path], answer: Callable[[web.Request], web.StreamResponse]
) -> None:
    odd = Odd(answer)
    runner, url = await odd.start(certificates[1])
    try:
        both = tmp_path / "both.pem"
        async with tenant(tmp_path, "Mail.Send", transport="graph", graph_url=url) as one:
            both.write_bytes(Path(one.sim.ca_file).read_bytes() + certificates[0].read_bytes())
            await _trusting(one, both)
            outcome = await one.send()
            assert outcome.result in (Result.HELD, Result.DEFERRED)
            assert not outcome.uncertain
            assert outcome.reply is not None
            assert len(outcome.reply.text) <= 400
            assert "eyJ" not in outcome.reply.text
            assert odd.seen[0].headers["client-request-id"]
    finally:
        await runner.cleanup()


async def _trusting(one: Tenant, ca_file: Path) -> None:
    """The same tenant, with another file of CAs."""
    await one.stop()
    one.upstream = dataclasses.replace(one.upstream, ca_file=ca_file)
    one.start()


class Proxy:
    """An HTTP proxy that speaks CONNECT (RFC 9110 section 9.3.6), or answers what it is told."""

    def __init__(self, refusal: bytes = b"") -> None:
        self.asked: list[str] = []
        self._refusal = refusal

    async def start(self) -> tuple[asyncio.Server, int]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return server, server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.asked.append(request)
        if self._refusal:
            writer.write(self._refusal)
            writer.close()
            return
        host, _, port = request.split(" ")[1].rpartition(":")
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(
            self._pump(reader, far_writer), self._pump(far_reader, writer), return_exceptions=True
        )

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()


async def test_through_a_proxy_with_a_login(tmp_path: Path) -> None:
    proxy = Proxy()
    server, port = await proxy.start()
    async with tenant(tmp_path, "Mail.Send", transport="graph") as one:
        await one.open()  # the token comes without the proxy, which is not what is tested here
        one.upstream = dataclasses.replace(one.upstream, proxy=f"http://user:pass@127.0.0.1:{port}")
        one.courier.update(make_settings(one.upstream), one.router, {"M365": one.tokens})
        assert (await one.send()).result is Result.SENT
        assert proxy.asked[0].startswith(f"CONNECT localhost:{one.sim.graph_url.rpartition(':')[2]} ")
        assert "Proxy-Authorization: Basic dXNlcjpwYXNz" in proxy.asked[0]
        assert "eyJ" not in "".join(proxy.asked)
    server.close()


@pytest.mark.parametrize(
    ("refusal", "code", "result"),
    [(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "proxy-refused", Result.HELD),
     (b"HTTP/1.1 407 Who are you\r\nContent-Length: 0\r\n\r\n", "proxy-refused", Result.HELD),
     (b"HTTP/1.1 502 Bad gateway\r\nContent-Length: 0\r\n\r\n", "proxy-failed", Result.DEFERRED)],
)  # fmt: skip
async def test_what_a_proxy_refuses_is_told_plainly(
    tmp_path: Path, refusal: bytes, code: str, result: Result
) -> None:
    proxy = Proxy(refusal)
    server, port = await proxy.start()
    async with tenant(tmp_path, "Mail.Send", transport="graph") as one:
        await one.open()
        one.upstream = dataclasses.replace(one.upstream, proxy=f"http://user:secret-word@127.0.0.1:{port}")
        one.courier.update(make_settings(one.upstream), one.router, {"M365": one.tokens})
        outcome = await one.send()
        assert (outcome.code, outcome.result, outcome.uncertain) == (code, result, False)
        assert f"127.0.0.1:{port}" in outcome.reason
        assert "secret-word" not in f"{outcome}"
    server.close()
