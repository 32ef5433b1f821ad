"""The shared words: what a message, a reply and an outcome are in every room.

Only the standard library may be imported here; the rooms talk to one another in these types.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Client:
    """What connected to a listener, as far as rules and the trace care."""

    address: str = ""
    """IP address, IPv4-mapped IPv6 shown as IPv4; the PROXY header's, where one was believed."""
    port: int = 0
    helo: str = ""
    user: str | None = None
    """AUTH user name, or None."""
    tls: str | None = None
    """TLS version such as ``TLSv1.3``, or None in clear."""
    listener: str = ""
    """The ``bind`` of the listener it came through."""

    @property
    def label(self) -> str:
        """Short form for lists: ``10.0.0.7`` or ``10.0.0.7 (scanner-3)``."""
        return f"{self.address} ({self.user})" if self.user else self.address


@dataclass(frozen=True, slots=True)
class Recipient:
    """One RCPT TO: address without angle brackets, and its DSN wishes (RFC 3461 section 4)."""

    address: str
    notify: str | None = None
    """``NEVER`` or a comma-separated subset of ``SUCCESS,FAILURE,DELAY``; None when not given."""
    orcpt: str | None = None
    """The ORCPT value as sent, xtext not decoded."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """What MAIL FROM and RCPT TO said. ``sender`` is empty for the null sender ``<>``."""

    sender: str
    recipients: tuple[Recipient, ...]
    eight_bit: bool = False
    """BODY=8BITMIME was given, or the message holds 8-bit octets."""
    smtputf8: bool = False
    ret: str | None = None
    """DSN RET: ``FULL`` or ``HDRS``."""
    envid: str | None = None
    """DSN ENVID as sent, xtext not decoded."""
    long_lines: bool = True
    """The body holds lines over 998 octets, or nobody looked."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One SMTP reply (or a Graph answer put in the same shape)."""

    code: int
    """Three-digit reply code; 0 when none was received."""
    enhanced: str = ""
    """RFC 3463 code such as ``5.7.1``; empty when there was none."""
    text: str = ""
    """The words after the codes, lines joined with a blank, at most a few hundred characters."""

    def __str__(self) -> str:
        return " ".join(part for part in (str(self.code or ""), self.enhanced, self.text) if part)


class Scope(enum.StrEnum):
    """How far one reply reaches: the smallest thing that is broken."""

    RECIPIENT = "recipient"
    MESSAGE = "message"
    SENDER = "sender"
    LANE = "lane"
    UPSTREAM = "upstream"


class Result(enum.StrEnum):
    """What one attempt decided for one recipient."""

    SENT = "sent"
    DEFERRED = "deferred"
    HELD = "held"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one attempt decided, with everything an administrator needs to act on it."""

    result: Result
    scope: Scope = Scope.RECIPIENT
    reply: Reply | None = None
    """The server's own words; None when no reply arrived."""
    reason: str = ""
    """One plain sentence: what happened and why."""
    remedy: str = ""
    """One plain sentence: what to do about it; empty when nothing needs doing."""
    code: str = ""
    """A short stable slug of the cause, such as ``send-as-denied``: for metrics and filters."""
    wait: float | None = None
    """Seconds until the next try that the server (or the table) asks for; None: the retry schedule's."""
    counts: bool = True
    """False when the try must not count as one of the message's attempts (throttling, our own faults)."""
    slow: bool = False
    """True when the lane must lower its rate (a throttling reply)."""
    uncertain: bool = False
    """True when the message may have been accepted: connection lost after the final dot (RFC 1047)."""


@dataclass(frozen=True, slots=True)
class Report:
    """What one attempt at one message came to."""

    outcomes: dict[str, Outcome]
    """By recipient address exactly as in the claim. One that is missing was left over by the mailbox's limits: it
    goes back to the queue untried."""
    lane_trouble: Outcome | None = None
    """Set when the fault reaches beyond the message: its ``scope`` says lane, sender or upstream."""
    moved_to: str | None = None
    """Set, with no outcomes, when today's rules put the message on another lane: nothing was sent."""
    details: dict[str, str] = field(default_factory=dict)
    """For the trace: ``host``, ``from`` (rewritten), ``reply``, ``tls``, ``transport``, ``repairs`` and the like."""

    @property
    def delivered(self) -> bool:
        """Whether everybody who was tried has it, and nothing else is to be said."""
        return (
            self.lane_trouble is None
            and self.moved_to is None
            and bool(self.outcomes)
            and all(one.result is Result.SENT and not one.uncertain for one in self.outcomes.values())
        )


class Trouble(Exception):
    """A fault before any message was under way (dial, TLS, token, login): ``outcome`` says how far it reaches."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.reason)
        self.outcome = outcome


class Body(Protocol):
    """The octets after the header block, as stored: CRLF line ends, no dot-stuffing."""

    @property
    def size(self) -> int:
        """Length in octets."""
        ...

    def chunks(self, size: int = 65536) -> AsyncIterator[bytes]:
        """The octets from the start, in pieces of at most ``size``; may be called again."""
        ...


@dataclass(frozen=True, slots=True)
class Content:
    """A stored message: ``header`` and ``body`` concatenated are exactly the octets that were accepted."""

    header: bytes
    """The header block with its closing empty line when the client sent one (CRLF line ends)."""
    body: Body

    @property
    def size(self) -> int:
        """Octets of the whole message."""
        return len(self.header) + self.body.size


class BytesBody:
    """A body that fits in memory."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def size(self) -> int:
        return len(self._data)

    async def chunks(self, size: int = 65536) -> AsyncIterator[bytes]:
        for start in range(0, len(self._data), size):
            yield self._data[start : start + size]
