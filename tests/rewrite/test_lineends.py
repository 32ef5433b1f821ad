"""The quick question about line ends has the same answer as the slow one, whatever the block."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.rewrite import lineends
from relay.rewrite.lineends import only_crlf


def slowly(block: bytes) -> bool:
    """By the definition: nothing of CR and LF is left when the CRLFs are gone."""
    return not set(block.replace(b"\r\n", b"")) & set(b"\r\n")


def agree(block: bytes) -> None:
    """Each way of asking, whatever the block's size: small ones by the line, large ones by the octet."""
    small, line = lineends.SMALL, lineends.LINE
    try:
        for lineends.SMALL, lineends.LINE in ((small, line), (small, 0), (0, line)):
            assert only_crlf(block) is slowly(block)
    finally:
        lineends.SMALL, lineends.LINE = small, line


@given(st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b"a", b"ab.", b""]), max_size=40).map(b"".join))
def test_any_block(block: bytes) -> None:
    """Bare ones are found in any mixture of line ends and text."""
    agree(block)


EVEN = (b"x" * 76 + b"\r\n") * 40


@given(
    st.integers(0, 77),
    st.integers(0, 77),
    st.integers(0, len(EVEN)),
    st.sampled_from([b"", b"\r", b"\n", b"\r\n", b"y"]),
)
def test_lines_of_one_length(skipped: int, short: int, at: int, odd: bytes) -> None:
    """Lines of one length, cut anywhere, with one thing inserted anywhere."""
    block = (EVEN[:at] + odd + EVEN[at:])[skipped : len(EVEN) - short]
    agree(block)


@pytest.mark.parametrize("at", [0, 5, 76, 77, 78, 500, len(EVEN) - 2, len(EVEN) - 1])
@pytest.mark.parametrize("octet", [b"\r", b"\n", b"z"])
def test_one_octet_replaced_in_even_lines(at: int, octet: bytes) -> None:
    """A CR or LF in place of another octet, or another octet in place of one, keeps all lengths and is seen still."""
    block = EVEN[:at] + octet + EVEN[at + 1 :]
    agree(block)
