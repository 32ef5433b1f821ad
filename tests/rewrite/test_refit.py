"""Lines over 998 octets: only the part that holds them is encoded anew; what a reader sees stays the same."""

from __future__ import annotations

import email
import email.policy
import random

import pytest

from relay.rewrite.longlines import LongLines
from relay.rewrite.parts import Splitter
from relay.rewrite.recode import ToBase64, ToQuoted, Wrap, WrapQuoted
from relay.rewrite.refit import Method, Plan, Refit, Survey

LONG = b"x" * 1500
TOP = b"From: a@x.example\r\nMIME-Version: 1.0\r\n"


def blocks(octets: bytes, size: int) -> list[bytes]:
    return [octets[start : start + size] for start in range(0, len(octets), size)]


def plan_of(header: bytes, body: bytes, size: int = 7) -> Plan:
    survey = Survey(header)
    for block in blocks(body, size):
        survey.feed(block)
    return survey.finish()


def refit(header: bytes, body: bytes, size: int = 7) -> tuple[bytes, bytes, Plan]:
    plan = plan_of(header, body, size)
    out = Refit(header, plan)
    return out.header, b"".join([out.feed(block) for block in blocks(body, size)]) + out.finish(), plan


def longest(octets: bytes) -> int:
    return max(map(len, octets.split(b"\r\n")))


def multipart(*parts: bytes, kind: bytes = b"mixed", boundary: bytes = b"BB") -> tuple[bytes, bytes]:
    header = TOP + b"Content-Type: multipart/" + kind + b'; boundary="' + boundary + b'"\r\n\r\n'
    lines = b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts)
    return header, b"preamble\r\n" + lines + b"--" + boundary + b"--\r\nepilogue\r\n"


def contents(raw: bytes) -> list[bytes]:
    message = email.message_from_bytes(raw, policy=email.policy.SMTP)
    return [part.get_payload(decode=True) for part in message.walk() if not part.is_multipart()]


@pytest.mark.parametrize(("length", "found"), [(998, False), (999, True), (1000, True), (64000, True)])
@pytest.mark.parametrize("size", [1, 3, 997, 1000, 1001, 65536])
@pytest.mark.parametrize("around", [b"", b"short\r\n", b"y" * 998 + b"\r\n"])
def test_a_long_line_is_found_wherever_it_stands(length: int, found: bool, size: int, around: bytes) -> None:
    """998 octets pass and 999 do not, whatever stands around the line and however it is cut."""
    for end in (b"\r\n", b""):
        watch = LongLines()
        for block in blocks(around + b"x" * length + end + (around if end else b""), size):
            watch.feed(block)
        assert watch.finish() is found


@pytest.mark.parametrize("size", [1, 2, 5, 64, 100_000])
def test_the_pieces_joined_are_the_body(size: int) -> None:
    """Cutting loses nothing: nested multiparts, attached messages, broken headers, boundaries that are none."""
    inner = b"Content-Type: multipart/alternative; boundary=CC\r\n\r\n--CC\r\n\r\ntext\r\n--CC--\r\n--CCx\r\n"
    attached = (
        b"Content-Type: message/rfc822\r\n\r\nSubject: inner\r\nContent-Type: text/plain\r\n\r\n--BBx\r\n--"
    )
    header, body = multipart(inner, attached, b"no header", b"", b"X: 1\r\n--BB")
    splitter = Splitter(header)
    pieces = [piece for block in blocks(body, size) for piece in splitter.feed(block)] + splitter.finish()
    assert b"".join(data for _, _, data in pieces) == body
    assert {part.type for _, part, _ in pieces} >= {
        "multipart/mixed",
        "multipart/alternative",
        "message/rfc822",
    }


