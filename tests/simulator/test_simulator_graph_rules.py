"""The rules of Graph one by one: recipients of MIME, the published schema, sizes, sessions, throttling, clean-up."""

from __future__ import annotations

import asyncio
import base64
import email
import email.policy
from typing import Any

import aiohttp
import pytest

from relay.simulator import csdl, graph_schema
from relay.simulator.faults import Fault
from relay.simulator.graph_recipients import distinct, header_recipients
from relay.simulator.options import MEBIBYTE
from tests.simulator.graphkit import DRAFTS, MAILBOX, MIME, SEND, GraphClient, encoded, message
from tests.simulator.kit import GRAPH_SCOPE, Clock, fetch_token, http

FILE = {"@odata.type": "#microsoft.graph.fileAttachment", "name": "a.txt", "contentBytes": "eA=="}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('"Bob (bob at other.example)":;', []),
        ("undisclosed-recipients:;", []),
        (
            "Team: a@b.example, Carl <c@d.example>; , e@f.example",
            ["a@b.example", "c@d.example", "e@f.example"],
        ),
        ("a@b.example (x, y@z.example (nested) \\) more)", ["a@b.example"]),
        ('"y@z.example, also" <a@b.example>', ["a@b.example"]),
        ("=?utf-8?q?y=40z=2Eexample?= <a@b.example>", ["a@b.example"]),
        ('"quoted, local"@b.example', ['"quoted, local"@b.example']),
        ("a (one) . b (two) @ c.example", ["a.b@c.example"]),
        ("<@route.example,@second.example:a@b.example>", ["a@b.example"]),
        ("a@[192.0.2.1]", ["a@[192.0.2.1]"]),
        ("Jörg <jörg@bücher.example>", ["jörg@bücher.example"]),
        (" , ,", []),
    ],
)
def test_only_addresses_of_the_fields_receive(value: str, expected: list[str]) -> None:
    """Names, comments, group names and encoded words never become a recipient."""
    assert header_recipients([value]) == expected


def test_the_same_person_is_one_recipient() -> None:
    """Case and needless quotes make no difference; the first spelling stays."""
    assert distinct(["A@B.example", "a@b.EXAMPLE", '"a"@b.example', '"a b"@b.example']) == [
        "A@B.example",
        '"a b"@b.example',
    ]


@pytest.mark.parametrize("to", ["nobody", "a@b.example c@d.example", "Smith, John <j@b.example>", "<>", "a@"])
async def test_an_unreadable_recipient_refuses_the_message(graph: GraphClient, to: str) -> None:
    """One address that is none, and nobody receives anything."""
    assert await graph.code("POST", SEND, **encoded(f"To: {to}\r\n\r\nx".encode())) == (
        400,
        "ErrorInvalidRecipients",
    )
    assert graph.sim.messages == []


async def test_all_fields_of_a_name_count(graph: GraphClient) -> None:
    """Several To and Bcc fields are one list; a group without members adds nobody."""
    mime = (
        b'To: a@b.example\r\nto: c@d.example\r\nCc: "Bob (bob at other.example)":;\r\n'
        b"BCC: A@B.example,\r\n g@h.example\r\nReturn-Path: <x@y.example>\r\nList-Id: x\r\n\r\nbody"
    )
    await graph.send_mime(mime)
    (accepted,) = graph.sim.messages
    assert accepted.recipients == ["a@b.example", "c@d.example", "g@h.example"]
    text = accepted.bytes()
    assert text.startswith(b"From: Notifications <notifications@contoso.com>\r\n")
    assert b"\r\nReturn-Path: notifications@contoso.com\r\n" in text
    assert b"bcc" not in text.lower() and b"g@h.example" not in text and b"List-Id" not in text


def test_the_rules_of_our_own_name_what_the_schema_has() -> None:
    """Every type and property of the hand-made rules exists in Microsoft's file."""
    schema = csdl.load()
    assert {"sendMail", "createUploadSession", "addKey", "removeKey"} <= set(schema.actions)
    for rules in (graph_schema.REQUIRED, graph_schema.READ_ONLY):
        for name, properties in rules.items():
            assert set(properties) <= set(schema.properties(name)), name


