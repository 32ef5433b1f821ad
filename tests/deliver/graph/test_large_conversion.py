"""MIME to Graph's JSON: every kind of message there is, texts and files compared with what was put in."""

from __future__ import annotations

import base64
import binascii
import json
import random
from collections.abc import Callable
from email.message import EmailMessage
from email.policy import SMTP

import pytest

from relay.deliver.graph.content import TEXT_LIMIT
from relay.deliver.graph.convert import to_json
from relay.deliver.graph.draft import file_json, session_json
from relay.simulator import graph_schema
from tests.deliver.graph.large_kit import Seen, converted

PDF = random.Random(1).randbytes(5000)
PNG = b"\x89PNG\r\n\x1a\n" + random.Random(2).randbytes(900)


def letter(**fields: str) -> EmailMessage:
    message = EmailMessage(policy=SMTP)
    for name, value in {"From": "notifications@contoso.com", "To": "a@b.example", **fields}.items():
        message[name.replace("_", "-")] = value
    return message


def body_of(text: bytes | str) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


def multipart(subtype: str, *parts: bytes, boundary: str = "b", end: bool = True) -> bytes:
    """Header fields and body of a multipart made by hand."""
    head = f'Content-Type: multipart/{subtype}; boundary="{boundary}"\r\n\r\n'.encode()
    line = b"--" + boundary.encode()
    return (
        head
        + b"".join(line + b"\r\n" + part + b"\r\n" for part in parts)
        + (line + b"--\r\n" if end else b"")
    )


def part(text: bytes, kind: str = "text/plain", *fields: str) -> bytes:
    return "\r\n".join([f"Content-Type: {kind}", *fields, "", ""]).encode("latin-1") + text


def check_schema(seen: Seen) -> None:
    """Valid by Microsoft's types, as the simulator checks them."""
    message = json.loads(to_json(seen.message))
    graph_schema.check_message(message, 5)
    assert len(message["subject"].encode("utf-16-le")) <= 510
    for file, octets in zip(seen.files, seen.octets, strict=True):
        graph_schema.check_attachment("attachment", json.loads(file_json(file, octets)))
        graph_schema.check_attachment_item("item", json.loads(to_json(session_json(file)))["AttachmentItem"])


async def convert_checked(raw: bytes) -> Seen:
    seen = await converted(raw)
    check_schema(seen)
    return seen


async def test_plain_and_html_bodies() -> None:
    """One text of either kind is the body, whatever its encoding."""
    for encoding in ("quoted-printable", "base64", "8bit"):
        message = letter(Subject="Grüße")
        message.set_content("Grüße,\nÄnne\n", cte=encoding)
        seen = await convert_checked(message.as_bytes())
        assert (seen.text.splitlines(), seen.message["body"]["contentType"]) == (["Grüße,", "Änne"], "text")
        assert (seen.message["subject"], seen.files) == ("Grüße", ())
        message.set_content("<p>hé</p>\n", subtype="html", cte=encoding)
        seen = await convert_checked(message.as_bytes())
        assert (seen.text.strip(), seen.message["body"]["contentType"]) == ("<p>hé</p>", "html")


async def test_an_empty_message() -> None:
    """No header fields, no body: still a message."""
    for raw in (b"X-A: b\r\n\r\n", b"Subject:\r\n\r\n", b"Content-Type: multipart/mixed; boundary=x\r\n\r\n"):
        seen = await convert_checked(raw)
        assert (seen.text, seen.files, seen.message["subject"]) == ("", (), "")


async def test_alternative_keeps_html_and_says_so() -> None:
    """The plain form is left out, with a note."""
    message = letter()
    message.set_content("plain")
    message.add_alternative("<b>rich</b>", subtype="html")
    seen = await convert_checked(message.as_bytes())
    assert seen.text.strip() == "<b>rich</b>"
    assert seen.noted("alternative form text/plain left out")
    assert seen.files == ()


