"""docs/notices.md shows what is really sent, and says the figures that hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from relay.message import Recipient
from relay.report import budget, notice
from tests.report.example import example

PAGE = (Path(__file__).parents[2] / "docs" / "notices.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (none|`[A-Z,]+`) \| (yes|no) \| (yes|no) \|$", PAGE, re.MULTILINE)


def test_the_example_is_real() -> None:
    """Octet by octet; `python -m tests.report.example` makes it anew."""
    (shown,) = re.findall(r"^```text\n(From: .*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert shown == example()


def test_the_figures_are_real() -> None:
    """Notices an hour, lines of a summary, size of what RET=FULL returns."""
    assert f"at most {budget.LIMIT} notices" in PAGE
    assert f"up to {budget.SAMPLES} of them" in PAGE
    assert f"{notice.FULL_LIMIT // 1024} kB" in PAGE
    assert notice.NOTICE_FIELD in PAGE


def test_the_table_of_wishes_is_there() -> None:
    """Its form is what the next test reads."""
    assert len(ROWS) == 6


@pytest.mark.parametrize(("notify", "failure", "delay"), ROWS)
def test_the_table_of_wishes_is_real(notify: str, failure: str, delay: str) -> None:
    """NOTIFY, failure, delay."""
    recipient = Recipient("bob@example.com", None if notify == "none" else notify.strip("`"))
    assert notice.wanted(notice.Kind.FAILURE, recipient) is (failure == "yes")
    assert notice.wanted(notice.Kind.DELAY, recipient) is (delay == "yes")
