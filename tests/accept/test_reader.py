"""The readers give the same message wherever the network cuts it, and only CRLF.CRLF ends it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.accept import replies
from relay.accept.incoming import HEADER_LIMIT, Incoming
from relay.accept.reader import DotReader, LengthReader

PIECES = st.lists(
    st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"..", b"a", b"X: y", b" ", b"\r\n.\r\n"]), max_size=24
)
CUTS = st.lists(st.integers(1, 4), min_size=1, max_size=8)
ODD_ENDINGS = [
    b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r.\r\n", b"\r\n.\r", b"\n.\r", b"\r\r\n.\r\r\n",
    b"\r\n\0.\r\n", b"\r\n.\0\r\n", b"\r\n. \r\n", b"\r\n.\r\r\n",
]  # fmt: skip


def blocks(data: bytes, cuts: list[int]) -> list[bytes]:
    found, at, turn = [], 0, 0
    while at < len(data):
        found.append(data[at : at + cuts[turn % len(cuts)]])
        at += cuts[turn % len(cuts)]
        turn += 1
    return found


def read(parts: list[bytes], tolerant: bool = False) -> tuple[bytes, bytes, bool]:
    """Message, rest and whether it ended."""
    reader, out = DotReader(tolerant), b""
    for index, part in enumerate(parts):
        out += reader.feed(part)
        if reader.done:
            return out, reader.rest + b"".join(parts[index + 1 :]), True
    return out, b"", False


@pytest.mark.parametrize("ending", ODD_ENDINGS)
def test_odd_endings_are_content(ending: bytes) -> None:
    """S1: none of twelve odd endings ends the data, and the message goes on behind it."""
    out, rest, done = read([b"a" + ending + b"MAIL FROM:<x>\r\n.\r\n"])
    assert done
    assert rest == b""
    assert b"MAIL FROM:<x>\r\n" in out


@given(PIECES, CUTS)
def test_cuts_do_not_matter(pieces: list[bytes], cuts: list[int]) -> None:
    """However the octets are cut into blocks, the message and what follows it are the same."""
    data = b"".join(pieces) + b"\r\n.\r\nQUIT\r\n"
    assert read(blocks(data, cuts)) == read([data])


@given(PIECES, CUTS)
def test_no_bare_lf_leaves(pieces: list[bytes], cuts: list[int]) -> None:
    """Every LF that leaves the reader belongs to a CRLF, and the message ends with one or is empty."""
    out, _, done = read(blocks(b"".join(pieces) + b"\r\n.\r\n", cuts))
    assert done
    assert not re.search(rb"(?<!\r)\n", out)
    assert out == b"" or out.endswith(b"\r\n")


@given(PIECES, CUTS)
def test_clean_blocks_hold_no_bare_cr(pieces: list[bytes], cuts: list[int]) -> None:
    """What either reader calls clean is not looked at again, so it must be."""
    data = b"".join(pieces)
    for reader in (DotReader(), LengthReader()):
        for block in blocks(data + b"\r\n.\r\n", cuts):
            out = reader.feed(block)
            assert not reader.clean or not re.search(rb"\r(?!\n)", out)
            if isinstance(reader, DotReader) and reader.done:
                break


@given(st.lists(st.sampled_from([b"", b".", b"..", b"a", b".a", b"a.", b"text"]), max_size=12), CUTS)
def test_round_trip(lines: list[bytes], cuts: list[int]) -> None:
    """What a correct client stuffs comes out as it was."""
    message = b"".join(line + b"\r\n" for line in lines)
    stuffed = re.sub(rb"(?m)^\.", b"..", message)
    assert read(blocks(stuffed + b".\r\nNOOP\r\n", cuts)) == (message, b"NOOP\r\n", True)


def test_lf_end_is_seen_only_without_crlf() -> None:
    """S4: LF.LF counts only while no CRLF was seen in this DATA."""
    pure, mixed = DotReader(), DotReader()
    pure.feed(b"a\n.\n")
    mixed.feed(b"a\r\nb\n.\n")
    assert pure.lf_end
    assert not mixed.lf_end
    assert not pure.done


def test_tolerant_end_in_pieces() -> None:
    """Tolerant: the LF-only end is found when it comes octet by octet."""
    assert read(blocks(b"a\n\nb\n.\n", [1]), tolerant=True) == (b"a\r\n\r\nb\r\n", b"", True)
    assert read([b".\n"], tolerant=True) == (b"", b"", True)


@given(PIECES, CUTS)
def test_lengths_reader(pieces: list[bytes], cuts: list[int]) -> None:
    """BDAT: the same for all cuts, no bare LF, and a line end at the end."""
    data = b"".join(pieces)
    whole, cut = LengthReader(), LengthReader()
    expected = whole.feed(data) + whole.finish()
    assert b"".join(cut.feed(one) for one in blocks(data, cuts)) + cut.finish() == expected
    assert not re.search(rb"(?<!\r)\n", expected)
    assert expected == b"" or expected.endswith(b"\r\n")


def split(parts: list[bytes], limit: int = 1 << 20) -> tuple[bytes, bytes, Incoming]:
    incoming, reader = Incoming(limit), LengthReader()  # the reader keeps CRLFs whole
    body = b"".join(incoming.feed(reader.feed(part)) for part in parts)
    incoming.finish()
    return incoming.header, body, incoming


@pytest.mark.parametrize(
    ("data", "header"),
    [
        (b"A: b\r\n\r\nbody\r\n", b"A: b\r\n\r\n"),
        (b"A: b\r\n folded\r\nC :d\r\n\r\n\r\nbody\r\n", b"A: b\r\n folded\r\nC :d\r\n\r\n"),
        (b"A: b\r\nno field\r\nC: d\r\n", b"A: b\r\n"),
        (b"\r\nbody\r\n", b"\r\n"),
        (b"body only\r\n", b""),
        (b"A: b\r\n", b"A: b\r\n"),
        (b"", b""),
        (b"A: b\r\n" + b"x" * 5000, b"A: b\r\n"),
    ],
)
def test_header_ends(data: bytes, header: bytes) -> None:
    """The block ends after the first empty line, or before the first line that is no field; in any pieces."""
    for size in (1, 2, 3, 7, len(data) or 1):
        parts = [data[at : at + size] for at in range(0, len(data), size)]
        assert split(parts)[:2] == (header, data[len(header) :])


def test_bare_cr_by_place() -> None:
    """Bare CR is a blank in the header (no new field) and a line end in the body."""
    header, body, incoming = split([b"A: b\rC: d\r\n\r\nx\ry\r\n"])
    assert header == b"A: b C: d\r\n\r\n"
    assert body == b"x\r\ny\r\n"
    assert incoming.notes(False) == ("bare CR made CRLF (a blank in the header)",)


def test_bounds() -> None:
    """A header block beyond its bound, a message beyond the limit and NUL are refused, the first reason kept."""
    long_field = [b"A: " + b"x" * 100_000, b"y" * 100_000, b"z" * 100_000 + b"\r\n\r\n", b"\0"]
    assert split(long_field)[2].refusal == replies.HEADER_TOO_BIG
    many = [b"A: b\r\n" * (HEADER_LIMIT // 6 + 2) + b"\r\n"]
    assert split(many)[2].refusal == replies.HEADER_TOO_BIG
    assert split([b"A: b\r\n\r\n", b"x" * 100], limit=50)[2].refusal == replies.TOO_BIG
    assert split([b"A: b\r\n\r\n", b"\0", b"x" * 5000], limit=5000)[2].refusal == replies.HAS_NUL


def test_eight_bit_is_noticed() -> None:
    """8-bit octets anywhere are noticed."""
    assert split([b"A: b\r\n\r\nx", b"\xe4\r\n"])[2].eight_bit
    assert not split([b"A: b\r\n\r\nx\r\n"])[2].eight_bit