async def test_inline_pictures_by_content_id() -> None:
    """A picture that the HTML shows is inline with its bare id; one that it does not show is a file people see."""
    message = letter()
    message.set_content("plain")
    message.add_alternative("<img src=\"cid:pic%401@x\"> <img src='CID:Two@x'>", subtype="html")
    rich = message.get_payload()[1]  # type: ignore[index,union-attr]
    rich.add_related(PNG, "image", "png", cid="<pic@1@x>", filename="one.png")  # type: ignore[union-attr]
    rich.add_related(PNG[:50], "image", "gif", cid="two@x")  # type: ignore[union-attr]
    rich.add_related(PNG[:60], "image", "jpeg", cid="<unused@x>", filename="three.jpg")  # type: ignore[union-attr]
    message.add_attachment(PDF, "application", "pdf", filename="größe.pdf")
    seen = await convert_checked(message.as_bytes())
    assert seen.octets == [PNG, PNG[:50], PNG[:60], PDF]
    assert [(file.inline, file.content_id) for file in seen.files] == [
        (True, "pic@1@x"), (True, "two@x"), (False, "unused@x"), (False, "")]  # fmt: skip
    assert seen.names == ["one.png", "attachment-2.gif", "three.jpg", "größe.pdf"]


async def test_related_root_by_start_and_pictures_by_location() -> None:
    """RFC 2387's start names the root; Content-Location names a picture (RFC 2557)."""
    raw = (
        b"MIME-Version: 1.0\r\nContent-Type: multipart/related; boundary=r; start=\"<root>\"\r\n\r\n"
        b"--r\r\n" + part(b"GIF", "image/gif", "Content-Location: pic.gif") + b"\r\n"
        b"--r\r\n" + part(b"<img src=pic.gif>", "text/html", "Content-ID: <root>") + b"\r\n--r--\r\n"
    )  # fmt: skip
    seen = await convert_checked(raw)
    assert (seen.text, seen.octets) == ("<img src=pic.gif>", [b"GIF"])
    assert (seen.files[0].inline, seen.files[0].location) == (True, "pic.gif")


async def test_texts_in_a_row_are_joined() -> None:
    """A footer that a list added stays readable, below HTML too."""
    seen = await convert_checked(multipart("mixed", part(b"one"), part(b"two")))
    assert (seen.text, seen.message["body"]["contentType"]) == ("one\r\ntwo", "text")
    seen = await convert_checked(
        multipart("mixed", part(b"<html><body><p>one</body></html>", "text/html"), part(b"a < b"))
    )
    assert seen.text.startswith("<html><body><p>one<hr>")
    assert seen.text.endswith("a &lt; b</div></body></html>")
    assert seen.noted("2 text parts were joined")


async def test_a_named_or_attached_text_is_a_file() -> None:
    """Octets as they were, even if the character set is odd."""
    data = "größe;1\r\n".encode("latin-1")
    seen = await convert_checked(
        multipart(
            "mixed",
            part(b"body"),
            part(data, "text/csv; charset=iso-8859-1; name=list.csv"),
            part(data, "text/plain", "Content-Disposition: attachment"),
            part(data, "text/plain; name=log.txt", "Content-Disposition: inline"),
        )
    )
    assert (seen.text, seen.octets) == ("body", [data] * 3)
    assert seen.names == ["list.csv", "attachment-2.txt", "log.txt"]
    assert seen.noted("character set is iso-8859-1")


async def test_nested_messages_keep_their_octets() -> None:
    """message/rfc822 as .eml, named by its own name or by its subject; in a digest without saying so."""
    inner = letter(Subject="Re: a/b =?utf-8?q?=C3=A4?=")
    inner.set_content("inner\n--b\n")
    inner.add_attachment(PDF, "application", "pdf", filename="in.pdf")
    octets = inner.as_bytes()
    for raw in (
        multipart("mixed", part(b"see"), part(octets, "message/rfc822"), boundary="outer"),
        multipart("digest", b"\r\n" + octets, boundary="outer"),
    ):
        seen = await convert_checked(raw)
        assert (seen.octets, seen.names) == ([octets], ["Re a b ä.eml"])
        assert seen.files[0].content_type == "message/rfc822"


