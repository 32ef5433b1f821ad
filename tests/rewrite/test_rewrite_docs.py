"""The table of worked examples in docs/senders.md says what really happens."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.rewrite.samples import field, rewritten, route

PAGE = Path(__file__).parents[2] / "docs" / "senders.md"
ROW = re.compile(r"^\| `([^`]+)` \| `([^`]+)` \| `([^`]+)` \| (?:`([^`]+)`)? ?\|$", re.MULTILINE)
ROWS = ROW.findall(PAGE.read_text(encoding="utf-8"))


def test_the_table_is_there() -> None:
    """Its form is what the other test reads."""
    assert len(ROWS) >= 12


@pytest.mark.parametrize(("before", "name", "after", "reply_to"), ROWS)
def test_each_example_is_true(before: str, name: str, after: str, reply_to: str) -> None:
    """From in, From out, Reply-To."""
    out = rewritten(f"From: {before}\r\n\r\n".encode(), route(name=name)).header
    assert field(out, "From") == after.encode()
    assert (field(out, "Reply-To") or b"") == reply_to.encode()
