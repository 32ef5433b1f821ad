"""What one mailbox may do in a sliding minute and a sliding day, so that Exchange is never provoked.

A message counts from before its MAIL command until 60 s after its final reply. Exchange counts it at some
instant in between, so any 60 s as the server sees them hold at most the limit, whatever the latency.
"""

from __future__ import annotations

import contextlib
import json
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from relay.settings import MailboxLimits
from relay.spool.contract import Debt, Usage

MINUTE = 60.0
DAY = 86_400.0
_MARGIN = 0.05
"""Seconds added to the window: clocks that run a little apart."""
_UNLIMITED_AGAIN = 1000
"""Messages a minute at which a mailbox without a configured limit counts as recovered."""
_RECOVERY = 60.0
"""Seconds between the steps by which a slowed lane gets faster again."""


EXCHANGE_CONNECTIONS = 3
"""What Exchange takes of one mailbox at once ("SMTP AUTH protocol limits"): more than relay uses of it, unless told to."""

NO_LIMITS = MailboxLimits(
    connections=1, messages_per_minute=0, recipients_per_day=0, recipients_per_message=0, message_size=0
)
"""Of an upstream that the configuration does not name any more."""
_IN_ONE_PIECE = 10
"""A message is kept together while it needs no more than this part of a minute's limit (3 of 30)."""


class Cost(NamedTuple):
    """What one message of ours is to Exchange: SMTP transactions (it is split when it has many recipients), people."""

    messages: int
    recipients: int

    def plus(self, other: Cost) -> Cost:
        """Both together."""
        return Cost(self.messages + other.messages, self.recipients + other.recipients)

    def at_most(self, other: Cost) -> Cost:
        """Neither figure above the other's."""
        return Cost(min(self.messages, other.messages), min(self.recipients, other.recipients))


ONE = Cost(1, 1)
NOTHING = Cost(0, 0)