async def test_signed_and_encrypted_mail() -> None:
    """S/MIME and PGP: what can be kept is kept as files under their usual names, and the notes are honest."""
    signed = multipart(
        'signed; protocol="application/pkcs7-signature"; micalg=sha-256',
        part(b"signed text"),
        part(b"MIAG", "application/pkcs7-signature", "Content-Transfer-Encoding: base64"),
    )
    seen = await convert_checked(signed)
    assert (seen.text, seen.names, seen.octets) == ("signed text", ["smime.p7s"], [base64.b64decode("MIAG")])
    assert seen.noted("cannot be verified")
    opaque = b"Content-Type: application/pkcs7-mime; smime-type=enveloped-data\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    seen = await convert_checked(opaque + base64.encodebytes(PDF))
    assert (seen.names, seen.octets, seen.files[0].content_type) == (
        ["smime.p7m"],
        [PDF],
        "application/pkcs7-mime",
    )
    assert seen.noted("smime.p7m")
    encrypted = multipart(
        "encrypted", part(b"Version: 1", "application/pgp-encrypted"),
        part(b"-----BEGIN PGP", "application/octet-stream; name=encrypted.asc"),
    )  # fmt: skip
    seen = await convert_checked(encrypted)
    assert (seen.text, seen.names) == ("", ["version.txt", "encrypted.asc"])


async def test_winmail_calendar_and_report() -> None:
    """TNEF stays TNEF, an invitation a file, a report's text the body."""
    seen = await convert_checked(multipart("mixed", part(b"x"), part(PDF[:99], "application/ms-tnef")))
    assert (seen.names, seen.files[0].content_type) == (["winmail.dat"], "application/ms-tnef")
    calendar = b"BEGIN:VCALENDAR\r\nEND:VCALENDAR"
    seen = await convert_checked(
        multipart("alternative", part(b"come"), part(calendar, "text/calendar; method=REQUEST"))
    )
    assert (seen.text, seen.names, seen.octets) == ("come", ["invite.ics"], [calendar])
    assert seen.noted("invitation")
    seen = await convert_checked(
        multipart(
            "report; report-type=delivery-status",
            part(b"failed"),
            part(b"Reporting-MTA: dns; x", "message/delivery-status"),
            part(b"Subject: s\r\n", "text/rfc822-headers"),
        )
    )
    assert (seen.text, seen.names) == ("failed", ["delivery-status.txt", "headers.txt"])


CHARSETS = [
    ("iso-8859-1", "Grüße", "latin-1", ""),
    ("iso-8859-1", "„Grüße“ €", "cp1252", ""),
    ("us-ascii", "Grüße", "utf-8", "read as UTF-8"),
    ("us-ascii", "Grüße", "latin-1", "read as Windows-1252"),
    ("shift_jis", "日本語", "shift_jis", ""),
    ("shift_jis", "①日本語", "cp932", ""),
    ("iso-2022-jp", "日本語テスト", "iso-2022-jp", ""),
    ("euc-kr", "한국어", "euc-kr", ""),
    ("gb2312", "简体中文镕", "gb18030", ""),
    ("big5", "繁體中文", "big5", ""),
    ("koi8-r", "Привет", "koi8-r", ""),
    ("utf-7", "Grüße", "utf-7", ""),
    ("utf-16", "Grüße", "utf-16", ""),
    ("unknown-8bit", "Grüße", "latin-1", "unknown-8bit does not fit"),
    ("unicode_escape", "Grüße", "utf-8", "unicode_escape does not fit"),
    ("utf-8", "Grüße", "latin-1", "read as Windows-1252"),
    ("'utf-8'", "Grüße", "utf-8", ""),
    ("", "Grüße", "utf-8", "no character set was given"),
    ("", "Grüße", "latin-1", "read as Windows-1252"),
]


@pytest.mark.parametrize(("label", "text", "codec", "note"), CHARSETS)
async def test_character_sets(label: str, text: str, codec: str, note: str) -> None:
    """The text arrives, by its label or against it; a guess is told."""
    charset = f'; charset="{label}"' if label else ""
    raw = f"Content-Type: text/plain{charset}\r\nContent-Transfer-Encoding: base64\r\n\r\n".encode()
    seen = await convert_checked(raw + base64.encodebytes(text.encode(codec)))
    assert seen.text == text
    assert seen.noted(note) if note else not seen.noted("text:")


async def test_text_that_cannot_be_kept_is_counted() -> None:
    """Broken places are replaced and counted; control characters and lone surrogates go."""
    head = b"Content-Type: text/plain; charset=utf-8\r\n\r\n"
    seen = await convert_checked(head + "Grüße".encode() + b" \xff\xfe")
    assert seen.text == "Grüße \ufffd\ufffd"
    assert seen.noted("2 places that are not valid utf-8 were replaced")
    seen = await convert_checked(head + b"a\x00b\x1bc\td\r\n")
    assert (seen.text, seen.noted("control characters")) == ("abc\td\r\n", True)
    seen = await convert_checked(b"Content-Type: text/plain; charset=utf-7\r\n\r\n+2AA-x")
    assert "x" in seen.text


