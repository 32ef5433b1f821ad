"""A simulated Exchange Online: it takes mail, and counts its limits by itself, knowing nothing of how relay counts.

Limits (docs/scaling.md names Microsoft's pages): 3 connections and 30 messages in any 60 s and 10,000 recipients in
any 24 h of a mailbox, external recipients in any 24 h of a tenant. Microsoft does not say at which instant a message
is counted, so it is counted twice here, when MAIL arrives and when the final reply leaves; both counts have to keep the limit.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from dataclasses import dataclass, field

from relay.deliver.attempt import beyond
from relay.deliver.classify import judge, reply_of
from relay.deliver.contract import Begin
from relay.deliver.phases import Phase
from relay.message import Content, Outcome, Reply, Report, Result, Trouble
from relay.spool.contract import Claim

MINUTE = 60.0
DAY = 86_400.0
CONNECTIONS = 3
MESSAGES = 30
RECIPIENTS = 10_000
_LOGIN_TRIPS = 8
"""Round trips to a session: TCP, greeting, EHLO, STARTTLS, two of TLS, EHLO, AUTH."""
_STORING = (0.05, 0.6)
"""Seconds that Exchange takes to store a message, between these two."""
_OLDEST, _LONGEST_IDLE = 480.0, 60.0
"""Seconds of age and of rest after which relay gives a connection up (`relay.deliver.smtp`)."""
_SENT = Outcome(Result.SENT, reply=Reply(250, "2.0.0", "OK"))
_RATE = (421, "4.4.2 Message submission rate for this client has exceeded the configured limit")
_CROWDED = (432, "4.3.2 Concurrent connections limit exceeded")
_QUOTA = (554, "5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException")
_TENANT = (550, "5.7.233 Tenant has exceeded its external recipient limit")


class Window:
    """A sum over the last ``seconds``, exact to the event."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._events: deque[tuple[float, int]] = deque()
        self._sum = 0
        self.most = 0

    def add(self, now: float, count: int) -> int:
        """Count some more; the sum with them."""
        while self._events and self._events[0][0] <= now - self._seconds:
            self._sum -= self._events.popleft()[1]
        self._events.append((now, count))
        self._sum += count
        self.most = max(self.most, self._sum)
        return self._sum


@dataclass
class Mailbox:
    """What Exchange knows of one mailbox."""

    tenant: str
    connections: int = 0
    begun: Window = field(default_factory=lambda: Window(MINUTE))
    done: Window = field(default_factory=lambda: Window(MINUTE))
    people: Window = field(default_factory=lambda: Window(DAY))
    squeezed_until: float = 0.0
    """Until then this mailbox is told that it is too fast, whatever it does: an incident of Exchange's own."""


class Exchange:
    """All tenants and mailboxes; a courier's other side."""

    def __init__(self, round_trip: float = 0.05, external: float = 1.0, seed: int = 1) -> None:
        self.round_trip = round_trip
        self.external = external
        """Share of recipients outside the tenant."""
        self.tenant_limit: dict[str, int] = {}
        """External recipients in 24 h; a tenant that is not named has no such limit."""
        self.refusing: dict[str, Outcome] = {}
        """Tenants that let nobody in, and why."""
        self.violations: Counter[str] = Counter()
        self.provoked: Counter[str] = Counter()
        """Refusals that a scenario asked for."""
        self.mailboxes: dict[str, Mailbox] = {}
        self.messages = self.logins = self.open_now = self.most_open = 0
        self.waits: list[float] = []
        """Seconds from acceptance to Exchange's 250, of each message."""
        self.random = random.Random(seed)
        self._tenants: dict[str, Window] = {}

    def mailbox(self, tenant: str, name: str) -> Mailbox:
        """What is known of it."""
        return self.mailboxes.setdefault(f"{tenant}/{name}", Mailbox(tenant))

    def mail(self, box: Mailbox, people: int, now: float) -> tuple[int, str] | None:
        """MAIL and its recipients arrive; the refusal, if there is one."""
        if now < box.squeezed_until:
            self.provoked["submission rate"] += 1
            return _RATE
        if box.begun.add(now, 1) > MESSAGES:
            return self._violated("messages a minute, counted at MAIL", _RATE)
        if box.people.add(now, people) > RECIPIENTS:
            return self._violated("recipients a day", _QUOTA)
        outside = (
            people
            if self.external >= 1.0
            else sum(self.random.random() < self.external for _ in range(people))
        )
        limit = self.tenant_limit.get(box.tenant)
        if limit is not None and self._tenants.setdefault(box.tenant, Window(DAY)).add(now, outside) > limit:
            return self._violated("external recipients a day of the tenant", _TENANT)
        return None

    def took(self, box: Mailbox, claim: Claim, now: float) -> None:
        """The final reply leaves."""
        if box.done.add(now, 1) > MESSAGES:
            self._violated("messages a minute, counted at the final reply", _RATE)
        self.messages += 1
        self.waits.append(now - claim.received)

    def dialled(self, box: Mailbox) -> tuple[int, str] | None:
        """One more connection; the refusal, if there is one."""
        box.connections += 1
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)
        self.logins += 1
        return self._violated("connections", _CROWDED) if box.connections > CONNECTIONS else None

    def hung_up(self, box: Mailbox) -> None:
        """One connection less."""
        box.connections -= 1
        self.open_now -= 1

    def _violated(self, limit: str, answer: tuple[int, str]) -> tuple[int, str]:
        self.violations[limit] += 1
        return answer


