"""The scheduler: what is due, on which lane, and when next.

Each lane has a runner that decides (`planner.plan`), does, and sleeps until its next time or until it is woken:
by new mail, by an outcome, by an operator. Nothing polls the queue, and nothing here grows with what is queued.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from relay import events
from relay.background import Tasks, end_within
from relay.clock import Clock
from relay.deliver.contract import Courier
from relay.errors import SpoolError
from relay.message import Outcome, Result, Scope
from relay.schedule import outlook
from relay.schedule.answers import Answers
from relay.schedule.carrier import Carrier
from relay.schedule.desk import Desk, Post
from relay.schedule.holds import Holds
from relay.schedule.judgement import RetryRules
from relay.schedule.lane import Lane, UpstreamState
from relay.schedule.limits import NO_LIMITS, MailboxLimiter
from relay.schedule.overdue import Overdue
from relay.schedule.places import Places
from relay.schedule.planner import plan
from relay.schedule.pools import Pools, members
from relay.schedule.sharing import Sharing
from relay.schedule.telling import Unwritten
from relay.schedule.verdicts import Verdicts
from relay.settings import MailboxLimits, Settings
from relay.spool.contract import Claim, Hold, Settlement, Spool, lane_name, lane_parts

_AGAIN = 2.0
"""Seconds before a lane looks again after the spool itself failed."""
_DIALS = 20
"""Connections being made at once, over all lanes: a rule that keeps senders makes a lane for each of them."""
_CONNECTIONS = 500
"""Connections open at once, over all lanes: within the usual 1,024 file descriptors, clients included."""


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
        self.lost = False
        """The other replicas have given this one up: nothing runs until it takes part again."""
        self.lanes: dict[str, Lane] = {}
        self.upstreams: dict[str, UpstreamState] = {}
        self.rules = _rules(settings)
        self.holds = Holds(self)
        self.desk = Desk(spool, post, clock)
        self.overdue = Overdue(spool, self.desk, settings.spool, clock)
        self.pools = Pools(self, settings)
        self.verdicts = Verdicts(self)
        self.unwritten = Unwritten()
        self.answers = Answers(spool, clock, self._hold_in_the_way, self.lanes)
        self._settings = settings
        self.dialling = asyncio.Semaphore(_DIALS)
        self.connections = Places(_CONNECTIONS)
        self.sharing = Sharing(self)
        self.runners: dict[str, asyncio.Task[None]] = {}
        self._tasks = Tasks()

    # life

    async def start(self) -> None:
        """Take up what the spool holds; returns once every lane is under way."""
        self.spool.subscribe(self.kick)
        self.sharing.start()
        await self.take_up()

    async def take_up(self) -> None:
        """Everything from the beginning, as the spool has it."""
        await self.verdicts.recall()
        await self.holds.load(probe_now=True, anew=True)
        await self.desk.load()
        await self.look()

    async def look(self) -> None:
        """A runner for every lane that has mail, or a hold to try; it ends at once where another replica works it."""
        for summary in await self.spool.lanes():
            lane = self._lane(summary.lane)
            lane.next_due = summary.next_due
            self._ensure_runner(lane)
        self._run_held()

    async def stop(self, seconds: float) -> None:
        """Claim nothing more; let what is under way finish for ``seconds``, then cut it off. Never raises."""
        self.stopping = True
        self.answers.close()
        await self.spool.leaving()
        for task in self.runners.values():
            task.cancel()
        await asyncio.gather(*self.runners.values(), return_exceptions=True)
        for lane in self.lanes.values():
            lane.call_all()
            for task in lane.opening:
                task.cancel()
            lane.owed += lane.give_back()
            with contextlib.suppress(SpoolError):  # the next start finds them
                await self._return(lane)
        await self._let_go(lane for lane in self.lanes.values() if not lane.carriers)
        await self.end_carriers(seconds)
        await self._let_go(self.lanes.values())
        self._tasks.cancel()

    async def _let_go(self, lanes: Iterable[Lane]) -> None:
        """Others may go on with these lanes."""
        await asyncio.gather(*(self.spool.let_go(lane.name) for lane in lanes), return_exceptions=True)

    async def end_carriers(self, seconds: float) -> None:
        """Let what is being sent be finished; cut it off after so long."""
        await end_within([task for lane in self.lanes.values() for task in lane.carriers], seconds)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something beside the lanes, until it ends or the scheduler stops."""
        self._tasks.spawn(work)

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
        await self.holds.load(probe_now=True, anew=True)
        self._run_held()
        self.kick_all()

    async def refresh(self, lanes: Iterable[str], *, probe_now: bool = False) -> None:
        """An operator changed the spool from another process: look again, holds included.

        ``probe_now``: something was mended, so that what is held is tried at once.
        """
        await self.holds.load(probe_now=probe_now)
        for name in lanes:
            self.kick(name)
            self.lanes[name].resting_until = 0.0
        self._run_held()
        self.kick_all()

    async def drop_unused(self, in_use: Callable[[str], bool]) -> None:
        """Forget the holds and lanes that the configuration of the moment does not use and that have no mail."""
        await self.holds.drop_unused(in_use)
        kept = {summary.lane for summary in await self.spool.lanes()} | self.holds.lanes()
        for name, lane in self.lanes.items():
            lane.retired = name not in kept and not in_use(name)
            lane.wake.set()

    def _forget(self, lane: Lane) -> bool:
        """Whether a retired lane is idle, and is now forgotten. Mail that comes later makes it anew."""
        if not lane.retired or lane.busy or lane.may_have_work or lane.next_due is not None:
            return False
        self.drop(lane)
        return True

    def drop(self, lane: Lane) -> None:
        """Nothing is known of this lane any more."""
        self.lanes.pop(lane.name, None)
        self.runners.pop(lane.name, None)
        lane.upstream.lanes.discard(lane.name)

    def works(self, name: str) -> bool:
        """Whether a lane is worked here, as far as this process knows."""
        task = self.runners.get(name)
        return task is not None and not task.done() and self.lanes[name].limits_known

    def default_lane(self, upstream: str) -> str:
        """The lane of an upstream's default mailbox; empty when there is no such upstream."""
        for one in self._settings.upstreams:
            if one.name == upstream:
                return lane_name(one.name, one.from_email)
        return ""

    def _run_held(self) -> None:
        """A hold is tried although no mail waits."""
        for name in self.holds.lanes():
            self._ensure_runner(self._lane(name))

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
        return NO_LIMITS, 1

    def _ensure_runner(self, lane: Lane) -> None:
        task = self.runners.get(lane.name)
        if not self.stopping and not self.lost and (task is None or task.done()):
            self.runners[lane.name] = asyncio.create_task(self._run(lane), name=f"lane {lane.name}")

    async def _run(self, lane: Lane) -> None:
        if not await self.sharing.take(lane):
            return
        while True:
            lane.wake.clear()
            try:
                planned_at = await self._step(lane)
                if planned_at is None:
                    continue
                if await self.sharing.handed_over(lane) or self._forget(lane):
                    return
                look = outlook.next_look(self.holds, lane, planned_at)
                pause = self.sharing.patience(
                    lane, None if look is None else max(0.001, look - self.clock.now())
                )
            except SpoolError as error:
                self._stumble(lane, error, error.remedy)
                pause, lane.may_have_work = _AGAIN, True  # what could not be claimed is still there
            except Exception as error:
                # a fault of ours must not stop a lane
                events.trouble(where=f"lane {lane.name}", what=f"unexpected error: {error!r}", error=error)
                pause, lane.may_have_work = _AGAIN, True
            try:
                async with asyncio.timeout(pause):
                    await lane.wake.wait()
            except TimeoutError:
                self.sharing.rested(lane)
                if lane.next_due is not None and lane.next_due <= self.clock.now():
                    lane.may_have_work = True

    def _stumble(self, lane: Lane, error: SpoolError, remedy: str) -> None:
        """The spool cannot be used just now: said once, and shown by `relay status` while it lasts."""
        if lane.trouble is None or lane.trouble.code != "spool":
            events.trouble(where=f"lane {lane.name}", what=str(error), remedy=remedy)
            lane.trouble_since = self.clock.now()
        lane.trouble = Outcome(Result.DEFERRED, Scope.LANE, reason=str(error), remedy=remedy, code="spool")

    async def _step(self, lane: Lane) -> float | None:
        """Do what the planner says. None: plan again at once; else the moment at which there was nothing more to do."""
        if not lane.limits_known:
            await self.verdicts.know(lane)
        await self.sharing.reserve(lane)
        await self._return(lane)
        await self.holds.tend(lane, self.clock.now())
        if lane.trouble is not None and lane.trouble.code == "spool":
            lane.quiet()
        now = self.clock.now()
        if lane.leaving:
            lane.owed += lane.give_back()
            await self._return(lane)
            return now
        step = plan(outlook.view(self.holds, lane, now))
        if step.give_back:
            await self._give_back(lane)
        if step.claim:
            await self._claim(lane, step.claim)
            return None
        if step.open:
            if lane.the_hold() is None or await self.holds.may_probe(lane):
                self._open(lane)
            return None
        return now

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
                done, answer = self.answers.judge(claim, done)
            await self.spool.settle(done, self.clock.now())
            self.answers.settled(claim.id, answer)
            lane.shelved.pop(0)
            await self.holds.settled(done.hold_key)

    async def _claim(self, lane: Lane, count: int) -> None:
        """Claimed mail is in the lane's hands at once, whatever fails afterwards."""
        now = self.clock.now()
        lane.may_have_work = False
        window = lane.admission.window(count)
        claims = await self.spool.claim(lane.name, window, now)
        free = self._without_held_senders(lane, claims, now)
        lane.add(lane.admission.admit(lane, free, count, now), now)
        lane.backlog = 0
        if len(claims) >= window:
            lane.may_have_work = True
            if len(lane.carriers) < lane.limits.connections:
                lane.backlog = (await self.spool.lane(lane.name)).queued
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

    async def _give_back(self, lane: Lane) -> None:
        lane.owed += lane.give_back()
        await self._return(lane)
        if lane.the_hold() is not None:
            await self.pools.leave(lane.name)

    def _open(self, lane: Lane) -> None:
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


def _rules(settings: Settings) -> RetryRules:
    spool = settings.spool
    return RetryRules(spool.retry, spool.max_age, spool.on_uncertain)