async def test_html_says_its_own_character_set() -> None:
    """Without a label the page's meta element is believed."""
    page = '<html><head><meta http-equiv=Content-Type content="text/html; charset=windows-1251"></head>Привет'
    seen = await convert_checked(b"Content-Type: text/html\r\n\r\n" + page.encode("cp1251"))
    assert "Привет" in seen.text


NAMES = [
    ('application/pdf; name="=?utf-8?q?gr=C3=B6=C3=9Fe.pdf?="', None, "größe.pdf"),
    ("application/pdf", "attachment; filename*=UTF-8''gr%C3%B6%C3%9Fe.pdf", "größe.pdf"),
    (
        "application/pdf",
        "attachment; filename*0*=iso-8859-1'de'gr%F6; filename*1=sse.; filename*2*=pdf",
        "grösse.pdf",
    ),
    ("application/pdf", 'attachment; filename="gr\xf6\xdfe.pdf"', "größe.pdf"),
    ("application/pdf; name=type.pdf", 'attachment; filename="disposition.pdf"', "disposition.pdf"),
    ("application/pdf; name=type.pdf", "attachment", "type.pdf"),
    ("application/pdf", 'attachment; filename="a \\"quoted\\".pdf"', 'a "quoted".pdf'),
    ("application/pdf", 'attachment; filename="C:\\new\\temp.pdf"', "temp.pdf"),
    ("application/pdf", 'attachment; filename="../../etc/passwd"', "passwd"),
    ("application/pdf", 'attachment; filename=".."', "attachment-1.pdf"),
    ("application/pdf", 'attachment; filename="open.pdf', "open.pdf"),
    ("application/pdf", "attachment; filename=no quotes.pdf", "no quotes.pdf"),
    ("application/pdf", "attachment; filename*=utf-8''%E2%80%AEfdp.exe%00%0d%0a.pdf", "fdp.exe .pdf"),
    ("application/pdf", 'attachment; filename=""', "attachment-1.pdf"),
    ("application/x-strange", None, "attachment-1.bin"),
    (
        "application/pdf",
        "attachment; filename*=utf-8''%D9%86%D8%A7%D9%85%E2%80%8C%D9%87%D8%A7.pdf",
        "نام\u200cها.pdf",
    ),
    ("application/pdf", 'attachment; filename="first.pdf"; filename="second.pdf"', "first.pdf"),
]


@pytest.mark.parametrize(("kind", "disposition", "name"), NAMES)
async def test_file_names(kind: str, disposition: str | None, name: str) -> None:
    """Every way to write a name, and no way to write a path."""
    fields = [f"Content-Disposition: {disposition}"] if disposition else []
    seen = await convert_checked(multipart("mixed", part(b"x", kind, *fields)))
    assert seen.names == [name]


async def test_an_endless_file_name_is_cut() -> None:
    """Ten thousand letters become a name that any system takes, extension and all."""
    seen = await convert_checked(
        multipart("mixed", part(b"x", f'application/pdf; name="{"ä" * 10_000}.pdf"'))
    )
    assert len(seen.names[0].encode()) <= 200
    assert seen.names[0].endswith("ä.pdf")
    assert seen.noted("file name changed")


def uuencoded(data: bytes) -> bytes:
    lines = [binascii.b2a_uu(data[at : at + 45]) for at in range(0, len(data), 45)]
    return b"begin 644 x\r\n" + b"".join(line.replace(b"\n", b"\r\n") for line in lines) + b"`\r\nend\r\n"


def padded_lines(data: bytes) -> bytes:
    return b"\r\n".join(base64.b64encode(data[at : at + 40]) for at in range(0, len(data), 40))