class SimulatedConnection:
    """`relay.deliver.contract.Connection` to the simulated Exchange. Replies are judged by relay's own table."""

    transport = "smtp"

    def __init__(self, exchange: Exchange, box: Mailbox, batch: int, epoch: float) -> None:
        self._exchange = exchange
        self._box = box
        self._left = batch
        self._epoch = epoch
        self._opened = self._used = _time()
        self._whole = True

    def usable(self) -> bool:
        """As relay's own connections are."""
        now = _time()
        young = now - self._opened < _OLDEST and now - self._used <= _LONGEST_IDLE
        return self._whole and self._left > 0 and young and self._box.tenant not in self._exchange.refusing

    async def submit(self, claim: Claim, content: Content, begin: Begin) -> Report:
        """MAIL, RCPT and DATA in one round trip, the message in another."""
        exchange, trip = self._exchange, self._exchange.round_trip
        people = begin.room(len(claim.envelope.recipients))
        written = asyncio.ensure_future(begin())
        await asyncio.sleep(trip / 2)
        refusal = exchange.mail(self._box, people, self._epoch + _time())
        await written
        outcome = _SENT
        if refusal is None:
            await asyncio.sleep(trip + exchange.random.uniform(*_STORING))
            exchange.took(self._box, claim, self._epoch + _time())
        else:
            outcome = judge(Phase.BODY, reply_of(*refusal))
            self._whole = refusal[0] != 421
        await asyncio.sleep(trip / 2)
        self._left -= 1
        self._used = _time()
        outcomes = {one.address: outcome for one in claim.envelope.recipients[:people]}
        return Report(outcomes, beyond(outcomes), details={"host": "simulated"})

    def abandon(self) -> bool:
        """Nobody waits for an answer here."""
        return False

    async def close(self) -> None:
        """QUIT."""
        self._exchange.hung_up(self._box)


class SimulatedCourier:
    """`relay.deliver.contract.Courier`."""

    def __init__(self, exchange: Exchange, batch: int, epoch: float) -> None:
        self._exchange = exchange
        self._batch = batch
        self._epoch = epoch

    async def open(self, upstream: str, mailbox: str) -> SimulatedConnection:
        """Dial and log in; Trouble where Exchange or Entra ID refuses."""
        box = self._exchange.mailbox(upstream, mailbox)
        refused = self._exchange.refusing.get(upstream)
        if refused is not None:
            await asyncio.sleep(self._exchange.round_trip)
            raise Trouble(refused)
        crowded = self._exchange.dialled(box)
        await asyncio.sleep(self._exchange.round_trip * _LOGIN_TRIPS)
        if crowded is not None:
            self._exchange.hung_up(box)
            raise Trouble(judge(Phase.AUTH, reply_of(*crowded)))
        return SimulatedConnection(self._exchange, box, self._batch, self._epoch)

    async def close(self) -> None:
        """Nothing to let go of."""


def _time() -> float:
    return asyncio.get_running_loop().time()
