"""The rules of Graph one by one: sizes, sessions, throttling, clean-up."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import aiohttp
import pytest

from relay.simulator.faults import Fault
from relay.simulator.options import MEBIBYTE
from tests.simulator.graphkit import (
    DRAFTS,
    FILE,
    MAILBOX,
    MIME,
    SEND,
    GraphClient,
    encoded,
    message,
    slow_post,
)
from tests.simulator.kit import GRAPH_SCOPE, Clock, fetch_token


@pytest.mark.parametrize(
    ("kind", "data", "status"),
    [("message/rfc822", b"x", 415), ("application/json", b"{}}", 400), ("application/json", b"", 400)],
)
async def test_content_types(graph: GraphClient, kind: str, data: bytes, status: int) -> None:
    """JSON, or base64 MIME as text/plain, and nothing else."""
    await graph.ask("POST", SEND, data=data, headers={"Content-Type": kind})
    assert graph.status == status
    assert graph.sim.messages == []


async def test_a_post_over_four_megabytes_meets_three_manners(graph: GraphClient) -> None:
    """413, ErrorMessageSizeExceeded, or a pretended 200; never a message."""
    large = encoded(MIME + b"x" * 3 * MEBIBYTE)
    assert await graph.code("POST", SEND, **large) == (413, "RequestEntityTooLarge")
    await graph.sim.change(graph_oversize="400")
    assert await graph.code("POST", SEND, **large) == (400, "ErrorMessageSizeExceeded")
    await graph.sim.change(graph_oversize="200")
    assert await graph.ask("POST", SEND, **large) == b""
    assert (graph.status, graph.sim.messages) == (200, [])


async def new_session(graph: GraphClient, size: int = 9 * MEBIBYTE) -> tuple[str, str]:
    """(path of the draft, upload address)."""
    draft = await graph.ask("POST", DRAFTS, json=message())
    path = f"{DRAFTS}/{draft['id']}"
    item = {"attachmentType": "file", "name": "scan.pdf", "size": size}
    session = await graph.ask(
        "POST", f"{path}/attachments/createUploadSession", json={"AttachmentItem": item}
    )
    return path, session["uploadUrl"]


def chunk(first: int, data: bytes, total: int = 9 * MEBIBYTE, **headers: str) -> dict[str, Any]:
    stated = f"bytes {first}-{first + len(data) - 1}/{total}"
    return {"data": data, "headers": {"Authorization": "", "Content-Range": stated, **headers}}


async def test_a_session_in_its_shapes(graph: GraphClient, clock: Clock) -> None:
    """Progress names the next octet, the expiry stays where it was, and afterwards the address is dead."""
    path, url = await new_session(graph)
    clock.now += 60
    progress = await graph.ask("PUT", url, **chunk(0, b"x" * MEBIBYTE))
    assert (graph.status, progress["nextExpectedRanges"]) == (200, [str(MEBIBYTE)])
    assert "uploadUrl" not in progress
    assert graph.sim.drafts()[0]["uploads"][0]["received"] == MEBIBYTE
    clock.now += 3540
    await graph.ask("PUT", url, **chunk(MEBIBYTE, b"x"))
    assert graph.status == 404
    graph.token = await fetch_token(graph.sim, GRAPH_SCOPE)
    await graph.ask("DELETE", path)
    assert (graph.status, graph.sim.drafts()) == (204, [])
    assert await graph.code("POST", f"{path}/send") == (404, "ErrorItemNotFound")


async def test_chunks_say_what_they_are(graph: GraphClient) -> None:
    """Content-Length, Content-Type and Content-Range are all needed."""
    _, url = await new_session(graph)

    async def pieces() -> Any:
        yield b"x"

    await graph.ask("PUT", url, **{**chunk(0, b"x"), "data": pieces()})
    assert graph.status == 411
    await graph.ask("PUT", url, **chunk(0, b"x", **{"Content-Type": "text/plain"}))
    assert graph.status == 415
    await graph.ask("PUT", url, **chunk(0, b"x", **{"Content-Range": "bytes */1"}))
    assert graph.status == 400
    await graph.ask("PUT", url, **chunk(0, b"x", 9 * MEBIBYTE + 1))
    assert graph.status == 416


async def test_a_broken_chunk_leaves_the_session_as_it_was(graph: GraphClient) -> None:
    """Cut before it was taken: nothing counts. Cut after: the session says so, and the chunk is not wanted again.

    aiohttp repeats a PUT once by itself when the connection breaks.
    """
    _, url = await new_session(graph)
    graph.sim.faults.add(Fault("graph-chunk", "drop", mailbox=MAILBOX, times=2))
    with pytest.raises(aiohttp.ClientError):
        await graph.ask("PUT", url, **chunk(0, b"x" * 10))
    bare = {"headers": {"Authorization": ""}}
    assert (await graph.ask("GET", url, **bare))["nextExpectedRanges"] == ["0"]
    graph.sim.faults.add(Fault("graph-chunk", "drop-after-accept"))
    assert (await graph.code("PUT", url, **chunk(0, b"x" * 10)))[0] == 416
    assert (await graph.ask("GET", url, **bare))["nextExpectedRanges"] == ["10"]
    assert graph.sim.faults.list() == []


async def test_a_message_beyond_the_mailboxs_limit_fails_at_the_last_chunk_or_when_sent(
    graph: GraphClient,
) -> None:
    """Both were seen with Microsoft; the code is the same."""
    await graph.sim.change(message_size=3 * MEBIBYTE, graph_draft_size=3 * MEBIBYTE)
    size = 3 * MEBIBYTE + 1
    _, url = await new_session(graph, size)
    assert await graph.code("PUT", url, **chunk(0, b"x" * size, size)) == (400, "ErrorMessageSizeExceeded")
    assert graph.sim.drafts()[0]["attachments"] == []
    await graph.sim.change(graph_draft_size=0)
    path, url = await new_session(graph, size)
    await graph.ask("PUT", url, **chunk(0, b"x" * size, size))
    assert graph.status == 201
    assert await graph.code("POST", f"{path}/send") == (400, "ErrorMessageSizeExceeded")


@pytest.mark.parametrize(
    ("item", "status"),
    [
        ({"attachmentType": "file", "name": "x", "size": 151 * MEBIBYTE}, 400),
        ({"attachmentType": "item", "name": "x", "size": 9 * MEBIBYTE}, 400),
        ({"attachmentType": "file", "name": "x", "size": "9"}, 400),
        ({"attachmentType": "file", "name": "x"}, 400),
        ({"attachmentType": "file", "name": "x", "size": 9 * MEBIBYTE, "colour": 1}, 400),
        (
            {"attachmentType": "file", "name": "x", "size": 9 * MEBIBYTE, "isInline": True, "contentId": "c"},
            201,
        ),
    ],
)
async def test_what_a_session_is_opened_for(graph: GraphClient, item: dict[str, Any], status: int) -> None:
    """Files of 3 to 150 MB, described by the published type."""
    draft = await graph.ask("POST", DRAFTS, json=message())
    await graph.ask(
        "POST", f"{DRAFTS}/{draft['id']}/attachments/createUploadSession", json={"AttachmentItem": item}
    )
    assert graph.status == status


async def test_small_attachments_by_post(graph: GraphClient) -> None:
    """Below 3 MB in one request, from there on not; a draft shows what it has."""
    draft = await graph.ask("POST", DRAFTS, json=message())
    path = f"{DRAFTS}/{draft['id']}/attachments"
    made = await graph.ask("POST", path, json={**FILE, "isInline": True, "contentId": "img@1"})
    assert (graph.status, made["size"], made["isInline"]) == (201, 1, True)
    large = {**FILE, "contentBytes": base64.b64encode(b"x" * 3 * MEBIBYTE).decode()}
    await graph.ask("POST", path, json=large)
    assert graph.status == 413
    assert graph.sim.drafts()[0]["attachments"] == [{"name": "a.txt", "size": 1}]
    await graph.ask("POST", f"{DRAFTS}/{draft['id']}/send")
    text = graph.sim.messages[0].bytes()
    assert b"multipart/related" in text and b"Content-ID: <img@1>" in text


@pytest.mark.parametrize(
    ("where", "method", "path"),
    [
        ("graph-send", "POST", SEND),
        ("graph-draft", "POST", DRAFTS),
        ("graph-get", "GET", "{draft}"),
        ("graph-attach", "POST", "{draft}/attachments"),
        ("graph-session", "POST", "{draft}/attachments/createUploadSession"),
        ("graph-draft-send", "POST", "{draft}/send"),
        ("graph-delete", "DELETE", "{draft}"),
        ("graph-application", "GET", "/v1.0/applications(appId='x')"),
    ],
)
async def test_faults_strike_one_operation(graph: GraphClient, where: str, method: str, path: str) -> None:
    """A fault at one operation leaves the others alone; `graph` is each of them."""
    draft = await graph.ask("POST", DRAFTS, json=message())
    fault = graph.sim.faults.add(Fault(where, "reply", "503 ErrorMailboxStoreUnavailable"))
    await graph.ask("POST", "/v1.0/users/x@contoso.com/other")
    assert fault.hits == 0
    target = path.format(draft=f"{DRAFTS}/{draft['id']}")
    assert await graph.code(method, target) == (503, "ErrorMailboxStoreUnavailable")
    assert graph.sim.faults.list() == []


async def test_who_does_not_wait_is_counted(graph: GraphClient, clock: Clock) -> None:
    """A request before Retry-After is over shows in the report; one after it does not."""
    mail = {"json": {"message": message()}}
    graph.sim.faults.add(Fault("graph-send", "reply", "429 ApplicationThrottled", seconds=30))
    assert await graph.code("POST", SEND, **mail) == (429, "ApplicationThrottled")
    clock.now += 30
    await graph.ask("POST", SEND, **mail)
    assert graph.sim.limits_report()["graph"]["early_retries"] == {}
    graph.sim.faults.add(Fault("graph-send", "reply", "429 ApplicationThrottled", seconds=30))
    await graph.ask("POST", SEND, **mail)
    await graph.ask("POST", SEND, **mail)
    assert graph.sim.limits_report()["graph"]["early_retries"] == {MAILBOX: 1}


async def test_upload_bandwidth(graph: GraphClient, clock: Clock) -> None:
    """So many octets in five minutes, then 429 until they have passed."""
    await graph.sim.change(graph_upload_rate=1000)
    mail = encoded(MIME + b"x" * 400)
    await graph.ask("POST", SEND, **mail)
    clock.now += 100
    assert await graph.code("POST", SEND, **mail) == (429, "ApplicationThrottled")
    assert graph.headers["Retry-After"] == "200"
    clock.now += 200
    await graph.ask("POST", SEND, **mail)
    assert graph.status == 202


async def test_one_mailbox_has_its_own_share(graph: GraphClient) -> None:
    """The mailbox's concurrency can be smaller than the app's: another mailbox is still served."""
    await graph.sim.change(graph_mailbox_concurrency=1)
    held = asyncio.Event()
    waiting = slow_post(graph, held)
    while graph.sim.limits_report()["graph"]["concurrency"] < 1:
        await asyncio.sleep(0)
    assert await graph.code("POST", SEND, json={"message": message()}) == (429, "ApplicationThrottled")
    await graph.ask("POST", SEND.replace("notifications", "scans"), json={"message": message()})
    assert graph.status == 202
    held.set()
    assert (await waiting).status == 400


async def test_request_ids_and_the_clock(graph: GraphClient, clock: Clock) -> None:
    """client-request-id comes back, and Date is the simulated time."""
    await graph.ask("POST", SEND, json={"message": message()}, headers={"client-request-id": "abc"})
    assert graph.headers["client-request-id"] == "abc"
    assert graph.headers["Date"] == "Fri, 15 Jan 2027 08:00:00 GMT"
    assert (await graph.ask("GET", "/v1.0/nowhere"))["error"]["innerError"]["request-id"]


async def test_a_mailbox_on_premises(graph: GraphClient) -> None:
    """No Exchange Online mailbox behind the address."""
    await graph.sim.change(on_premises=[MAILBOX])
    mail = {"json": {"message": message()}}
    assert await graph.code("POST", SEND, **mail) == (404, "MailboxNotEnabledForRESTAPI")


async def test_drafts_and_their_files_are_listed(graph: GraphClient) -> None:
    """By Message-ID, narrowed by $select; a draft of another mailbox is not among them."""
    await graph.ask("POST", DRAFTS.replace("notifications", "scans"), json=message())
    made = await graph.ask("POST", DRAFTS, json=message(internetMessageId="<it's@contoso.com>"))
    await graph.ask("POST", DRAFTS, json=message())
    assert len((await graph.ask("GET", DRAFTS))["value"]) == 2
    query = {"$filter": "internetMessageId eq '<it''s@contoso.com>'", "$select": "id,isDraft,hasAttachments"}
    (found,) = (await graph.ask("GET", DRAFTS, params=query))["value"]
    assert (found["id"], found["isDraft"], found["hasAttachments"]) == (made["id"], True, False)
    assert "subject" not in found
    path = f"{DRAFTS}/{made['id']}/attachments"
    await graph.ask("POST", path, json=FILE)
    (file,) = (await graph.ask("GET", path, params={"$select": "name,size"}))["value"]
    assert (file["name"], file["size"]) == ("a.txt", 1)
    for wrong in ({"$select": "colour"}, {"$filter": "subject eq 'x'"}):
        await graph.ask("GET", DRAFTS, params=wrong)
        assert graph.status == 400
