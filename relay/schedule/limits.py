"""What one mailbox may do in a sliding minute and a sliding day, so that Exchange is never provoked.

A message counts from before its MAIL command until 60 s after its final reply. Exchange counts it at some
instant in between, so any 60 s as the server sees them hold at most the limit, whatever the latency.
"""

from __future__ import annotations

from collections import deque

from relay.settings import MailboxLimits
from relay.spool.contract import Usage

MINUTE = 60.0
DAY = 86_400.0
_MARGIN = 0.05
"""Seconds added to the window: clocks that run a little apart."""
_UNLIMITED_AGAIN = 1000
"""Messages a minute at which a mailbox without a configured limit counts as recovered."""
_RECOVERY = 60.0
"""Seconds between the steps by which a slowed lane gets faster again."""


class MailboxLimiter:
    """Counts, and says when the next message may start. Times are wall seconds."""

    def __init__(self, limits: MailboxLimits, usage: Usage | None = None) -> None:
        self._limits = limits
        self._stamps: deque[float] = deque(usage.stamps if usage else ())
        self._day: deque[tuple[float, int]] = deque(usage.recipients_today if usage else ())
        self._recipients = sum(count for _, count in self._day)
        self._under_way = 0
        self._slowed_to: int | None = None
        self._recovers = 0.0
        self._paused_until = 0.0

    def update(self, limits: MailboxLimits) -> None:
        """New limits after a reload; what was used stays counted."""
        self._limits = limits

    @property
    def limit(self) -> int:
        """Messages a minute at present; 0 for no limit."""
        return self._limits.messages_per_minute if self._slowed_to is None else self._slowed_to

    @property
    def slowed(self) -> bool:
        """Whether a throttling reply has lowered the rate."""
        return self._slowed_to is not None

    def sent_last_minute(self, now: float) -> int:
        """Messages submitted in the last 60 s."""
        self._forget(now)
        return len(self._stamps)

    def available(self, now: float) -> int | None:
        """How many messages may start now; None when there is no limit."""
        self._forget(now)
        if now < self._paused_until or not self._day_left():
            return 0
        if not self.limit:
            return None
        return max(0, self.limit - self._under_way - len(self._stamps))

    def ready_at(self, now: float) -> float:
        """When the next message may start, if nothing else does meanwhile; ``now`` when it may at once.

        While only messages under way stand in the way, that is 60 s off; their end is news by itself.
        """
        self._forget(now)
        times = [now, self._paused_until]
        if not self._day_left() and self._day:
            times.append(self._day[0][0] + DAY + MINUTE)
        if self.limit and self._under_way + len(self._stamps) >= self.limit:
            surplus = self._under_way + len(self._stamps) - self.limit
            ends = self._stamps[surplus] if surplus < len(self._stamps) else now
            times.append(ends + MINUTE + _MARGIN)
        return max(times)

    def start(self) -> None:
        """A message is about to be sent."""
        self._under_way += 1

    def release(self) -> None:
        """It was not sent after all: nothing of it reached Exchange."""
        self._under_way -= 1

    def finish(self, now: float, recipients: int) -> None:
        """Its final reply came, or none will."""
        self._under_way -= 1
        self._stamps.append(now)
        self._recipients += recipients
        minute = now - now % MINUTE
        if self._day and self._day[-1][0] == minute:
            self._day[-1] = (minute, self._day[-1][1] + recipients)
        else:
            self._day.append((minute, recipients))

    def throttled(self, now: float, wait: float) -> None:
        """Exchange said "too fast": pause, then go on at half the rate, one more a minute each minute."""
        self._paused_until = max(self._paused_until, now + wait)
        base = self.limit or max(2, len(self._stamps))
        self._slowed_to = max(1, base // 2)
        self._recovers = self._paused_until + _RECOVERY

    def _day_left(self) -> bool:
        return not self._limits.recipients_per_day or self._recipients < self._limits.recipients_per_day

    def day_is_full(self, now: float) -> bool:
        """Whether the limit of recipients in 24 hours is reached."""
        self._forget(now)
        return not self._day_left()

    def _forget(self, now: float) -> None:
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
