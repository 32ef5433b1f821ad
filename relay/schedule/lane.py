"""One lane: the mail in front of one mailbox, its limits, its connections, its health."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from relay import events
from relay.deliver.contract import Connection
from relay.message import Outcome, Trouble
from relay.schedule.admission import Admission
from relay.schedule.backoff import RECONNECT, later, step
from relay.schedule.limits import ONE, Cost, MailboxLimiter, cost_of
from relay.schedule.pace import Pace
from relay.settings import MailboxLimits
from relay.spool.contract import Claim, Hold, lane_parts

if TYPE_CHECKING:
    from relay.schedule.leave import Leave

_UNHURRIED = 600
"""Messages a minute that one connection carries in any case: at 25 ms of round trip, four of them to a message."""
_AHEAD = 0.2
"""Seconds of work claimed ahead: many times what a claim takes, and no wait that a person notices."""
WINDOW = 32
"""Claimed messages looked at for one that may pass those that wait for their order."""
_LEARNED = 86_400.0
"""Seconds that a reply about too many recipients is remembered: the administrator may raise the limit meanwhile."""


Pair = tuple[str, str]
"""A source and one of its recipients."""


@dataclass(frozen=True, slots=True)
class Login:
    """The last time that the lane's mailbox could be logged in to."""

    at: float
    """Wall seconds."""
    transport: str
    """``smtp``: XOAUTH2 was accepted. ``graph``: a token is held; Graph has no login of its own."""


@dataclass(slots=True)
class UpstreamState:
    """What the lanes of one upstream share."""

    name: str
    hold: Hold | None = None
    probing: str = ""
    """The lane that is trying for all just now."""
    slowed: Outcome | None = None
    """A throttling reply about the whole tenant, in force until ``slowed_until``."""
    slowed_until: float = 0.0
    lanes: set[str] = field(default_factory=set)


