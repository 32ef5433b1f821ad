"""Mail that waits too long: its sender is told of the delay once, and it is given up in the end.

Looks at a bounded number of messages at a time, oldest first, each again only after all the others. While a look
comes back full there is more to do, and the next follows soon: a weekend's backlog is told of in minutes.
"""

from __future__ import annotations

import asyncio
import dataclasses
import re
from collections.abc import Awaitable, Callable

from relay import events
from relay.clock import Clock
from relay.errors import SpoolError
from relay.figures import span
from relay.message import Outcome, Reply, Result, Scope
from relay.schedule.desk import Desk
from relay.settings import SpoolSettings
from relay.spool.contract import Claim, Filter, MessageView, RecipientView, Settlement, Spool
from relay.spool.states import State

_STEP = 100
"""Messages looked at in one go."""
_AT_ONCE = 25
"""Of these, how many are decided about together, so that they share the disk's commits."""
_SHORTEST = 0.05
"""Seconds of pause between two looks while there is more to do, at least; delivery has the spool to itself then."""

_REPLY = re.compile(r"(\d{3})(?: (\d\.\d{1,3}\.\d{1,3}))?(?: (.*))?", re.DOTALL)

Mark = tuple[float, str] | None


class Overdue:
    """One process's eye on the clock of waiting mail."""

    def __init__(self, spool: Spool, desk: Desk, settings: SpoolSettings, clock: Clock) -> None:
        self.settings = settings
        self._spool = spool
        self._desk = desk
        self._clock = clock
        self._late: Mark = None
        self._old: Mark = None
        self._took = 0.0

    def pause(self) -> float:
        """Seconds until the next look: a fraction of the shortest time that matters, within a minute.

        After a full look only as long as that look took: half of the time is left to everything else.
        """
        if self._old is not None or self._late is not None:
            return max(_SHORTEST, self._took)
        shortest = min(self.settings.delay_notice, self.settings.max_age, self.settings.max_held)
        return min(60.0, max(0.5, shortest / 10))

    async def look(self) -> None:
        """One step of each kind."""
        began, now = self._clock.monotonic(), self._clock.now()
        try:
            await self._look(now)
        finally:
            self._took = self._clock.monotonic() - began

    async def _look(self, now: float) -> None:
        give_up = min(self.settings.max_age, self.settings.max_held)
        self._old = await self._step(now - give_up, self._old, self._look_at_old, unnoticed=False)
        self._late = await self._step(
            now - self.settings.delay_notice, self._late, self._look_at_late, unnoticed=True
        )

    async def _step(
        self, before: float, after: Mark, look: Callable[[Claim, float], Awaitable[None]], *, unnoticed: bool
    ) -> Mark:
        claims = await self._spool.overdue(before, unnoticed=unnoticed, after=after, limit=_STEP)
        for start in range(0, len(claims), _AT_ONCE):
            await asyncio.gather(*(self._look_at(one, look) for one in claims[start : start + _AT_ONCE]))
        return (claims[-1].received, claims[-1].id) if len(claims) == _STEP else None

    async def _look_at(self, claim: Claim, look: Callable[[Claim, float], Awaitable[None]]) -> None:
        try:
            await look(claim, self._clock.now())
        except SpoolError as error:
            events.trouble(where=f"message {claim.id}", what=str(error), remedy=error.remedy)
        except Exception as error:
            # one message that cannot be read must not end the watch over all others
            events.trouble(where=f"message {claim.id}", what=f"unexpected error: {error!r}", error=error)

    async def _look_at_late(self, claim: Claim, now: float) -> None:
        """While held the clock stands still: the administrator knows already, the sender need not yet."""
        if claim.state == State.HELD or now - claim.received - claim.held_for < self.settings.delay_notice:
            return
        if self._is_over(claim, now):
            return  # the other step gives it up; a notice of a delay just before would only confuse
        view = await self._view(claim)
        if view is None:
            return
        reasons = {one.address: _still_waiting(one, view) for one in view.recipients}
        until = claim.received + claim.held_for + self.settings.max_age
        done = Settlement(claim.id, {}, event="delayed", details={}, delay_noticed=True)
        done = await self._desk.about_delay(claim, done, reasons, await self._spool.content(claim.id), until)
        if await self._spool.decide(done, now):
            self._desk.announce(claim, done)

    async def _look_at_old(self, claim: Claim, now: float) -> None:
        if not self._is_over(claim, now):
            return
        view = await self._view(claim)
        if view is None:
            return
        outcome = self._verdict(claim, view)
        last = {one.address: _last_reply(one) for one in view.recipients}
        people = {
            one.address: dataclasses.replace(outcome, reply=last.get(one.address))
            for one in claim.envelope.recipients
        }
        content = await self._spool.content(claim.id)
        done = await self._desk.about_failures(claim, Settlement(claim.id, people, counts=False), content)
        if await self._spool.decide(done, now):
            events.failed(id=claim.id, lane=claim.lane, reason=outcome.reason, recipients=len(people))
            self._desk.announce(claim, done)

    def _is_over(self, claim: Claim, now: float) -> bool:
        if claim.held_for > self.settings.max_held:
            return True
        age = now - claim.received - claim.held_for
        return claim.state != State.HELD and age > self.settings.max_age

    def _verdict(self, claim: Claim, view: MessageView) -> Outcome:
        last = view.reason or "it was never its turn"
        if claim.held_for > self.settings.max_held:
            reason = f"kept for {span(self.settings.max_held)} (spool.max_held) waiting for an administrator: {last}"
            code = "held-too-long"
        else:
            reason = f"not delivered within {span(self.settings.max_age)} (spool.max_age): {last}"
            code = "too-old"
        return Outcome(Result.FAILED, Scope.MESSAGE, reason=reason, remedy=view.remedy, code=code)

    async def _view(self, claim: Claim) -> MessageView | None:
        found = await self._spool.find(Filter(ids=(claim.id,)))
        return found[0] if found else None


def _still_waiting(one: RecipientView, view: MessageView) -> Outcome:
    reply = _last_reply(one)
    reason = view.reason or (one.text if reply is None else "")
    reason = reason or "it waits for its turn under the mailbox's limits"
    return Outcome(Result.DEFERRED, Scope.RECIPIENT, reply, reason=reason, remedy=view.remedy)


def _last_reply(one: RecipientView) -> Reply | None:
    """What Exchange said last of this recipient, as `str` wrote it; None when it was never asked."""
    found = _REPLY.fullmatch(one.text) if one.code else None
    return Reply(int(found[1]), found[2] or "", found[3] or "") if found else None
