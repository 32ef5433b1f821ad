"""The last warnings, errors and news of this process, cleaned of secrets: for a support bundle."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from relay.logs import without_secrets

KEPT = 300
"""Events that are kept."""
_FIELD = 1000
"""Characters of one field."""
_LEFT_OUT = frozenset({"error", "link"})
"""An exception itself (its traceback may hold anything), and the page's one-time link."""


class Memory:
    """A watcher of `relay.events`: returns at once for what it does not keep, never raises."""

    def __init__(self) -> None:
        self._kept: deque[dict[str, Any]] = deque(maxlen=KEPT)

    def __call__(self, level: str, event: str, fields: Mapping[str, object]) -> None:
        if level not in ("warning", "error") and event != "notice":
            return
        shown = {
            name: without_secrets(str(value))[:_FIELD]
            for name, value in fields.items()
            if name not in _LEFT_OUT
        }
        self._kept.append({"time": time.time(), "level": level, "event": event, **shown})

    def events(self) -> list[dict[str, Any]]:
        """Oldest first; ``time`` in seconds since 1970."""
        return list(self._kept)
