"""Where new mail goes just now: into the shared spool, or into the local one.

The rule that keeps a source's mail in its order: as long as anything waits in the local spool, or is on its way into
it, all new mail goes there as well, behind it. Under a steady stream that would never end, since something always
arrives while the last batch is being forwarded; so the last one is a *last lap*: messages that are complete wait for
it, for a moment, and then go to the shared spool themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from relay import events
from relay.clock import Clock
from relay.errors import SpoolError

LAP = 2.0
"""Seconds that a client waits for the last lap at most: then its message goes behind the others after all."""


class Switch:
    """Says where, and tells when that changes. ``shared`` mail needs `ready`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.ready = False
        """The shared spool was opened, and what a stopped relay had left there was seen to."""
        self.since: float | None = None
        """Since when new mail goes into the local spool (wall seconds); None: it does not."""
        self.reason = ""
        self.entering = 0
        """Messages that are being stored in the local spool, or may be about to."""
        self.entered = 0
        """How many have begun to be, ever: tells whether anything changed meanwhile."""
        self.forwarded = 0
        self._lap: asyncio.Event | None = None
        self._lap_ends = 0.0

    @property
    def direct(self) -> bool:
        """Whether new mail goes into the shared spool."""
        return self.ready and self.since is None and not self.entering

    async def settled(self) -> bool:
        """`direct`, after the last lap if there is one just now."""
        lap, left = self._lap, self._lap_ends - self._clock.monotonic()
        if lap is not None and left > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await lap.wait()
        return self.direct

    @contextlib.contextmanager
    def enter(self) -> Iterator[None]:
        """A message is being stored in the local spool."""
        self.entering += 1
        self.entered += 1
        try:
            yield
        finally:
            self.entering -= 1

    @contextlib.contextmanager
    def last_lap(self) -> Iterator[None]:
        """Little is left to be forwarded: see the head of this file."""
        self._lap, self._lap_ends = asyncio.Event(), self._clock.monotonic() + LAP
        try:
            yield
        finally:
            self._lap.set()
            self._lap = None

    def turn_local(self, error: SpoolError) -> None:
        """The shared spool cannot take mail. Said once."""
        self.reason = str(error)
        if self.since is None:
            self._begin()
            events.trouble(
                where="spool.local",
                what=f"{error}. New mail is accepted into this host's local spool",
                remedy=error.remedy
                or "Nothing is lost: it is forwarded by itself when the database answers.",
            )

    def leave_behind(self, messages: int) -> None:
        """A start finds mail of the last run."""
        self.reason = "mail that was accepted while the database was away is forwarded first"
        self._begin()
        events.notice(
            what=f"{messages} messages wait in the local spool since the last run; they are forwarded first"
        )

    def _begin(self) -> None:
        self.since = self._clock.now()
        self.forwarded = 0

    def turn_back(self) -> None:
        """Nothing waits any more, and the shared spool answers."""
        if self.since is not None:
            lasted = max(0, round(self._clock.now() - self.since))
            self.since, self.reason = None, ""
            events.notice(
                what=f"the database of the spool takes mail again after {lasted} s;"
                f" forwarded from the local spool: {self.forwarded}",
                forwarded=self.forwarded,
            )