def test_types_inherit_and_know_their_shape() -> None:
    """What the file says of a message: inherited, single, many, enum and navigation."""
    message_type = csdl.load().properties("message")
    assert message_type["categories"].collection
    assert (message_type["from"].type, message_type["from"].collection) == ("recipient", False)
    assert message_type["attachments"].navigation and not message_type["body"].navigation
    assert csdl.load().enums["importance"] == {"low", "normal", "high"}
    assert csdl.load().lineage("fileAttachment") == ["fileAttachment", "attachment", "entity"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"toRecipient": []}, "RequestBodyRead"),
        ({"Subject": "x"}, "RequestBodyRead"),
        ({"toRecipients": {"emailAddress": {"address": "a@b.example"}}}, "RequestBodyRead"),
        ({"toRecipients": [{"emailaddress": {"address": "a@b.example"}}]}, "RequestBodyRead"),
        ({"toRecipients": [{"emailAddress": {"address": 7}}]}, "RequestBodyRead"),
        ({"toRecipients": None}, "RequestBodyRead"),
        ({"replyTo": [{}]}, "RequestBodyRead"),
        ({"body": "text"}, "RequestBodyRead"),
        ({"body": {"content": ["x"]}}, "RequestBodyRead"),
        ({"importance": "urgent"}, "RequestBodyRead"),
        ({"isReadReceiptRequested": "true"}, "RequestBodyRead"),
        ({"internetMessageHeaders": [{"name": "X-A"}]}, "RequestBodyRead"),
        ({"internetMessageHeaders": [{"name": "X-A", "value": "1", "more": 1}]}, "RequestBodyRead"),
        ({"id": "x"}, "ErrorInvalidPropertySet"),
        ({"isDraft": True}, "ErrorInvalidPropertySet"),
        ({"hasAttachments": True}, "ErrorInvalidPropertySet"),
        ({"attachments@odata.bind": ["x"]}, "RequestBodyRead"),
        ({"attachments": [{**FILE, "contentBytes": "no base64"}]}, "RequestBodyRead"),
        ({"attachments": [{**FILE, "isInline": None}]}, "RequestBodyRead"),
        ({"attachments": [{**FILE, "size": 2**31}]}, "RequestBodyRead"),
        ({"attachments": [{**FILE, "item": {}}]}, "RequestBodyRead"),
        ({"attachments": [{**FILE, "@odata.type": "#microsoft.graph.message"}]}, "RequestBodyRead"),
        ({"attachments": [{**FILE, "@odata.type": "#microsoft.graph.attachment"}]}, "RequestBodyRead"),
        ({"@odata.type": "microsoft.graph.recipient"}, "RequestBodyRead"),
    ],
)
async def test_json_keeps_to_the_published_schema(
    graph: GraphClient, changes: dict[str, Any], code: str
) -> None:
    """Unknown names, wrong types, null where it may not be, read-only and misused properties are 400."""
    assert await graph.code("POST", SEND, json={"message": message(**changes)}) == (400, code)
    assert await graph.code("POST", DRAFTS, json=message(**changes)) == (400, code)
    assert graph.sim.drafts() == []


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"message": None},
        {"message": message(), "saveToSentItems": "false"},
        {"message": message(), "saveToSent": False},
        {"message": message(), "Message": message()},
    ],
)
async def test_parameters_of_send_mail(graph: GraphClient, body: dict[str, Any]) -> None:
    """Missing, wrong, unknown or repeated parameters are 400."""
    await graph.ask("POST", SEND, json=body)
    assert graph.status == 400


async def test_everything_a_message_may_carry(graph: GraphClient) -> None:
    """All writable properties at once, parameter names in the schema's own case, a nested message."""
    inner = message(
        subject="inner", **{"@odata.type": "#microsoft.graph.message", "from": message()["toRecipients"][0]}
    )
    body = message(
        **{"from": {"emailAddress": {"address": MAILBOX}}, "sender": {"emailAddress": {"address": MAILBOX}}},
        replyTo=[{"emailAddress": {"address": "r@b.example"}}],
        importance="High",
        isReadReceiptRequested=True,
        internetMessageId="<7@contoso.com>",
        categories=["x"],
        attachments=[
            {"@odata.type": "#microsoft.graph.itemAttachment", "name": "inner", "item": inner},
            FILE,
        ],
    )
    await graph.ask("POST", SEND, json={"Message": body, "SaveToSentItems": False})
    assert graph.status == 202
    (accepted,) = graph.sim.messages
    assert (accepted.message_id, accepted.mail_params) == ("<7@contoso.com>", {"saveToSentItems": "false"})
    parsed = email.message_from_bytes(accepted.bytes(), policy=email.policy.default)
    assert (parsed["Reply-To"], parsed["Importance"]) == ("r@b.example", "high")
    nested, file = parsed.iter_attachments()
    assert nested.get_content()["Subject"] == "inner"
    assert nested.get_content()["From"].addresses[0].addr_spec == "a@b.example"
    assert file.get_content() == b"x"


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
    """Cut before it was taken: nothing counts. Cut after: the session says so, and the chunk is not wanted again."""
    _, url = await new_session(graph)

    async def put_once() -> None:
        """On a connection of its own: aiohttp repeats a PUT by itself when a kept connection breaks."""
        async with http(graph.sim) as session, session.put(url, **part):
            pass

    part = chunk(0, b"x" * 10)
    del part["headers"]["Authorization"]
    graph.sim.faults.add(Fault("graph-chunk", "drop", mailbox=MAILBOX))
    with pytest.raises(aiohttp.ClientError):
        await put_once()
    bare = {"headers": {"Authorization": ""}}
    assert (await graph.ask("GET", url, **bare))["nextExpectedRanges"] == ["0"]
    graph.sim.faults.add(Fault("graph-chunk", "drop-after-accept"))
    with pytest.raises(aiohttp.ClientError):
        await put_once()
    assert (await graph.ask("GET", url, **bare))["nextExpectedRanges"] == ["10"]
    assert (await graph.code("PUT", url, **chunk(0, b"x" * 10)))[0] == 416


async def test_a_file_beyond_the_mailboxs_limit_fails_when_it_is_whole(graph: GraphClient) -> None:
    """The mailbox's own limit holds for uploads too, and is told at the last chunk."""
    await graph.sim.change(message_size=3 * MEBIBYTE)
    size = 3 * MEBIBYTE + 1
    _, url = await new_session(graph, size)
    assert await graph.code("PUT", url, **chunk(0, b"x" * size, size)) == (400, "ErrorMessageSizeExceeded")
    assert graph.sim.drafts()[0]["attachments"] == []


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

    async def slow() -> Any:
        yield b"{"
        await held.wait()
        yield b"}"

    headers = {"Authorization": f"Bearer {graph.token}", "Content-Type": "application/json"}
    waiting = asyncio.ensure_future(
        graph.session.post(graph.sim.graph_url + SEND, data=slow(), headers=headers)
    )
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
