"""When to try again: pure functions of settings and numbers."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

JITTER = 0.1
"""A tenth either way, so that mail which failed together does not return together."""

RECONNECT = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0)
"""Seconds before dialling again after a lane could not connect; the last repeats. Short, because nothing of the
mail is at fault, and an outage that ends should be noticed within the minute."""

PROBES = (60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0)
"""Seconds between tries of something held: ever more seldom, since Exchange throttles a mailbox that repeats an
error (facts 0.6), and permission changes take 30 minutes to 2 hours to arrive (facts 0.12)."""


HOUR = 3600.0
LONGEST_PROBE = 4 * HOUR
"""Seconds: the widest step between tries of what Exchange counts in hours (facts 3.2: 1 to 4 hours)."""


def step(steps: Sequence[float], index: int, rnd: Callable[[], float] = random.random) -> float:
    """The ``index``-th wait in seconds (from 0), the last repeating, with jitter."""
    base = steps[min(max(index, 0), len(steps) - 1)]
    return base * (1 - JITTER + 2 * JITTER * rnd())


def next_probe(
    steps: Sequence[float], probes: int, asked: float, rnd: Callable[[], float] = random.random
) -> float:
    """Seconds until a hold is tried after ``probes`` that failed; never sooner than the reply's row asks.

    A row that asks for an hour or more (quotas, blocks for repeated errors) is asked ever more seldom, too.
    """
    if asked >= HOUR:
        asked = max(asked, min(asked * (probes + 1), LONGEST_PROBE))
    return max(step(steps, probes, rnd), asked)


def later(asked: float, rnd: Callable[[], float] = random.random) -> float:
    """What a server asked to wait, and up to a tenth more: those who were told the same do not come back together."""
    return asked * (1 + JITTER * rnd())


def next_try(
    retry: Sequence[float],
    attempts: int,
    now: float,
    *,
    asked: float | None = None,
    rnd: Callable[[], float] = random.random,
) -> float:
    """Wall time of the next try after ``attempts`` that counted (this one included); never before what the server asked."""
    wait = step(retry, attempts - 1, rnd)
    return now + max(wait, asked or 0.0)


def too_old(now: float, received: float, held_for: float, max_age: float) -> bool:
    """Whether a message has been tried long enough; time it was held does not count (design section 3)."""
    return now - received - held_for > max_age
