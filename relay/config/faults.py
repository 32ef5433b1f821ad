"""What is wrong with a configuration, in words an administrator can act on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from relay.errors import RelayError


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: where, what, and how to mend it."""

    path: str
    """The key, such as ``upstreams[0].tenant_id``; empty when the fault is about the file as a whole."""
    line: int | None
    """Counted from 1; None when the value did not come from a file."""
    problem: str
    """What is wrong, as a clause without its full stop. Never holds a secret value."""
    remedy: str
    """What to do about it, as a clause without its full stop."""
    source: str
    """The file, or the environment variable, that the value came from."""

    def __str__(self) -> str:
        where = place(self.source, self.line, self.path)
        return f"{where}: {_sentence(self.problem)} {_sentence(self.remedy[:1].upper() + self.remedy[1:])}".rstrip()


class ConfigError(RelayError):
    """The configuration cannot be used. ``faults`` holds every fault that was found, in the file's order."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        count = len(self.faults)
        head = "the configuration cannot be used, " + ("1 fault" if count == 1 else f"{count} faults")
        super().__init__(
            "\n".join([head + ":", *(str(fault) for fault in self.faults)]),
            remedy="mend each fault listed, then try again",
        )


def place(source: str, line: int | None, path: str) -> str:
    """Where something is, as ``file:line: path``; the parts that are unknown are left out."""
    origin = f"{source}:{line}" if line is not None else source
    return ": ".join(part for part in (origin, path) if part)


def printable(text: str, limit: int = 60) -> str:
    """The text with control characters escaped and its length bounded, fit for a terminal and a log line."""
    shown = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text[: limit + 1])
    return shown if len(text) <= limit else shown[:limit] + "..."


def _sentence(text: str) -> str:
    if not text:
        return ""
    return text if text.endswith((".", "!", "?")) else text + "."
