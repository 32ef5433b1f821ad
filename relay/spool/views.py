"""The part of a spool's contract that operators use: what they are shown of mail, and the verbs that change it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from relay.spool.states import State

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RecipientView:
    """One recipient in `queue show`."""

    address: str
    state: State
    code: int
    text: str


@dataclass(frozen=True, slots=True)
class MessageView:
    """One message in `queue list` and `queue show`; held lanes are already taken into account in ``state``."""

    id: str
    received: float
    state: str
    client: str
    sender: str
    mailbox: str
    lane: str
    message_id: str
    subject: str
    size: int
    attempts: int
    next_attempt: float | None
    reason: str
    remedy: str
    recipients: tuple[RecipientView, ...]
    replica: str = ""
    """The replica that has it in hand, where several share the spool."""


@dataclass(frozen=True, slots=True)
class TraceEvent:
    """One thing that happened to a message; ``fields`` are short texts."""

    time: float
    event: str
    fields: dict[str, str]


@dataclass(frozen=True, slots=True)
class Trace:
    """Everything that happened to one message, in order.

    ``state`` of a finished one is ``sent``, ``failed``, ``deleted``, ``partly failed`` or ``partly deleted``.
    """

    id: str
    message_id: str
    state: str
    sender: str
    recipients: tuple[str, ...]
    events: tuple[TraceEvent, ...]


@dataclass(frozen=True, slots=True)
class Filter:
    """Which messages an operator means; given criteria must all hold. No criterion at all matches every unfinished one."""

    ids: tuple[str, ...] = ()
    state: str | None = None
    lane: str | None = None
    """A lane name, or its mailbox alone."""
    sender: str | None = None
    recipient: str | None = None
    older_than: float | None = None
    """Received before this time."""
    reason: str | None = None
    """Part of the reason, case-insensitive."""


@dataclass(frozen=True, slots=True)
class Changed:
    """What an operator's verb did: messages that matched, and those it changed (others were e.g. being submitted)."""

    matched: int
    changed: int
    lanes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Part(Generic[T]):
    """What was found in the time that somebody is willing to wait."""

    found: list[T]
    reached: str | None
    """The id up to which was looked when the time was over: search on from there. None: it was not over."""


@dataclass(frozen=True, slots=True)
class LocalMail:
    """What waits in this host's local spool (``spool.local``) to be forwarded into the shared one."""

    url: str
    messages: int
    bytes: int
    free: int
    """Octets that it can still take: by its disk, or up to max_size."""
    oldest: float | None
    """Arrival of the oldest one; None when nothing waits."""
    since: float | None
    """Since when new mail goes there; None: it goes to the shared spool."""
    reason: str
    """Why; empty when it does not."""


@dataclass(frozen=True, slots=True)
class SpoolStats:
    """For `relay status`: unfinished messages, their octets, and the free space of the disk (or up to max_size)."""

    url: str
    messages: int
    bytes: int
    free: int
    local: LocalMail | None = None
    """Mail that waits in a local spool beside it; None when it has none."""


class Operators(Protocol):
    """What the commands and the admin page ask of a spool. Errors are SpoolError and its subclasses."""

    async def find(self, wanted: Filter, *, limit: int = 1000, after: str | None = None) -> list[MessageView]:
        """Unfinished messages (finished too, when asked for by id), oldest first; ``after`` pages."""
        ...

    async def find_within(
        self, wanted: Filter, *, seconds: float, limit: int = 1000, after: str | None = None
    ) -> Part[MessageView]:
        """`find` for somebody who waits: after about ``seconds`` it ends with what it has found by then."""
        ...

    async def operate(self, verb: str, wanted: Filter, now: float) -> Changed:
        """``retry`` (due now), ``hold``, ``release``, ``delete``; in bounded steps.

        ``release`` without ids also ends the holds of the lanes that the filter names (of all, if it names none).
        """
        ...

    async def trace(self, text: str, *, limit: int = 100) -> list[Trace]:
        """By id, Message-ID (part), sender or recipient (part); newest first."""
        ...

    async def trace_within(
        self, text: str, *, seconds: float, limit: int = 100, before: str | None = None
    ) -> Part[Trace]:
        """`trace` for somebody who waits; ``before``: only messages that are older than this one."""
        ...

    async def stats(self) -> SpoolStats:
        """Size and space."""
        ...

    def raw(self, message_id: str) -> AsyncIterator[bytes]:
        """The stored octets, for export."""
        ...
