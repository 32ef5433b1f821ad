"""One row of Graph's answer table: what it matches, and what it decides."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from relay.deliver.graph.contract import Answer
from relay.message import Result, Scope


@dataclass(frozen=True, slots=True)
class GraphRow:
    """A known answer. All given criteria must hold; the first row of the table that holds decides."""

    code: str
    """Stable slug of the cause, shared with the SMTP table where the cause is the same."""
    statuses: str
    """Pattern of the HTTP status, such as ``403`` or ``5..``."""
    errors: str = ""
    """Pattern of ``error.code``, case ignored; empty: any, or none."""
    text: str = ""
    """Pattern found anywhere in ``error.message``, case ignored; empty: any."""
    result: Result = Result.DEFERRED
    scope: Scope = Scope.MESSAGE
    reason: str = ""
    remedy: str = ""
    """May name ``<mailbox>``, which is filled in with the mailbox submitted as."""
    wait: float | None = None
    """Seconds until the next try (or, when held, the next probe); None: the usual schedule."""
    slow: bool = False
    counts: bool = True
    enhanced: str = ""
    """The RFC 3463 code that says the same, for notices to senders."""
    source: str = "6.7"
    """Where the row comes from: the section of the facts, or ``default``."""
    _statuses: re.Pattern[str] = field(init=False, repr=False, compare=False)
    _errors: re.Pattern[str] = field(init=False, repr=False, compare=False)
    _text: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_statuses", re.compile(self.statuses))
        object.__setattr__(self, "_errors", re.compile(self.errors, re.IGNORECASE))
        object.__setattr__(self, "_text", re.compile(self.text, re.IGNORECASE))

    @property
    def hold(self) -> bool:
        """Whether it waits for an administrator."""
        return self.result is Result.HELD

    def matches(self, answer: Answer) -> bool:
        """Whether this row speaks about that answer."""
        return (
            self._statuses.fullmatch(str(answer.status)) is not None
            and (not self.errors or self._errors.fullmatch(answer.code) is not None)
            and (not self.text or self._text.search(answer.text) is not None)
        )
