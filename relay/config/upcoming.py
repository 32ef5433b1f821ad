"""Keys that are accepted and validated already, and whose feature a later release brings.

One row for each; a part that brings the feature deletes its row. ``warn`` rows end up in `Settings.warnings`;
with a ``refuse`` row the daemon must not start, since going on without the feature would do harm.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from relay.settings import Settings


@dataclass(frozen=True, slots=True)
class Upcoming:
    """A feature to come: when it is asked for, how grave ignoring it is, and what to say."""

    key: str
    severity: str
    """``warn`` or ``refuse``."""
    wanted: Callable[[Settings], bool]
    text: str


UPCOMING = (
    Upcoming(
        "spool.url",
        "refuse",
        lambda settings: settings.spool.url.startswith("postgresql:"),
        "this release has no PostgreSQL spool yet; use sqlite:////path/spool.db",
    ),
)


def warnings(settings: Settings) -> tuple[str, ...]:
    """What is asked for, does not work yet, and does no harm by that; for `Settings.warnings`."""
    return _texts(settings, "warn")


def refusals(settings: Settings) -> tuple[str, ...]:
    """Why the daemon must not start with these settings; empty when it may."""
    return _texts(settings, "refuse")


def _texts(settings: Settings, severity: str) -> tuple[str, ...]:
    return tuple(
        f"{row.key}: {row.text}" for row in UPCOMING if row.severity == severity and row.wanted(settings)
    )
