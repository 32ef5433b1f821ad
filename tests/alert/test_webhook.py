"""The webhook over real sockets: what is posted, when it is tried again, and what is never shown."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from relay.alert.news import News, WayFailed
from relay.alert.webhook import Webhook
from tests.alert.kit import SECRET_PATH, Pauses, Receiver, a_cause, receiving
from tests.tokens.fake_entra_server import Identity, make_identity

NEWS = News(a_cause(), False)
SECRETS = ("T0AAAA", "B0BBBB", "s3cr3t-k3y-value", "another-s3cr3t")


async def failure(url: str, **more: object) -> WayFailed:
    """How telling failed; it must show nothing of the address but its host."""
    with pytest.raises(WayFailed) as caught:
        await Webhook(url, host="mx1", **{"pause": Pauses(), **more}).tell(NEWS)  # type: ignore[arg-type]
    assert not any(secret in f"{caught.value} {caught.value.remedy}" for secret in SECRETS)
    assert caught.value.remedy
    return caught.value


async def test_json_is_posted(receiver: Receiver) -> None:
    """To the very path and query, with the type that every receiver expects."""
    await Webhook(receiver.url, host="mx1").tell(NEWS)
    (body,), (headers,) = receiver.got, receiver.headers
    assert (body["event"], body["over"], body["host"], body["messages"]) == ("hold", False, "mx1", 7)
    assert body["text"].startswith("Mail of scans@contoso.com is held")
    assert headers["Content-Type"] == "application/json; charset=utf-8"
    assert receiver.paths == [f"{SECRET_PATH}?sig=another-s3cr3t"]


@pytest.mark.parametrize("status", [200, 202, 204])
async def test_any_success_is_success(receiver: Receiver, status: int) -> None:
    """Workflows answer 202."""
    receiver.status(status)
    await Webhook(receiver.url, host="mx1").tell(NEWS)
    assert len(receiver.got) == 1


@pytest.mark.parametrize("status", [408, 429, 500, 503])
async def test_a_busy_receiver_is_asked_again(receiver: Receiver, status: int) -> None:
    """Three tries in all, with growing pauses that fit into the minute."""
    receiver.status(status, status, 200)
    pauses = Pauses()
    await Webhook(receiver.url, host="mx1", pause=pauses).tell(NEWS)
    assert len(receiver.got) == 3 and pauses.seconds == [2.0, 5.0]


async def test_three_failures_are_enough(receiver: Receiver) -> None:
    receiver.status(502)
    assert "502" in str(await failure(receiver.url)) and len(receiver.got) == 3


async def test_the_receivers_wish_to_wait_is_heard_within_bounds(receiver: Receiver) -> None:
    receiver.status(429, headers={"Retry-After": "7"})
    pauses = Pauses()
    await failure(receiver.url, pause=pauses)
    assert pauses.seconds == [7.0, 7.0]
    receiver.status(429, headers={"Retry-After": "3600"})
    await failure(receiver.url, pause=pauses)
    assert pauses.seconds[2:] == [10.0, 10.0]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
async def test_a_refusal_is_not_repeated(receiver: Receiver, status: int) -> None:
    """Slack answers 404 ``no_service`` for a webhook that was removed; its words are shown."""
    receiver.status(status, text="no_service")
    failed = await failure(receiver.url)
    assert f"{status} no_service" in str(failed) and "alerts.webhook" in failed.remedy
    assert len(receiver.got) == 1


async def test_a_receiver_that_quotes_the_address_does_not_put_it_into_the_log(receiver: Receiver) -> None:
    receiver.status(404, text=f"nothing at {SECRET_PATH}?sig=another-s3cr3t")
    assert "nothing at" in str(await failure(receiver.url))


async def test_a_redirect_is_not_followed(receiver: Receiver) -> None:
    """It could lead to another host, or to clear text."""
    receiver.status(307, headers={"Location": "/elsewhere"})
    assert "redirect" in str(await failure(receiver.url))
    assert len(receiver.got) == 1


async def test_a_connectors_failure_behind_200_is_a_failure(receiver: Receiver) -> None:
    """Office 365 connectors answer 200 and say in the text that Teams refused."""
    receiver.status(
        200,
        text="Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP error 429",
    )
    assert "HTTP error 429" in str(await failure(receiver.url)) and len(receiver.got) == 3


async def test_a_receiver_that_never_answers_is_given_up(receiver: Receiver) -> None:
    import asyncio

    receiver.gate = asyncio.Event()
    assert "no answer within" in str(await failure(receiver.url, timeout=0.1))


async def test_nobody_listens() -> None:
    """The port of a receiver that is gone."""
    async with receiving() as gone:
        url = gone.url
    pauses = Pauses()
    assert "firewall" in (await failure(url, pause=pauses)).remedy
    assert len(pauses.seconds) == 2


@pytest.mark.parametrize(
    "url",
    [
        "http://alerts.example/s3cr3t-k3y-value",
        "http://10.0.0.1/s3cr3t-k3y-value",
        "ftp://127.0.0.1/x",
        "https:///x",
    ],
)
async def test_clear_text_is_for_this_machine_only(url: str) -> None:
    """Refused before anything is dialled."""
    pauses = Pauses()
    assert "https only" in str(await failure(url, pause=pauses)) and pauses.seconds == []


@pytest.fixture(scope="module")
def root() -> Identity:
    return make_identity("Alert Test Root", ca=True)


@pytest.fixture
def tls(root: Identity, tmp_path: Path) -> ssl.SSLContext:
    server = make_identity("localhost", root)
    chain = tmp_path / "server.pem"
    chain.write_bytes(server.key_pem() + pem(server))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    return context


def pem(identity: Identity) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return identity.certificate.public_bytes(Encoding.PEM)


async def test_tls_is_verified(tls: ssl.SSLContext) -> None:
    """A certificate of an unknown CA ends it at the first try, before anything is posted."""
    async with receiving(tls) as receiver:
        pauses = Pauses()
        failed = await failure(receiver.url, pause=pauses)
    assert "TLS failed" in str(failed) and "ca_file" in failed.remedy
    assert (receiver.got, pauses.seconds) == ([], [])


async def test_an_extra_ca_is_trusted(tls: ssl.SSLContext, root: Identity, tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_bytes(pem(root))
    async with receiving(tls) as receiver:
        await Webhook(receiver.url, host="mx1", ca_file=ca).tell(NEWS)
    assert len(receiver.got) == 1


async def test_a_proxy_carries_it_and_its_password_is_not_shown() -> None:
    """A proxy that refuses CONNECT: nothing else is tried instead."""
    import asyncio

    asked: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(proxy, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    failed = await failure(
        "https://alerts.invalid/s3cr3t-k3y-value", proxy=f"http://user:pr0xy-pass@127.0.0.1:{port}"
    )
    server.close()
    assert asked[0].startswith(b"CONNECT alerts.invalid:443 ") and len(asked) == 3
    assert "407" in str(failed) and "pr0xy-pass" not in str(failed)


async def test_the_address_is_not_in_the_objects_own_words() -> None:
    assert (
        repr(Webhook(f"https://hooks.slack.com{SECRET_PATH}", host="mx1"))
        == "Webhook(https://hooks.slack.com/...)"
    )