@pytest.mark.parametrize("size", [1, 13, 4096])
def test_text_becomes_quoted_printable(size: int) -> None:
    """The long text part alone changes, and reads the same; its neighbours keep every octet."""
    neighbour = b"Content-Type: text/plain\r\n\r\nshort = \xe9 stays\r\n-- \r\nsignature"
    text = b"caf\xc3\xa9 = 1 coffee, " * 100 + b" \r\n.\r\n. \r\nlast line "
    header, body = multipart(
        neighbour,
        b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + text,
    )
    new_header, new_body, plan = refit(header, body, size)
    assert new_header == header
    assert list(plan.methods.values()) == [Method.QUOTED]
    assert longest(new_body) <= 998
    assert neighbour in new_body
    assert contents(new_header + new_body)[1] == text
    assert "quoted-printable" in plan.notes[0]


def test_other_octets_become_base64() -> None:
    """What is no text, or mostly beyond ASCII, is encoded as base64 and comes out the same."""
    data = random.Random(1).randbytes(5000).replace(b"\r", b"r").replace(b"\n", b"n").replace(b"\0", b"0")
    header, body = multipart(
        b"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: binary\r\n\r\n" + data,
        b"Content-Type: text/plain; charset=koi8-r\r\n\r\n" + b"\xd0" * 1200,
    )
    new_header, new_body, plan = refit(header, body)
    assert list(plan.methods.values()) == [Method.BASE64, Method.BASE64]
    assert contents(new_header + new_body) == [data, b"\xd0" * 1200]
    assert longest(new_body) <= 76


