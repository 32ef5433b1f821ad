"""The simulated Graph: who receives what, what becomes of headers, permissions, sizes, upload sessions, throttling."""

from __future__ import annotations

import asyncio
import base64
import email
import email.policy
from typing import Any

import aiohttp
import pytest

from relay.simulator.faults import Fault
from relay.simulator.options import MEBIBYTE
from tests.simulator.graphkit import DRAFTS, MAILBOX, MIME, SEND, GraphClient, message, slow_post
from tests.simulator.kit import EXCHANGE_SCOPE, GRAPH_SCOPE, Clock, fetch_token


async def test_mime_is_sent_to_its_header_addresses(graph: GraphClient) -> None:
    """202 and an empty body; To and Bcc receive it, each once; From gets the directory's name; odd headers go."""
    assert await graph.send_mime(MIME) == b""
    assert graph.status == 202
    assert graph.headers["request-id"]
    (accepted,) = graph.sim.messages
    assert accepted.recipients == ["a@b.example", "Hidden@c.example"]
    assert (accepted.transport, accepted.mailbox, accepted.has_bcc) == ("graph", MAILBOX, True)
    parsed = email.message_from_bytes(accepted.bytes(), policy=email.policy.default)
    assert parsed["From"] == "Notifications <notifications@contoso.com>"
    assert (parsed["Subject"], parsed["Message-ID"]) == ("hello", "<1@contoso.com>")
    assert not {"Bcc", "X-Custom", "Auto-Submitted"} & set(parsed.keys())
    assert parsed.get_content() == "body\r\n"


async def test_json_becomes_a_message(graph: GraphClient) -> None:
    """Body, recipients, attachment and x- headers; a header name once stored survives in later MIME."""
    attachment = {
        "@odata.type": "#microsoft.graph.fileAttachment",
        "name": "größe.txt",
        "contentType": "text/csv",
        "contentBytes": base64.b64encode(b"1;2").decode(),
    }
    body = message(
        attachments=[attachment],
        ccRecipients=[{"emailAddress": {"address": "c@d.example"}}],
        bccRecipients=[{"emailAddress": {"address": "e@f.example"}}],
        internetMessageHeaders=[{"name": "X-Custom", "value": "7"}],
    )
    await graph.ask("POST", SEND, json={"message": body, "saveToSentItems": False})
    assert graph.status == 202
    (accepted,) = graph.sim.messages
    assert accepted.recipients == ["a@b.example", "c@d.example", "e@f.example"]
    assert accepted.mail_params == {"saveToSentItems": "false"}
    parsed = email.message_from_bytes(accepted.bytes(), policy=email.policy.default)
    assert (parsed["Subject"], parsed["Cc"], parsed["Bcc"], parsed["X-Custom"]) == (
        "Grüße",
        "c@d.example",
        None,
        "7",
    )
    text, file = parsed.iter_parts()
    assert text.get_content().strip() == "<p>hé</p>"
    assert (file.get_filename(), file.get_content()) == ("größe.txt", "1;2")
    await graph.send_mime(MIME)
    assert b"X-Custom: 1\r\n" in graph.sim.messages[1].bytes()


@pytest.mark.parametrize(
    ("mime", "status", "code"),
    [
        (MIME.replace(b"notifications@", b"ceo@"), 403, "ErrorSendAsDenied"),
        (
            b"From: notifications@contoso.com\r\nTo: undisclosed-recipients:;\r\n\r\nx",
            400,
            "ErrorInvalidRecipients",
        ),
        (b"To: not an address\r\n\r\nx", 400, "ErrorInvalidRecipients"),
        (b"\r\n\r\n", 400, "ErrorMimeContentInvalid"),
        (MIME + b"x" * 3 * MEBIBYTE, 413, "RequestEntityTooLarge"),
    ],
)
async def test_mime_refusals(graph: GraphClient, mime: bytes, status: int, code: str) -> None:
    """Another sender, no or bad recipients, no message, too large."""
    body = await graph.send_mime(mime)
    assert (graph.status, body["error"]["code"]) == (status, code)
    assert body["error"]["innerError"]["request-id"] == graph.headers["request-id"]
    assert graph.sim.messages == []


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"toRecipients": []}, 400, "ErrorInvalidRecipients"),
        ({"toRecipients": [{"emailAddress": {"address": "nobody"}}]}, 400, "ErrorInvalidRecipients"),
        ({"from": {"emailAddress": {"address": "ceo@contoso.com"}}}, 403, "ErrorSendAsDenied"),
        ({"toRecipients": [{"emailAddress": {"name": "nobody"}}]}, 400, "ErrorInvalidRecipients"),
        ({"colour": "red"}, 400, "RequestBodyRead"),
        ({"subject": 7}, 400, "RequestBodyRead"),
        ({"body": {"contentType": "rtf"}}, 400, "RequestBodyRead"),
        ({"attachments": [{"name": "x", "contentBytes": "AA=="}]}, 400, "RequestBodyRead"),
        (
            {"internetMessageHeaders": [{"name": "Auto-Submitted", "value": "x"}]},
            400,
            "InvalidInternetMessageHeader",
        ),
    ],
)
async def test_json_refusals(graph: GraphClient, changes: dict[str, Any], status: int, code: str) -> None:
    """What is not of the published schema, or may not be sent."""
    assert await graph.code("POST", SEND, json={"message": message(**changes)}) == (status, code)


