"""The commands in the documents: fenced blocks marked ``sh``, and what stands above each.

Above a block of commands stands, as a comment that readers do not see, either ``<!-- run -->`` or
``<!-- not run: the reason -->``. Above a block of output that follows stands ``<!-- shows -->``: each of its lines must
come in the output of the block before, in this order; ``...`` in a line is anything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = (
    "relay", "make", "git", "curl", "systemctl", "cp", "tar", "pip", "python3", "docker", "kubectl", "createuser", "export",
    "promtool", "journalctl", "mkdir", "install", "kill",
)  # fmt: skip
"""Words that begin a command line: a block with one of them must not pass as something else."""
_FENCE = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]*?) -->\n+)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    page: str
    line: int
    language: str
    mark: str
    text: str
    shows: list[str] = field(default_factory=list)
    """Lines that its output has."""

    @property
    def runs(self) -> bool:
        """Whether a test runs it."""
        return self.mark == "run"


def blocks(document: Path) -> list[Block]:
    """Those of a page, in order; a block of output belongs to the one before it."""
    text = document.read_text(encoding="utf-8")
    found: list[Block] = []
    for match in _FENCE.finditer(text):
        if match["mark"] == "shows":
            assert found, f"{document.name}: output without a command"
            assert found[-1].runs, f"{document.name}: output of a command that no test runs"
            found[-1].shows.extend(match["text"].splitlines())
            continue
        line = text.count("\n", 0, match.start("text"))
        found.append(
            Block(
                str(document.relative_to(ROOT)), line, match["language"], match["mark"] or "", match["text"]
            )
        )
    return found


def fits(shown: str, line: str) -> bool:
    """Whether a line of real output is the one that a page shows, spaces apart."""
    parts = [re.escape(part) for part in " ".join(shown.split()).split("...")]
    return re.fullmatch(".*".join(parts), " ".join(line.split())) is not None


def missing(shows: list[str], output: str) -> list[str]:
    """Lines that a page shows and the output has not, or has in another order."""
    lines, absent = output.splitlines(), []
    for shown in shows:
        place = next((number for number, line in enumerate(lines) if fits(shown, line)), None)
        if place is None:
            absent.append(shown)
        else:
            lines = lines[place + 1 :]
    return absent
