"""What connections and attempts say beyond their own message: about the lane, its sender, its upstream."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from typing import TYPE_CHECKING

from relay import events
from relay.errors import SpoolError
from relay.message import Outcome, Report, Result, Scope, Trouble
from relay.schedule.judgement import message_key
from relay.schedule.lane import Lane, UpstreamState
from relay.schedule.limits import MailboxLimiter
from relay.spool.contract import Claim

if TYPE_CHECKING:
    from relay.schedule.loop import Scheduler


_LEARNED = "recipients-per-message:"
"""Key, before a lane's name, under which the spool remembers how many recipients Exchange takes in one message."""
PACE = "pace:"
"""Key, before a lane's name, under which the spool remembers how its mailbox is slowed down."""
TROUBLE = "trouble:"
"""The same for why it cannot be connected to, while it cannot."""
_THROTTLE = "throttle:"
"""The same for an upstream whose every mailbox is; replicas tell one another."""


_BLOCKED = "lost-connections"


def _blocked(seconds: float) -> Outcome:
    return Outcome(
        Result.DEFERRED, Scope.LANE, code=_BLOCKED,
        reason="Replicas that were lost one after the other may have all the connections open that Exchange takes of this"
        f" mailbox: the next one waits for their end, {seconds:.0f} s at most.",
        remedy="If the replicas still stand (a frozen machine), let them go on or end them, and start them again.",
    )  # fmt: skip


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
            self._keep_pace(lane)
        known = lane.trouble is not None and lane.trouble.reason == trouble.outcome.reason
        until = lane.rest(trouble, self._scheduler.clock.now())
        if not known:
            self._publish(lane)
            events.trouble(
                where=f"lane {lane.name}",
                what=trouble.outcome.reason,
                remedy=trouble.outcome.remedy,
                again_in=round(until - self._scheduler.clock.now(), 1),
            )

    async def opened(self, lane: Lane) -> None:
        """A connection is authenticated: what was held because it could not be is mended."""
        lane.resting_until = 0.0
        self._publish(lane, over=True)
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
            self._keep_pace(lane)
            return
        self._slow_upstream(lane.upstream, trouble, now + wait)
        kept = {"until": now + wait, "reason": trouble.reason, "remedy": trouble.remedy, "code": trouble.code}
        self._keep(_THROTTLE + lane.upstream.name, json.dumps(kept))

    def _slow_upstream(self, upstream: UpstreamState, trouble: Outcome, until: float) -> None:
        now = self._scheduler.clock.now()
        upstream.slowed, upstream.slowed_until = trouble, until
        for name in upstream.lanes:
            lane = self._scheduler.lanes[name]
            lane.slow_down(trouble, now, until - now)
            self._keep_pace(lane)

    # what whoever works a lane next must know

    def _keep_pace(self, lane: Lane) -> None:
        self._keep(PACE + lane.name, lane.limiter.export())

    def _publish(self, lane: Lane, *, over: bool = False) -> None:
        """Why a lane rests, for those who are asked about it at another replica; ``over``: it does not any more."""
        if not self._scheduler.spool.shared or (over and not lane.published):
            return
        lane.published, text = not over, None
        if not over and lane.trouble is not None:
            text = json.dumps([lane.trouble.reason, lane.trouble.remedy, lane.trouble_since])
        self._keep(TROUBLE + lane.name, text)

    def _keep(self, key: str, text: str | None) -> None:
        async def keep() -> None:
            with contextlib.suppress(SpoolError):  # it is in force here; another one would learn it anew
                await self._scheduler.spool.remember(key, text)

        self._scheduler.spawn(keep())

    async def know(self, lane: Lane) -> None:
        """What its mailbox has used, learned and been told so far, here or at another replica."""
        spool = self._scheduler.spool
        lane.limiter = MailboxLimiter(lane.limits, await spool.usage(lane.name, self._scheduler.clock.now()))
        lane.remember((await spool.remembered(_LEARNED + lane.name)).get(_LEARNED + lane.name, ""))
        if await spool.remembered(TROUBLE + lane.name):
            self._keep(TROUBLE + lane.name, None)  # of whoever worked it before
        lane.limiter.recall((await spool.remembered(PACE + lane.name)).get(PACE + lane.name))
        lane.limits_known = True
        self._tell_blocked(lane)

    async def reckon(self, lane: Lane) -> None:
        """Look again at what lost replicas may still do at its mailbox: some may have been heard of. Raises SpoolError."""
        usage = await self._scheduler.spool.usage(lane.name, self._scheduler.clock.now())
        lane.limiter.owe(usage.debts)
        if lane.trouble is not None and lane.trouble.code == _BLOCKED:
            lane.quiet()
            self._publish(lane, over=True)
        self._tell_blocked(lane)
        lane.wake.set()

    def _tell_blocked(self, lane: Lane) -> None:
        now = self._scheduler.clock.now()
        until = lane.limiter.blocked_until(now)
        if until > now:
            lane.trouble, lane.trouble_since = _blocked(until - now), now
            self._publish(lane)

    def learn_most(self, lane: Lane, recipients: int) -> None:
        """Exchange took no more than so many in one message: known from now on, after a restart as well."""
        lane.learn_most(recipients, self._scheduler.clock.now())
        self._keep(_LEARNED + lane.name, lane.learned())

    async def recall(self) -> None:
        """Upstreams that were slowed down, by another replica perhaps, stay so as long as was asked for."""
        now = self._scheduler.clock.now()
        for key, text in (await self._scheduler.spool.remembered(_THROTTLE)).items():
            upstream = self._scheduler.upstream(key.removeprefix(_THROTTLE))
            with contextlib.suppress(ValueError, TypeError, KeyError):
                kept = json.loads(text)
                until = float(kept["until"])
                if until > max(now, upstream.slowed_until):
                    trouble = Outcome(
                        Result.DEFERRED, Scope.UPSTREAM, reason=str(kept["reason"]), remedy=str(kept["remedy"]),
                        code=str(kept["code"]), counts=False, slow=True, wait=until - now,
                    )  # fmt: skip
                    self._slow_upstream(upstream, trouble, until)
