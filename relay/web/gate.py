"""The password: checked one at a time in a thread, and only so often."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

SHORTEST = 12
"""Characters of a password that is set in the browser (NIST SP 800-63B-4, 3.1.1.2: 15 alone, 8 with a second factor)."""
LONGEST = 200
FREE = 5
"""Wrong passwords that one client may give before it must wait."""
PAUSE = 15.0
"""Seconds that it waits then, doubled with each further one ..."""
LONGEST_PAUSE = 900.0
"""... up to this."""
EVERYBODY = 30
"""Wrong passwords of all clients together in `WINDOW` seconds; beyond it, nobody is tried until some are older."""
WINDOW = 60.0
WAITING = 5
"""Passwords that may wait to be checked at once: each costs argon2 tens of milliseconds and tens of megabytes."""
_CLIENTS = 1000


class TooMany(Exception):
    """Not tried: come again in ``seconds``."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"try again in {seconds:.0f} s")
        self.seconds = seconds


class Gate:
    """Checks passwords and counts the wrong ones."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._hasher = PasswordHasher()
        self._one = asyncio.Lock()
        self._waiting = 0
        self._wrong: OrderedDict[str, tuple[int, float]] = OrderedDict()
        """By client: wrong passwords in a row, and until when it must wait."""
        self._all: deque[float] = deque()

    async def check(self, client: str, password: str, hashed: str) -> bool:
        """Whether this is the password. Raises TooMany before anything is computed."""
        self._admit(client)
        self._waiting += 1
        try:
            async with self._one:
                self._admit(client)
                right = await asyncio.to_thread(self._verify, hashed, password)
        finally:
            self._waiting -= 1
        if right:
            self._wrong.pop(client, None)
        else:
            self._note(client)
        return right

    async def make(self, password: str) -> str:
        """The argon2id hash of a new password."""
        async with self._one:
            return await asyncio.to_thread(self._hasher.hash, password)

    def _verify(self, hashed: str, password: str) -> bool:
        try:
            return len(password) <= LONGEST and self._hasher.verify(hashed, password)
        except (VerificationError, InvalidHashError):
            return False

    def _admit(self, client: str) -> None:
        now = self._monotonic()
        while self._all and now - self._all[0] > WINDOW:
            self._all.popleft()
        until = self._wrong.get(client, (0, 0.0))[1]
        if until > now:
            raise TooMany(until - now)
        if len(self._all) >= EVERYBODY:
            raise TooMany(WINDOW - (now - self._all[0]))
        if self._waiting > WAITING:
            raise TooMany(1.0)

    def _note(self, client: str) -> None:
        now = self._monotonic()
        self._all.append(now)
        count = self._wrong.get(client, (0, 0.0))[0] + 1
        pause = 0.0 if count < FREE else min(LONGEST_PAUSE, PAUSE * 2.0 ** min(count - FREE, 20))
        self._wrong[client] = (count, now + pause)
        self._wrong.move_to_end(client)
        while len(self._wrong) > _CLIENTS:
            self._wrong.popitem(last=False)


def weakness(password: str, again: str) -> str:
    """Why this will not do as a new password; empty when it will."""
    if password != again:
        return "The two passwords differ. Type the same one twice."
    if len(password) < SHORTEST:
        return f"The password is too short: use at least {SHORTEST} characters. Four or five words do well."
    if len(password) > LONGEST:
        return f"The password is longer than {LONGEST} characters."
    if len(set(password)) < 5:
        return "The password repeats a few characters. Four or five words do well."
    return ""
