"""What the log says of an attempt, with the details that transports really report."""

from __future__ import annotations

import pytest

from relay import events
from relay.message import Client, Envelope, Outcome, Recipient, Reply, Report, Result, Scope
from relay.schedule.judgement import RetryRules, settlement
from relay.schedule.telling import iso, tell
from relay.spool.contract import Claim

CLAIM = Claim(
    "0AMGPQ1200000",
    "U/m@c",
    Envelope("s@l", (Recipient("a@x"), Recipient("b@x"))),
    Client("10.0.0.7"),
    1e9,
    10,
    0,
)
DETAILS = {
    "host": "mail",
    "reply": "250 OK",
    "transport": "smtp",
    "id": "x",
    "lane": "x",
    "recipients": "x",
    "tls": "1.3",
}


@pytest.fixture
def heard():
    found: list[tuple[str, str, dict[str, object]]] = []
    events.plug(lambda level, event, fields: found.append((level, event, dict(fields))))
    yield found
    events.plug(None)


@pytest.mark.parametrize(
    ("outcome", "level", "event"),
    [
        (Outcome(Result.SENT, reply=Reply(250, "2.0.0", "OK")), "info", "delivered"),
        (Outcome(Result.DEFERRED, reason="later"), "warning", "deferred"),
        (Outcome(Result.FAILED, reason="no such recipient"), "warning", "failed"),
        (Outcome(Result.HELD, Scope.SENDER, reason="Send As denied"), "error", "held"),
    ],
)
def test_each_outcome_is_one_event_for_all_its_recipients(heard, outcome, level, event):
    report = Report({"a@x": outcome, "b@x": outcome}, details=dict(DETAILS))
    done = settlement(CLAIM, report, RetryRules((60.0,), 1e12), 2e9)
    tell("U/m@c", CLAIM, done, report)
    assert [(one[0], one[1], one[2]["id"]) for one in heard] == [(level, event, CLAIM.id)]


def test_an_uncertain_delivery_is_said_besides(heard):
    outcome = Outcome(Result.DEFERRED, reason="lost after the final dot", uncertain=True)
    report = Report({"a@x": outcome, "b@x": outcome})
    tell("U/m@c", CLAIM, settlement(CLAIM, report, RetryRules((60.0,), 1e12), 2e9), report)
    assert [one[1] for one in heard] == ["uncertain", "deferred"]


def test_times_are_utc():
    assert iso(0.25) == "1970-01-01T00:00:00.250Z"
