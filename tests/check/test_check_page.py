"""docs/check.md names every step there is, with its guide step, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from relay.check.catalogue import KINDS

PAGE = Path(__file__).parents[2] / "docs" / "check.md"


def test_every_step_has_its_row() -> None:
    """In the report's order."""
    section = PAGE.read_text(encoding="utf-8").split("## The steps\n", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"^\| `([a-z-]+)` \| (\S+) \|", section, re.MULTILINE)
    guide = ["-" if kind.guide_step is None else str(kind.guide_step) for kind in KINDS]
    assert rows == [(kind.slug, step) for kind, step in zip(KINDS, guide, strict=True)]
