"""Who a client is: argon2 hashes checked off the event loop, the same work for unknown names as for known ones.

RFC 4954 (AUTH), RFC 4616 (PLAIN); LOGIN has no RFC, its prompts are those every old client waits for.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import argon2
from argon2.exceptions import InvalidHashError, VerificationError

from relay import events
from relay.accept.addresses import matches
from relay.clock import Clock
from relay.settings import ClientLogin

VERIFIES_AT_ONCE = 1
"""An argon2 check takes tens of milliseconds and 64 MB: more at once would break the memory figure of design 6."""

REMEMBERED = 1000
"""Successful logins kept in memory, so that a device with a connection per message costs one check."""

DELAYS = (0.0, 1.0, 2.0, 4.0)
"""Seconds before the answer to a client's first, second, ... wrong password; the last repeats."""

BLOCK_AFTER = 10
"""Wrong passwords of one client, with less than ten minutes between any two, after which it may not try any more."""

BLOCK_TIME = 600.0
"""Seconds that takes, counted from the last wrong one; then the count starts anew."""

_MANY_CLIENTS = 10_000


class BadCredentials(ValueError):
    """Not base64, or not the shape the mechanism has: 501 5.5.2."""


class Authenticator:
    """Checks user names and passwords against ``clients``."""

    def __init__(self, logins: Sequence[ClientLogin]) -> None:
        self._logins = {login.username: login for login in logins}
        self._hasher = argon2.PasswordHasher()
        self._nobody = self._logins[next(iter(self._logins))].password.reveal() if self._logins else None
        self._key = secrets.token_bytes(32)
        self._known: OrderedDict[bytes, None] = OrderedDict()
        self._turn = asyncio.Semaphore(VERIFIES_AT_ONCE)

    async def check(self, username: str, password: str) -> bool:
        """Whether the password is the user's. Unknown users cost one check too, so time tells nothing."""
        login = self._logins.get(username)
        stored = login.password.reveal() if login else self._nobody
        if stored is None:
            return False
        mark = self._mark(username, password, stored)
        if login and self._remembers(mark):
            return True
        async with self._turn:
            if login and self._remembers(mark):
                return True  # another connection of the same device was checked while this one waited
            right = await asyncio.to_thread(self._verify, stored, password)
        if not (login and right):
            return False
        self._remember(mark)
        return True

    def may_send_as(self, username: str, address: str) -> bool:
        """Whether this user's ``may_send_as`` covers the address. The null sender names nobody and passes."""
        login = self._logins.get(username)
        if login is None:
            return False
        return not address or any(matches(address, pattern) for pattern in login.may_send_as)

    def _verify(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except InvalidHashError:
            events.trouble(
                where="accept.auth",
                what="a password under clients is not an argon2 hash",
                remedy="make one with: relay password",
            )
        except VerificationError:
            return False
        return False

    def _mark(self, username: str, password: str, stored: str) -> bytes:
        """What is remembered of a login: worthless outside this process, void once the hash changes."""
        text = "\0".join((username, password, stored)).encode("utf-8", "surrogatepass")
        return hmac.new(self._key, text, hashlib.sha256).digest()

    def _remembers(self, mark: bytes) -> bool:
        if mark not in self._known:
            return False
        self._known.move_to_end(mark)
        return True

    def _remember(self, mark: bytes) -> None:
        self._known[mark] = None
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)


@dataclass(slots=True)
class _Tally:
    """Wrong passwords from one address: how many for each user name (a digest), and when the last one came."""

    wrong: dict[bytes, int]
    last: float

    @property
    def count(self) -> int:
        return sum(self.wrong.values())


