"""What a check says, to the command, the page and scripts (design section 4: `check --json`)."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


class Status(enum.StrEnum):
    """How a step ended, from best to worst, but for ``skipped``: what an earlier failure made pointless."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was looked at. Never holds a secret or a token."""

    id: str
    """Stable slug, such as ``token-smtp``; with several upstreams followed by ``:`` and the server name."""
    title: str
    guide_step: int | None
    """The number of the set-up guide's step where it is mended; None when the guide has none."""
    status: Status
    seen: str
    remedy: str = ""

    def to_json(self) -> dict[str, Any]:
        """The shape of the contract."""
        return {
            "id": self.id,
            "title": self.title,
            "guide_step": self.guide_step,
            "status": self.status.value,
            "seen": self.seen,
            "remedy": self.remedy,
        }


@dataclass(frozen=True, slots=True)
class CheckReport:
    """All steps, in the guide's order."""

    steps: tuple[Step, ...]

    @property
    def ok(self) -> bool:
        """Whether no step failed."""
        return all(step.status is not Status.FAIL for step in self.steps)

    def to_json(self) -> dict[str, Any]:
        """The shape of the contract."""
        return {"ok": self.ok, "steps": [step.to_json() for step in self.steps]}


Progress = Callable[[Step], None]
"""Told of each step as soon as it is known, in any order."""
