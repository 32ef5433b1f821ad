"""JSON lines that another process is still writing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def whole_lines(file: Path) -> list[dict[str, Any]]:
    """Its JSON objects, a line each; a last line without its end is still being written, and comes next time."""
    lines = file.read_text().split("\n")[:-1]
    return [json.loads(line) for line in lines if line.startswith("{")]