def cost_of(recipients: int, limits: MailboxLimits, learned: int = 0) -> Cost:
    """What is set aside for a message with that many recipients before it starts.

    ``learned``: recipients that Exchange takes in one message, when fewer than the limits say; 0: not known. One that
    is split into a few goes when there is room for all of them; a longer list starts with that much and takes what
    else is free as it goes, since waiting for a whole minute's worth would leave the minute before it unused.
    """
    most = min(one for one in (limits.recipients_per_message, learned, recipients, 10**9) if one > 0)
    messages = max(1, -(-recipients // most))
    return Cost(
        min(
            messages,
            max(1, limits.messages_per_minute // _IN_ONE_PIECE) if limits.messages_per_minute else messages,
        ),
        min(recipients, limits.recipients_per_day or recipients),
    )


class MailboxLimiter:
    """Counts, and says when the next message may start. Times are wall seconds."""

    def __init__(self, limits: MailboxLimits, usage: Usage | None = None) -> None:
        self._limits = limits
        self._stamps: deque[float] = deque(usage.stamps if usage else ())
        self._day: deque[tuple[float, int]] = deque(usage.recipients_today if usage else ())
        self._recipients = sum(count for _, count in self._day)
        self._under_way = 0
        self._people_under_way = 0
        self._slowed_to: int | None = None
        self._recovers = 0.0
        self._paused_until = 0.0
        self._debts: deque[Debt] = deque(usage.debts if usage else ())

    def update(self, limits: MailboxLimits) -> None:
        """New limits after a reload; what was used stays counted."""
        self._limits = limits

    @property
    def limit(self) -> int:
        """Messages a minute at present; 0 for no limit. What a lost replica may still send is not for us to send."""
        most = self._limits.messages_per_minute if self._slowed_to is None else self._slowed_to
        return max(1, most - sum(debt.messages for debt in self._debts)) if most else 0

    @property
    def in_debt(self) -> bool:
        """Whether something that lost replicas left is reckoned with."""
        return bool(self._debts)

    def owe(self, debts: Iterable[Debt]) -> None:
        """What lost replicas may still do, as is known by now."""
        self._debts = deque(debts)

    def connections(self, now: float) -> int:
        """How many may be open at once: those of lost replicas may still be, and count at Exchange as well."""
        self._forget(now)
        most = max(1, self._limits.connections)
        theirs = sum(debt.connections for debt in self._debts)
        return max(0, min(most, max(EXCHANGE_CONNECTIONS, most) - theirs)) if theirs else most

    def blocked_until(self, now: float) -> float:
        """Before this there is no place for a connection, unless the others' are known to have ended; 0.0: there is one."""
        if self.connections(now):
            return 0.0
        return next(debt.until for debt in self._debts if debt.connections)

    def export(self) -> str:
        """How it is slowed down, for whoever works the mailbox next."""
        return json.dumps([self._slowed_to, self._recovers, self._paused_until])

    def recall(self, kept: str | None) -> None:
        """Take up what `export` gave; what cannot be read is learned anew."""
        with contextlib.suppress(ValueError, TypeError):
            slowed, recovers, paused = json.loads(kept or "")
            self._recovers, self._paused_until = float(recovers), float(paused)
            self._slowed_to = None if slowed is None else max(1, int(slowed))

    @property
    def slowed(self) -> bool:
        """Whether a throttling reply has lowered the rate."""
        return self._slowed_to is not None

    @property
    def paused_until(self) -> float:
        """Nothing of this mailbox may start before this: Exchange said "too fast"."""
        return self._paused_until

    def sent_last_minute(self, now: float) -> int:
        """Messages submitted in the last 60 s."""
        self._forget(now)
        return len(self._stamps)

    def available(self, now: float) -> int | None:
        """How many ordinary messages may start now; None when there is no limit."""
        if not self.fits(now, ONE):
            return 0
        return self.limit - self._under_way - len(self._stamps) if self.limit else None

    def fits(self, now: float, cost: Cost) -> bool:
        """Whether this may start now. What exceeds a (slowed) limit by itself may start when nothing else counts."""
        self._forget(now)
        if now < self._paused_until:
            return False
        used = self._under_way + len(self._stamps)
        if self.limit and used and used + cost.messages > self.limit:
            return False
        people = self._recipients + self._people_under_way
        most = self._limits.recipients_per_day
        return not (most and people and people + cost.recipients > most)

    def room_today(self, now: float) -> int | None:
        """Recipients that the day's limit has left; None when there is no such limit."""
        self._forget(now)
        most = self._limits.recipients_per_day
        return max(0, most - self._recipients - self._people_under_way) if most else None

    def ready_at(self, now: float, cost: Cost = ONE) -> float:
        """When this may start, if nothing else does meanwhile; ``now`` when it may at once.

        While only messages under way stand in the way, that is 60 s off; their end is news by itself.
        """
        self._forget(now)
        times = [now, self._paused_until]
        surplus = self._under_way + len(self._stamps) + min(cost.messages, self.limit) - self.limit
        if self.limit and surplus > 0:
            ends = self._stamps[surplus - 1] if surplus <= len(self._stamps) else now
            times.append(ends + MINUTE + _MARGIN)
        times.append(self._day_ready_at(now, cost.recipients))
        return max(times)

    def _day_ready_at(self, now: float, recipients: int) -> float:
        most = self._limits.recipients_per_day
        left = self._recipients + self._people_under_way
        when = now
        for minute, count in self._day if most else ():
            if left + min(recipients, most) <= most:
                break
            left -= count
            when = max(now, minute + DAY + MINUTE)
        return when

    def start(self, cost: Cost = ONE) -> None:
        """This is about to be sent."""
        self._under_way += cost.messages
        self._people_under_way += cost.recipients

    def release(self, cost: Cost = ONE) -> None:
        """It was not sent after all: nothing of it reached Exchange."""
        self._under_way -= cost.messages
        self._people_under_way -= cost.recipients

    def finish(self, now: float, cost: Cost = ONE) -> None:
        """Its final reply came, or none will."""
        self.release(cost)
        self._stamps.extend([now] * cost.messages)
        self._recipients += cost.recipients
        minute = now - now % MINUTE
        if self._day and self._day[-1][0] == minute:
            self._day[-1] = (minute, self._day[-1][1] + cost.recipients)
        else:
            self._day.append((minute, cost.recipients))

    def throttled(self, now: float, wait: float) -> None:
        """Exchange said "too fast": pause, then go on at half the rate, one more a minute each minute."""
        already = now < self._paused_until
        self._paused_until = max(self._paused_until, now + wait)
        if already:
            return  # replies to what was under way say the same once more
        base = self.limit or max(2, len(self._stamps))  # already without what is a lost replica's
        self._slowed_to = max(1, base // 2)
        self._recovers = self._paused_until + _RECOVERY

    def day_is_full(self, now: float) -> bool:
        """Whether the limit of recipients in 24 hours is reached."""
        return self.day_used(now) >= 1.0

    def day_used(self, now: float) -> float:
        """Share of the limit of recipients in 24 hours that is used up; 0 without such a limit."""
        self._forget(now)
        most = self._limits.recipients_per_day
        return (self._recipients + self._people_under_way) / most if most else 0.0

    def _forget(self, now: float) -> None:
        while self._debts and self._debts[0].until <= now:
            self._debts.popleft()
        while self._stamps and self._stamps[0] + MINUTE + _MARGIN <= now:
            self._stamps.popleft()
        while self._day and self._day[0][0] + DAY + MINUTE <= now:
            self._recipients -= self._day.popleft()[1]
        while self._slowed_to is not None and now >= self._recovers:
            self._slowed_to += 1
            self._recovers += _RECOVERY
            full = self._limits.messages_per_minute or _UNLIMITED_AGAIN
            if self._slowed_to >= full:
                self._slowed_to = None
