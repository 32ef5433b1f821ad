"""Headers and MIME of any kind through reading, rewrite and fitting: never an error, and what leaves is always valid."""

from __future__ import annotations

import asyncio
import email
import email.policy

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.accept import replies
from relay.accept.incoming import Incoming
from relay.accept.reader import DotReader
from relay.message import Envelope
from relay.rewrite.headers import read_header
from relay.spool.contract import NewMessage
from tests.dialogs.submitted import submitted
from tests.fakes.memory_spool import Stored

BOUNDED = settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
NAMES = st.sampled_from([
    "From", "To", "Cc", "Bcc", "Subject", "Date", "Message-ID", "Sender", "Reply-To", "References", "Content-Type",
    "Content-Transfer-Encoding", "MIME-Version", "Content-Disposition", "Resent-Bcc", "X-Any", "from", "bcc ", "Return-Path",
])  # fmt: skip
VALUES = st.one_of(
    st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace")),
    st.binary(max_size=80),
    st.sampled_from([
        b"a@b.c", b"N <a@b.c>, M <d@e.f>", b"multipart/mixed; boundary=b", b"multipart/signed; boundary=\"b\"", b"base64",
        b"message/rfc822", b"text/plain; charset=shift_jis", b"=?utf-8?q?=0D=0ABcc=3A_x?=", b"quoted-printable", b"", b"8bit",
        b"w" * 1100, b"word " * 300, b"<" + b"i" * 1000 + b">", b"x@y.z, " * 200, b"\xe9" * 300, b'"', b"(((", b"<<a@b.c",
    ]),
)  # fmt: skip
HEADERS = st.lists(st.tuples(NAMES, VALUES), max_size=8).map(
    lambda fields: b"".join(name.encode() + b": " + value + b"\r\n" for name, value in fields)
)
PIECES = st.lists(st.one_of(st.binary(max_size=60), st.sampled_from([
    b"\r\n--b\r\n", b"\r\n--b--\r\n", b"Content-Type: text/html\r\n\r\n", b"Content-Transfer-Encoding: base64\r\n\r\n",
    b"x" * 1200 + b"\r\n", b"\r\n", b"\xc3\xa9" * 700, b"Content-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\n",
    b"\r\n.\r\n", b"\n",
    b"Content-Type: message/rfc822\r\n\r\n", b"-----BEGIN PGP SIGNED MESSAGE-----\r\n", b"\r", b"=41=", b"QUJD" * 400,
])), max_size=10).map(b"".join)  # fmt: skip


def arrived(raw: bytes, cut: int) -> Stored | None:
    """The message as the listener would store it; None when it would be refused."""
    reader, incoming, body = DotReader(), Incoming(1 << 20), b""
    wire = b"\r\n" + raw.replace(b"\r\n.", b"\r\n..")
    wire = wire[2:] + b"\r\n.\r\n"
    for start in range(0, len(wire), cut):
        if not reader.done:
            body += incoming.feed(reader.feed(wire[start : start + cut]))
    incoming.finish()
    if incoming.refusal is not None:
        assert incoming.refusal == (replies.HAS_NUL if b"\0" in raw else replies.SIGNED_TOO_LONG)
        return None
    facts = read_header(incoming.header)
    envelope = Envelope("a@b.c", (), incoming.eight_bit, long_lines=incoming.long_lines)
    message = NewMessage(envelope, None, incoming.header, "lane", subject=facts.subject)  # type: ignore[arg-type]
    return Stored("1", message, body)


@BOUNDED
@given(header=HEADERS, body=PIECES, cut=st.sampled_from([1, 7, 100_000]))
def test_what_leaves_is_valid(header: bytes, body: bytes, cut: int) -> None:
    """CRLF only, short lines, each field once, no Bcc, one From: whatever came in, as far as it can be mended at all."""
    stored = arrived(header + b"\r\n" + body, cut)
    if stored is None:
        return
    left = asyncio.run(submitted(stored))
    faults = left.faults()
    if any("left too long" in note for note in left.notes):  # the listener refuses these
        faults = [one for one in faults if one != "a line over 998 octets"]
    assert faults == []


@BOUNDED
@given(body=PIECES)
def test_readers_see_the_same(body: bytes) -> None:
    """Parts that were encoded anew decode to what they were."""
    header = b"Content-Type: multipart/mixed; boundary=b\r\nMIME-Version: 1.0\r\n"
    body = b"--b\r\nContent-Type: text/plain\r\n\r\n" + body.replace(b"\0", b"")
    stored = arrived(header + b"\r\n" + body + b"\r\n--b--", 50)
    assert stored is not None
    left = asyncio.run(submitted(stored))
    sent = left.octets[:-3].replace(b"\r\n..", b"\r\n.")
    for before, after in zip(leaves(stored.content), leaves(sent), strict=True):
        assert squeezed(before) == squeezed(after)


def leaves(raw: bytes) -> list[bytes]:
    message = email.message_from_bytes(raw, policy=email.policy.compat32)
    return [part.get_payload(decode=True) or b"" for part in message.walk() if not part.is_multipart()]


def squeezed(content: bytes) -> bytes:
    """Without line ends: text nobody sees (a preamble) may have been broken."""
    return content.replace(b"\r", b"").replace(b"\n", b"")
