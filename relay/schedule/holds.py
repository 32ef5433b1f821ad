"""Holds while the scheduler runs: set by a refusal, tried gently, ended by the first thing that works.

The spool keeps them, so that a restart knows why mail waits. Scope and key: an upstream's name, a lane's name, or
``lane|From address`` for a sender.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from relay import events
from relay.errors import SpoolError
from relay.message import Outcome, Scope
from relay.schedule.backoff import PROBES, next_probe
from relay.schedule.lane import Lane
from relay.spool.contract import Claim, Hold

if TYPE_CHECKING:
    from relay.schedule.loop import Scheduler

_AGAIN = 1.0
"""Seconds before a hold that the spool could not take is offered again."""


class Holds:
    """All holds of one process's lanes."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._known: dict[tuple[str, str], Hold] = {}
        self._changes = 0
        self._tried: set[str] = set()
        """Keys of senders one of whose messages may go, to see whether it works again."""

    def all(self) -> list[Hold]:
        """Every hold, oldest first."""
        return sorted(self._known.values(), key=lambda hold: hold.since)

    async def load(self, *, probe_now: bool) -> None:
        """What the spool says is held; ``probe_now``: try each at once (start, reload)."""
        found = await self._read()
        now = self._scheduler.clock.now()
        if probe_now:
            found = [dataclasses.replace(hold, probes=0, next_probe=now) for hold in found]
        self._known = {(hold.scope, hold.key): hold for hold in found}
        for upstream in self._scheduler.upstreams.values():
            upstream.hold = self._known.get((Scope.UPSTREAM, upstream.name))
        for lane in self._scheduler.lanes.values():
            self.apply(lane)

    async def _read(self) -> list[Hold]:
        """The spool's holds, as of a moment when none was being set or ended here."""
        while True:
            changes = self._changes
            found = await self._scheduler.spool.holds()
            if changes == self._changes:
                return found

    async def _write(self, change: Callable[[], Awaitable[object]], still: Callable[[], bool]) -> None:
        """Write a change of holds down; while the spool cannot, it is in force here and written as soon as it can be."""
        self._changes += 1
        try:
            await change()
        except SpoolError as error:
            events.trouble(where="holds", what=f"a hold waits to be written: {error}", remedy=error.remedy)
            self._scheduler.spawn(self._write_again(change, still))
        finally:
            self._changes += 1

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
        lane.held_senders = {
            key.removeprefix(prefix): hold
            for (scope, key), hold in self._known.items()
            if scope == Scope.SENDER and key.startswith(prefix)
        }

    async def impose(
        self, lane: Lane, outcome: Outcome, *, at_login: bool = False, claim: Claim | None = None
    ) -> None:
        """Hold the smallest thing that is broken; a hold that is already there waits longer for its next try."""
        scope, key = self._reach(lane, outcome, claim)
        if scope is None:
            return
        now = self._scheduler.clock.now()
        before = self._known.get((scope, key))
        probes = before.probes + 1 if before else 0
        hold = Hold(
            scope=scope,
            key=key,
            code=outcome.code,
            reason=outcome.reason,
            remedy=outcome.remedy,
            evidence=str(outcome.reply or "")[:500],
            since=before.since if before else now,
            probes=probes,
            next_probe=now + next_probe(PROBES, probes, outcome.wait or 0.0),
            at_login=at_login,
        )
        self._put(lane, hold)
        if before is None or before.code != hold.code:
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
        return None, ""

    def _put(self, lane: Lane, hold: Hold) -> None:
        self._known[(hold.scope, hold.key)] = hold
        for name in self._covered(lane, hold) | {lane.name}:
            self.apply(self._scheduler.lanes[name])
            self._scheduler.lanes[name].wake.set()

    def _covered(self, lane: Lane, hold: Hold) -> set[str]:
        """The lanes that a hold stops; a sender's stops none."""
        if hold.scope == Scope.UPSTREAM:
            return lane.upstream.lanes | {lane.name}
        return {lane.name} if hold.scope == Scope.LANE else set()

    async def mended(self, lane: Lane, hold: Hold) -> None:
        """It works again: let the mail go."""
        self._known.pop((hold.scope, hold.key), None)
        names = self._covered(lane, hold) or {lane.name}
        for name in names:
            self.apply(self._scheduler.lanes[name])
        events.released(lane=lane.name, scope=hold.scope, why="it works again", code=hold.code)
        await self._write(lambda: self._end(hold), lambda: (hold.scope, hold.key) not in self._known)
        for name in names:
            await self._scheduler.pools.join(name)
            self._scheduler.kick(name)

    async def _end(self, hold: Hold) -> None:
        now = self._scheduler.clock.now()
        await self._scheduler.spool.unhold(hold.scope, hold.key, now)
        if hold.scope == Scope.SENDER:
            await self._scheduler.spool.release_key(hold.key, now)

    async def sent(self, lane: Lane, claim: Claim) -> None:
        """A message got through: neither its lane nor its sender is held any more."""
        hold = lane.the_hold()
        if hold is not None:
            await self.mended(lane, hold)
        if lane.held_senders:
            held = lane.held_senders.get(self._scheduler.identity(claim))
            if held is not None:
                await self.mended(lane, held)

    async def forget_senders(self) -> None:
        """After a reload: the rules may have changed, so every sender is tried afresh."""
        now = self._scheduler.clock.now()
        for scope, key in [one for one in self._known if one[0] == Scope.SENDER]:
            del self._known[(scope, key)]
            await self._scheduler.spool.unhold(scope, key, now)
        for lane in self._scheduler.lanes.values():
            lane.held_senders = {}
        await self._scheduler.spool.release_key(None, now)

    # probes

    def probe_due(self, lane: Lane, now: float) -> bool:
        """Whether this lane may try one message of what is held now."""
        hold = lane.the_hold()
        if hold is None or hold.next_probe is None or now < hold.next_probe:
            return False
        return not (lane.upstream.hold is not None and lane.upstream.probing)

    def probing(self, lane: Lane) -> None:
        """A try starts: no other lane tries the same, and the next one comes later, whatever this one says."""
        hold = lane.the_hold()
        if hold is None:
            return
        now = self._scheduler.clock.now()
        lane.upstream.probing = lane.upstream.hold is not None
        later = dataclasses.replace(hold, next_probe=now + next_probe(PROBES, hold.probes, 0.0))
        self._put(lane, later)

    def probed(self, lane: Lane) -> None:
        """The try's connection is closed."""
        lane.upstream.probing = False

    def sender_hold(self, lane: Lane, claim: Claim) -> Hold | None:
        """The hold that keeps this message's sender, unless this message is the one to try."""
        hold = lane.held_senders.get(self._scheduler.identity(claim))
        if hold is None or hold.key not in self._tried:
            return hold
        self._tried.discard(hold.key)
        return None

    async def tend_senders(self, lane: Lane, now: float) -> None:
        """Senders whose time to be tried has come: one message of each may go."""
        for hold in list(lane.held_senders.values()):
            if hold.next_probe is None or now < hold.next_probe:
                continue
            self._put(lane, dataclasses.replace(hold, next_probe=now + next_probe(PROBES, hold.probes, 0.0)))
            self._tried.add(hold.key)
            await self._scheduler.spool.release_key(hold.key, now, limit=1)
            lane.may_have_work = True