def test_encoded_parts_only_get_shorter_lines() -> None:
    """base64 in one line (scanners) and quoted-printable without soft breaks keep their encoding."""
    data = bytes(range(256)) * 20
    encoded = ToBase64().feed(data).replace(b"\r\n", b"")
    quoted = b"=41bc" * 400
    header, body = multipart(
        b"Content-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n" + encoded,
        b"Content-Type: text/html\r\nContent-Transfer-Encoding: Quoted-Printable\r\n\r\n" + quoted,
    )
    new_header, new_body, plan = refit(header, body)
    assert list(plan.methods.values()) == [Method.WRAP_BASE64, Method.WRAP_QUOTED]
    assert contents(new_header + new_body)[0][: len(encoded) // 4 * 3] == data[: len(encoded) // 4 * 3]
    assert contents(new_header + new_body)[1] == b"Abc" * 400
    assert b"Quoted-Printable" in new_body
    assert longest(new_body) <= 998


SIGNED = b"Content-Type: text/plain\r\n\r\n" + LONG


@pytest.mark.parametrize(
    ("header", "body"),
    [
        multipart(SIGNED, b"Content-Type: application/pkcs7-signature\r\n\r\nxx", kind=b"signed"),
        multipart(b"Content-Type: multipart/mixed; boundary=C\r\n\r\n--C\r\n\r\n" + LONG + b"\r\n--C--", kind=b"encrypted"),
        (TOP + b"Content-Type: application/pkcs7-mime\r\nContent-Transfer-Encoding: base64\r\n\r\n", LONG + b"\r\n"),
        (TOP + b"\r\n", b"-----BEGIN PGP SIGNED MESSAGE-----\r\nHash: SHA256\r\n\r\n" + LONG + b"\r\n"),
        multipart(b"Content-Transfer-Encoding: x-uuencode\r\n\r\n" + LONG),
        (TOP + b"Content-Type: message/partial; id=1\r\n\r\n", LONG + b"\r\n"),
    ],
    ids=["signed", "encrypted", "pkcs7", "pgp", "uuencode", "partial"],
)  # fmt: skip
def test_what_must_not_change_does_not(header: bytes, body: bytes) -> None:
    """Signed and encrypted parts, and encodings nobody may add to, are left and said so."""
    new_header, new_body, plan = refit(header, body)
    assert (new_header, new_body) == (header, body)
    assert not plan.changes
    assert any("left as it is" in note for note in plan.notes)


def test_a_signed_part_beside_one_that_changes() -> None:
    """Inside a multipart/mixed the signed part keeps every octet while its long neighbour is encoded."""
    inner = (
        b"Content-Type: multipart/signed; boundary=S\r\n\r\n--S\r\n" + SIGNED + b"\r\n--S\r\n\r\nsig\r\n--S--"
    )
    header, body = multipart(inner, b"\r\n" + LONG)
    _, new_body, plan = refit(header, body)
    assert inner in new_body
    assert sorted(one.name for one in plan.methods.values()) == ["QUOTED", "SEALED"]
    assert b"Content-Transfer-Encoding: quoted-printable\r\n\r\n" in new_body


@pytest.mark.parametrize(
    ("body", "charset"),
    [(LONG, "us-ascii"), ("é".encode() * 2 + LONG, "utf-8"), (b"\xe9t\xe9 " + LONG, "windows-1252")],
)
def test_a_message_without_mime_fields_gets_them(body: bytes, charset: str) -> None:
    """Encoding needs a label; the character set is what the octets show."""
    header, new_body, _ = refit(b"From: a@x.example\r\nSubject: log\r\n\r\n", body + b"\r\n")
    message = email.message_from_bytes(header + new_body, policy=email.policy.SMTP)
    assert message["MIME-Version"] == "1.0"
    assert message.get_content_charset() == charset
    assert message.get_payload(decode=True) == body + b"\r\n"
    assert longest(header + new_body) <= 76


def test_a_message_attached_is_walked_into() -> None:
    """message/rfc822 must not be encoded itself: the part inside it is."""
    attached = (
        b"Content-Type: message/rfc822\r\n\r\nSubject: inner\r\nContent-Type: text/plain\r\n\r\n" + LONG
    )
    header, body = multipart(attached)
    new_header, new_body, _ = refit(header, body)
    outer = email.message_from_bytes(new_header + new_body, policy=email.policy.SMTP)
    inner = outer.get_payload(0).get_payload(0)
    assert (inner["Subject"], inner.get_payload(decode=True)) == ("inner", LONG)
    assert longest(new_body) <= 998


def test_long_lines_outside_of_content() -> None:
    """A part's own header is folded, and a preamble that nobody sees is broken."""
    name = b"word " * 300
    header, body = multipart(b"Content-Type: text/plain\r\nContent-Description: " + name + b"\r\n\r\nshort")
    _, new_body, plan = refit(header, LONG + b"\r\n" + body)
    assert longest(new_body) <= 998
    assert plan.changes
    assert new_body.replace(b"\r\n", b"") == (LONG + body).replace(b"\r\n", b"")


@pytest.mark.parametrize("size", [1, 2, 3, 50, 76, 77, 10_000])
def test_recoders_give_back_what_went_in(size: int) -> None:
    """Whatever the cut: blanks before line ends, lone CR and LF, equal signs, dots, high octets."""
    text = (
        b"a b  \r\n=\r\n..\r\n\t\r\n"
        + b"word \xc3\xa9= " * 90
        + b"\r lone\n \r\r\n"
        + b" " * 300
        + b"\r\nend \r"
    )
    for recoder, decode in ((ToQuoted(), "quoted-printable"), (ToBase64(), "base64")):
        out = b"".join([recoder.feed(block) for block in blocks(text, size)]) + recoder.finish()
        assert longest(out) <= 76
        message = email.message_from_bytes(
            b"Content-Transfer-Encoding: " + decode.encode() + b"\r\n\r\n" + out
        )
        assert message.get_payload(decode=True) == text
    for wrap, data in ((WrapQuoted(), b"ab=3D" * 300), (Wrap(), b"ab+/" * 300)):
        out = b"".join([wrap.feed(block) for block in blocks(data, size)]) + wrap.finish()
        assert longest(out) <= 76
        assert out.replace(b"=\r\n", b"").replace(b"\r\n", b"") == data
