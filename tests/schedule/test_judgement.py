"""From a report to what is written down."""

from __future__ import annotations

import pytest

from relay.figures import span
from relay.message import Client, Envelope, Outcome, Recipient, Reply, Report, Result, Scope
from relay.schedule.backoff import next_try, step, too_old
from relay.schedule.judgement import RetryRules, settlement
from relay.spool.contract import Claim

NOW = 1_000_000.0
RULES = RetryRules((60.0, 120.0, 300.0), 5 * 86_400.0)


def claim(attempts: int = 0, received: float = NOW - 10, held_for: float = 0.0) -> Claim:
    people = (Recipient("a@x.example"), Recipient("b@x.example"))
    return Claim(
        "0" * 13, "U/m@c", Envelope("s@l", people), Client(), received, 10, attempts, held_for=held_for
    )


def both(outcome: Outcome) -> Report:
    return Report({"a@x.example": outcome, "b@x.example": outcome})


def test_a_temporary_refusal_is_due_after_the_schedules_wait():
    done = settlement(claim(1), both(Outcome(Result.DEFERRED, reason="later")), RULES, NOW)
    assert done.counts
    assert done.due is not None and NOW + 108 <= done.due <= NOW + 132


def test_the_server_may_ask_for_a_longer_wait_but_not_a_shorter_one():
    longer = settlement(claim(), both(Outcome(Result.DEFERRED, wait=900.0)), RULES, NOW)
    shorter = settlement(claim(), both(Outcome(Result.DEFERRED, wait=1.0)), RULES, NOW)
    assert longer.due == NOW + 900
    assert shorter.due is not None and shorter.due >= NOW + 54


def test_throttling_waits_what_was_asked_and_does_not_count():
    done = settlement(
        claim(2), both(Outcome(Result.DEFERRED, Scope.LANE, wait=5.0, counts=False)), RULES, NOW
    )
    assert (done.due, done.counts) == (NOW + 5.0, False)


def test_a_hold_of_the_lane_puts_the_message_back_unharmed():
    held = Outcome(Result.HELD, Scope.LANE, Reply(554, "5.2.2", "mailbox full"), "The mailbox is full")
    done = settlement(claim(), Report(both(held).outcomes, lane_trouble=held), RULES, NOW)
    assert (done.outcomes, done.counts, done.event) == ({}, False, "held")
    assert done.details["reply"] == "554 5.2.2 mailbox full"


def test_a_hold_of_the_sender_keeps_the_message_under_the_senders_key():
    held = Outcome(Result.HELD, Scope.SENDER, reason="Send As denied")
    done = settlement(claim(), both(held), RULES, NOW, "U/m@c|x@c")
    assert done.hold_key == "U/m@c|x@c"
    assert {one.result for one in done.outcomes.values()} == {Result.HELD}


def test_too_old_mail_fails_and_says_why():
    old = claim(50, received=NOW - 6 * 86_400)
    done = settlement(old, both(Outcome(Result.DEFERRED, reason="greylisted")), RULES, NOW)
    outcome = done.outcomes["a@x.example"]
    assert outcome.result is Result.FAILED
    assert "5 days" in outcome.reason and "greylisted" in outcome.reason


def test_time_held_does_not_make_mail_old():
    kept = claim(50, received=NOW - 6 * 86_400, held_for=2 * 86_400)
    done = settlement(kept, both(Outcome(Result.DEFERRED)), RULES, NOW)
    assert done.outcomes["a@x.example"].result is Result.DEFERRED


@pytest.mark.parametrize(("setting", "result"), [("resend", Result.DEFERRED), ("hold", Result.HELD)])
def test_uncertain_deliveries_follow_the_setting(setting, result):
    rules = RetryRules(RULES.retry, RULES.max_age, setting)
    done = settlement(claim(), both(Outcome(Result.DEFERRED, uncertain=True)), rules, NOW)
    assert done.outcomes["a@x.example"].result is result


def test_one_refused_recipient_does_not_touch_the_other():
    report = Report(
        {"a@x.example": Outcome(Result.SENT), "b@x.example": Outcome(Result.DEFERRED, reason="later")}
    )
    done = settlement(claim(), report, RULES, NOW)
    assert [one.result for one in done.outcomes.values()] == [Result.SENT, Result.DEFERRED]


def test_a_move_settles_nothing_but_the_lane():
    done = settlement(claim(), Report({}, moved_to="U/other@c"), RULES, NOW)
    assert (done.move_to, done.outcomes, done.counts) == ("U/other@c", {}, False)


def test_backoff_repeats_its_last_step_with_jitter():
    assert [step((1.0, 2.0), n, lambda: 0.5) for n in range(4)] == [1.0, 2.0, 2.0, 2.0]
    assert step((10.0,), 0, lambda: 0.0) == pytest.approx(9.0)
    assert next_try((10.0,), 1, NOW, rnd=lambda: 1.0) == pytest.approx(NOW + 11)
    assert too_old(100.0, 0.0, 20.0, 79.0) and not too_old(100.0, 0.0, 20.0, 80.0)


@pytest.mark.parametrize(
    ("outcome", "key"),
    [
        (Outcome(Result.HELD, Scope.SENDER), "U/m@c|x@c"),
        (Outcome(Result.HELD, Scope.MESSAGE, Reply(550, "5.7.9"), code="policy"), "U/m@c|policy 5.7.9"),
        (Outcome(Result.HELD, Scope.MESSAGE, uncertain=True), None),
        (Outcome(Result.DEFERRED), None),
    ],
)
def test_what_may_end_a_messages_hold_by_itself(outcome, key):
    assert settlement(claim(), both(outcome), RULES, NOW, "U/m@c|x@c").hold_key == key


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (5 * 86_400, "5 days"),
        (86_400, "1 day"),
        (4 * 3600, "4 hours"),
        (3600, "1 hour"),
        (90, "90 s"),
        (5400, "90 min"),
    ],
)
def test_a_configured_time_is_told_in_words_that_people_use(seconds, words):
    assert span(seconds) == words
