"""What holds for any octets: one valid From, no injected field, the rest unchanged, and twice is once."""

from __future__ import annotations

import email
import email.policy
import re

from hypothesis import given, settings
from hypothesis import strategies as st

from relay.rewrite.addresses import is_address, write_address
from relay.rewrite.contract import Route
from relay.rewrite.encoding import decode_words, encode_words
from relay.rewrite.headers import read_header, split_header
from relay.rewrite.parser import parse_mailboxes
from tests.rewrite.samples import SCANS, rewritten, route

PIECES = st.sampled_from([
    b"From: ", b"To: ", b"Subject: ", b"Reply-To: ", b"Bcc: ", b"Date: ", b"X-A: ", b"Sender: ", b"Cc: ", b"From ",
    b"\r\n", b"\r\n ", b"\r\n\r\n", b"\r", b"\n", b" ", b"\t", b"a@b.c", b"<a@b.c>", b"<", b">", b'"', b"(", b")", b",",
    b";", b":", b"@", b"\\", b"=?utf-8?q?=0D=0Ax?=", b"=?utf-8?b?SsO2?=", b"=?", b"?=", b"J\xf6rg", "ü".encode(),
    b"\x83\x5c", b"\x00", b"\x1b$B", b"word", b"x" * 1000, b"[10.0.0.1]", b"Group: ", b"Content-Type: x; charset=big5",
])  # fmt: skip
NOISE = st.one_of(st.binary(max_size=400), st.lists(PIECES, max_size=40).map(b"".join))
VALUES = NOISE.map(lambda noise: re.sub(rb"[\r\n]+", b"\r\n ", noise))
NAMES = st.sampled_from(["keep", "address", "Büro", "Plain Text", 'a "b"\r\nBcc: c@d'])
REPLIES = st.sampled_from(["original", "none", "help@contoso.com"])
ROUTES = st.builds(
    lambda to, name, reply: Route("M365", (SCANS,), to, name, reply, 0),
    st.sampled_from([SCANS, "büro@contoso.com", "x@bücher.example", None]),
    NAMES,
    REPLIES,
)
LIMITS = settings(max_examples=250, deadline=None)


@LIMITS
@given(NOISE, ROUTES, st.sampled_from(["", "app@site.local", "<>", "x\r\ny"]), st.booleans())
def test_any_octets_come_out_valid(header: bytes, to: Route, sender: str, utf8: bool) -> None:
    """Never raises; one From; CRLF only; an empty line ends it; reading agrees with splitting."""
    read_header(header)
    out = rewritten(header, to, sender=sender, smtputf8=utf8).header
    assert out.count(b"\r\n") == out.count(b"\n") == out.count(b"\r")
    end = split_header(out, complete=True)
    assert end is not None
    block = out[:end]
    assert block.endswith(b"\r\n\r\n")
    assert len(re.findall(rb"(?im)^from[ \t]*:", block)) == 1
    assert not re.search(rb"(?im)^(bcc|return-path|resent-bcc)[ \t]*:", block)


@LIMITS
@given(VALUES, NAMES, REPLIES)
def test_any_from_becomes_the_mailbox(value: bytes, name: str, reply_to: str) -> None:
    """The standard library's parser reads exactly one From, with our address and no more."""
    out = rewritten(b"From: " + value + b"\r\n\r\n", route(name=name, reply_to=reply_to)).header
    parsed = email.message_from_bytes(out, policy=email.policy.default)
    assert [one.addr_spec for one in parsed["From"].addresses] == [SCANS]
    assert len(parsed.get_all("From")) == 1
    from_line = next(raw for raw in re.split(rb"\r\n(?![ \t])", out) if raw.lower().startswith(b"from:"))
    assert from_line.isascii()
    assert max(map(len, from_line.split(b"\r\n"))) <= 998


@LIMITS
@given(VALUES)
def test_kept_addresses_are_those_that_were_read(value: bytes) -> None:
    """What the rule checked and what leaves is the same list: nothing can be smuggled past a keep rule."""
    header = b"From: " + value + b"\r\n\r\n"
    checked = [write_address(one) for one in read_header(header).from_addresses]
    out = rewritten(header, route(None)).header
    left = [write_address(one) for one in read_header(out).from_addresses]
    assert left == ([one for one in checked if one] or [SCANS])


@LIMITS
@given(NOISE, ROUTES, st.booleans())
def test_twice_is_once(header: bytes, to: Route, utf8: bool) -> None:
    """A rewritten message that comes in again leaves as it came."""
    once = rewritten(header, to, smtputf8=utf8).header
    assert rewritten(once, to, smtputf8=utf8).header == once


FIELD = st.builds(
    lambda name, value: b"X-" + name.encode() + b":" + re.sub(rb"[\r\n\x80-\xff]", b" ", value) + b"\r\n",
    st.from_regex(r"[A-Za-z0-9-]{1,12}", fullmatch=True),
    st.binary(max_size=200),
)


@LIMITS
@given(st.lists(FIELD, max_size=8), VALUES)
def test_untouched_fields_are_byte_identical(fields: list[bytes], value: bytes) -> None:
    """In their order."""
    out = rewritten(b"".join(fields) + b"From: " + value + b"\r\n\r\n").header
    assert out.startswith(b"".join(fields) + b"From: ")


@LIMITS
@given(st.text(max_size=200))
def test_encoded_words_carry_any_text(text: str) -> None:
    """Written and read again it is the same; each word is ASCII and at most 75 long."""
    words = encode_words(text)
    assert all(len(word) <= 75 and word.isascii() for word in words.split(" "))
    assert decode_words(words) == text.encode("utf-8", "replace").decode("utf-8")


@LIMITS
@given(st.text(max_size=300))
def test_what_the_parser_finds_are_addresses(text: str) -> None:
    """And can be written, or say that they cannot."""
    for one in parse_mailboxes(text):
        assert one.address == "" or is_address(one.address)
        written = write_address(one.address, smtputf8=True) if one.address else None
        assert written is None or "\n" not in written
