"""Who is signed in: random ids in a cookie, everything else kept here; and the one-time link of the first start."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

IDLE = 30 * 60.0
"""Seconds without a click after which a session ends; what a page fetches by itself does not count."""
ABSOLUTE = 12 * 3600.0
"""Seconds after which it ends in any case."""
MOST = 100
"""Sessions at once; one more ends the one that was idle longest."""
LINK = 30 * 60.0
"""Seconds that the one-time link works."""

Monotonic = Callable[[], float]


@dataclass(slots=True)
class Session:
    """One signed-in browser."""

    csrf: str
    began: float
    seen: float
    flash: list[tuple[str, str]] = field(default_factory=list)
    """(kind, sentence) to show on the next page: ``ok``, ``warn`` or ``fail``."""


class Sessions:
    """All sessions of this process; a restart ends them."""

    def __init__(self, monotonic: Monotonic) -> None:
        self._monotonic = monotonic
        self._all: dict[str, Session] = {}

    def begin(self) -> tuple[str, Session]:
        """A new session and the id for its cookie. Only the id's hash is kept."""
        now = self._monotonic()
        self._forget_old(now)
        while len(self._all) >= MOST:
            del self._all[min(self._all, key=lambda key: self._all[key].seen)]
        token = secrets.token_urlsafe(32)
        session = Session(secrets.token_urlsafe(24), now, now)
        self._all[_digest(token)] = session
        return token, session

    def find(self, token: str, *, touch: bool) -> Session | None:
        """The session of a cookie, if it still lasts; ``touch`` begins its idle time anew."""
        session = self._all.get(_digest(token))
        now = self._monotonic()
        if session is None or self._is_over(session, now):
            return None
        if touch:
            session.seen = now
        return session

    def end(self, token: str) -> None:
        """Sign out."""
        self._all.pop(_digest(token), None)

    def clear(self) -> None:
        """Sign everybody out: the password has changed."""
        self._all.clear()

    def __len__(self) -> int:
        return len(self._all)

    def _is_over(self, session: Session, now: float) -> bool:
        return now - session.seen > IDLE or now - session.began > ABSOLUTE

    def _forget_old(self, now: float) -> None:
        self._all = {key: one for key, one in self._all.items() if not self._is_over(one, now)}


class OneTimeLink:
    """The token of the link by which the first password is set: short-lived, single use, only its hash kept."""

    def __init__(self, monotonic: Monotonic) -> None:
        self._monotonic = monotonic
        self._digest = ""
        self._ends = 0.0

    def make(self) -> str:
        """A fresh token; an earlier one works no longer."""
        token = secrets.token_urlsafe(32)
        self._digest, self._ends = _digest(token), self._monotonic() + LINK
        return token

    def fits(self, token: str) -> bool:
        """Whether this token works now."""
        right = hmac.compare_digest(_digest(token), self._digest)
        return bool(self._digest) and right and self._monotonic() < self._ends

    def spend(self) -> None:
        """It was used."""
        self._digest = ""


class FormKey:
    """CSRF tokens for forms that are shown before anybody is signed in: bound to a random cookie of the browser."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def token(self, cookie: str) -> str:
        """The form's token for this cookie."""
        return hmac.new(self._key, cookie.encode("utf-8", "replace"), hashlib.sha256).hexdigest()


def same(given: str, right: str) -> bool:
    """Compare two tokens in a time that tells nothing."""
    return bool(right) and hmac.compare_digest(given.encode("utf-8", "replace"), right.encode("utf-8"))


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
