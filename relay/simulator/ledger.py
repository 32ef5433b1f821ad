"""What each mailbox has used of its limits, in sliding windows, and what a judge wants to know afterwards."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from relay.simulator.options import Limits

MINUTE, DAY = 60.0, 86400.0  # seconds

REPEATED = {
    "mailbox-full": "550 5.2.251 Sender throttled due to continuous mailbox full errors",
    "send-as-denied": "550 5.2.252 Sender throttled due to continuous send as denied errors",
    "invalid-license": "550 5.2.253 Sender throttled due to continuous invalid license errors",
    "too-many-recipients": "550 5.2.254 Sender throttled due to continuous too many recipients errors",
    "invalid-recipients": "550 5.2.255 Sender throttled due to continuous invalid recipients errors",
}
"""Microsoft's "continuous error throttling for SMTP AUTH submissions": the mistake -> the reply once throttled."""


@dataclass
class Account:
    """The record of one mailbox. Times are seconds of the simulator's clock."""

    open_connections: int = 0
    peak_connections: int = 0  # as admitted
    peak_connections_tried: int = 0  # with the refused one counted
    minute: deque[float] = field(default_factory=deque)
    attempts: deque[float] = field(default_factory=deque)
    peak_minute: int = 0
    peak_minute_tried: int = 0
    day: deque[tuple[float, int]] = field(default_factory=deque)
    recipients: int = 0
    errors: dict[str, deque[float]] = field(default_factory=lambda: defaultdict(deque))
    throttled: dict[str, float] = field(default_factory=dict)
    refusals: Counter[str] = field(default_factory=Counter)


class Ledger:
    """The accounts of all mailboxes, judged by ``limits`` (which may change at any time)."""

    def __init__(self, limits: Callable[[], Limits], clock: Callable[[], float]) -> None:
        self._limits = limits
        self._clock = clock
        self._accounts: defaultdict[str, Account] = defaultdict(Account)

    def connection_open(self, mailbox: str) -> bool:
        """Count one more authenticated connection; False beyond the limit."""
        account, limit = self._accounts[mailbox], self._limits().connections
        tried = account.open_connections + 1
        account.peak_connections_tried = max(account.peak_connections_tried, tried)
        if limit and tried > limit:
            account.refusals["connections"] += 1
            return False
        account.open_connections = tried
        account.peak_connections = max(account.peak_connections, tried)
        return True

    def connection_close(self, mailbox: str) -> None:
        """The connection is gone."""
        self._accounts[mailbox].open_connections -= 1

    def message_begin(self, mailbox: str, limit: int | None = None) -> float | None:
        """Count a message at MAIL; its stamp for `message_undo`, or None beyond the rate (``limit``, else SMTP's)."""
        account, now = self._accounts[mailbox], self._clock()
        limit = self._limits().messages_per_minute if limit is None else limit
        for window in (account.minute, account.attempts):
            while window and window[0] <= now - MINUTE:
                window.popleft()
        account.attempts.append(now)
        account.peak_minute_tried = max(account.peak_minute_tried, len(account.attempts))
        if limit and len(account.minute) >= limit:
            account.refusals["messages_per_minute"] += 1
            return None
        account.minute.append(now)
        account.peak_minute = max(account.peak_minute, len(account.minute))
        return now

    def message_undo(self, mailbox: str, stamp: float) -> None:
        """The transaction was given up before its data: no message was submitted."""
        account = self._accounts[mailbox]
        for window in (account.minute, account.attempts):
            if stamp in window:
                window.remove(stamp)

    def recipients_add(self, mailbox: str, count: int) -> bool:
        """Count recipients against the day's quota; False, and nothing counted, beyond it."""
        account, now, limit = self._accounts[mailbox], self._clock(), self._limits().recipients_per_day
        while account.day and account.day[0][0] <= now - DAY:
            account.recipients -= account.day.popleft()[1]
        if limit and account.recipients + count > limit:
            account.refusals["recipients_per_day"] += 1
            return False
        account.day.append((now, count))
        account.recipients += count
        return True

    def mistake(self, mailbox: str, kind: str) -> None:
        """Count a mistake of `REPEATED`; too many of one kind in the window throttle the mailbox."""
        account, now, limits = self._accounts[mailbox], self._clock(), self._limits()
        account.refusals[kind] += 1
        recent = account.errors[kind]
        recent.append(now)
        while recent[0] <= now - limits.repeated_window:
            recent.popleft()
        if limits.repeated_errors and len(recent) >= limits.repeated_errors:
            account.throttled[kind] = now + limits.throttle

    def throttled(self, mailbox: str) -> str | None:
        """The reply of `REPEATED` while the mailbox is throttled for a mistake."""
        account, now = self._accounts[mailbox], self._clock()
        for kind, until in account.throttled.items():
            if now < until:
                account.refusals["throttled"] += 1
                return REPEATED[kind]
        return None

    def report(self) -> dict[str, dict[str, object]]:
        """For each mailbox: the most messages in any 60 s, the most connections at once, and what was refused.

        The ``tried`` figures count refused attempts too: above the limit, the client provoked Exchange.
        """
        return {
            mailbox: {
                "messages_per_minute": account.peak_minute,
                "messages_per_minute_tried": account.peak_minute_tried,
                "connections": account.peak_connections,
                "connections_tried": account.peak_connections_tried,
                "connections_now": account.open_connections,
                "recipients_last_day": account.recipients,
                "refusals": dict(account.refusals),
            }
            for mailbox, account in sorted(self._accounts.items())
        }
