"""``answer_after: upstream``: clients whose 250 waits for Exchange's own.

The message is in the spool while its client waits, but nobody was told so: a temporary failure, a hold, a patience
that ends or a client that leaves takes it out again; a restart forgets it. Only Exchange's 250 (for at least one
recipient) or its permanent refusal of all ends otherwise. What a connection to Exchange has in its hands is broken
off when the patience ends; once Exchange may have all of it that is too late, and the outcome decides.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from relay import events
from relay.background import Tasks
from relay.clock import Clock
from relay.errors import SpoolError
from relay.message import Outcome, Reply, Result
from relay.schedule.lane import Lane
from relay.spool.contract import Claim, Filter, Hold, Settlement, Spool
from relay.spool.states import State

_UNDER_WAY = 600.0
"""Seconds that a submission under way may still take when the client's patience ends: RFC 5321 4.5.3.2.6 has clients
wait 10 minutes for the answer to their final dot."""
_LOOKS = (0.05, 0.2, 1.0, 5.0)
"""Seconds between tries to take a message back that somebody else has in hand; the last repeats."""
_CLEARING = 2.0
"""Seconds that a client waits for what was broken off to be cleared away; it is told without that afterwards."""


STOPPING = Hold("lane", "", "stopping", "the relay is being stopped", "", "", 0.0)


def judge(claim: Claim, done: Settlement) -> tuple[Settlement, Reply | None]:
    """What becomes of a message whose client waits, and what that client is told (None: not decided yet)."""
    if done.move_to is not None:
        return done, None
    outcomes = list(done.outcomes.values())
    if any(one.result is Result.SENT for one in outcomes):
        # some of it is with Exchange: we keep the rest, since sending all again would duplicate
        return dataclasses.replace(done, keep=True), _taken(outcomes)
    done = dataclasses.replace(done, withdraw=True, notices=(), hold_key=None)
    left = len({one.address for one in claim.envelope.recipients}) > len(
        outcomes
    )  # over by the limits: not tried
    if outcomes and not left and all(one.result is Result.FAILED for one in outcomes):
        return done, _permanent(outcomes[0])
    if not outcomes:
        return done, _temporary(done.details.get("reason", "Exchange does not take it now"))
    if any(one.uncertain for one in outcomes):
        return done, _unconfirmed(_first_words(outcomes))
    return done, _temporary(_first_words(outcomes))


def _taken(outcomes: list[Outcome]) -> Reply:
    """Exchange's own words; always 250, since Graph's 202 is no reply that a mail client knows (RFC 5321 section 4.3.2)."""
    sent = (one.reply for one in outcomes if one.result is Result.SENT and one.reply is not None)
    reply = next(sent, Reply(250, "2.0.0", "Ok"))
    return reply if reply.code == 250 else Reply(250, "2.0.0", reply.text or "Ok")


def _permanent(outcome: Outcome) -> Reply:
    reply = outcome.reply
    if reply is not None and 500 <= reply.code <= 599:
        return Reply(reply.code, reply.enhanced or "5.0.0", reply.text or outcome.reason)
    return Reply(554, "5.0.0", outcome.reason)


def _first_words(outcomes: list[Outcome]) -> str:
    first = next((one for one in outcomes if one.result is not Result.FAILED), outcomes[0])
    return first.reason or str(first.reply or "")


def _temporary(reason: str) -> Reply:
    """Only for what is certainly not sent and certainly not kept."""
    return Reply(451, "4.3.0", f"Not sent, nothing kept: {reason}"[:400])


def _unconfirmed(reason: str) -> Reply:
    """The connection to Exchange broke after the final dot (RFC 1047): out of our hands, and perhaps with Exchange."""
    return Reply(451, "4.3.0", f"Not confirmed, nothing kept: {reason}"[:400])


def _unsure(reason: str) -> Reply:
    """The client must hear something now, and the message is not out of our hands yet."""
    return Reply(451, "4.3.0", f"Not confirmed, and it may still be sent: {reason}"[:400])


class Ticket:
    """One waiting client."""

    __slots__ = (
        "_news",
        "broken_off",
        "claim",
        "early",
        "hold",
        "lane",
        "left",
        "message_id",
        "over",
        "reply",
    )

    def __init__(self, message_id: str, lane: str) -> None:
        self.message_id = message_id
        self.lane = lane
        self.reply: Reply | None = None
        self.hold: Hold | None = None
        self.left = False
        """The client has closed its connection: it was never told 250 and will send again."""
        self.over = False
        """The client has been answered, before the message was out of our hands."""
        self.claim: Claim | None = None
        """Set once the message was taken out of its lane's hands."""
        self.broken_off = ""
        """Why its submission was broken off, before Exchange could have had it."""
        self.early: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        """What the client hears although the message is not out of the spool yet."""
        self._news = asyncio.Event()

    def tell(self, *, reply: Reply | None = None, hold: Hold | None = None, left: bool = False) -> None:
        """Something happened."""
        self.reply = reply or self.reply
        self.hold = hold or self.hold
        self.left = left or self.left
        self._news.set()

    async def news(self, seconds: float) -> bool:
        """Wait for a change; False when there was none."""
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._news.wait()
        except TimeoutError:
            return False
        self._news.clear()
        return True


