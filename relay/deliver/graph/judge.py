"""From what Graph answered, or did not answer, to an outcome; the table is the data."""

from __future__ import annotations

import email.utils
import time
from dataclasses import replace

from relay.deliver.classify import LONGEST_TEXT, NAMELESS, Names, judge_fault
from relay.deliver.graph.contract import Answer, Lost
from relay.deliver.graph.row import GraphRow
from relay.deliver.graph.table import GRANT_READ_WRITE, GRAPH_ROWS
from relay.deliver.table_faults import FAULTS
from relay.message import Outcome, Reply, Result, Scope

SENT = 202
"""The only status that means sent (facts 0.8)."""
LONGEST_WAIT = 3600.0
"""Seconds of a Retry-After that are believed; after that, asking again is no provocation."""


def judge_answer(answer: Answer, names: Names = NAMELESS, *, now: float | None = None) -> Outcome:
    """What one answer to a send decides. Total: an unknown answer gets a mild outcome. ``now``: wall time, seconds."""
    if answer.status == SENT:
        number = answer.headers.get("request-id", "")
        words = (
            f"Accepted by Microsoft Graph [request-id={number}]" if number else "Accepted by Microsoft Graph"
        )
        return Outcome(Result.SENT, Scope.MESSAGE, Reply(SENT, "", words))
    row = next(row for row in GRAPH_ROWS if row.matches(answer))
    outcome = Outcome(
        row.result, row.scope, reply_of(answer, row), names.fill(row.reason), names.fill(row.remedy), row.code,
        row.wait, row.counts, row.slow)  # fmt: skip
    asked = retry_after(answer, time.time() if now is None else now)
    if asked is None or outcome.result is not Result.DEFERRED:
        return outcome
    return replace(outcome, scope=Scope.LANE, wait=asked, slow=True, counts=False)


def reply_of(answer: Answer, row: GraphRow | None = None) -> Reply:
    """The answer in the shape of a reply: a refusal for good gets a code that a mail client understands."""
    words = f"{answer.code}: {answer.text}" if answer.code and answer.text else answer.code or answer.text
    if row is not None and row.result is Result.FAILED:
        return Reply(554, row.enhanced, f"{answer.status} {words}"[:LONGEST_TEXT])
    return Reply(answer.status, "", words[:LONGEST_TEXT])


def retry_after(answer: Answer, now: float) -> float | None:
    """Seconds of ``Retry-After``: a number or an HTTP date (RFC 9110 section 10.2.3); None when absent or unreadable."""
    text = answer.headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return min(max(1.0, float(text[:9])), LONGEST_WAIT)
    try:
        when = email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(1.0, when - now), LONGEST_WAIT)


def judge_lost(lost: Lost, names: Names = NAMELESS) -> Outcome:
    """No answer: uncertain once the whole request was written, else certainly not sent."""
    if lost.complete:
        return judge_fault("uncertain", names, lost.reason)
    return judge_fault(lost.code if lost.code in FAULTS else "connection-lost", names, lost.reason)


def no_read_write(answer: Answer, names: Names = NAMELESS) -> Outcome:
    """The draft that a large message needs is refused (facts 6.2); held for its own sake, tried again at a reload."""
    return Outcome(
        Result.HELD, Scope.MESSAGE, reply_of(answer),
        "The message is too large for Graph's sendMail, and the app may not use drafts and upload sessions.",
        names.fill(GRANT_READ_WRITE), "mail-readwrite-missing", counts=False)  # fmt: skip
