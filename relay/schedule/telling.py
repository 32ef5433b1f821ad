"""From a settled attempt to the log: one event for each kind of outcome."""

from __future__ import annotations

import datetime

from relay import events
from relay.errors import SpoolError
from relay.message import Outcome, Report, Result
from relay.spool.contract import Claim, Settlement

_OWN = frozenset({"id", "lane", "recipients", "reply"})
"""Fields that the event sets itself."""


class Unwritten:
    """Outcomes that the spool cannot take just now: told once for as long as there are any, and when there are none."""

    def __init__(self) -> None:
        self._ids: set[str] = set()

    def waits(self, message_id: str, error: SpoolError) -> None:
        """The outcome of a message waits, in memory."""
        if not self._ids:
            events.trouble(where="spool", what=f"outcomes wait to be written: {error}", remedy=error.remedy)
        self._ids.add(message_id)

    def written(self, message_id: str) -> None:
        """It is on disk."""
        if message_id in self._ids:
            self._ids.discard(message_id)
            if not self._ids:
                events.notice(what="the spool has taken the outcomes that waited")


def iso(seconds: float) -> str:
    """ISO 8601 in UTC with milliseconds."""
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def tell(lane: str, claim: Claim, done: Settlement, report: Report) -> None:
    """Log what came of an attempt."""
    if report.moved_to is not None:
        events.connection(client=claim.client.label, what="moved", id=claim.id, lane=lane, to=report.moved_to)
        return
    by_result: dict[Result, list[Outcome]] = {}
    for outcome in done.outcomes.values():
        by_result.setdefault(outcome.result, []).append(outcome)
    for result, outcomes in by_result.items():
        _tell_one(lane, claim, done, result, outcomes)


def _tell_one(lane: str, claim: Claim, done: Settlement, result: Result, outcomes: list[Outcome]) -> None:
    first = outcomes[0]
    words = str(first.reply or "") or first.reason
    if first.uncertain:
        events.uncertain(id=claim.id, lane=lane, why=first.reason)
    if result is Result.SENT:
        more = {key: value for key, value in done.details.items() if key not in _OWN}
        events.delivered(id=claim.id, lane=lane, recipients=len(outcomes), reply=words, **more)
    elif result is Result.DEFERRED:
        events.deferred(
            id=claim.id,
            lane=lane,
            reason=first.reason or words,
            next_attempt=iso(done.due) if done.due else "",
            reply=words,
            recipients=len(outcomes),
            code=first.code,
        )
    elif result is Result.FAILED:
        events.failed(
            id=claim.id,
            lane=lane,
            reason=first.reason or words,
            recipients=len(outcomes),
            reply=words,
            code=first.code,
        )
    else:
        events.held(
            lane=lane,
            scope=first.scope.value,
            reason=first.reason,
            remedy=first.remedy,
            evidence=words,
            id=claim.id,
            code=first.code,
        )
