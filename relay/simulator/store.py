"""The mail that Exchange took: one file for each message, and an index in memory and in ``index.jsonl``."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

MEMORY_BOUND = 256 * 1024  # octets of one message held in memory before it moves to a file
REFUSALS_KEPT = 1000


@dataclass(frozen=True)
class Accepted:
    """One message the service took responsibility for.

    ``size`` in octets after dot-unstuffing, ``received`` in Unix time, ``mail_params`` the parameters of MAIL
    (for Graph: ``saveToSentItems``), ``connection`` the running number of the SMTP connection (0 for Graph).
    """

    id: str
    mailbox: str
    mail_from: str
    recipients: list[str]
    transport: str
    header_from: str
    subject: str
    message_id: str
    size: int
    path: Path
    received: float
    mail_params: dict[str, str] = field(default_factory=dict)
    connection: int = 0
    has_bcc: bool = False

    def bytes(self) -> bytes:
        """The message as it was accepted. Raises FileNotFoundError after the mail was deleted."""
        return self.path.read_bytes()

    def to_json(self) -> dict[str, Any]:
        """The fields, for the control address."""
        return {**vars(self), "path": str(self.path)}


class Incoming:
    """A message on its way in: in memory while small, in a file of its own once it is not."""

    def __init__(self, directory: Path) -> None:
        self.size = 0
        self._directory = directory
        self._parts: list[bytes] = []
        self._held = 0
        self._file: BinaryIO | None = None
        self._path: Path | None = None

    def write(self, data: bytes) -> None:
        """Add octets."""
        self.size += len(data)
        if self._file is not None:
            self._file.write(data)
            return
        self._parts.append(data)
        self._held += len(data)
        if self._held > MEMORY_BOUND:
            self._spill()

    def _spill(self) -> None:
        self._path = self._directory / f"incoming-{id(self):x}.part"
        self._file = self._path.open("wb")
        self._file.writelines(self._parts)
        self._parts.clear()

    def keep(self, path: Path) -> None:
        """Move the whole message to its final place."""
        if self._file is None or self._path is None:
            path.write_bytes(b"".join(self._parts))
        else:
            self._file.close()
            self._path.rename(path)
            self._file = self._path = None
        self._parts.clear()

    def discard(self) -> None:
        """Forget the message; harmless after `keep`."""
        self._parts.clear()
        if self._file is not None and self._path is not None:
            self._file.close()
            self._path.unlink(missing_ok=True)
            self._file = self._path = None


class Store:
    """The accepted messages, the counters, and the last refusals with their texts."""

    def __init__(self, directory: Path, clock: Callable[[], float], *, keep: bool = True) -> None:
        self.directory = directory / "messages"
        self.directory.mkdir(parents=True, exist_ok=True)
        self.messages: list[Accepted] = []
        self.counters: Counter[str] = Counter()
        self.refusals: deque[dict[str, Any]] = deque(maxlen=REFUSALS_KEPT)
        self._keep = keep
        self._clock = clock
        self._numbers = itertools.count(self._first_free())
        self._changed = asyncio.Event()
        self._index = (directory / "index.jsonl").open("a", encoding="utf-8") if keep else None

    def _first_free(self) -> int:
        """Messages of an earlier run in the same directory stay as they are."""
        taken = [int(path.stem) for path in self.directory.glob("*.eml") if path.stem.isdigit()]
        return max(taken, default=0) + 1

    def incoming(self) -> Incoming:
        """A place for a message that is being received."""
        return Incoming(self.directory)

    def accept(self, incoming: Incoming, **facts: Any) -> Accepted:
        """Keep the message under a new number; ``facts`` are the remaining fields of `Accepted`."""
        identity = f"{next(self._numbers):08d}"
        path = self.directory / f"{identity}.eml"
        accepted = Accepted(id=identity, size=incoming.size, path=path, received=self._clock(), **facts)
        self.counters["messages"] += 1
        self.counters[f"messages_{accepted.transport}"] += 1
        if self._index is None:
            incoming.discard()
        else:
            incoming.keep(path)
            self._index.write(json.dumps(accepted.to_json()) + "\n")
            self._index.flush()
            self.messages.append(accepted)
        self.notify()
        return accepted

    def refuse(self, phase: str, mailbox: str | None, reply: str) -> None:
        """Count a refusal and remember its text."""
        self.counters["refused"] += 1
        self.refusals.append({"time": self._clock(), "phase": phase, "mailbox": mailbox, "reply": reply})
        self.notify()

    def notify(self) -> None:
        """Wake everyone in `wait`."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait until the condition holds; False when the time is over. Checked at every accepted or refused message."""
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    def find(self, identity: str) -> Accepted | None:
        """The message with this id."""
        return next((message for message in self.messages if message.id == identity), None)

    def clear(self) -> int:
        """Delete the mail of this run, files included; returns how many. Counters stay."""
        for message in self.messages:
            message.path.unlink(missing_ok=True)
        count = len(self.messages)
        self.messages.clear()
        return count

    def close(self) -> None:
        """Close the index; the files stay."""
        if self._index is not None:
            self._index.close()
