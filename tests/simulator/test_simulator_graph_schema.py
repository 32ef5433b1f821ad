"""What the simulated Graph reads: recipients of MIME, and JSON by Microsoft's published schema."""

from __future__ import annotations

import email
import email.policy
import email.utils
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.simulator import csdl, graph_schema
from relay.simulator.graph_recipients import distinct, header_recipients
from tests.simulator.graphkit import DRAFTS, FILE, MAILBOX, SEND, GraphClient, encoded, message


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


_LOCAL = st.text("abcXYZ019!#$%&'*+-/=?^_`{|}~", min_size=1, max_size=12)
_NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30)


@given(st.lists(st.tuples(_NAMES, _LOCAL), max_size=6), _NAMES)
def test_any_display_name_leaves_the_addresses_alone(people: list[tuple[str, str]], group: str) -> None:
    """Whatever a name holds, properly written it yields its own address and no other."""
    written = [email.utils.formataddr((name, f"{local}@b.example")) for name, local in people]
    quoted = group.replace("\\", "\\\\").replace('"', '\\"')
    assert header_recipients([f'"{quoted}": {", ".join(written)};']) == [
        f"{local}@b.example" for _, local in people
    ]


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


def test_the_schema_is_part_of_the_package() -> None:
    """An installed relay finds the file: pyproject names it."""
    root = Path(__file__).parents[2]
    project = tomllib.loads((root / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["relay"]
    name = csdl.DATA.relative_to(root / "relay")
    assert any(name.match(pattern) for pattern in patterns)


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
