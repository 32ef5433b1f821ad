"""When to renew and when to ask again: the tokens room's figures, as pure functions of time."""

from __future__ import annotations

import random

RENEW_LEFT = 600.0
"""Seconds left at which a renewal starts, at the latest (half the life for shorter-lived tokens)."""
RENEW_SHARE = 0.2
"""Share of the lifetime left at which a renewal starts, for long-lived tokens."""
MARGIN = 10.0
"""Seconds before expiry at which a token is no longer handed out: AUTH takes a moment."""
DISCARD_PAUSE = 60.0
"""Seconds between two refused tokens that lead to a fresh one: a loop of 535 must not become a loop at Entra."""
FIRST_PAUSE = {True: 2.0, False: 5.0}
"""Seconds to the second try, by whether the failure is temporary; doubled each time."""
LONGEST_PAUSE = 60.0
LONGEST_RETRY_AFTER = 600.0
"""Seconds; what Entra asks for is obeyed up to here."""
JITTER = 0.25
"""Share by which a temporary pause varies, so that many relays do not come back together."""


def renewal_due(lifetime: float, left: float) -> bool:
    """Whether a token of that lifetime, with so many seconds left, should be replaced in the background."""
    return left < max(RENEW_SHARE * lifetime, min(RENEW_LEFT, lifetime / 2))


def worn_out(lifetime: float, left: float) -> bool:
    """Whether a token is too close to its end to be handed out."""
    return left <= min(MARGIN, lifetime / 10)


def pause(*, temporary: bool, failures: int, retry_after: float | None) -> float:
    """Seconds to wait after the so-and-so-manieth failure in a row (1 is the first)."""
    seconds = min(LONGEST_PAUSE, FIRST_PAUSE[temporary] * 2.0 ** min(failures - 1, 10))
    if temporary:
        seconds *= random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - spreading, not secrecy
    return max(seconds, min(retry_after or 0.0, LONGEST_RETRY_AFTER))
