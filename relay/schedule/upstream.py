"""What the lanes of one upstream share."""

from __future__ import annotations

from dataclasses import dataclass, field

from relay.message import Outcome
from relay.spool.contract import Hold


@dataclass(slots=True)
class UpstreamState:
    """What the lanes of one upstream share."""

    name: str
    hold: Hold | None = None
    probing: str = ""
    """The lane that is trying for all just now."""
    slowed: Outcome | None = None
    """A throttling reply about the whole tenant, in force until ``slowed_until``."""
    slowed_until: float = 0.0
    lanes: set[str] = field(default_factory=set)
