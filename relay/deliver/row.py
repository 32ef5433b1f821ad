"""One row of the reply table: what it matches, and what it decides."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from relay.deliver.phases import Phase
from relay.message import Reply, Result, Scope


@dataclass(frozen=True, slots=True)
class Row:
    """A known reply. All given criteria must hold; the first row of the table that holds decides."""

    code: str
    """Stable slug of the cause; part of the contract with metrics and filters, never renamed."""
    phases: frozenset[Phase]
    replies: str
    """Pattern of the three digits, such as ``432`` or ``5..``."""
    enhanced: str = ""
    """Pattern of the RFC 3463 code; empty: any, or none."""
    text: str = ""
    """Pattern found anywhere in the words, case ignored; empty: any."""
    result: Result = Result.DEFERRED
    scope: Scope = Scope.MESSAGE
    reason: str = ""
    remedy: str = ""
    """May name ``<mailbox>``, which is filled in with the mailbox submitted as."""
    wait: float | None = None
    """Seconds until the next try (or, when held, the next probe); None: the usual schedule."""
    slow: bool = False
    counts: bool = True
    source: str = ""
    """Where the row comes from: the section of the facts, or ``default``."""
    _replies: re.Pattern[str] = field(init=False, repr=False, compare=False)
    _enhanced: re.Pattern[str] = field(init=False, repr=False, compare=False)
    _text: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_replies", re.compile(self.replies))
        object.__setattr__(self, "_enhanced", re.compile(self.enhanced))
        object.__setattr__(self, "_text", re.compile(self.text, re.IGNORECASE))

    @property
    def hold(self) -> bool:
        """Whether it waits for an administrator."""
        return self.result is Result.HELD

    def matches(self, phase: Phase, reply: Reply) -> bool:
        """Whether this row speaks about that reply at that phase."""
        return (
            phase in self.phases
            and self._replies.fullmatch(str(reply.code)) is not None
            and (not self.enhanced or self._enhanced.fullmatch(reply.enhanced) is not None)
            and (not self.text or self._text.search(reply.text) is not None)
        )
