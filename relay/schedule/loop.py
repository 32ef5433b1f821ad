"""The scheduler: what is due, on which lane, and when next.

Each lane has a runner that decides (`planner.plan`), does, and sleeps until its next time or until it is woken:
by new mail, by an outcome, by an operator. Nothing polls the queue, and nothing here grows with what is queued.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from relay import events
from relay.clock import Clock
from relay.deliver.contract import Courier
from relay.errors import SpoolError
from relay.message import Outcome, Report, Result, Scope, Trouble
from relay.schedule.answers import Answers, judge
from relay.schedule.carrier import Carrier
from relay.schedule.desk import Desk, Post
from relay.schedule.holds import Holds
from relay.schedule.judgement import RetryRules
from relay.schedule.lane import Lane, UpstreamState
from relay.schedule.limits import ONE, MailboxLimiter
from relay.schedule.overdue import Overdue
from relay.schedule.planner import LaneView, plan
from relay.schedule.pools import Pools, members
from relay.settings import MailboxLimits, Settings
from relay.spool.contract import Claim, Hold, Settlement, Spool, lane_parts

_IMPATIENCE = 10.1
_AGAIN = 2.0
"""Seconds before a lane looks again after the spool itself failed."""
_DIALS = 20
"""Connections being made at once, over all lanes: a rule that keeps senders makes a lane for each of them."""
_CONNECTIONS = 500
"""Connections open at once, over all lanes: within the usual 1,024 file descriptors, clients included."""
_NO_LIMITS = MailboxLimits(
    connections=1, messages_per_minute=0, recipients_per_day=0, recipients_per_message=0, message_size=0
)


class Scheduler:
    """Runs the lanes of one process."""

    def __init__(
        self,
        spool: Spool,
        courier: Courier,
        settings: Settings,
        clock: Clock,
        identity: Callable[[Claim], str],
        post: Post,
    ) -> None:
        self.spool = spool
        self.courier = courier
        self.clock = clock
        self.identity = identity
        """The From address that today's rules give a message: what a sender's hold is about."""
        self.stopping = False
        self.lanes: dict[str, Lane] = {}
        self.upstreams: dict[str, UpstreamState] = {}
        self.rules = _rules(settings)
        self.holds = Holds(self)
        self.desk = Desk(spool, post, clock)
        self.overdue = Overdue(spool, self.desk, settings.spool, clock)
        self.pools = Pools(self, settings)
        self.answers = Answers(spool, clock, self._hold_in_the_way)
        self._settings = settings
        self.dialling = asyncio.Semaphore(_DIALS)
        self.connections = asyncio.Semaphore(_CONNECTIONS)
        self._runners: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # life

    async def start(self) -> None:
        """Take up what the spool holds; returns once every lane is under way."""
        self.spool.subscribe(self.kick)
        await self.holds.load(probe_now=True)
        await self.holds.forget_senders()  # the rules may have changed meanwhile: each is tried afresh
        await self.desk.load()
        for summary in await self.spool.lanes():
            lane = self._lane(summary.lane)
            lane.next_due = summary.next_due
            self._ensure_runner(lane)

    async def stop(self, seconds: float) -> None:
        """Claim nothing more; let what is under way finish for ``seconds``, then cut it off. Never raises."""
        self.stopping = True
        self.answers.close()
        for task in self._runners.values():
            task.cancel()
        await asyncio.gather(*self._runners.values(), return_exceptions=True)
        for lane in self.lanes.values():
            lane.call_all()
            for task in lane.opening:
                task.cancel()
            lane.owed += lane.give_back()
            with contextlib.suppress(SpoolError):  # the next start finds them
                await self._return(lane)
        carriers = [task for lane in self.lanes.values() for task in lane.carriers]
        if carriers:
            _, late = await asyncio.wait(carriers, timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        for task in self._tasks:
            task.cancel()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something beside the lanes, until it ends or the scheduler stops."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def reload(self, settings: Settings) -> None:
        """New limits and rules; whatever is held is tried again at once."""
        self._settings = settings
        self.rules = _rules(settings)
        self.pools.members = members(settings)
        self.overdue.settings = settings.spool
        for lane in self.lanes.values():
            lane.limits, lane.batch_size = self._limits(lane.upstream.name)
            lane.limiter.update(lane.limits)
            lane.resting_until = 0.0
        await self.holds.load(probe_now=True)
        await self.holds.forget_senders()
        self.kick_all()

    async def refresh(self, lanes: Iterable[str], *, probe_now: bool = False) -> None:
        """An operator changed the spool from another process: look again, holds included.

        ``probe_now``: a check found things in order, so what is held is tried at once.
        """
        await self.holds.load(probe_now=probe_now)
        for name in lanes:
            self.kick(name)
            self.lanes[name].resting_until = 0.0
        self.kick_all()

    def kick(self, name: str) -> None:
        """New or changed mail in a lane."""
        lane = self._lane(name)
        lane.kick()
        self._ensure_runner(lane)

    def kick_all(self) -> None:
        """Look at every lane again."""
        for lane in self.lanes.values():
            lane.kick()

    # lanes

    def _lane(self, name: str) -> Lane:
        lane = self.lanes.get(name)
        if lane is None:
            upstream = self.upstream(lane_parts(name)[0])
            limits, batch_size = self._limits(upstream.name)
            lane = Lane(name, upstream, limits, batch_size, MailboxLimiter(limits))
            self.lanes[name] = lane
            upstream.lanes.add(name)
            self.holds.apply(lane)
            now = self.clock.now()
            if upstream.slowed is not None and now < upstream.slowed_until:
                lane.slow_down(upstream.slowed, now, upstream.slowed_until - now)
        return lane

    def upstream(self, name: str) -> UpstreamState:
        """The shared state of an upstream."""
        return self.upstreams.setdefault(name, UpstreamState(name))

    def _limits(self, upstream: str) -> tuple[MailboxLimits, int]:
        for one in self._settings.upstreams:
            if one.name == upstream:
                return one.limits, one.batch_size
        return _NO_LIMITS, 1

    def _ensure_runner(self, lane: Lane) -> None:
        task = self._runners.get(lane.name)
        if not self.stopping and (task is None or task.done()):
            self._runners[lane.name] = asyncio.create_task(self._run(lane), name=f"lane {lane.name}")

    async def _run(self, lane: Lane) -> None:
        while True:
            lane.wake.clear()
            try:
                if await self._step(lane):
                    continue
                pause = self._pause(lane)
            except SpoolError as error:
                self._stumble(lane, error, error.remedy)
                pause = _AGAIN
            except Exception as error:
                # a fault of ours must not stop a lane
                events.trouble(where=f"lane {lane.name}", what=f"unexpected error: {error!r}", error=error)
                pause = _AGAIN
            try:
                async with asyncio.timeout(pause):
                    await lane.wake.wait()
            except TimeoutError:
                if lane.next_due is not None and lane.next_due <= self.clock.now():
                    lane.may_have_work = True

    def _stumble(self, lane: Lane, error: SpoolError, remedy: str) -> None:
        """The spool cannot be used just now: said once, and shown by `relay status` while it lasts."""
        if lane.trouble is None or lane.trouble.code != "spool":
            events.trouble(where=f"lane {lane.name}", what=str(error), remedy=remedy)
            lane.trouble_since = self.clock.now()
        lane.trouble = Outcome(Result.DEFERRED, Scope.LANE, reason=str(error), remedy=remedy, code="spool")

    async def _know_usage(self, lane: Lane) -> None:
        if not lane.limits_known:
            lane.limiter = MailboxLimiter(lane.limits, await self.spool.usage(lane.name, self.clock.now()))
            lane.limits_known = True

    async def _step(self, lane: Lane) -> bool:
        """Do what the planner says; whether to plan again at once."""
        await self._know_usage(lane)
        await self._return(lane)
        await self.holds.tend_senders(lane, self.clock.now())
        if lane.trouble is not None and lane.trouble.code == "spool":
            lane.quiet()
        step = plan(self._view(lane))
        if step.give_back:
            await self._give_back(lane)
        if step.claim:
            await self._claim(lane, step.claim)
            return True
        if step.open:
            self._open(lane)
            return True
        return False

    async def _return(self, lane: Lane) -> None:
        """Hand back what is claimed and will not be sent. Raises SpoolError, and then it stays owed."""
        if lane.owed:
            owed = lane.owed[:]
            await self.spool.unclaim([claim.id for claim in owed])
            lane.owed = lane.owed[len(owed) :]
            lane.may_have_work = True
            self.answers.returned([claim.id for claim in owed if claim.direct])
        while lane.shelved:
            claim, hold = lane.shelved[0]
            held = Outcome(
                Result.HELD,
                Scope.SENDER,
                reason=hold.reason,
                remedy=hold.remedy,
                code=hold.code,
                counts=False,
            )
            people = {one.address: held for one in claim.envelope.recipients}
            done, answer = Settlement(claim.id, people, counts=False, hold_key=hold.key), None
            if claim.direct:
                done, answer = judge(claim, done)
            await self.spool.settle(done, self.clock.now())
            self.answers.settled(claim.id, answer)
            lane.shelved.pop(0)

    def _view(self, lane: Lane) -> LaneView:
        now, hold = self.clock.now(), lane.the_hold()
        return LaneView(
            now=now,
            held=hold is not None,
            held_at_login=hold is not None and hold.at_login,
            probe_due=self.holds.probe_due(lane, now),
            resting_until=max(lane.resting_until, lane.limiter.paused_until),
            may_have_work=lane.may_have_work,
            ready=len(lane.ready),
            oldest_ready=lane.ready[0][0] if lane.ready else now,
            budget=self._budget(lane, now),
            connections=len(lane.carriers),
            room=lane.room,
            max_connections=1 if lane.limiter.slowed else max(1, lane.limits.connections),
            batch_size=lane.batch_size,
        )

    def _budget(self, lane: Lane, now: float) -> int | None:
        return lane.limiter.available(now) if lane.limiter.fits(now, lane.need) else 0

    def _pause(self, lane: Lane) -> float | None:
        """Seconds until the lane must look again by itself; None: only when woken."""
        now = self.clock.now()
        times: list[float] = []
        if lane.next_due is not None and not lane.may_have_work:
            times.append(lane.next_due)
        times += [one.next_probe for one in lane.held_senders.values() if one.next_probe is not None]
        hold = lane.the_hold()
        if hold is not None:
            times += [] if lane.carriers else self._probe_times(lane, hold, now)
        elif lane.may_have_work or lane.ready:
            times += self._working_times(lane, now)
        elif not lane.carriers and lane.resting_until <= now:
            lane.quiet()
        return max(0.001, min(times) - now) if times else None

    def _working_times(self, lane: Lane, now: float) -> list[float]:
        rest = max(lane.resting_until, lane.limiter.paused_until)
        if rest > now:
            return [rest]
        times = (
            [lane.limiter.ready_at(now, lane.need)]
            if lane.may_have_work and self._budget(lane, now) == 0
            else []
        )
        if lane.ready and 0 < len(lane.carriers) < lane.limits.connections:
            impatient = lane.ready[0][0] + _IMPATIENCE
            times += [impatient] if impatient > now else []
        return times

    def _probe_times(self, lane: Lane, hold: Hold, now: float) -> list[float]:
        if hold.next_probe is not None and hold.next_probe > now:
            return [hold.next_probe]
        return (
            [lane.limiter.ready_at(now, lane.need)]
            if lane.may_have_work and self._budget(lane, now) == 0
            else []
        )

    async def _claim(self, lane: Lane, count: int) -> None:
        """Claimed mail is in the lane's hands at once, whatever fails afterwards."""
        now = self.clock.now()
        lane.may_have_work = False
        claims = await self.spool.claim(lane.name, count, now)
        free = self._without_held_senders(lane, claims, now)
        lane.add(self._within_limits(lane, free, now), now)
        if len(claims) >= count:
            lane.may_have_work = True
        await self._return(lane)
        if not lane.may_have_work:
            found = (await self.spool.lane(lane.name)).next_due
            # what a settlement still on its way to the disk has set is not in the spool yet
            times = [one for one in (found, lane.next_due) if one is not None and (one is found or one > now)]
            lane.next_due = min(times, default=None)
            if lane.next_due is not None and lane.next_due <= now:
                lane.may_have_work = True  # only ever set here: new mail may have come meanwhile

    def _without_held_senders(self, lane: Lane, claims: list[Claim], now: float) -> list[Claim]:
        if not lane.held_senders:
            return claims
        free: list[Claim] = []
        for claim in claims:
            hold = self.holds.sender_hold(lane, claim)
            if hold is None:
                free.append(claim)
            else:
                lane.shelved.append((claim, hold))
        return free

    def _within_limits(self, lane: Lane, claims: list[Claim], now: float) -> list[Claim]:
        """Those that fit; a message that needs more than is left (many recipients) waits, and those behind it."""
        lane.need = ONE
        for index, claim in enumerate(claims):
            cost = lane.cost(claim)
            if not lane.limiter.fits(now, cost):
                lane.need = cost
                lane.owed += claims[index:]
                return claims[:index]
            lane.charge(claim, cost)
        return claims

    async def _give_back(self, lane: Lane) -> None:
        lane.owed += lane.give_back()
        await self._return(lane)
        if lane.the_hold() is not None:
            await self.pools.leave(lane.name)

    def _open(self, lane: Lane) -> None:
        self.holds.probing(lane)
        task = asyncio.create_task(
            Carrier(self, lane, probe=lane.the_hold() is not None).run(), name=f"carrier {lane.name}"
        )
        lane.carriers[task] = 1 if lane.the_hold() is not None else lane.batch_size
        task.add_done_callback(lambda done: self._closed(lane, done))

    def _closed(self, lane: Lane, task: asyncio.Task[None]) -> None:
        lane.carriers.pop(task, None)
        self.holds.probed(lane)
        lane.wake.set()

    def avoided(self, names: Iterable[str]) -> frozenset[str]:
        """Those of a pool's lanes that new mail should not choose: held, and not due to be tried."""
        known = (name for name in names if name in self.lanes)
        return frozenset(name for name in known if self._hold_in_the_way(name) is not None)

    def _hold_in_the_way(self, name: str) -> Hold | None:
        """What keeps new mail of a lane from going; not a hold that is due to be tried, since that needs a message."""
        lane = self._lane(name)
        return None if self.holds.probe_due(lane, self.clock.now()) else lane.the_hold()

    # what carriers tell

    async def could_not_open(self, lane: Lane, trouble: Trouble) -> None:
        """Dial, TLS, token or login failed."""
        if trouble.outcome.result is Result.HELD:
            await self.holds.impose(lane, trouble.outcome, at_login=True)
            return
        if trouble.outcome.slow and not lane.limiter.slowed:
            lane.limiter.throttled(self.clock.now(), 0.0)
        known = lane.trouble is not None and lane.trouble.reason == trouble.outcome.reason
        until = lane.rest(trouble, self.clock.now())
        if not known:
            events.trouble(
                where=f"lane {lane.name}",
                what=trouble.outcome.reason,
                remedy=trouble.outcome.remedy,
                again_in=round(until - self.clock.now(), 1),
            )

    async def opened(self, lane: Lane) -> None:
        """A connection is authenticated: what was held because it could not be is mended."""
        lane.resting_until = 0.0
        hold = lane.the_hold()
        if hold is not None and hold.at_login:
            await self.holds.mended(lane, hold)

    async def after_report(self, lane: Lane, claim: Claim, report: Report) -> None:
        """What an attempt says about the lane, its sender and its upstream."""
        trouble = report.lane_trouble
        if trouble is None:
            lane.well()
            await self._widen(lane, claim, report)
            if any(one.result is Result.SENT for one in report.outcomes.values()):
                await self.holds.sent(lane, claim)
            return
        if trouble.slow:
            self._slow_down(lane, trouble)
        if trouble.result is Result.HELD:
            await self.holds.impose(lane, trouble, claim=claim)
        elif not trouble.slow:
            lane.rest(Trouble(trouble), self.clock.now())

    async def _widen(self, lane: Lane, claim: Claim, report: Report) -> None:
        """The same policy reply for a second message: it is about the mailbox, not about one message."""
        for outcome in report.outcomes.values():
            if outcome.code != "message-policy" or outcome.reply is None:
                continue
            first = lane.refused.setdefault(outcome.reply.enhanced, claim.id)
            if first != claim.id:
                lane.refused.clear()
                await self.holds.impose(lane, dataclasses.replace(outcome, scope=Scope.LANE), claim=claim)
                return

    def _slow_down(self, lane: Lane, trouble: Outcome) -> None:
        """A throttling reply slows its mailbox; one about the tenant slows every mailbox (facts 3.2: 5.7.233)."""
        now, wait = self.clock.now(), trouble.wait if trouble.wait is not None else 60.0
        if trouble.scope is not Scope.UPSTREAM:
            lane.slow_down(trouble, now, wait)
            return
        lane.upstream.slowed, lane.upstream.slowed_until = trouble, now + wait
        for name in lane.upstream.lanes | {lane.name}:
            self.lanes[name].slow_down(trouble, now, wait)


def _rules(settings: Settings) -> RetryRules:
    spool = settings.spool
    return RetryRules(spool.retry, spool.max_age, spool.on_uncertain)
