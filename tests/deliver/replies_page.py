"""Writes docs/replies.md from the reply table: ``python -m tests.deliver.replies_page > docs/replies.md``."""

from __future__ import annotations

import sys

from relay.deliver.graph.row import GraphRow
from relay.deliver.graph.table import GRAPH_ROWS
from relay.deliver.phases import ANY, LOGIN, MAILING, Phase
from relay.deliver.row import Row
from relay.deliver.table import AGAIN, ROWS
from relay.deliver.table_faults import FAULTS, Fault
from relay.message import Result

HEAD = """# What the relay does with each reply of Exchange

This page shows `relay/deliver/table*.py`; a test keeps the two equal. Each reply is judged by the phase it came
in, its code, its enhanced code and its words. The first row that fits decides; the last rows are the defaults.
The *cause* is the stable name used in `relay queue`, in metrics and in filters.

- **held**: kept and not tried until an administrator mends the cause; probed gently meanwhile. Nothing bounces.
- **deferred**: tried again, by the schedule of `spool.retry` or after the time given here.
- **failed**: goes back to the sender, at once or (`*`) only when a second try on a clean connection says the same.
- *slows*: the mailbox's rate is lowered. *free*: the try does not count as one of the message's attempts.
- The scope is the smallest thing that is broken: recipient, message, sender, lane (one mailbox), upstream (all).
- A `530 5.7.57` that wraps another error is judged by the one inside. Before a message is under way (connect,
  ehlo, starttls, auth) nothing is ever a message's fault: the scope is then the lane's at least, and the try free.
"""


GRAPH_HEAD = """## Answers of Microsoft Graph

Over Graph (`transport: graph`, or what `auto` has chosen) an answer is judged by its HTTP status, its `error.code` and
its words; the first row that fits decides. Only `202` means sent. A `Retry-After` on a deferred answer is obeyed: it slows
the mailbox and is free. No answer after the whole request was written is *uncertain*; before that it is a fault of the
table above. See [graph.md](graph.md).
"""


def page() -> str:
    """The whole page."""
    parts = [
        HEAD,
        "## Replies\n",
        "| Phase | Reply | Enhanced | Words | Decision | Cause | Reason and remedy |",
        "|---" * 7 + "|",
    ]
    parts.extend(_row(row) for row in ROWS)
    parts += ["", "## When no usable reply came\n"]
    parts.append("None of these counts as an attempt, but for the uncertain one.\n")
    parts += ["| Decision | Cause | Reason and remedy |", "|---" * 3 + "|"]
    parts.extend(_fault(fault) for fault in FAULTS.values())
    parts += [
        "",
        GRAPH_HEAD,
        "| Status | error.code | Words | Decision | Cause | Reason and remedy |",
        "|---" * 6 + "|",
    ]
    parts.extend(_graph_row(row) for row in GRAPH_ROWS)
    return "\n".join(parts) + "\n"


def _row(row: Row) -> str:
    cells = [
        _phases(row.phases),
        _code(row.replies),
        _code(row.enhanced),
        _code(row.text),
        _decision(row),
        row.code,
    ]
    return "| " + " | ".join([*cells, _words(row.reason, row.remedy)]) + " |"


def _graph_row(row: GraphRow) -> str:
    cells = [_code(row.statuses), _code(row.errors), _code(row.text), _decision(row), row.code]
    return "| " + " | ".join([*cells, _words(row.reason, row.remedy)]) + " |"


def _fault(fault: Fault) -> str:
    return f"| {fault.result}, {fault.scope} | {fault.code} | {_words(fault.reason, fault.remedy)} |"


def _phases(phases: frozenset[Phase]) -> str:
    for name, group in (("any", ANY), ("before mail", LOGIN), ("mail", MAILING)):
        if phases == group:
            return name if group is not MAILING else "mail to body"
    return ", ".join(phase for phase in Phase if phase in phases)


def _decision(row: Row | GraphRow) -> str:
    star = "*" if row.code in AGAIN else ""
    words = [f"{row.result}{star}", str(row.scope)]
    if row.wait is not None:
        words.append(f"{'probe' if row.hold else 'wait'} {row.wait:g} s")
    if row.slow:
        words.append("slows")
    if not row.counts and row.result is Result.DEFERRED:
        words.append("free")
    return ", ".join(words)


def _words(reason: str, remedy: str) -> str:
    return _plain(f"{reason} *{remedy}*" if remedy else reason)


def _code(pattern: str) -> str:
    return f"`{_plain(pattern)}`" if pattern else ""


def _plain(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;") if "`" not in text else text.replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(page())
