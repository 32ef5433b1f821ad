"""Dots and line ends, however the blocks are cut: what is sent, undotted, is the message with CRLF line ends."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.deliver.stuffing import Stuffing


def send(blocks: list[bytes]) -> bytes:
    """What goes over the wire for those blocks."""
    stuffing = Stuffing()
    return b"".join([*(stuffing.feed(block) for block in blocks), stuffing.finish()])


def receive(wire: bytes) -> bytes:
    """What a server makes of it (RFC 5321 section 4.5.2)."""
    assert wire.endswith(b".\r\n")
    lines = wire[:-3].split(b"\r\n")
    return b"\r\n".join(line[1:] if line.startswith(b".") else line for line in lines)


PIECES = st.lists(
    st.sampled_from([b".", b"\r\n", b"\r", b"\n", b"a", b"..", b"\r\n.", b"\r\n.\r\n", b""]), max_size=30
)


@given(PIECES)
def test_any_blocks_any_cut(blocks: list[bytes]) -> None:
    """Only CRLF ends lines, the only lone dot is the last line, and the text is unchanged but for its line ends."""
    wire = send(blocks)
    assert wire.count(b"\r\n") == wire.count(b"\r") == wire.count(b"\n")
    assert [line for line in wire.split(b"\r\n") if line == b"."] == [b"."]
    wanted = re.sub(rb"\r\n|\r|\n", b"\r\n", b"".join(blocks))
    if wanted and not wanted.endswith(b"\r\n"):
        wanted += b"\r\n"
    assert receive(wire).removesuffix(b"" if wanted else b"\r\n") == wanted


@pytest.mark.parametrize(("blocks", "wire"), [
    ([], b".\r\n"),
    ([b"a"], b"a\r\n.\r\n"),
    ([b".a\r\n"], b"..a\r\n.\r\n"),
    ([b"a\r\n", b".\r\n"], b"a\r\n..\r\n.\r\n"),
    ([b"a\r", b"\n.b\r\n"], b"a\r\n..b\r\n.\r\n"),
    ([b"a\r\n", b"", b".b"], b"a\r\n..b\r\n.\r\n"),
    ([b"a\n.\nb\r.\r\n"], b"a\r\n..\r\nb\r\n..\r\n.\r\n"),
    ([b"a\r"], b"a\r\n.\r\n"),
    ([b"a\r", b"b"], b"a\r\nb\r\n.\r\n"),
])  # fmt: skip
def test_examples(blocks: list[bytes], wire: bytes) -> None:
    """The cases that matter, spelled out: the smuggled dot among bare line ends included."""
    assert send(blocks) == wire


def test_repairs_are_known() -> None:
    """Whether a bare CR or LF was met."""
    clean, bare = Stuffing(), Stuffing()
    clean.feed(b"a\r\nb\r")
    clean.feed(b"\n")
    bare.feed(b"a\nb")
    assert (clean.repaired, bare.repaired) == (False, True)