@dataclass(eq=False, repr=False)
class Lane:
    """State of one lane in this process. Its runner and carriers are tasks of the scheduler."""

    name: str
    upstream: UpstreamState
    limits: MailboxLimits
    batch_size: int
    limiter: MailboxLimiter
    hold: Hold | None = None
    held_senders: dict[str, Hold] = field(default_factory=dict)
    """By From address."""
    held_messages: dict[str, Hold] = field(default_factory=dict)
    """Causes that keep single messages, by key."""
    ready: deque[tuple[float, Claim]] = field(default_factory=deque)
    carriers: dict[asyncio.Task[None], int] = field(default_factory=dict)
    """Each connection's task, and how many messages it can still carry in its batch."""
    opening: dict[asyncio.Task[None], float] = field(default_factory=dict)
    """Connections still being made, and since when."""
    owed: list[Claim] = field(default_factory=list)
    """Claimed, and to be given back to the spool as soon as it can be reached."""
    shelved: list[tuple[Claim, Hold]] = field(default_factory=list)
    """Claimed, and to be held for their sender as soon as the spool can be reached."""
    reserved: int = 0
    """Connections that may be open: so many are written down, for whoever takes the lane over."""
    limits_known: bool = False
    """Whether the limiter knows what was used before this process."""
    refused: dict[str, str] = field(default_factory=dict)
    """Policy replies that held one message, and that message's id: a second one, with none sent in between, means
    the lane."""
    submitting: dict[str, Connection] = field(default_factory=dict)
    """By id, the messages that a connection has in its hands."""
    connected: int = 0
    """Connections past their handshake."""
    begun_ahead: int = 0
    """Attempts written down whose turn on a connection is still to come."""
    leaving: bool = False
    """It is given to another replica: nothing more is claimed, connections end after their message."""
    retired: bool = False
    """The configuration does not use it any more: it is forgotten once it is idle."""
    may_have_work: bool = True
    backlog: int = 0
    """Messages that wait in the spool, when the last look was asked for more than it took."""
    pace: Pace = field(default_factory=Pace)
    admission: Admission = field(default_factory=Admission)
    need: Cost = ONE
    """What must fit under the limits before it is worth claiming: the next message's cost, once it is known."""
    next_due: float | None = None
    resting_until: float = 0.0
    failures: int = 0
    trouble: Outcome | None = None
    """Why it rests, while it does."""
    trouble_since: float = 0.0
    published: bool = False
    """Whether other replicas can read why it rests."""
    transport: str = ""
    last_login: Login | None = None
    """None: there was none in this process; perhaps no mail needed one."""
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    _waiting: deque[asyncio.Future[list[Leave]]] = field(default_factory=deque)
    _under_way: Counter[Pair] = field(default_factory=Counter)
    """Source and recipient of each message that a connection has taken."""
    _costs: dict[str, Cost] = field(default_factory=dict)
    _most: int = 0
    """Recipients that Exchange takes in one message of this mailbox, as a reply said; 0: as configured."""
    _most_until: float = 0.0

    @property
    def mailbox(self) -> str:
        """The mailbox that its mail is submitted by, in lower case."""
        return lane_parts(self.name)[1]

    # work

    def kick(self) -> None:
        """There may be new work, or the reason to wait has gone."""
        self.retired = False
        self.may_have_work = True
        self.need = ONE  # what needed more may be gone
        self.wake.set()

    def add(self, claims: list[Claim], now: float) -> None:
        """Claimed mail, in turn order, counted under the limits already; idle connections are told."""
        self.ready.extend((now, claim) for claim in claims)
        self._call(len(claims))

    def _call(self, count: int) -> None:
        while count and self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result([])
                count -= 1

    def take(self, own: Mapping[Pair, int] | None = None) -> Claim | None:
        """The next message for a connection, if there is one that may go.

        Mail of one source to one recipient keeps its order, also over several connections: what would overtake an
        earlier message that is still under way (or waits for one) is passed over for now. ``own``: how many of each
        of its `pairs` the asking connection has in hand already; they go first over the same connection, so nothing
        behind them overtakes them.
        """
        if not self.ready:
            return None
        if not self._under_way:
            return self._start(0)
        mine = own or {}
        blocked = {pair for pair, count in self._under_way.items() if count > mine.get(pair, 0)}
        for index, (_, claim) in enumerate(itertools.islice(self.ready, WINDOW)):
            some = pairs(claim)
            if blocked.isdisjoint(some):
                return self._start(index)
            blocked |= some
        return None

    def _start(self, index: int) -> Claim:
        claim = self.ready[index][1]
        del self.ready[index]
        self._under_way.update(pairs(claim))
        return claim

    def break_off(self, message_id: str) -> bool:
        """End a submission that cannot have been accepted yet; False when no connection has it, or too late."""
        connection = self.submitting.get(message_id)
        return connection is not None and connection.abandon()

    def finished(self, claim: Claim) -> None:
        """A taken message is settled (or on its way to be): what waited behind it may go."""
        freed = False
        for pair in pairs(claim):
            self._under_way[pair] -= 1
            if self._under_way[pair] <= 0:
                del self._under_way[pair]
                freed = True
        self.pace.one()
        if self.ready and freed:  # else all of it still waits for earlier mail of the same source
            self._call(1)

    @property
    def spare(self) -> bool:
        """Whether a connection waits for mail."""
        return any(not one.done() for one in self._waiting)

    def hand_on(self, leaves: list[Leave]) -> bool:
        """What a connection has taken ahead and cannot carry any more, to one that waits; whether there was one."""
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(leaves)
                return True
        return False

    async def wait_for_mail(self, seconds: float) -> list[Leave]:
        """Until mail may be ready, at most ``seconds``; what another connection hands on, usually nothing."""
        future: asyncio.Future[list[Leave]] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        handle = asyncio.get_running_loop().call_later(seconds, _finish, future)
        try:
            return await future
        except asyncio.CancelledError:
            if not future.cancelled():  # nobody will adopt them now
                self._strand(future.result())
            raise
        finally:
            handle.cancel()
            if not future.done() or future in self._waiting:
                self._waiting = deque(one for one in self._waiting if one is not future)

    def _strand(self, leaves: list[Leave]) -> None:
        self.begun_ahead -= len(leaves)
        for leave in leaves:
            leave.end()
            self.owed.append(leave.claim)
            self.finished(leave.claim)
        if leaves:
            self.kick()

    def call_all(self) -> None:
        """Wake every idle connection: the lane is held, or the scheduler stops."""
        self._call(len(self._waiting))

    def give_back(self) -> list[Claim]:
        """All claimed mail that no connection has taken."""
        claims = [claim for _, claim in self.ready]
        self.ready.clear()
        for claim in claims:
            self.limiter.release(self.cost(claim))
            self.uncharge(claim)
        return claims

    def shelve(self, hold_of: Callable[[Claim], Hold | None]) -> None:
        """Claimed mail that no connection has taken, and that is held now: it is set apart instead of being sent."""
        kept: deque[tuple[float, Claim]] = deque()
        for since, claim in self.ready:
            hold = hold_of(claim)
            if hold is None:
                kept.append((since, claim))
                continue
            self.limiter.release(self.cost(claim))
            self.uncharge(claim)
            self.shelved.append((claim, hold))
        self.ready = kept

    def charge(self, claim: Claim, cost: Cost) -> None:
        """Count it under the limits; what it cost stays known, should a reload change how messages are split."""
        self._costs[claim.id] = cost
        self.limiter.start(cost)

    def uncharge(self, claim: Claim) -> None:
        """It is no longer under way; the limiter is told by whoever knows what came of it."""
        self._costs.pop(claim.id, None)

    def cost(self, claim: Claim) -> Cost:
        """What a message counts for under the mailbox's limits."""
        known = self._costs.get(claim.id)
        if known is not None:
            return known
        cost = cost_of(len(claim.envelope.recipients), self.limits, self._most)
        return Cost(min(cost.messages, self.limiter.limit or cost.messages), cost.recipients)

    def learn_most(self, recipients: int, now: float) -> None:
        """Exchange took no more than so many in one message: later ones are split so from the start, for a day."""
        if recipients != self._most:
            events.advice(
                where=f"lane {self.name}",
                what=f"Exchange takes no more than {recipients} recipients in one message of {self.mailbox}: "
                "larger ones are split into several",
                remedy=f"In Exchange Online PowerShell run Set-Mailbox {self.mailbox} -RecipientLimits 1000; or set "
                f"limits.recipients_per_message to {recipients}.",
            )
        self._most, self._most_until = recipients, now + _LEARNED

    def learned(self) -> str | None:
        """The same as a text that survives a restart; None: nothing is known."""
        return json.dumps([self._most, self._most_until]) if self._most else None

    def remember(self, text: str) -> None:
        """Take up such a text; one that cannot be read is learned anew."""
        with contextlib.suppress(ValueError, TypeError):
            most, until = json.loads(text)
            self._most, self._most_until = int(most), float(until)

    def most_recipients(self, now: float) -> int:
        """Recipients that one submission may have, by the limits and by what Exchange said since."""
        if self._most and now >= self._most_until:
            self._most = 0
        return min(one for one in (self._most, self.limits.recipients_per_message, 10**9) if one > 0)

    @property
    def hurried(self) -> bool:
        """Whether the mailbox may send more than one connection after another could: then the order of one source's
        mail gives way to speed. Under Exchange's own 30 a minute it never does."""
        most = self.limits.messages_per_minute
        return not self.limiter.slowed and (most == 0 or most > _UNHURRIED)

    @property
    def ahead(self) -> int:
        """Messages worth claiming before their turn: one for each connection, or a fifth of a second's work."""
        return max(1, self.connected, min(2 * self.batch_size, round(self.pace.now() * _AHEAD)))

    @property
    def carrying(self) -> int:
        """Connections that do not wait for mail; at least one, the one that asks."""
        return max(1, self.connected - sum(not one.done() for one in self._waiting))

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do here, now or at a time that is known."""
        apart = self.held_senders or self.held_messages or self.the_hold() is not None
        return not (self.busy or self.may_have_work or self.next_due is not None or apart)

    @property
    def busy(self) -> bool:
        """Whether it has claimed mail in its hands, or connections."""
        return bool(self.carriers or self.ready or self.owed or self.shelved)

    @property
    def room(self) -> int:
        """Messages that the open connections can still carry in their batches."""
        return sum(self.carriers.values())

    def slow_down(self, outcome: Outcome, now: float, wait: float) -> None:
        """A throttling reply: nothing goes for ``wait`` seconds, open connections end, then fewer go a minute."""
        self.limiter.throttled(now, wait)
        self.rest(Trouble(outcome), now)
        self.call_all()
        self.wake.set()

    def quiet(self) -> None:
        """Nothing waits and nothing forbids to connect: what was wrong last is no longer news."""
        self.trouble = None

    # health

    def the_hold(self) -> Hold | None:
        """What holds it: the upstream's hold first, since it is the wider one."""
        return self.upstream.hold or self.hold

    def rest(self, trouble: Trouble, now: float) -> float:
        """A connection could not be made: wait before the next, longer each time. Until when."""
        wait = step(RECONNECT, self.failures)
        self.failures += 1
        asked = later(trouble.outcome.wait or 0.0)
        self.resting_until = now + max(wait, asked)
        if self.trouble is None:
            self.trouble_since = now
        self.trouble = trouble.outcome
        return self.resting_until

    def logged_in(self, transport: str, now: float) -> None:
        """Exchange let a connection of this mailbox in."""
        self.transport = transport
        self.last_login = Login(now, transport)

    def well(self) -> None:
        """A connection was made."""
        self.failures = 0
        self.resting_until = 0.0
        self.trouble = None

    def state(self) -> str:
        """open, slowed or held, as `relay status` says it."""
        if self.the_hold() is not None:
            return "held"
        return "slowed" if self.trouble is not None or self.limiter.slowed else "open"


def pairs(claim: Claim) -> set[Pair]:
    """The source with each recipient: of mail that shares one of them, the order is kept."""
    return {(claim.source, one.address.lower()) for one in claim.envelope.recipients}


def _finish(future: asyncio.Future[list[Leave]]) -> None:
    if not future.done():
        future.set_result([])