async def test_base64_and_paths(graph: GraphClient) -> None:
    """MIME that is no base64, an unknown user, an unlicensed mailbox, /me, an unknown path."""
    plain = {"Content-Type": "text/plain"}
    bad = await graph.code("POST", SEND, data=b"From: in clear!", headers=plain)
    assert bad == (400, "ErrorMimeContentInvalidBase64String")
    path = "/v1.0/users/nobody@contoso.com/sendMail"
    assert await graph.code("POST", path, json={"message": message()}) == (404, "ErrorInvalidUser")
    assert (await graph.code("POST", "/v1.0/me/sendMail", json={}))[0] == 400
    assert (await graph.code("POST", "/v1.0/nowhere", json={}))[0] == 404
    by_id = f"/v1.0/users/{graph.sim.state.user_id(MAILBOX)}/sendMail"
    await graph.ask("POST", by_id, json={"message": message()})
    assert graph.status == 202
    await graph.sim.change(unlicensed=[MAILBOX])
    assert await graph.code("POST", SEND, json={"message": message()}) == (404, "MailboxNotEnabledForRESTAPI")


async def test_tokens_and_permissions(graph: GraphClient) -> None:
    """The wrong audience is 401; a missing role is 403, for the directory under its own name; a scope excludes."""
    mail = {"json": {"message": message()}}
    sim, good = graph.sim, graph.token
    for token in ("", "rubbish", await fetch_token(sim, EXCHANGE_SCOPE)):
        graph.token = token
        assert await graph.code("POST", SEND, **mail) == (401, "InvalidAuthenticationToken")
    await sim.change(permissions=["Mail.Send"])
    graph.token = await fetch_token(sim, GRAPH_SCOPE)
    assert await graph.code("POST", DRAFTS, json=message()) == (403, "ErrorAccessDenied")
    application = f"/v1.0/applications(appId='{sim.state.client_id}')"
    assert await graph.code("GET", application) == (403, "Authorization_RequestDenied")
    await sim.change(graph_scope=["scans@contoso.com"])
    assert await graph.code("POST", SEND, **mail) == (403, "ErrorAccessDenied")
    graph.token = good
    credentials = (await graph.ask("GET", application))["passwordCredentials"]
    assert credentials[0]["hint"] == sim.state.client_secret[:3]
    assert credentials[0]["endDateTime"].endswith("Z")


async def test_an_expired_token(graph: GraphClient, clock: Clock) -> None:
    """Once its hour is over a token is 401; a fresh one works."""
    clock.now += 3599
    assert await graph.code("POST", SEND, json={"message": message()}) == (401, "InvalidAuthenticationToken")
    graph.token = await fetch_token(graph.sim, GRAPH_SCOPE)
    await graph.ask("POST", SEND, json={"message": message()})
    assert graph.status == 202


async def test_limits_of_the_mailbox(graph: GraphClient) -> None:
    """A full mailbox is 507, the day's recipients 403, the mailbox's own size 400."""
    mail = {"json": {"message": message()}}
    await graph.sim.change(mailbox_full=[MAILBOX])
    assert await graph.code("POST", SEND, **mail) == (507, "ErrorQuotaExceeded")
    await graph.sim.change(mailbox_full=[], message_size=100)
    assert await graph.code("POST", SEND, **mail) == (400, "ErrorMessageSizeExceeded")
    await graph.sim.change(message_size=0, recipients_per_day=1)
    await graph.ask("POST", SEND, **mail)
    assert graph.status == 202
    assert await graph.code("POST", SEND, **mail) == (403, "ErrorExceededMessageLimit")


