"""Large messages alone: 25 MB in and out beside Postfix, once with lines of one length (as base64 has), once as plain text."""

from __future__ import annotations

import random
from pathlib import Path

from benchmarks import kit
from benchmarks.kit import Row
from benchmarks.postfix import available
from benchmarks.throughput import LARGE, relay_through

_WORDS = ["lorem", "ipsum", "dolor.", "sit", "amet,", "consectetur", "<td>", "adipiscing", "elit.", "."]


def text(path: Path) -> Path:
    """A message of words and empty lines: no two lines alike, full stops everywhere, also at the start of lines."""
    dice = random.Random(1)
    lines, size = ["From: source@example.org\nSubject: words\n\n"], 0
    while size < LARGE:
        line = " ".join(dice.choices(_WORDS, k=dice.randint(0, 14)))
        lines.append(line + "\n")
        size += len(line) + 2
    path.write_text("".join(lines))
    return path


def measure(folder: Path, runs: int) -> list[Row]:
    """Both."""
    missing = available()
    if missing:
        raise SystemExit(missing)
    words = text(folder / "words.eml")
    (folder / "text").mkdir(mode=0o755)
    with kit.simulator(folder / "simulator") as simulator:
        return [
            relay_through(folder, simulator, 40, runs, size=LARGE, clients=4),
            relay_through(folder / "text", simulator, 40, runs, size=LARGE, clients=4, content=words),
        ]


if __name__ == "__main__":
    kit.command("large", str(__doc__), measure)
