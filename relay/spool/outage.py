"""Tells the log that the database of a spool is away, and that it is back: each once."""

from __future__ import annotations

import time

from relay import events
from relay.errors import SpoolError


class Outage:
    """What the looks at one database found."""

    def __init__(self, *, tells: bool) -> None:
        """``tells``: not where a local spool takes mail meanwhile, which says so itself."""
        self._tells = tells
        self._since: float | None = None
        """When the database was first seen to be away, by our steady clock; None while it answers."""
        self._told = False

    def away(self, error: SpoolError) -> None:
        """Told with the second look: the first often hears only that a connection broke, and not yet why."""
        if self._since is None:
            self._since = time.monotonic()
        elif self._tells and not self._told:
            self._told = True
            events.trouble(where="spool", what=f"no mail is taken: {error}", remedy=error.remedy)

    def back(self) -> None:
        """It answers."""
        if self._since is None:
            return
        away, self._since = time.monotonic() - self._since, None
        told, self._told = self._told, False
        if told:
            events.notice(what=f"the database of the spool answers again, after {away:.0f} s: mail is taken")
