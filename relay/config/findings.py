"""What reading a configuration found so far: where each value came from, the faults and the warnings."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from relay.config.faults import Fault, place

_LAST_STEP = re.compile(r"(\.[^.\[]*|\[[^\]]*\])$|^[^.\[]+$")


@dataclass(slots=True)
class Origin:
    """Where values came from: the file's lines, and the environment variables that set or override a path."""

    file: Path | None
    lines: dict[str, int] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    """Environment variable by the path it set."""

    def locate(self, path: str) -> tuple[str, int | None]:
        """Source and line of a path, or of the nearest section around it."""
        step = path
        while True:
            if step in self.variables:
                return self.variables[step], None
            if self.file is not None and step in self.lines:
                return str(self.file), self.lines[step]
            if not step:
                return (str(self.file) if self.file else "environment"), None
            step = _LAST_STEP.sub("", step)

    def folder(self, path: str) -> Path:
        """What a relative file name at this path is relative to: the file's folder, or the working directory."""
        if self.file is None or path in self.variables:
            return Path.cwd()
        return self.file.absolute().parent


@dataclass(slots=True)
class Findings:
    """Collects faults and warnings; a second fault about the same value is not added."""

    origin: Origin
    faults: list[Fault] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def fault(self, path: str, problem: str, remedy: str, involves: tuple[str, ...] = ()) -> None:
        """Something that must be mended. Dropped when ``path`` or what it ``involves`` is known to be faulty."""
        if self.sound(path, *involves):
            source, line = self.origin.locate(path)
            self.faults.append(Fault(path, line, problem, remedy, source))

    def warn(self, path: str, text: str, involves: tuple[str, ...] = ()) -> None:
        """Something that works but an administrator should know."""
        if self.sound(path, *involves):
            source, line = self.origin.locate(path)
            self.note(f"{place(source, line, path)}: {text}")

    def note(self, text: str) -> None:
        """A warning whose place is already in its text."""
        if text not in self.warnings:
            self.warnings.append(text)

    def sound(self, *paths: str) -> bool:
        """Whether nothing is known to be wrong with these values, within them or around them."""
        return not any(
            _within(fault.path, path) or _within(path, fault.path) for fault in self.faults for path in paths
        )


def _within(inner: str, outer: str) -> bool:
    return inner == outer or inner.startswith((f"{outer}.", f"{outer}["))
