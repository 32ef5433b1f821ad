"""docs/replies.md is the reply table, and the table's sentences can be shown to people as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay.deliver.graph.row import GraphRow
from relay.deliver.graph.table import GRAPH_ROWS
from relay.deliver.row import Row
from relay.deliver.table import AGAIN, ROWS
from relay.message import Result, Scope
from tests.deliver.replies_page import page

DOCS = Path(__file__).parents[2] / "docs" / "replies.md"


def test_page_is_the_table() -> None:
    """Write it anew with ``python -m tests.deliver.replies_page > docs/replies.md``."""
    assert DOCS.read_text(encoding="utf-8") == page()


@pytest.mark.parametrize("row", (*ROWS, *GRAPH_ROWS), ids=lambda row: row.code)
def test_rows_are_fit_for_people(row: Row | GraphRow) -> None:
    """A reason always; a remedy for whatever waits for one; full sentences; a source."""
    assert row.reason.endswith(".")
    assert row.reason[0].isupper() or row.reason.startswith("<")
    assert row.remedy or row.result is Result.DEFERRED
    assert not row.remedy or row.remedy.endswith(".")
    assert row.source in ("1.2", "3.2", "1.2, 3.2", "6.1", "6.7", "6.6, 6.7", "default")


def test_no_row_bounces_more_than_a_message() -> None:
    """Failures are a message's or a recipient's; holds and slowness never count."""
    rows = (*ROWS, *GRAPH_ROWS)
    assert {row.scope for row in rows if row.result is Result.FAILED} <= {Scope.MESSAGE, Scope.RECIPIENT}
    assert not [row for row in rows if row.counts and (row.hold or row.slow)]
    assert {row.code for row in ROWS} >= AGAIN


def test_one_cause_one_decision() -> None:
    """Rows that share a cause decide alike, so that a filter by cause means one thing."""
    decided: dict[str, set[tuple[Result, Scope]]] = {}
    for row in (*ROWS, *GRAPH_ROWS):
        decided.setdefault(row.code, set()).add((row.result, row.scope))
    assert [code for code, decisions in decided.items() if len(decisions) > 1] == []
