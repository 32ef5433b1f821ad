"""Holds while the scheduler runs: set by a refusal, tried gently, ended by the first thing that works.

The spool keeps them, so that a restart knows why mail waits. Scope and key: an upstream's name, a lane's name,
``lane|From address`` for a sender, or ``lane|cause`` for single messages (and recipients) that are held for the same
cause. The last two kinds keep no lane from going: their mail is set apart, and one message of it is tried at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Awaitable, Callable, Iterable
from math import inf
from typing import TYPE_CHECKING

from relay import events
from relay.errors import SpoolError
from relay.message import Outcome, Report, Result, Scope
from relay.schedule.backoff import PROBES, next_probe
from relay.schedule.judgement import message_key
from relay.schedule.lane import Lane
from relay.spool.contract import Claim, Hold

if TYPE_CHECKING:
    from relay.schedule.loop import Scheduler

_AGAIN = 1.0
"""Seconds before a hold that the spool could not take is offered again."""
_UNTRIED = 3600.0
"""Seconds that a hold without any mail waits for some to be tried with, once its time has come; then it is dropped."""
_ONLY_RELOAD = frozenset({"sender-refused"})
"""Causes in our own rules: only a reload can mend them, and trying costs Exchange nothing."""
_NO_MAIL = "no mail waits for it; the next message shows whether it is mended"
_APART = frozenset({Scope.SENDER, Scope.MESSAGE})


class Holds:
    """All holds of one process's lanes."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._known: dict[tuple[str, str], Hold] = {}
        self._trying: set[tuple[str, str]] = set()
        """Holds of which a try is under way: only its refusal makes the next one later."""
        self._changes = 0
        self._writing = 0
        self._written = asyncio.Event()

    def all(self) -> list[Hold]:
        """Every hold, oldest first."""
        return sorted(self._known.values(), key=lambda hold: hold.since)

    async def load(self, *, probe_now: bool, anew: bool = False) -> None:
        """What the spool says is held; ``probe_now``: try each at once. ``anew``: by new rules (start, reload)."""
        found = await self._read()
        now = self._scheduler.clock.now()
        if probe_now:
            found = [dataclasses.replace(hold, probes=0, next_probe=now) for hold in found]
            for hold in found if self._scheduler.spool.shared else ():
                await self._scheduler.spool.hold(hold)  # the others may be those who try
        before, self._known = self._known, {(hold.scope, hold.key): hold for hold in found}
        for hold in [one for key, one in before.items() if key not in self._known]:
            _tell_over(hold, "an operator ended it")
        for upstream in self._scheduler.upstreams.values():
            upstream.hold = self._known.get((Scope.UPSTREAM, upstream.name))
        for lane in self._scheduler.lanes.values():
            self.apply(lane)
        if anew:
            for hold in [one for one in found if one.code in _ONLY_RELOAD]:
                await self._over(hold, "today's rules are tried")
            await self._scheduler.spool.release_key(None, now)

    def lanes(self) -> set[str]:
        """The lanes that must run for the sake of what is held, mail or none.

        For an upstream any lane will do, and its default mailbox where none has been used.
        """
        needed = {hold.key.split("|")[0] for hold in self._known.values() if hold.scope != Scope.UPSTREAM}
        for hold in self._known.values():
            if hold.scope == Scope.UPSTREAM and not self._scheduler.upstream(hold.key).lanes:
                needed.add(self._scheduler.default_lane(hold.key))
        return needed - {""}

    async def _read(self) -> list[Hold]:
        """The spool's holds, as of a moment when none was being set or ended here."""
        while True:
            while self._writing:
                self._written.clear()
                await self._written.wait()
            changes = self._changes
            found = await self._scheduler.spool.holds()
            if changes == self._changes:
                return found

    async def _write(self, change: Callable[[], Awaitable[object]], still: Callable[[], bool]) -> None:
        """Write a change of holds down; while the spool cannot, it is in force here and written as soon as it can be."""
        self._changes += 1
        self._writing += 1
        try:
            await change()
        except SpoolError as error:
            events.trouble(where="holds", what=f"a hold waits to be written: {error}", remedy=error.remedy)
            self._scheduler.spawn(self._write_again(change, still))
        finally:
            self._writing -= 1
            self._written.set()

    async def _write_again(self, change: Callable[[], Awaitable[object]], still: Callable[[], bool]) -> None:
        while still():
            await self._scheduler.clock.sleep(_AGAIN)
            with contextlib.suppress(SpoolError):
                await change()
                return

    def apply(self, lane: Lane) -> None:
        """Give a lane the holds that are its own."""
        lane.upstream.hold = self._known.get((Scope.UPSTREAM, lane.upstream.name))
        lane.hold = self._known.get((Scope.LANE, lane.name))
        prefix = lane.name + "|"
        apart = [hold for (scope, key), hold in self._known.items() if key.startswith(prefix)]
        lane.held_senders = {
            hold.key.removeprefix(prefix): hold for hold in apart if hold.scope == Scope.SENDER
        }
        lane.held_messages = {hold.key: hold for hold in apart if hold.scope == Scope.MESSAGE}

    async def impose(
        self, lane: Lane, outcome: Outcome, *, at_login: bool = False, claim: Claim | None = None
    ) -> None:
        """Hold the smallest thing that is broken; a hold that is already there waits longer for its next try."""
        scope, key = self._reach(lane, outcome, claim)
        if scope is None:
            return
        now = self._scheduler.clock.now()
        before = self._known.get((scope, key))
        failed = (scope, key) in self._trying
        self._trying.discard((scope, key))
        probes = before.probes + failed if before else 0  # others were under way before anybody knew
        hold = Hold(
            scope=scope,
            key=key,
            code=outcome.code,
            reason=outcome.reason,
            remedy=outcome.remedy,
            evidence=str(outcome.reply or "")[:500],
            since=before.since if before else now,
            probes=probes,
            next_probe=None
            if outcome.code in _ONLY_RELOAD
            else now + next_probe(PROBES, probes, outcome.wait or 0.0),
            at_login=at_login,
        )
        self._put(lane, hold)
        if scope == Scope.SENDER:
            lane.shelve(lambda claim: self.sender_hold(lane, claim))
        if scope != Scope.MESSAGE and (before is None or before.code != hold.code):  # a message tells its own
            events.held(
                lane=lane.name,
                scope=scope,
                reason=hold.reason,
                remedy=hold.remedy,
                evidence=hold.evidence,
                code=hold.code,
            )
        lane.call_all()
        lane.wake.set()
        await self._write(
            lambda: self._scheduler.spool.hold(hold), lambda: self._known.get((scope, key)) is not None
        )
        covered = self._covered(lane, hold)
        self._scheduler.answers.held(covered, hold)
        for name in covered:
            await self._scheduler.pools.leave(name)

    def _reach(self, lane: Lane, outcome: Outcome, claim: Claim | None) -> tuple[str | None, str]:
        if outcome.scope is Scope.UPSTREAM:
            return Scope.UPSTREAM, lane.upstream.name
        if outcome.scope is Scope.LANE:
            return Scope.LANE, lane.name
        if outcome.scope is Scope.SENDER and claim is not None:
            return Scope.SENDER, f"{lane.name}|{self._scheduler.identity(claim)}"
        if outcome.scope is Scope.MESSAGE:
            return Scope.MESSAGE, message_key(lane.name, outcome)
        return None, ""

    async def set_apart(self, lane: Lane, claim: Claim, report: Report) -> None:
        """Single messages and recipients that wait for an administrator: one hold for each cause, told and tried as one."""
        if claim.direct:
            return  # its client was told
        narrow = {
            message_key(lane.name, one): one
            for one in report.outcomes.values()
            if one.result is Result.HELD
            and one.scope in (Scope.MESSAGE, Scope.RECIPIENT)
            and not one.uncertain
        }
        for outcome in narrow.values():
            await self.impose(lane, dataclasses.replace(outcome, scope=Scope.MESSAGE), claim=claim)

    def _put(self, lane: Lane, hold: Hold) -> None:
        self._known[(hold.scope, hold.key)] = hold
        for name in self._covered(lane, hold) | {lane.name}:
            self.apply(self._scheduler.lanes[name])
            self._scheduler.lanes[name].wake.set()

    def _covered(self, lane: Lane, hold: Hold) -> set[str]:
        """The lanes that a hold stops; a sender's or messages' stops none."""
        if hold.scope == Scope.UPSTREAM:
            return lane.upstream.lanes | {lane.name}
        return {lane.name} if hold.scope == Scope.LANE else set()

    async def mended(self, lane: Lane, hold: Hold) -> None:
        """It works again: let the mail go, and the messages that were held for the same cause before."""
        await self._over(hold, "it works again")
        names = self._covered(lane, hold)
        for one in self.all():
            if one.scope == Scope.MESSAGE and one.code == hold.code and one.key.split("|")[0] in names:
                await self._over(one, "it works again")
        for name in names:
            # a pool lies within one upstream: when all of that was held, none of its mail has moved
            if hold.scope != Scope.UPSTREAM:
                await self._scheduler.pools.join(name)
            self._scheduler.kick(name)

    async def _over(self, hold: Hold, why: str) -> None:
        """End a hold, and queue what it set apart."""
        self._known.pop((hold.scope, hold.key), None)
        self._trying.discard((hold.scope, hold.key))
        for lane in self._scheduler.lanes.values():
            self.apply(lane)
            lane.wake.set()
        _tell_over(hold, why)
        await self._write(lambda: self._end(hold), lambda: (hold.scope, hold.key) not in self._known)

    async def _end(self, hold: Hold) -> None:
        now = self._scheduler.clock.now()
        await self._scheduler.spool.unhold(hold.scope, hold.key, now)
        if hold.scope in _APART:
            await self._scheduler.spool.release_key(hold.key, now)

    async def settled(self, key: str | None) -> None:
        """Mail was set apart by that hold; should it have ended meanwhile, the mail goes after all."""
        if key is not None and not any(known == key for _, known in self._known):
            await self._scheduler.spool.release_key(key, self._scheduler.clock.now())

    async def sent(self, lane: Lane, claim: Claim) -> None:
        """A message got through: neither its lane nor its sender is held any more."""
        hold = lane.the_hold()
        if hold is not None:
            await self.mended(lane, hold)
        if lane.held_senders:
            held = lane.held_senders.get(self._scheduler.identity(claim))
            if held is not None:
                await self.mended(lane, held)
        for scope in _APART if claim.tried_for else ():
            tried = self._known.get((scope, claim.tried_for))
            if tried is not None:
                await self.mended(lane, tried)

    async def drop_unused(self, in_use: Callable[[str], bool]) -> None:
        """Holds of upstreams that are no more, and of mailboxes that no rule uses and no mail waits for."""
        for hold in self.all():
            name = hold.key.split("|")[0]
            if hold.scope == Scope.UPSTREAM:
                unused = not self._scheduler.default_lane(name)
            else:
                unused = not in_use(name) and not await self._has_mail({name})
            if unused:
                await self._over(hold, "the configuration does not use it any more")

    async def _has_mail(self, lanes: Iterable[str]) -> bool:
        for name in lanes:
            found = await self._scheduler.spool.lane(name)
            if found.queued or found.active or found.deferred or found.held:
                return True
        return False

    # probes

    def probe_due(self, lane: Lane, now: float) -> bool:
        """Whether this lane may try one message of what is held now."""
        hold = lane.the_hold()
        if hold is None or hold.next_probe is None or now < hold.next_probe:
            return False
        return not (lane.upstream.hold is not None and lane.upstream.probing)

    async def may_probe(self, lane: Lane) -> bool:
        """A try starts: nobody else tries the same, and the next one comes later, whatever this one says.

        False when another replica has begun one, for this lane's upstream.
        """
        hold = lane.the_hold()
        if hold is None:
            return True
        now = self._scheduler.clock.now()
        later = dataclasses.replace(hold, next_probe=now + next_probe(PROBES, hold.probes, 0.0))
        self._put(lane, later)
        if not await self._claim_probe(later, now):
            return False
        self._trying.add((hold.scope, hold.key))
        lane.upstream.probing = lane.name if lane.upstream.hold is not None else ""
        return True

    async def _claim_probe(self, later: Hold, now: float) -> bool:
        assert later.next_probe is not None
        return await self._scheduler.spool.claim_probe(later.scope, later.key, now, later.next_probe)

    def probed(self, lane: Lane) -> None:
        """A connection is closed: if it was the try's, whoever of the upstream is due may try next."""
        if lane.upstream.probing != lane.name:
            return
        lane.upstream.probing = ""
        for name in lane.upstream.lanes:
            self._scheduler.lanes[name].wake.set()

    def sender_hold(self, lane: Lane, claim: Claim) -> Hold | None:
        """The hold that keeps this message's sender, unless this message is the one to try."""
        hold = lane.held_senders.get(self._scheduler.identity(claim))
        return None if hold is None or hold.key == claim.tried_for else hold

    async def tend(self, lane: Lane, now: float) -> None:
        """What is set apart and due: one message of each may go. A lane's hold that no mail can try is dropped."""
        apart = [*lane.held_senders.values(), *lane.held_messages.values()]
        hold = lane.the_hold()
        if hold is not None:
            await self._tend_held(lane, hold, apart, now)
            return
        for one in apart:
            if one.next_probe is not None and now >= one.next_probe:
                await self._try_one(lane, one, now)

    async def _tend_held(self, lane: Lane, hold: Hold, apart: list[Hold], now: float) -> None:
        """A held lane is tried with mail nobody suspects, and only where there is none with what is set apart."""
        if now >= self.untried(hold) and not await self._has_mail(self._covered(lane, hold)):
            await self._over(hold, _NO_MAIL)
            return
        due = apart and not hold.at_login and not lane.carriers and self.probe_due(lane, now)
        if due and not (await self._scheduler.spool.lane(lane.name)).queued:
            await self._try_one(lane, min(apart, key=lambda one: one.next_probe or inf), now)

    def untried(self, hold: Hold) -> float:
        """When a hold that only mail can try is given up for want of mail. A login needs none."""
        return inf if hold.at_login or hold.next_probe is None else hold.next_probe + _UNTRIED

    async def _try_one(self, lane: Lane, hold: Hold, now: float) -> None:
        later = dataclasses.replace(hold, next_probe=now + next_probe(PROBES, hold.probes, 0.0))
        self._put(lane, later)
        if not await self._claim_probe(later, now):
            return
        if await self._scheduler.spool.release_key(hold.key, now, limit=1):
            self._trying.add((hold.scope, hold.key))
            lane.may_have_work = True
        elif not await self._scheduler.spool.keeps(hold.key):
            await self._over(hold, _NO_MAIL)


def _tell_over(hold: Hold, why: str) -> None:
    events.released(lane=hold.key.split("|")[0], scope=hold.scope, why=why, code=hold.code)
