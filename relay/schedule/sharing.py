"""Which lanes this replica works, where several relays share a spool; on a spool of one's own, all of them.

A lane's runner begins by taking the lane. Free lanes with mail are taken by whoever has less than its share; when
somebody else joins, those with more than theirs let some go: no new claims, connections end after the message they
carry, what is claimed goes back, and only then the lane is free. So at every moment one replica works a lane, and what
it has used of the mailbox's limits is written down before the next one begins.

Replicas tell one another what happens; besides, each looks at everything from time to time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import TYPE_CHECKING

from relay import events
from relay.errors import SpoolError
from relay.message import Reply
from relay.schedule.lane import Lane
from relay.spool.contract import Claim, News, Taken

if TYPE_CHECKING:
    from relay.schedule.loop import Scheduler

_LOOK = 30.0
"""Seconds between looks at everything, should some news have been missed."""
_OTHERS_FIRST = 2.0
"""Seconds that a replica with its share of lanes leaves to the others to take one that is free."""
_IDLE = 60.0
"""Seconds after which a lane that has nothing to do is let go."""
_LAST_REPLY = 30.0
"""Seconds that a replica which was given up waits for the replies to what it was sending."""
_AGAIN = 1.0
"""Seconds between tries to take part again."""


class Sharing:
    """This replica's share of the lanes."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._others: set[str] = set()
        """Lanes that other replicas work, as far as is known: news of mail there is not for us."""
        self._freed: Counter[str] = Counter()
        """How often a lane was said to be free: what was asked before that may not hold any more."""
        self._due = asyncio.Event()
        self._holds_changed = False
        self._resting: set[str] = set()
        """Lanes that had nothing to do for a while."""

    def start(self) -> None:
        """Hear the others from now on."""
        if self._scheduler.spool.shared:
            self._scheduler.spool.listen(self.hear)
            self._scheduler.spawn(self._keep_looking())

    # lanes

    async def take(self, lane: Lane) -> bool:
        """Whether this replica works the lane from now on. Raises nothing: the next look tries again."""
        if lane.name in self._others:
            return False
        spool, before = self._scheduler.spool, self._freed[lane.name]
        try:
            taken = await spool.take(lane.name)
            if taken is Taken.ENOUGH:
                await self._scheduler.clock.sleep(_OTHERS_FIRST)
                taken = await spool.take(lane.name, anyway=True)
        except SpoolError:
            self._look_soon()
            return False
        if taken is Taken.OTHERS and self._freed[lane.name] == before:
            self._others.add(lane.name)
        elif taken is Taken.OTHERS:
            self._look_soon()
        return taken is Taken.MINE

    async def reserve(self, lane: Lane) -> None:
        """Before connections are opened: whoever takes the lane over must know how many there may be. Raises SpoolError."""
        most = lane.limiter.connections(self._scheduler.clock.now())
        if most > lane.reserved:
            await self._scheduler.spool.note_connections(lane.name, most)
            lane.reserved = most

    async def handed_over(self, lane: Lane) -> bool:
        """Whether the lane is no longer ours: it was to leave, or had nothing to do for long, and nothing is in hand."""
        if not self._scheduler.spool.shared or lane.busy or not (lane.leaving or lane.name in self._resting):
            return False
        if not lane.leaving and not lane.idle:
            self._resting.discard(lane.name)
            return False
        await self._scheduler.spool.let_go(lane.name, idle=not lane.leaving)
        self._resting.discard(lane.name)
        self._scheduler.drop(lane)
        if lane.may_have_work and not lane.leaving:
            self._scheduler.kick(lane.name)  # some came at the last moment
        self._scheduler.spawn(self._see_to(lane.name))
        return True

    async def _see_to(self, name: str) -> None:
        """Somebody should have taken it by now, if there is mail in it."""
        await self._scheduler.clock.sleep(_OTHERS_FIRST)
        with contextlib.suppress(SpoolError):
            found = await self._scheduler.spool.lane(name)
            if found.queued or found.next_due is not None:
                self._scheduler.kick(name)

    def patience(self, lane: Lane, pause: float | None) -> float | None:
        """How long a lane may sleep: not for ever, where it could be let go."""
        if not self._scheduler.spool.shared or not lane.idle:
            return pause
        return _IDLE if pause is None else min(pause, _IDLE)

    def rested(self, lane: Lane) -> None:
        """It has slept as long as it may."""
        if self._scheduler.spool.shared and lane.idle:
            self._resting.add(lane.name)

    # news

    def hear(self, news: News) -> None:
        """From the spool; see `relay.spool.group.News`."""
        if news.kind == "lost":
            self._scheduler.spawn(self._start_over())
        elif self._scheduler.lost or self._scheduler.stopping:
            return
        elif news.kind == "mail" and news.text not in self._others:
            self._scheduler.kick(news.text)
        elif news.kind == "free":
            self._freed[news.text] += 1
            self._others.discard(news.text)
            self._scheduler.kick(news.text)
        elif news.kind == "answer":
            self._answer(news.text)
        elif news.kind == "memory" and news.text.startswith("throttle:"):
            self._scheduler.spawn(self._quietly_recall())
        elif news.kind in ("hold", "replicas", "again", "debts"):
            self._holds_changed = self._holds_changed or news.kind in ("hold", "again")
            self._look_soon()

    def _look_soon(self) -> None:
        self._due.set()

    async def _keep_looking(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK):
                    await self._due.wait()
            self._due.clear()
            if self._scheduler.lost:
                continue
            try:
                await self._look()
            except SpoolError:  # away: the watch says when it is back
                await self._scheduler.clock.sleep(_AGAIN)
            except Exception as error:
                events.trouble(where="group", what=f"unexpected error: {error!r}", error=error)

    async def _look(self) -> None:
        """Everything once: holds, what left replicas had in hand, lanes that are free, lanes that are too many."""
        scheduler = self._scheduler
        changed, self._holds_changed = self._holds_changed, False
        if changed:
            await self._holds_anew()
        recovered = await scheduler.spool.recover()
        for message_id in recovered.uncertain:
            events.uncertain(id=message_id, lane="", why="a replica left while it was being submitted")
        before = self._freed.copy()
        workers = await scheduler.spool.workers()
        self._others = {
            lane for lane, who in workers.items() if not who.me and self._freed[lane] == before[lane]
        }
        await scheduler.look()
        await self._level()
        for lane in [one for one in scheduler.lanes.values() if one.limiter.in_debt]:
            await scheduler.verdicts.reckon(lane)

    async def _holds_anew(self) -> None:
        holds = self._scheduler.holds
        before = {(one.scope, one.key) for one in holds.all()}
        await self._scheduler.refresh([])
        for one in holds.all():
            if (one.scope, one.key) not in before:
                names = {name for name in self._scheduler.lanes if one.key in (name, name.rpartition("/")[0])}
                self._scheduler.answers.held(names, one)

    async def _level(self) -> None:
        """Let the surplus go, idle lanes first."""
        working = [lane for name, lane in self._scheduler.lanes.items() if self._scheduler.works(name)]
        staying = sorted((lane for lane in working if not lane.leaving), key=lambda lane: lane.busy)
        surplus = await self._scheduler.spool.surplus() - (len(working) - len(staying))
        for lane in staying[: max(0, surplus)]:
            lane.leaving = True
            lane.call_all()
            lane.wake.set()

    async def _quietly_recall(self) -> None:
        with contextlib.suppress(SpoolError):
            await self._scheduler.verdicts.recall()

    # clients that wait for Exchange's answer

    async def answered(self, claim: Claim, reply: Reply | None) -> None:
        """The attempt at a message is written down: its client may wait here, or at another replica."""
        self._scheduler.answers.settled(claim.id, reply)
        if claim.direct and reply is not None and not self._scheduler.answers.expects(claim.id):
            await self._scheduler.spool.answer(claim.id, f"{reply.code} {reply.enhanced or '-'} {reply.text}")

    def _answer(self, text: str) -> None:
        message_id, code, enhanced, words = (text.split(" ", 3) + [""] * 3)[:4]
        if code.isdigit():
            self._scheduler.answers.settled(
                message_id, Reply(int(code), "" if enhanced == "-" else enhanced, words)
            )

    # given up

    async def _start_over(self) -> None:
        """The others have our lanes: let go of everything, and begin anew as a member that has nothing in hand."""
        scheduler = self._scheduler
        scheduler.lost = True
        try:
            await self._let_everything_go()
            while not await self._rejoined():
                await scheduler.clock.sleep(_AGAIN)
        finally:
            scheduler.lost = False
        self._others.clear()
        with contextlib.suppress(SpoolError):
            await scheduler.take_up()
        self._look_soon()

    async def _let_everything_go(self) -> None:
        scheduler = self._scheduler
        for task in scheduler.runners.values():
            task.cancel()
        await asyncio.gather(*scheduler.runners.values(), return_exceptions=True)
        for lane in scheduler.lanes.values():
            lane.leaving = True
            lane.ready.clear()
            lane.owed.clear()
            lane.shelved.clear()
            lane.call_all()
        await scheduler.end_carriers(_LAST_REPLY)
        for lane in list(scheduler.lanes.values()):
            scheduler.drop(lane)

    async def _rejoined(self) -> bool:
        try:
            await self._scheduler.spool.rejoin()
        except SpoolError:
            return False
        return True
