"""Whether a relay runs with this configuration, and what it listens on."""

from __future__ import annotations

import os
from dataclasses import dataclass

from relay.check.bounds import HOST, in_thread
from relay.control import ask, channels
from relay.errors import ControlError
from relay.settings import Settings


@dataclass(frozen=True, slots=True)
class Running:
    """What is known of it."""

    binds: tuple[str, ...] | None = None
    """What it listens on; None: none answers."""
    hidden: bool = False
    """None answers, and yet there may be one that this user may not ask."""


async def find_running(settings: Settings) -> Running:
    """Ask the control channel. Bounded; raises nothing."""
    try:
        status = await in_thread(lambda: ask(settings, "status", timeout=HOST / 3), HOST)
    except (ControlError, TimeoutError):
        return Running(hidden=_may_be_another_users(settings))
    return Running(tuple(str(one.get("bind")) for one in status.get("listeners", [])))


def _may_be_another_users(settings: Settings) -> bool:
    try:
        return any(path.exists() and not os.access(path, os.W_OK) for path in channels(settings))
    except PermissionError:  # not even the folder may be looked into
        return True
