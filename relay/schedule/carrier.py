"""One connection's life: open, carry messages one after another, close.

Each message: content from the spool, submit (the transport writes the attempt down before end of data),
then the report becomes a settlement. The settlement is committed while the next message is already on its
way; the connection ends only when all are on disk. In a hurried lane, the next few attempts are written down
meanwhile, so that no message waits for the disk by itself.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter, deque
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from itertools import islice
from typing import TYPE_CHECKING, Any

from relay import events
from relay.deliver.contract import Connection
from relay.errors import SpoolError, SpoolLost
from relay.message import Content, Outcome, Reply, Report, Result, Scope, Trouble
from relay.schedule.backoff import step
from relay.schedule.judgement import settlement
from relay.schedule.lane import WINDOW, Lane, Pair, pairs
from relay.schedule.leave import Leave
from relay.schedule.telling import tell
from relay.spool.contract import Claim, Settlement

if TYPE_CHECKING:
    from relay.schedule.loop import Scheduler

_IDLE_CHECK = 5.0
"""Seconds between looks whether an idle connection is still worth keeping."""
_SHARED_IDLE_CHECK = 1.0
"""The same where others may take the lane over: who is cut off from them lets its idle connections go soon."""
_ASSURED_WITHIN = 2.0
"""Seconds that the spool may take to say that this replica still takes part."""
_AHEAD = 4
"""Attempts of a hurried lane written down before their turn, for each connection: a fsync takes about as long as so many.
Connections that have nothing to carry (mail of one source keeps to one) lend theirs to the others."""
_LAST_WAIT = 5.0
"""Seconds that a stop waits for a spool that takes no outcome."""
_SPOOL_AGAIN = (1.0, 2.0, 5.0, 10.0)
"""Seconds before an outcome that the spool could not take (a full disk) is offered again; the last repeats."""


class Carrier:
    """Carries one batch for one lane."""

    def __init__(self, scheduler: Scheduler, lane: Lane, *, probe: bool = False) -> None:
        self._scheduler = scheduler
        self._lane = lane
        self._probe = probe
        """Tries one message of a held lane; goes on with the rest only if that ends the hold."""
        self._settling: set[asyncio.Task[None]] = set()
        self._ahead: deque[Leave] = deque()
        """Taken from the lane and being written down, in the order in which they will go."""
        self._failed = False
        """The spool failed at a message."""
        self._mine: Counter[Pair] = Counter()
        """What is in hand, the message under way included, by source and recipient."""

    async def run(self) -> None:
        """Open, carry, close. Trouble with the connection is told to the scheduler; nothing is raised."""
        connection: Connection | None = None
        async with AsyncExitStack() as place:
            try:
                connection = await self._open(place)
                if connection is not None:
                    await self._carry(connection)
            except Exception as error:
                events.trouble(
                    where=f"lane {self._lane.name}", what=f"unexpected error: {error!r}", error=error
                )
                self._lane.rest(Trouble(_unexpected(error)), self._scheduler.clock.now())
            finally:
                await self._finish_settling()
                if connection is not None:
                    await connection.close()

    async def _finish_settling(self) -> None:
        """Outcomes are written down before the connection counts as done; a stop waits for the spool a little only."""
        while self._settling:
            done, _ = await asyncio.wait(self._settling, timeout=_LAST_WAIT)
            if not done and self._scheduler.stopping:
                for task in self._settling:
                    task.cancel()
                return

    async def _open(self, place: AsyncExitStack) -> Connection | None:
        """Dial, once there is a place; it is kept until ``place`` is closed."""
        lane, task = self._lane, asyncio.current_task()
        assert task is not None
        lane.opening[task] = self._scheduler.clock.now()
        try:
            async with self._scheduler.dialling:
                await place.enter_async_context(self._scheduler.connections.place())
                if not await self._still_ours():
                    lane.rest(Trouble(_NOT_SURE), self._scheduler.clock.now())
                    return None
                connection = await self._scheduler.courier.open(lane.upstream.name, lane.mailbox)
        except Trouble as trouble:
            await self._scheduler.verdicts.could_not_open(lane, trouble)
            return None
        finally:
            lane.opening.pop(task, None)
        lane.logged_in(connection.transport, self._scheduler.clock.now())
        try:
            await self._scheduler.verdicts.opened(lane)
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _still_ours(self) -> bool:
        """Whether the lane is: a replica that stood still, or is cut off, may have been given up without knowing it yet."""
        spool = self._scheduler.spool
        try:
            async with asyncio.timeout(_ASSURED_WITHIN):
                await spool.assure()
        except (SpoolError, TimeoutError):
            return False
        return not self._scheduler.lost

    async def _carry(self, connection: Connection) -> None:
        lane, task, loop = self._lane, asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        lane.connected += 1
        try:
            idle = _SHARED_IDLE_CHECK if self._scheduler.spool.shared else _IDLE_CHECK
            while connection.usable() and not self._ends:
                if not self._scheduler.spool.sure and not await self._still_ours():
                    return
                held = lane.the_hold() is not None
                paused = lane.limiter.paused_until > self._scheduler.clock.now()
                leave = None if paused or (held and not self._probe) else self._take()
                if leave is None and (held or paused or self._scheduler.connections.wanted):
                    return
                if leave is None:
                    lane.wake.set()
                    self._adopt(await lane.wait_for_mail(idle))
                    continue
                lane.carriers[task] = max(0, (lane.batch_size if self._probe else lane.carriers[task]) - 1)
                probe, self._probe = self._probe and held, False
                # once this one travels, which takes a turn of the loop
                ahead = loop.call_soon(self._prepare, lane.carriers[task], lane.hurried and not held)
                try:
                    await self._one(connection, leave, probe)
                finally:
                    ahead.cancel()
                    self._finished(leave.claim)
        finally:
            lane.connected -= 1
            await self._give_back()

    @property
    def _ends(self) -> bool:
        return self._failed or self._scheduler.stopping or self._lane.leaving

    def _take(self) -> Leave | None:
        if self._ahead:
            self._lane.begun_ahead -= 1
            return self._ahead.popleft()
        claim = self._lane.take()
        if claim is None:
            return None
        self._mine.update(pairs(claim))
        return Leave(self._scheduler, self._lane, claim)

    def _finished(self, claim: Claim) -> None:
        mine = self._mine
        for pair in pairs(claim):
            mine[pair] -= 1
            if mine[pair] <= 0:
                del mine[pair]
        self._lane.finished(claim)

    def _prepare(self, room: int, hurried: bool) -> None:
        """What the next messages need, while one is on its way."""
        if hurried:
            self._look_ahead(room)
        if len(self._lane.ready) <= self._lane.ahead // 2:
            self._lane.wake.set()  # to claim ahead

    def _look_ahead(self, room: int) -> None:
        """Have the next few attempts written down: as many as go within moments, and over this connection."""
        lane, ready = self._lane, self._lane.ready
        together = _AHEAD * lane.connected
        share = min(together // lane.carrying, lane.ahead // (2 * lane.carrying))
        if not lane.spare:  # else that one takes over at the end of this one's batch
            share = min(share, room)
        while ready and len(self._ahead) < share and lane.begun_ahead < together:
            if any(claim.direct for _, claim in islice(ready, WINDOW)):
                return  # its client may leave, or lose patience, until a connection really has it
            claim = lane.take(self._mine)
            if claim is None:
                return
            self._mine.update(pairs(claim))
            leave = Leave(self._scheduler, lane, claim)
            leave.write_down()
            lane.begun_ahead += 1
            self._ahead.append(leave)

    def _adopt(self, leaves: list[Leave]) -> None:
        """Go on with what another connection took ahead before its batch was full."""
        for leave in leaves:
            self._mine.update(pairs(leave.claim))
        self._ahead.extend(leaves)

    def _may_hand_on(self) -> bool:
        lane, scheduler = self._lane, self._scheduler
        paused = lane.limiter.paused_until > scheduler.clock.now()
        return not (self._ends or paused or lane.the_hold() is not None)

    async def _give_back(self) -> None:
        """What was taken ahead goes over another connection now, or was never begun after all."""
        ahead, self._ahead = list(self._ahead), deque()
        if not ahead or (self._may_hand_on() and self._lane.hand_on(ahead)):
            return
        self._lane.begun_ahead -= len(ahead)
        for leave in ahead:
            await leave.written()
            leave.end()
        try:
            await self._scheduler.spool.unclaim([leave.claim.id for leave in ahead])
        except SpoolError:  # the lane offers them again
            self._lane.owed += [leave.claim for leave in ahead]
        for leave in ahead:
            self._finished(leave.claim)
        self._lane.kick()

    async def _one(self, connection: Connection, leave: Leave, probe: bool) -> None:
        scheduler, lane, claim = self._scheduler, self._lane, leave.claim
        content: Content | None = None
        report: Report | None
        began = scheduler.clock.monotonic()
        if claim.attempts == 0 and not claim.held_for:
            events.took("wait", scheduler.clock.now() - claim.received)
        lane.submitting[claim.id] = connection
        try:
            content = await scheduler.spool.content(claim.id)
            report = await connection.submit(claim, content, leave)
        except SpoolError as error:
            report = None if self._back_in_order(claim) else _whole(claim, _spool_trouble(error))
        except Exception as error:
            # A fault of ours while handling this one message: it must not stop the lane, nor be lost or bounced.
            events.trouble(where=f"message {claim.id}", what=f"unexpected error: {error!r}", error=error)
            report = _whole(claim, dataclasses.replace(_unexpected(error), uncertain=leave.begun))
        finally:
            lane.submitting.pop(claim.id, None)
            leave.end()
            events.took("submit", scheduler.clock.monotonic() - began)
        if report is None:
            lane.owed.append(claim)
            lane.out_of_order = self._failed = True
            lane.wake.set()
            return
        now = scheduler.clock.now()
        if not probe and self._is_no_news(claim, report):
            # nothing that the next message must wait for: it is sent first
            self._beside(self._went_well(claim, report, content, now))
            return
        done, answer = await self._judge(claim, report, content, now, probe)
        self._beside(self._settle(claim, done, report, now, answer))
        await scheduler.verdicts.after_report(lane, claim, report)

    def _beside(self, work: Coroutine[Any, Any, None]) -> None:
        """Have an outcome written down while the connection goes on."""
        task = asyncio.ensure_future(work)
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    def _is_no_news(self, claim: Claim, report: Report) -> bool:
        """Whether all of it was delivered, as the one before, so that it changes nothing for the lane."""
        lane = self._lane
        if claim.direct or claim.tried_for or lane.held_senders or lane.the_hold() is not None:
            return False
        return report.delivered

    async def _went_well(self, claim: Claim, report: Report, content: Content | None, now: float) -> None:
        try:
            done, answer = await self._judge(claim, report, content, now, False)
            try:
                await self._scheduler.verdicts.after_report(self._lane, claim, report)
            finally:  # the outcome is written down whatever becomes of that
                await self._settle(claim, done, report, now, answer)
        except Exception as error:
            events.trouble(where=f"message {claim.id}", what=f"unexpected error: {error!r}", error=error)

    def _back_in_order(self, claim: Claim) -> bool:
        """Whether a message that the spool failed at, and that is not sent, goes back to its place in the queue with all
        that was claimed behind it: so nothing overtakes it once the spool answers again. Not when it fails a second time:
        then it may be the message's own fault, and the others go on.
        """
        lane = self._lane
        again, lane.failed_at = lane.failed_at == claim.id, claim.id
        return not again

    async def _judge(
        self, claim: Claim, report: Report, content: Content | None, now: float, probe: bool
    ) -> tuple[Settlement, Reply | None]:
        """What is to be written down, and what a client that waits is answered."""
        scheduler, lane = self._scheduler, self._lane
        key = "" if report.delivered else f"{lane.name}|{scheduler.identity(claim)}"
        done, answer = settlement(claim, report, scheduler.rules, now, key, probe=probe), None
        if claim.direct:
            done, answer = scheduler.answers.judge(claim, done)
        done = await scheduler.desk.about_outcomes(claim, done, content)
        if done.due is not None:
            lane.next_due = min(lane.next_due or done.due, done.due)
        return done, answer

    async def _settle(
        self, claim: Claim, done: Settlement, report: Report, now: float, answer: Reply | None
    ) -> None:
        tries = 0
        while True:
            try:
                await self._scheduler.spool.settle(done, now)
            except SpoolLost as error:
                # whoever has it now has said that it is uncertain
                events.trouble(where=f"message {done.id}", what=f"its outcome was not written: {error}")
                self._scheduler.answers.settled(done.id, answer)
                return
            except SpoolError as error:
                # The outcome must not be lost: Exchange may have the message already.
                self._scheduler.unwritten.waits(done.id, error)
                await self._scheduler.clock.sleep(step(_SPOOL_AGAIN, tries))
                tries += 1
                continue
            self._scheduler.unwritten.written(done.id)
            if len(done.outcomes) < len(claim.envelope.recipients):
                self._lane.kick()  # some of it is back in the queue: to go on with, or to try a held lane with
            if done.due is not None:
                self._lane.next_due = min(self._lane.next_due or done.due, done.due)
                self._lane.wake.set()
            await self._scheduler.sharing.answered(claim, answer)
            await self._scheduler.holds.settled(done.hold_key)
            tell(self._lane.name, claim, done, report)
            return


_NOT_SURE = Outcome(
    Result.DEFERRED, Scope.LANE, code="spool", counts=False,
    reason="The database does not say whether this replica still takes part in its group.",
    remedy="It goes on by itself once the database answers.",
)  # fmt: skip


def _whole(claim: Claim, outcome: Outcome) -> Report:
    return Report({recipient.address: outcome for recipient in claim.envelope.recipients})


def _spool_trouble(error: SpoolError) -> Outcome:
    return Outcome(
        Result.DEFERRED, Scope.MESSAGE, reason=f"the spool could not be used: {error}", remedy=error.remedy,
        code="spool", counts=False, wait=30.0,
    )  # fmt: skip


def _unexpected(error: Exception) -> Outcome:
    return Outcome(
        Result.DEFERRED,
        Scope.MESSAGE,
        reason=f"relay met an unexpected error ({type(error).__name__}); the log has the details",
        remedy="Please report it with the lines of the log around this message's id.",
        code="internal",
        counts=True,
    )
