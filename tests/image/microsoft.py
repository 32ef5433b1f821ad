"""`relay simulator` on the outside host: where the container's mail has to arrive."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tests.fakes.jsonlines import whole_lines
from tests.image.container import until
from tests.image.stage import OUTSIDE, Stage


class Microsoft:
    """The three services under one name, and the mail that they took."""

    def __init__(self, stage: Stage, folder: Path, *options: str) -> None:
        """Started with these options; it ends with the stage."""
        self._folder = folder
        place = ("--dir", str(folder), "--host", OUTSIDE, "--name", "microsoft.test")
        process = stage.start(sys.executable, "-m", "relay", "simulator", *place, *options)
        assert process.stdout is not None
        self.env: dict[str, str] = json.loads(process.stdout.readline())["env"]

    def mail(self) -> list[dict[str, Any]]:
        """What was taken so far, oldest first."""
        index = self._folder / "index.jsonl"
        return whole_lines(index) if index.exists() else []

    def arrived(self, count: int) -> tuple[dict[str, Any], bytes]:
        """The newest of exactly so many messages, and its octets."""
        until(lambda: len(self.mail()) >= count, lambda: f"{len(self.mail())} of {count} arrived")
        assert len(self.mail()) == count
        newest = self.mail()[-1]
        return newest, Path(newest["path"]).read_bytes()
