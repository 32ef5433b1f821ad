"""Misbehaviour on request: a `Fault` says where, what and how often; `Faults` hands out the one that is due.

Textual form, used by ``--fault`` and the control address::

    where:action[:reply][;times=3][;after=2][;recipient=ADDR][;mailbox=ADDR][;seconds=5]

A reply may itself hold colons and semicolons: only the keys above, at the end, are taken off.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields

PLACES = [
    "connect",
    "banner",
    "ehlo",
    "starttls",
    "auth",
    "mail",
    "rcpt",
    "data",
    "body",
    "end-of-data",
    "token",
    "graph",
    "graph-send",
    "graph-draft",
    "graph-get",
    "graph-attach",
    "graph-session",
    "graph-chunk",
    "graph-draft-send",
    "graph-delete",
    "graph-cancel",
    "graph-application",
    "graph-key",
]  # in the order they come; `graph` is each of those below it
ACTIONS = ("reply", "drop", "drop-after-accept", "hang", "delay", "close")

DEFAULT_REPLIES = {
    "connect": "421 4.3.2 Service not available",
    "banner": "421 4.3.2 Service not available",
    "token": "503",
    "graph": "503 ErrorServerBusy",
}
FALLBACK_REPLY = "451 4.7.0 Temporary server error. Please try again later. PRX2"

_ids = itertools.count(1)


@dataclass
class Fault:
    """One misbehaviour. ``times`` None repeats until cleared; ``after`` lets that many matches pass first.

    ``seconds`` is the length of a delay or hang (0: a hang until the client goes away), and the Retry-After of
    a ``token`` or ``graph`` reply. Raises ValueError for an unknown place or action.
    """

    where: str
    action: str
    reply: str = ""
    mailbox: str | None = None
    recipient: str | None = None
    times: int | None = 1
    seconds: float = 0.0
    after: int = 0
    id: int = field(default_factory=lambda: next(_ids))
    hits: int = 0

    def __post_init__(self) -> None:
        if self.where not in PLACES:
            raise ValueError(f"unknown place {self.where!r}: one of {', '.join(PLACES)}")
        if self.action not in ACTIONS:
            raise ValueError(f"unknown action {self.action!r}: one of {', '.join(ACTIONS)}")
        if self.action == "drop-after-accept" and not (
            self.where == "end-of-data" or self.where.startswith("graph")
        ):
            raise ValueError("drop-after-accept belongs to end-of-data or graph")
        if self.action == "reply" and not self.reply:
            self.reply = DEFAULT_REPLIES.get(self.where.partition("-")[0], FALLBACK_REPLY)

    @classmethod
    def parse(cls, text: str) -> Fault:
        """Read the textual form; without ``times`` the fault stays until cleared. Raises ValueError."""
        parts = text.split(":", 2)
        if len(parts) < 2:
            raise ValueError(f"a fault reads where:action[:reply][;key=value], not {text!r}")
        rest, options = _split_options(parts[-1])
        parts[-1] = rest
        return cls(
            where=parts[0].strip(),
            action=parts[1].strip(),
            reply=parts[2].strip() if len(parts) > 2 else "",
            mailbox=options.get("mailbox"),
            recipient=options.get("recipient"),
            times=int(options["times"]) if "times" in options else None,
            seconds=float(options.get("seconds", 0)),
            after=int(options.get("after", 0)),
        )

    @classmethod
    def from_json(cls, data: object) -> Fault:
        """A fault from the control address: the textual form, or an object with the fields. Raises ValueError."""
        if isinstance(data, str):
            return cls.parse(data)
        known = {item.name for item in fields(cls)} - {"id", "hits"}
        if not isinstance(data, dict) or not set(data) <= known or not {"where", "action"} <= set(data):
            raise ValueError(f"a fault is a text, or an object with where, action and any of {sorted(known)}")
        return cls(**{"times": None, **data})

    def to_json(self) -> dict[str, object]:
        """Every field, for the control address."""
        return asdict(self)

    def matches(self, where: str, mailbox: str | None, recipients: Sequence[str]) -> bool:
        """Whether this fault concerns the event, whatever its count says."""
        if where != self.where and not where.startswith(f"{self.where}-"):
            return False
        if self.mailbox is not None and self.mailbox.lower() != (mailbox or "").lower():
            return False
        return self.recipient is None or self.recipient.lower() in {item.lower() for item in recipients}


def _split_options(text: str) -> tuple[str, dict[str, str]]:
    """Take the known ``;key=value`` pairs off the end of a text."""
    options: dict[str, str] = {}
    while ";" in text:
        head, _, tail = text.rpartition(";")
        key, equals, value = tail.strip().partition("=")
        if not equals or key not in ("times", "after", "recipient", "mailbox", "seconds"):
            break
        options[key] = value.strip()
        text = head
    return text, options


class Faults:
    """The faults in force, oldest first; the first that matches and is due is used."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._faults = list(faults)

    def __repr__(self) -> str:
        return f"Faults({self._faults!r})"

    def __len__(self) -> int:
        return len(self._faults)

    def list(self) -> list[Fault]:
        """The faults still in force."""
        return [*self._faults]

    def add(self, fault: Fault) -> Fault:
        """Put a fault in force and hand it back, so that ``hits`` can be read later."""
        self._faults.append(fault)
        return fault

    def clear(self) -> None:
        """Behave again."""
        self._faults.clear()

    def take(self, where: str, mailbox: str | None = None, recipients: Sequence[str] = ()) -> Fault | None:
        """The fault due at this place, counted down; None when all is well."""
        for fault in self._faults:
            if not fault.matches(where, mailbox, recipients):
                continue
            if fault.after > 0:
                fault.after -= 1
                continue
            fault.hits += 1
            if fault.times is not None:
                fault.times -= 1
                if fault.times <= 0:
                    self._faults.remove(fault)
            return fault
        return None
