"""How fast the messages of a lane go."""

from __future__ import annotations

import time

_LOOK = 0.1
"""Seconds over which the pace is taken."""


class Pace:
    """How fast messages go just now, by the last tenth of a second in which some did."""

    def __init__(self) -> None:
        self._count = 0
        self._since = time.monotonic()
        self._rate = 0.0

    def one(self) -> None:
        """One more has gone."""
        self._count += 1

    def now(self) -> float:
        """Messages a second."""
        elapsed = time.monotonic() - self._since
        if elapsed >= _LOOK:
            self._rate = self._count / elapsed
            self._since += elapsed
            self._count = 0
        return self._rate
