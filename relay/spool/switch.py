"""Where new mail goes just now: into the shared spool, or into the local one.

The rule that keeps a source's mail in its order: as long as anything waits in the local spool, or is on its way into
it, all new mail goes there as well, behind it. By that alone a steady stream would go there for ever, since the local
disk is quicker than a database and something always arrives while the last batch is being forwarded. So while mail is
being forwarded new mail is let in half as fast as it leaves, and none during the last batch: a message that is
complete waits for a moment, as it would for the database, and then goes to the shared spool itself.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterator

from relay import events
from relay.clock import Clock
from relay.errors import SpoolError

WAIT = 2.0
"""Seconds that a message waits to be let in at most, and without anything being forwarded: then it goes in after all."""


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
        self._gate: _Gate | None = None
        """New mail waits here while mail is being forwarded; None while it is not."""
        self._moved = 0.0
        """When mail was last forwarded, by the monotonic clock."""

    @property
    def direct(self) -> bool:
        """Whether new mail goes into the shared spool."""
        return self.ready and self.since is None and not self.entering

    async def settled(self) -> bool:
        """`direct`, once a complete message has waited for its place if it must."""
        gate, left = self._gate, self._moved + WAIT - self._clock.monotonic()
        if gate is not None and left > 0 and not self.direct:
            await gate.wait(left)
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
    def forwarding(self) -> Iterator[None]:
        """The shared spool answers, and what waits is being forwarded: see the head of this file."""
        gate = self._gate = _Gate()
        self._moved = self._clock.monotonic()
        try:
            yield
        finally:
            self._gate = None
            gate.open()

    def moved(self, messages: int, *, last: bool) -> None:
        """So many were forwarded; ``last``: they were among the last ones."""
        self.forwarded += messages
        if messages and self._gate is not None:
            self._moved = self._clock.monotonic()
            self._gate.let_in(0 if last else -(-messages // 2))

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

    def forward_first(self, what: str) -> None:
        """The database answers, and what is in the local spool all the same goes first."""
        if self.since is None:
            self.reason = what
            self._begin()
            events.notice(what=what)

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


class _Gate:
    """Lets some in at a time."""

    def __init__(self) -> None:
        self._places = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def wait(self, seconds: float) -> None:
        """For a place, or for so long."""
        if self._places:
            self._places -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await turn

    def let_in(self, places: int) -> None:
        """So many, now or as they come; places that were not taken before are lost."""
        while places and self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                places -= 1
        self._places = places

    def open(self) -> None:
        """Everybody who waits."""
        self.let_in(len(self._waiting))