class Guessing:
    """Counts wrong passwords by client address: each answer waits longer, and too many end it for a while.

    A right password clears what its own user name got wrong there and nothing else, so that one valid login is no help in
    guessing another. Who logged in at an address before is let in there even while it is blocked: one
    device with a stale password does not shut out the others behind the same router.
    """

    def __init__(self) -> None:
        self._tallies: OrderedDict[str, _Tally] = OrderedDict()
        self._welcome: OrderedDict[tuple[str, bytes], None] = OrderedDict()

    def delay(self, address: str, user: str, now: float) -> float:
        """Note a wrong password; the seconds to wait before saying so. ``now`` is monotonic."""
        tally = self._tallies.pop(address, None)
        if tally is None or now - tally.last >= BLOCK_TIME:
            tally = _Tally({}, now)
        if len(self._tallies) >= _MANY_CLIENTS:
            self._tallies.popitem(last=False)
        self._tallies[address] = tally
        before, name = tally.count, _digest(user)
        tally.wrong[name] = tally.wrong.get(name, 0) + 1
        tally.last = now
        return DELAYS[min(before, len(DELAYS) - 1)]

    def blocked(self, address: str, user: str, now: float) -> bool:
        """Whether this client has guessed too often: its passwords are not even looked at."""
        tally = self._tallies.get(address)
        if tally is None or tally.count < BLOCK_AFTER or now - tally.last >= BLOCK_TIME:
            return False
        name = _digest(user)
        return name in tally.wrong or (address, name) not in self._welcome

    def forgive(self, address: str, user: str) -> None:
        """A right password clears what was wrong with this user's before."""
        name = _digest(user)
        tally = self._tallies.get(address)
        if tally is not None:
            tally.wrong.pop(name, None)
        self._welcome[address, name] = None
        self._welcome.move_to_end((address, name))
        if len(self._welcome) > _MANY_CLIENTS:
            self._welcome.popitem(last=False)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a user name and a password."""

    right: bool
    blocked: bool = False
    """The client has guessed too often: its passwords are not looked at."""
    wait: float = 0.0
    """Seconds before a wrong one is answered."""


class LoginJudge(Protocol):
    """Who judges logins: this process, or the one that counts the guesses for it."""

    async def judge(self, address: str, user: str, password: str, identity: str) -> Verdict:
        """Judge one login of a client; ``identity`` is what PLAIN wants to act as, empty for the user itself."""
        ...


class Judge:
    """Checks a password and counts the wrong ones."""

    def __init__(self, authenticator: Authenticator, guessing: Guessing, clock: Clock) -> None:
        self._authenticator = authenticator
        self._guessing = guessing
        self._clock = clock

    async def judge(self, address: str, user: str, password: str, identity: str) -> Verdict:
        """See `LoginJudge`. Blocks are asked for again after the check: the client's other connections guess, too."""
        if self._guessing.blocked(address, user, self._clock.monotonic()):
            return Verdict(False, blocked=True)
        right = await self._authenticator.check(user, password)
        if self._guessing.blocked(address, user, self._clock.monotonic()):
            return Verdict(False, blocked=True)
        if right and identity in ("", user):
            self._guessing.forgive(address, user)
            return Verdict(True)
        return Verdict(False, wait=self._guessing.delay(address, user, self._clock.monotonic()))


def _digest(user: str) -> bytes:
    """A user name of any length as 16 octets, so that what is remembered stays small."""
    return hashlib.sha256(user.encode("utf-8", "surrogatepass")).digest()[:16]


def decode(text: str) -> str:
    """Base64 as clients send it: blanks around it, padding perhaps missing. Raises BadCredentials."""
    text = text.strip().rstrip("=")
    try:
        octets = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
        return octets.decode("utf-8")
    except (binascii.Error, ValueError) as error:
        raise BadCredentials(str(error)) from error


def plain_parts(text: str) -> tuple[str, str, str]:
    """Authorization identity, user and password of a PLAIN response. Raises BadCredentials."""
    parts = decode(text).split("\0")
    if len(parts) != 3:
        raise BadCredentials("PLAIN has three parts")
    return parts[0], parts[1], parts[2]
