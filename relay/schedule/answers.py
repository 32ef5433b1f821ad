"""``answer_after: upstream``: clients whose 250 waits for Exchange's own.

The message is in the spool while its client waits, but nobody was told so: a temporary failure, a hold, or a
client's patience that ends takes it out again and answers 451; a restart forgets it. Only Exchange's 250 (for at
least one recipient) or its permanent refusal of all ends otherwise.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable

from relay.clock import Clock
from relay.errors import SpoolError
from relay.message import Outcome, Reply, Result
from relay.spool.contract import Claim, Filter, Hold, Settlement, Spool
from relay.spool.states import State

_UNDER_WAY = 600.0
"""Seconds that a submission under way may still take when the client's patience ends: RFC 5321 4.5.3.2.6 has clients
wait 10 minutes for the answer to their final dot."""


STOPPING = Hold("lane", "", "stopping", "the relay is being stopped", "", "", 0.0)


def judge(claim: Claim, done: Settlement) -> tuple[Settlement, Reply | None]:
    """What becomes of a message whose client waits, and what that client is told (None: not decided yet)."""
    if done.move_to is not None:
        return done, None
    outcomes = list(done.outcomes.values())
    if any(one.result is Result.SENT for one in outcomes):
        # some of it is with Exchange: we keep the rest, since sending all again would duplicate
        return dataclasses.replace(done, keep=True), _first(outcomes, Result.SENT)
    done = dataclasses.replace(done, withdraw=True, notices=(), hold_key=None)
    left = len({one.address for one in claim.envelope.recipients}) > len(
        outcomes
    )  # over by the limits: not tried
    if outcomes and not left and all(one.result is Result.FAILED for one in outcomes):
        return done, _permanent(outcomes[0])
    if not outcomes:
        return done, _temporary(done.details.get("reason", "Exchange does not take it now"))
    return done, _temporary(_first_words(outcomes))


def _first(outcomes: list[Outcome], result: Result) -> Reply:
    found = next((one.reply for one in outcomes if one.result is result and one.reply is not None), None)
    return found or Reply(250, "2.0.0", "Ok")


def _permanent(outcome: Outcome) -> Reply:
    reply = outcome.reply
    if reply is not None and 500 <= reply.code <= 599:
        return Reply(reply.code, reply.enhanced or "5.0.0", reply.text or outcome.reason)
    return Reply(554, "5.0.0", outcome.reason)


def _first_words(outcomes: list[Outcome]) -> str:
    first = next((one for one in outcomes if one.result is not Result.FAILED), outcomes[0])
    return first.reason or str(first.reply or "")


def _temporary(reason: str) -> Reply:
    return Reply(451, "4.3.0", f"Not sent, nothing kept: {reason}"[:400])


class Ticket:
    """One waiting client."""

    __slots__ = ("_news", "hold", "lane", "message_id", "reply")

    def __init__(self, message_id: str, lane: str) -> None:
        self.message_id = message_id
        self.lane = lane
        self.reply: Reply | None = None
        self.hold: Hold | None = None
        self._news = asyncio.Event()

    def tell(self, *, reply: Reply | None = None, hold: Hold | None = None) -> None:
        """Something happened."""
        self.reply = reply or self.reply
        self.hold = hold or self.hold
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

    def __init__(self, spool: Spool, clock: Clock, hold_of: Callable[[str], Hold | None]) -> None:
        self._spool = spool
        self._clock = clock
        self._hold_of = hold_of
        self._tickets: dict[str, Ticket] = {}

    def expect(self, message_id: str, lane: str) -> Ticket:
        """Before the commit: this client will wait. A lane that is held already answers at once."""
        ticket, hold = Ticket(message_id, lane), self._hold_of(lane)
        if hold is not None:
            ticket.tell(hold=hold)
        self._tickets[message_id] = ticket
        return ticket

    def forget(self, ticket: Ticket) -> None:
        """It was not stored after all."""
        self._tickets.pop(ticket.message_id, None)

    async def wait(self, ticket: Ticket, patience: float) -> Reply:
        """After the commit: the reply for the client, within its patience (seconds) unless Exchange is at it just then."""
        try:
            deadline = self._clock.monotonic() + patience
            while ticket.reply is None:
                left = deadline - self._clock.monotonic()
                heard = await ticket.news(left)
                if ticket.reply is None and (ticket.hold is not None or not heard):
                    return await self._give_up(ticket, patience)
            return ticket.reply
        finally:
            self.forget(ticket)

    async def _give_up(self, ticket: Ticket, patience: float) -> Reply:
        hold = ticket.hold
        reason = hold.reason if hold else f"Exchange did not take it within {patience:g} s"
        gone = Settlement(ticket.message_id, {}, event="withdrawn", details={"reason": reason}, withdraw=True)
        while ticket.reply is None:
            try:
                if await self._spool.decide(gone, self._clock.now()):
                    return _temporary(reason)
                if await self._is_gone(ticket):
                    return _temporary("an operator took the message out of the queue")
            except SpoolError as error:
                return _temporary(str(error))
            # a connection has it just now: either its outcome decides, or it comes back
            if not await ticket.news(_UNDER_WAY):
                return _temporary("Exchange has not answered yet; the message may arrive")
        return ticket.reply

    async def _is_gone(self, ticket: Ticket) -> bool:
        found = await self._spool.find(Filter(ids=(ticket.message_id,)))
        return ticket.reply is None and (not found or found[0].state == State.DELETED)

    def returned(self, message_ids: list[str]) -> None:
        """Claimed messages went back to the queue unsent."""
        for message_id in message_ids:
            ticket = self._tickets.get(message_id)
            if ticket is not None:
                ticket.tell()

    def settled(self, message_id: str, reply: Reply | None) -> None:
        """Its attempt was written down."""
        ticket = self._tickets.get(message_id)
        if ticket is not None and reply is not None:
            ticket.tell(reply=reply)

    def close(self) -> None:
        """The relay stops: whoever still waits is told to try again, unless Exchange has the message just now."""
        for ticket in self._tickets.values():
            ticket.tell(hold=STOPPING)

    def held(self, lanes: set[str], hold: Hold) -> None:
        """These lanes are held now: nobody should wait for them."""
        for ticket in self._tickets.values():
            if ticket.lane in lanes:
                ticket.tell(hold=hold)