async def test_a_large_file_goes_through_an_upload_session(graph: GraphClient) -> None:
    """Draft, session, chunks in order without a token, send: one message with the file as it was."""
    file = bytes(range(256)) * (4 * 4096)
    draft = await graph.ask("POST", DRAFTS, json=message())
    assert (graph.status, draft["isDraft"]) == (201, True)
    assert draft["internetMessageId"].startswith("<")
    item = {"AttachmentItem": {"attachmentType": "file", "name": "scan.pdf", "size": len(file)}}
    attachments = f"{DRAFTS}/{draft['id']}/attachments"
    session = await graph.ask("POST", f"{attachments}/createUploadSession", json=item)
    assert (graph.status, session["nextExpectedRanges"]) == (201, ["0-"])
    step = 3 * MEBIBYTE
    for first in range(0, len(file), step):
        part = file[first : first + step]
        headers = {"Content-Range": f"bytes {first}-{first + len(part) - 1}/{len(file)}", "Authorization": ""}
        await graph.ask("PUT", session["uploadUrl"], data=part, headers=headers)
        assert graph.status == (201 if first + step >= len(file) else 200)
    assert "/Attachments(" in graph.headers["Location"]
    await graph.ask("POST", f"{DRAFTS}/{draft['id']}/send")
    assert graph.status == 202
    assert graph.sim.messages[0].message_id == draft["internetMessageId"]
    parsed = email.message_from_bytes(graph.sim.messages[0].bytes(), policy=email.policy.default)
    assert [part.get_content() for part in parsed.iter_attachments()] == [file]
    assert list((graph.sim.directory / "drafts").iterdir()) == []


async def test_upload_sessions_are_strict(graph: GraphClient) -> None:
    """Order, length, size of a chunk, and no Authorization; small files have no session; DELETE cancels."""
    draft = await graph.ask("POST", DRAFTS, json=message())
    path = f"{DRAFTS}/{draft['id']}/attachments/createUploadSession"
    item = {"attachmentType": "file", "name": "x", "size": 9 * MEBIBYTE}
    small = {"AttachmentItem": {**item, "size": 1000}}
    assert (await graph.code("POST", path, json=small))[0] == 400
    url = (await graph.ask("POST", path, json={"AttachmentItem": item}))["uploadUrl"]

    async def put(first: int, size: int, stated: int, authorization: str = "") -> int:
        headers = {
            "Content-Range": f"bytes {first}-{first + stated - 1}/{9 * MEBIBYTE}",
            "Authorization": authorization,
        }
        await graph.ask("PUT", url, data=b"x" * size, headers=headers)
        return graph.status

    assert await put(0, 10, 10, f"Bearer {graph.token}") == 401
    assert await put(10, 10, 10) == 416
    assert await put(0, 10, 20) == 416
    assert await put(0, 4 * MEBIBYTE, 4 * MEBIBYTE) == 413
    assert await put(0, 10, 10) == 200
    assert (await graph.ask("GET", url, headers={"Authorization": ""}))["nextExpectedRanges"] == ["10"]
    await graph.ask("DELETE", url)
    assert graph.status == 204
    assert await put(10, 10, 10) == 404


async def test_throttling(graph: GraphClient, clock: Clock) -> None:
    """More requests at once than four, or in ten minutes than allowed: 429 with Retry-After; refused ones count."""
    mail = {"json": {"message": message()}}
    await graph.sim.change(latency=0.0, graph_requests=2)
    for _ in range(2):
        await graph.ask("POST", SEND, **mail)
    assert await graph.code("POST", SEND, **mail) == (429, "ApplicationThrottled")
    assert int(graph.headers["Retry-After"]) == 600
    clock.now += 600
    await graph.ask("POST", SEND, **mail)
    assert graph.status == 202


async def test_four_requests_at_once(graph: GraphClient) -> None:
    """The fifth is 429 while four are being read."""
    held = asyncio.Event()
    slow_ones = [slow_post(graph, held) for _ in range(4)]
    while graph.sim.limits_report()["graph"]["concurrency"] < 4:
        await asyncio.sleep(0)
    assert await graph.code("POST", SEND, json={"message": message()}) == (429, "ApplicationThrottled")
    held.set()
    assert [answer.status for answer in await asyncio.gather(*slow_ones)] == [400] * 4


async def test_graph_faults(graph: GraphClient) -> None:
    """A reply with code and Retry-After; an uncertain end; an outage."""
    mail = {"json": {"message": message()}}
    graph.sim.faults.add(Fault("graph", "reply", "429 TooManyRequests wait", seconds=9))
    assert await graph.code("POST", SEND, **mail) == (429, "TooManyRequests")
    assert graph.headers["Retry-After"] == "9"
    graph.sim.faults.add(Fault("graph", "drop-after-accept"))
    with pytest.raises(aiohttp.ClientError):
        await graph.ask("POST", SEND, **mail)
    assert len(graph.sim.messages) == 1
    await graph.sim.change(graph_down=True)
    assert await graph.code("POST", SEND, **mail) == (503, "ErrorServerBusy")
    await graph.sim.change(graph_down="refuse")
    with pytest.raises(aiohttp.ClientConnectorError):
        await graph.ask("POST", SEND, **mail)
    await graph.sim.change(graph_down=False)
    await graph.ask("POST", SEND, **mail)
    assert graph.status == 202
