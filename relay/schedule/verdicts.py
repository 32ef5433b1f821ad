"""What connections and attempts say beyond their own message: about the lane, its sender, its upstream."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from relay import events
from relay.message import Outcome, Report, Result, Scope, Trouble
from relay.schedule.judgement import message_key
from relay.schedule.lane import Lane
from relay.spool.contract import Claim

if TYPE_CHECKING:
    from relay.schedule.loop import Scheduler


class Verdicts:
    """Told by carriers; holds, slows and frees lanes."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    async def could_not_open(self, lane: Lane, trouble: Trouble) -> None:
        """Dial, TLS, token or login failed."""
        if trouble.outcome.result is Result.HELD:
            await self._scheduler.holds.impose(lane, trouble.outcome, at_login=True)
            return
        if trouble.outcome.slow and not lane.limiter.slowed:
            lane.limiter.throttled(self._scheduler.clock.now(), 0.0)
        known = lane.trouble is not None and lane.trouble.reason == trouble.outcome.reason
        until = lane.rest(trouble, self._scheduler.clock.now())
        if not known:
            events.trouble(
                where=f"lane {lane.name}",
                what=trouble.outcome.reason,
                remedy=trouble.outcome.remedy,
                again_in=round(until - self._scheduler.clock.now(), 1),
            )

    async def opened(self, lane: Lane) -> None:
        """A connection is authenticated: what was held because it could not be is mended."""
        lane.resting_until = 0.0
        hold = lane.the_hold()
        if hold is not None and hold.at_login:
            await self._scheduler.holds.mended(lane, hold)

    async def after_report(self, lane: Lane, claim: Claim, report: Report) -> None:
        """What an attempt says about the lane, its sender and its upstream."""
        trouble = report.lane_trouble
        await self._scheduler.holds.set_apart(lane, claim, report)
        if trouble is None:
            lane.well()
            await self._widen(lane, claim, report)
            if any(one.result is Result.SENT for one in report.outcomes.values()):
                lane.refused.clear()
                await self._scheduler.holds.sent(lane, claim)
            return
        if trouble.slow:
            self._slow_down(lane, trouble)
        if trouble.result is Result.HELD:
            await self._scheduler.holds.impose(lane, trouble, claim=claim)
        elif not trouble.slow:
            lane.rest(Trouble(trouble), self._scheduler.clock.now())

    async def _widen(self, lane: Lane, claim: Claim, report: Report) -> None:
        """The same policy reply for a second message, none sent in between: it is about the mailbox."""
        for outcome in report.outcomes.values():
            if outcome.code != "message-policy" or outcome.reply is None:
                continue
            held = lane.the_hold()
            again = claim.tried_for == message_key(
                lane.name, outcome
            )  # tried once more: no news about the mailbox
            first = claim.id if again else lane.refused.setdefault(outcome.reply.enhanced, claim.id)
            if first != claim.id or (held is not None and held.code == outcome.code):
                lane.refused.clear()
                await self._scheduler.holds.impose(
                    lane, dataclasses.replace(outcome, scope=Scope.LANE), claim=claim
                )
                return

    def _slow_down(self, lane: Lane, trouble: Outcome) -> None:
        """A throttling reply slows its mailbox; one about the tenant slows every mailbox (facts 3.2: 5.7.233)."""
        now, wait = self._scheduler.clock.now(), trouble.wait if trouble.wait is not None else 60.0
        if trouble.scope is not Scope.UPSTREAM:
            lane.slow_down(trouble, now, wait)
            return
        lane.upstream.slowed, lane.upstream.slowed_until = trouble, now + wait
        for name in lane.upstream.lanes | {lane.name}:
            self._scheduler.lanes[name].slow_down(trouble, now, wait)