TRANSFERS: list[tuple[str, str, Callable[[bytes], bytes], str]] = [
    ("base64", "plain", base64.encodebytes, ""),
    ("BASE64", "one line", base64.b64encode, ""),
    ("base64", "padding missing", lambda data: base64.b64encode(data).rstrip(b"="), "broke off"),
    ("base64", "foreign characters", lambda data: base64.encodebytes(data).replace(b"\n", b"!\xff\r\n"), "not base64"),
    ("base64", "lines padded", padded_lines, "went on after its padding"),
    ("base64", "a footer", lambda data: base64.encodebytes(data) + b"\r\n-- \r\nyour list\r\n", "left out"),
    ("quoted-printable", "binary", lambda data: binascii.b2a_qp(data, istext=False), ""),
    ("quoted-printable", "blanks after soft breaks", lambda data: binascii.b2a_qp(data, istext=False).replace(b"=\n", b"= \t\r\n"), ""),  # noqa: E501
    ("x-uuencode", "plain", uuencoded, ""),
    ("x-uue", "cut off", lambda data: uuencoded(data)[:-6], "broke off"),
    ("8bit", "as it is", lambda data: data, ""),
    ("x-own", "unknown", lambda data: data, "unknown"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("encoding", "shape", "encode", "note"), TRANSFERS, ids=[f"{one[0]} {one[1]}" for one in TRANSFERS]
)
async def test_transfer_encodings(
    encoding: str, shape: str, encode: Callable[[bytes], bytes], note: str
) -> None:
    """The file's octets come out exactly, from sound and from broken encodings."""
    data = PDF[:4999]
    field = f"Content-Transfer-Encoding: {encoding}"
    seen = await convert_checked(multipart("mixed", part(b"t"), part(encode(data), "application/pdf", field)))
    assert seen.octets == [data]
    assert seen.noted(note) if note else not seen.noted("application/pdf")


async def test_base64_that_breaks_off_gives_what_there_is() -> None:
    """A cut file arrives as far as it goes, with a note."""
    cut_off = base64.b64encode(PDF)[:1001]
    field = "Content-Transfer-Encoding: base64"
    seen = await convert_checked(multipart("mixed", part(cut_off, "application/pdf", field), end=False))
    assert seen.octets == [PDF[:750]]
    assert seen.noted("base64 broke off")
    assert seen.noted("before its last boundary")


async def test_preamble_epilogue_and_parts_without_headers() -> None:
    """Text around the parts is for old readers; a part may have no header, or no blank line."""
    raw = (
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\nThis is a message in MIME format.\r\n--b\r\n\r\none\r\n"
        b"--b  \r\ntwo\r\n--b\r\nContent-Type: application/pdf\r\n--b\r\nX-Odd: 1\r\n\r\nthree\r\n--b--\r\nepilogue\r\n"
    )
    seen = await convert_checked(raw)
    assert (seen.text, seen.octets) == ("one\r\ntwo\r\nthree", [b""])


async def test_missing_and_repeated_boundaries() -> None:
    """Nothing is lost where the structure is wrong."""
    head = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
    seen = await convert_checked(head + b"no boundary\r\nat all\r\n")
    assert seen.text == "no boundary\r\nat all\r\n"
    assert seen.noted("without a usable boundary")
    seen = await convert_checked(b"Content-Type: multipart/mixed\r\n\r\n--x\r\n\r\ntext\r\n")
    assert seen.text == "--x\r\n\r\ntext\r\n"
    seen = await convert_checked(head + b"--b\r\n\r\none\r\n--b--\r\n--b\r\n\r\nafter the end\r\n")
    assert seen.text == "one\r\nafter the end\r\n"
    inner = multipart("alternative", part(b"plain"), part(b"<b>rich</b>", "text/html"), boundary="b")
    seen = await convert_checked(
        head + b"--b\r\n" + inner + b"--b\r\n" + part(PDF, "application/pdf") + b"\r\n--b--\r\n"
    )
    assert (seen.text, seen.octets) == ("<b>rich</b>", [PDF])


async def test_boundaries_that_begin_alike() -> None:
    """``b`` ends no part of ``bb``, and a line that only begins like a boundary is content."""
    inner = multipart("mixed", part(b"--b\r\n--b-\r\n--bbb\r\nx"), boundary="bb")
    seen = await convert_checked(multipart("mixed", inner, part(b"--bb\r\n--b x"), boundary="b-0"))
    assert seen.text == "--b\r\n--b-\r\n--bbb\r\nx\r\n--bb\r\n--b x"


async def test_nesting_is_bounded() -> None:
    """Thirty levels are followed; what lies deeper is one file, not a crash."""
    raw = part(b"deep", "text/plain")
    for level in range(60):
        raw = multipart("mixed", raw, boundary=f"level{level}")
    seen = await convert_checked(raw)
    assert (len(seen.files), seen.text) == (1, "")
    assert b"deep" in seen.octets[0]
    assert seen.noted("nested too deep")


async def test_texts_too_long_for_json_become_files() -> None:
    """The size that counts is the one within JSON: line ends and quotes weigh double."""
    for text in (b"x" * (TEXT_LIMIT + 1), b'"\r\n' * (TEXT_LIMIT // 4)):
        seen = await convert_checked(b"Content-Type: text/html\r\n\r\n" + text)
        assert seen.text == "(The text of this message is attached as message.html.)"
        assert (seen.octets, seen.names, seen.message["body"]["contentType"]) == (
            [text],
            ["message.html"],
            "text",
        )
    parts = [
        part(b"<p>one</p>", "text/html"),
        part(b"<" * 800_000),
        part(b"x" * (TEXT_LIMIT + 1)),
        part(b"end"),
    ]
    seen = await convert_checked(multipart("mixed", *parts))
    assert (seen.names, [len(octets) for octets in seen.octets]) == (
        ["message.txt"] * 2,
        [800_000, TEXT_LIMIT + 1],
    )
    assert seen.text.startswith("<p>one</p><hr>(The text")
    seen = await convert_checked(b"X-A: b\r\n\r\n" + "ж".encode() * (TEXT_LIMIT // 2 - 10))
    assert (len(seen.text), seen.files) == (TEXT_LIMIT // 2 - 10, ())


async def test_header_fields_become_properties() -> None:
    """Subject, Reply-To, importance, receipts, Message-ID and x- fields; the rest is named in the notes."""
    message = letter(
        Subject="s" * 300,
        Reply_To="=?utf-8?q?=C3=84nne?= <anne@x.example>, second@x.example",
        X_Priority="1 (Highest)",
        Disposition_Notification_To="me@contoso.com",
        Return_Receipt_To="me@contoso.com",
        Message_ID="<id@contoso.com>",
        In_Reply_To="<other@x>",
        Date="Mon, 23 Nov 2026 10:00:00 +0000",
        **{f"X_Own_{number}": f"wärt {number}" for number in range(7)},
        X_Auto_Response_Suppress="All",
    )
    message.set_content("x")
    seen = await convert_checked(message.as_bytes())
    json_ = seen.message
    assert json_["subject"] == "s" * 255
    assert json_["replyTo"] == [
        {"emailAddress": {"address": "anne@x.example", "name": "Änne"}},
        {"emailAddress": {"address": "second@x.example"}},
    ]
    assert (json_["importance"], json_["isReadReceiptRequested"], json_["isDeliveryReceiptRequested"]) == (
        "high", True, True)  # fmt: skip
    assert json_["internetMessageId"] == "<id@contoso.com>"
    assert json_["internetMessageHeaders"] == [
        {"name": "X-Auto-Response-Suppress", "value": "All"},
        *({"name": f"X-Own-{number}", "value": f"wärt {number}"} for number in range(4)),
    ]
    assert json_["from"] == {"emailAddress": {"address": "notifications@contoso.com"}}
    assert seen.noted("subject cut")
    assert seen.noted("left out: X-Own-4, X-Own-5, X-Own-6")
    assert seen.noted("does not take in JSON: In-Reply-To, Date")


async def test_each_recipient_exactly_once() -> None:
    """Case and repetition do not matter; the envelope's spelling is used; nobody outside it appears."""
    raw = (
        b"To: One <ONE@b.example>, one@b.example, out@x.example\r\nTo: Two <two@xn--bcher-kva.example>\r\n"
        b"Cc: one@B.example, three@b.example\r\n\r\nx"
    )
    given = ("one@b.example", "two@bücher.example", "three@b.example", "four@b.example")
    seen = await converted(raw, *given)
    lists = {
        key: [entry["emailAddress"] for entry in seen.message.get(key, [])]
        for key in ("toRecipients", "ccRecipients", "bccRecipients")
    }
    assert lists == {
        "toRecipients": [
            {"address": "one@b.example", "name": "One"},
            {"address": "two@bücher.example", "name": "Two"},
        ],
        "ccRecipients": [{"address": "three@b.example"}],
        "bccRecipients": [{"address": "four@b.example"}],
    }
    assert seen.noted("not recipients here: out@x.example")