class Answers:
    """All waiting clients of this process."""

    def __init__(
        self,
        spool: Spool,
        clock: Clock,
        hold_of: Callable[[str], Hold | None],
        lanes: Mapping[str, Lane] | None = None,
    ) -> None:
        self._spool = spool
        self._clock = clock
        self._hold_of = hold_of
        self._lanes = lanes if lanes is not None else {}
        self._tickets: dict[str, Ticket] = {}
        self._tasks = Tasks()
        self._closing = False

    def expect(self, message_id: str, lane: str) -> Ticket:
        """Before the commit: this client will wait. A lane that is held already answers at once."""
        ticket, hold = Ticket(message_id, lane), self._hold_of(lane)
        if hold is not None:
            ticket.tell(hold=hold)
        self._tickets[message_id] = ticket
        return ticket

    def forget(self, ticket: Ticket) -> None:
        """It was not stored after all, or nothing more is to be said about it."""
        self._tickets.pop(ticket.message_id, None)

    async def wait(self, ticket: Ticket, patience: float, gone: asyncio.Event | None = None) -> Reply:
        """After the commit: the reply for the client, within its patience (seconds) unless Exchange is at it just then.

        ``gone`` is set when the client leaves meanwhile.
        """
        watch = self._tasks.spawn(_watch(gone, ticket)) if gone is not None else None
        try:
            deadline = self._clock.monotonic() + patience
            while ticket.reply is None:
                await ticket.news(deadline - self._clock.monotonic())
                over = self._clock.monotonic() >= deadline
                if ticket.reply is None and (ticket.hold is not None or ticket.left or over):
                    return await self._give_up(ticket, patience, deadline)
            self.forget(ticket)
            return ticket.reply
        finally:
            if watch is not None:
                watch.cancel()

    async def _give_up(self, ticket: Ticket, patience: float, deadline: float) -> Reply:
        """Take it back, and answer when that is done, when Exchange has spoken, or when neither can be waited for."""
        work = self._tasks.spawn(self._take_back(ticket, patience, deadline))
        either: set[asyncio.Future[Any]] = {work, ticket.early}
        await asyncio.wait(either, timeout=_UNDER_WAY, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            return work.result()
        ticket.over = True
        return ticket.early.result() if ticket.early.done() else _unsure("Exchange has not answered yet")

    async def _take_back(self, ticket: Ticket, patience: float, deadline: float) -> Reply:
        """Until the message is out of the spool, or its attempt has an outcome; goes on when the client was answered."""
        reason = _why(ticket, patience)
        gone = Settlement(ticket.message_id, {}, event="withdrawn", details={"reason": reason}, withdraw=True)
        looks = 0
        try:
            while ticket.reply is None:
                try:
                    if await self._take_out(ticket, gone):
                        return _temporary(reason)
                    if await self._is_gone(ticket):
                        return _temporary("an operator took the message out of the queue")
                except SpoolError as error:
                    if self._closing:  # the next start forgets it
                        return _unsure(str(error))
                    self._stumble(ticket, error)
                # somebody has it just now: either the outcome decides, or it comes back
                left = deadline - self._clock.monotonic()
                if ticket.left or left <= 0:
                    self._break_off(ticket, _why(ticket, patience, over=True))
                look = _LOOKS[min(looks, len(_LOOKS) - 1)]
                await ticket.news(min(look, left) if left > 0 else look)
                looks += 1
            return ticket.reply
        finally:
            self.forget(ticket)

    async def _take_out(self, ticket: Ticket, gone: Settlement) -> bool:
        """Out of the spool, if it waits there, or is claimed and no connection has taken it. Raises SpoolError."""
        if ticket.claim is None:
            ticket.claim = _pulled(self._lanes, ticket)
        if ticket.claim is None:
            return await self._spool.decide(gone, self._clock.now())
        await self._spool.settle(gone, self._clock.now())
        return True

    def _break_off(self, ticket: Ticket, reason: str) -> None:
        """End the submission under way while Exchange cannot have all of it; its outcome, which follows, ends the wait."""
        if ticket.broken_off or not any(lane.break_off(ticket.message_id) for lane in self._lanes.values()):
            return
        ticket.broken_off = reason
        later = self._tasks.spawn(self._answer_later(ticket, _unconfirmed(reason)))
        ticket.early.add_done_callback(lambda _: later.cancel())

    async def _answer_later(self, ticket: Ticket, reply: Reply) -> None:
        await self._clock.sleep(_CLEARING)
        if not ticket.early.done():
            ticket.early.set_result(reply)

    def _stumble(self, ticket: Ticket, error: SpoolError) -> None:
        if not ticket.early.done():
            what = f"message {ticket.message_id} waits to be taken out, its client having given up: {error}"
            events.trouble(where="spool", what=what, remedy=error.remedy)
            ticket.early.set_result(_unsure(f"it cannot be taken back just now: {error}"))

    async def _is_gone(self, ticket: Ticket) -> bool:
        found = await self._spool.find(Filter(ids=(ticket.message_id,)))
        return ticket.reply is None and (not found or found[0].state == State.DELETED)

    def judge(self, claim: Claim, done: Settlement) -> tuple[Settlement, Reply | None]:
        """See `judge`; the trace also says when the client can no longer hear of it.

        What is left of a message that is partly sent is not kept for such a client, since it will send all of it again.
        """
        done, reply = judge(claim, done)
        ticket = self._tickets.get(claim.id)
        if ticket is not None and done.move_to is not None:
            ticket.lane = done.move_to
        if ticket is not None and any(one.code == "abandoned" for one in done.outcomes.values()):
            reply = _temporary(ticket.broken_off) if done.withdraw else reply
        if ticket is None or reply is None or not (ticket.left or ticket.over):
            return done, reply
        said = (
            "was told to try again before Exchange answered" if ticket.over else "went away before the answer"
        )
        done = dataclasses.replace(done, details={**done.details, "client": said})
        if done.keep and any(one.result is not Result.SENT for one in done.outcomes.values()):
            done = dataclasses.replace(done, keep=False, withdraw=True, hold_key=None)
        return done, reply

    def expects(self, message_id: str) -> bool:
        """Whether its client waits, or waited, at this process."""
        return message_id in self._tickets

    def returned(self, message_ids: list[str]) -> None:
        """Claimed messages went back to the queue unsent."""
        for message_id in message_ids:
            ticket = self._tickets.get(message_id)
            if ticket is not None:
                ticket.tell()

    def settled(self, message_id: str, reply: Reply | None) -> None:
        """Its attempt was written down; without a reply it waits again, perhaps on another lane, which may be held."""
        ticket = self._tickets.get(message_id)
        if ticket is not None:
            ticket.tell(reply=reply, hold=None if reply is not None else self._hold_of(ticket.lane))

    def close(self) -> None:
        """The relay stops: whoever still waits is told to try again, unless Exchange has the message just now."""
        self._closing = True
        for ticket in self._tickets.values():
            ticket.tell(hold=STOPPING)

    def held(self, lanes: set[str], hold: Hold) -> None:
        """These lanes are held now: nobody should wait for them."""
        for ticket in self._tickets.values():
            if ticket.lane in lanes:
                ticket.tell(hold=hold)


def _why(ticket: Ticket, patience: float, *, over: bool = False) -> str:
    """The reason for giving up: the hold, if it was one that came before the patience was ``over``."""
    if ticket.hold is not None and not over:
        return ticket.hold.reason
    return "the client went away" if ticket.left else f"Exchange did not take it within {patience:g} s"


def _pulled(lanes: Mapping[str, Lane], ticket: Ticket) -> Claim | None:
    """The message out of the hands of a lane that claimed it, unless a connection has taken it already."""
    first = lanes.get(ticket.lane)
    for lane in [first, *lanes.values()] if first is not None else lanes.values():
        for index, (_, claim) in enumerate(lane.ready):
            if claim.id == ticket.message_id:
                del lane.ready[index]
                lane.limiter.release(lane.cost(claim))
                lane.uncharge(claim)
                lane.wake.set()
                return claim
    return None


async def _watch(gone: asyncio.Event, ticket: Ticket) -> None:
    await gone.wait()
    ticket.tell(left=True)
