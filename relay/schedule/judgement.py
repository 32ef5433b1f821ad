"""From a transport's report to what is written down: pure, so that every case has a test.

Temporary failures get their next time, or end when the message is too old; holds that reach beyond the
message put it back in the queue (its lane or upstream is held instead); the rest is kept as reported.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from relay.figures import span
from relay.message import Outcome, Report, Result, Scope
from relay.schedule.backoff import next_try, too_old
from relay.spool.contract import Claim, Settlement

WIDE = frozenset({Scope.LANE, Scope.UPSTREAM})


@dataclass(frozen=True, slots=True)
class RetryRules:
    """The ``spool`` keys that decide about tries; seconds."""

    retry: Sequence[float]
    max_age: float
    on_uncertain: str = "resend"


def settlement(
    claim: Claim, report: Report, rules: RetryRules, now: float, sender_key: str = "", *, probe: bool = False
) -> Settlement:
    """What to write down for this report. ``probe``: the message was tried to see whether its lane works again."""
    if report.moved_to is not None:
        details = {
            **report.details,
            "lane": report.moved_to,
            "why": "today's sender rules put it on another lane",
        }
        return Settlement(claim.id, {}, event="moved", details=details, move_to=report.moved_to, counts=False)
    kept = {address: one for address, one in report.outcomes.items() if not _returns_to_queue(one)}
    counts = _counts(claim, kept)
    attempts = claim.attempts + (1 if counts else 0)
    outcomes = {address: _decided(claim, one, rules, now) for address, one in kept.items()}
    details = dict(report.details)
    if not kept:
        # the next probe tries another message: this very one may be what is refused
        return Settlement(
            claim.id, {}, event="held", details=_why(details, report), counts=False, behind=probe
        )
    details["attempt"] = str(attempts)
    return Settlement(
        claim.id,
        outcomes,
        due=_due(outcomes, rules, attempts, now),
        details=details,
        counts=counts,
        hold_key=_hold_key(claim.lane, outcomes, sender_key),
    )


def _counts(claim: Claim, kept: dict[str, Outcome]) -> bool:
    """Whether the message used up a try: not when all that is left of it waits for reasons of ours."""
    unsent = [one for one in kept.values() if one.result is not Result.SENT]
    if unsent:
        return any(one.counts for one in unsent)
    return all(one.address in kept for one in claim.envelope.recipients)


def _returns_to_queue(outcome: Outcome) -> bool:
    return outcome.result is Result.HELD and outcome.scope in WIDE and not outcome.uncertain


def _decided(claim: Claim, outcome: Outcome, rules: RetryRules, now: float) -> Outcome:
    if outcome.uncertain and outcome.result is Result.DEFERRED and rules.on_uncertain == "hold":
        remedy = "Look whether it arrived; then `relay queue release` or `relay queue delete` it."
        return dataclasses.replace(outcome, result=Result.HELD, scope=Scope.MESSAGE, remedy=remedy)
    if outcome.result is not Result.DEFERRED or not too_old(
        now, claim.received, claim.held_for, rules.max_age
    ):
        return outcome
    last = outcome.reason or str(outcome.reply)
    reason = f"not delivered within {span(rules.max_age)} (spool.max_age); the last answer was: {last}"
    return dataclasses.replace(outcome, result=Result.FAILED, reason=reason, code="too-old")


def _due(outcomes: dict[str, Outcome], rules: RetryRules, attempts: int, now: float) -> float | None:
    waiting = [one for one in outcomes.values() if one.result is Result.DEFERRED]
    if not waiting:
        return None
    if not any(one.counts for one in waiting):
        asked = [one.wait for one in waiting if one.wait is not None]
        return now + (max(asked) if asked else rules.retry[0])
    asked = [one.wait for one in waiting if one.wait is not None]
    return next_try(rules.retry, max(1, attempts), now, asked=max(asked) if asked else None)


def _hold_key(lane: str, outcomes: dict[str, Outcome], sender_key: str) -> str | None:
    """The hold whose end releases it: of the sender, or of its cause; none for an uncertain delivery."""
    held = [one for one in outcomes.values() if one.result is Result.HELD]
    if not held or any(one.uncertain for one in held):
        return None
    return sender_key if any(one.scope is Scope.SENDER for one in held) else message_key(lane, held[0])


def message_key(lane: str, outcome: Outcome) -> str:
    """What messages (or recipients) that are held one by one for the same cause share."""
    enhanced = outcome.reply.enhanced if outcome.reply is not None else ""
    return f"{lane}|{outcome.code} {enhanced}".rstrip()


def _why(details: dict[str, str], report: Report) -> dict[str, str]:
    first = report.lane_trouble or next(iter(report.outcomes.values()))
    return {**details, "reason": first.reason, "reply": str(first.reply or "")}
