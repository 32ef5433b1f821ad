"""Graph's throttling: requests at once, requests in ten minutes, octets uploaded in five.

"Outlook service limits" of Graph's throttling page; how often a client came back too soon is kept for a judge.
"""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from typing import Any

from relay.simulator import graph_errors as refusal
from relay.simulator.state import State

REQUEST_WINDOW, UPLOAD_WINDOW = 600.0, 300.0  # seconds


class Rates:
    """What the app has used, in all and for each mailbox. Times are seconds of the simulator's clock."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._running: Counter[str | None] = Counter()
        self._total = 0
        self._requests: defaultdict[str, deque[float]] = defaultdict(deque)
        self._uploads: defaultdict[str, deque[tuple[float, int]]] = defaultdict(deque)
        self._penalty: dict[str | None, float] = {}
        self._throttled: Counter[str] = Counter()
        self._early: Counter[str] = Counter()
        self._peak = 0
        self._peaks: Counter[str] = Counter()

    @contextlib.contextmanager
    def running(self, mailbox: str | None) -> Iterator[None]:
        """One request being served. Raises GraphError when there are too many already."""
        limits = self._state.limits
        app = bool(limits.graph_concurrency) and self._total >= limits.graph_concurrency
        one = limits.graph_mailbox_concurrency
        if app or (mailbox is not None and one and self._running[mailbox] >= one):
            self._throttled["concurrency"] += 1
            raise refusal.throttled("Application is over its MailboxConcurrency limit.", 1)
        self._running[mailbox] += 1
        self._total += 1
        self._peak = max(self._peak, self._total)
        if mailbox is not None:
            self._peaks[mailbox] = max(self._peaks[mailbox], self._running[mailbox])
        try:
            yield
        finally:
            self._running[mailbox] -= 1
            self._total -= 1

    def count_request(self, mailbox: str) -> None:
        """Count a request; refused ones count too. Raises GraphError beyond the limit."""
        limit, now = self._state.limits.graph_requests, self._state.clock()
        recent = self._requests[mailbox]
        while recent and recent[0] <= now - REQUEST_WINDOW:
            recent.popleft()
        recent.append(now)
        if limit and len(recent) > limit:
            self._throttled["requests"] += 1
            raise refusal.throttled(
                "Application is over its request limit.", recent[0] + REQUEST_WINDOW - now
            )

    def count_upload(self, mailbox: str, size: int) -> None:
        """Count octets towards the upload bandwidth. Raises GraphError beyond it."""
        limit, now = self._state.limits.graph_upload_rate, self._state.clock()
        recent = self._uploads[mailbox]
        while recent and recent[0][0] <= now - UPLOAD_WINDOW:
            recent.popleft()
        if limit and size + sum(octets for _, octets in recent) > limit:
            self._throttled["upload"] += 1
            oldest = recent[0][0] if recent else now
            raise refusal.throttled("Application is over its upload limit.", oldest + UPLOAD_WINDOW - now)
        recent.append((now, size))

    def penalty(self, mailbox: str | None, seconds: float) -> None:
        """A 429 has been answered: nobody should come back before its Retry-After is over."""
        self._penalty[mailbox] = max(self._penalty.get(mailbox, 0.0), self._state.clock() + seconds)

    def note_retry(self, mailbox: str | None) -> None:
        """Count a request that comes during a penalty."""
        if self._state.clock() < self._penalty.get(mailbox, 0.0):
            self._early[mailbox or ""] += 1

    def report(self) -> dict[str, Any]:
        """For judging: the most requests at once, what was throttled, and who did not wait for Retry-After."""
        return {
            "concurrency": self._peak,
            "mailbox_concurrency": dict(self._peaks),
            "throttled": dict(self._throttled),
            "early_retries": dict(self._early),
        }
