"""The words of this room: what a notice is about, and what comes out. Times are wall seconds since 1970."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from relay.message import Recipient, Reply


class Kind(enum.StrEnum):
    """Why a notice is written."""

    FAILURE = "failure"
    """Given up: refused for good, or too old (``spool.max_age``)."""
    DELAY = "delay"
    """Not delivered yet (``spool.delay_notice``); still being tried."""
    RELAYED = "relayed"
    """Handed over to a server that reports no success, though the sender asked for it (RFC 3461 section 5.2.2)."""
    HELD = "held"
    """Kept because of a fault of administration: a delay while it is kept, a failure after ``spool.max_held``."""


class Action(enum.StrEnum):
    """The ``Action`` field of a delivery status, as far as this relay uses it (RFC 3464 section 2.3.3)."""

    FAILED = "failed"
    DELAYED = "delayed"
    RELAYED = "relayed"


@dataclass(frozen=True, slots=True)
class Fate:
    """One recipient's bad news."""

    recipient: Recipient
    reply: Reply | None
    """The server's own words; None when it was never asked."""
    reason: str
    """One plain sentence."""
    remedy: str
    """One plain sentence; shown only to a reader who can act on it."""
    remote: str = ""
    """Host that answered, such as ``smtp.office365.com``."""
    status: str = ""
    """The ``Status`` to report, where it is not the reply that decided (RFC 3463); empty: by the reply."""


@dataclass(frozen=True, slots=True)
class About:
    """The message that a notice is about."""

    id: str
    """Its id in the spool."""
    message_id: str
    """Its ``Message-ID``, angle brackets included; may be empty or invalid."""
    subject: str
    """Decoded."""
    sender: str
    """Envelope sender; empty for the null sender."""
    received: float
    envid: str | None
    """ENVID as sent, xtext not decoded."""
    ret: str | None
    """``FULL``, ``HDRS`` or None."""
    header: bytes
    """The original header block, any octets."""
    header_from: tuple[str, ...]
    will_retry_until: float | None
    """When trying ends; None when it has ended."""


@dataclass(frozen=True, slots=True)
class Composed:
    """A finished notice. Its envelope sender is the null sender (RFC 3464 section 2)."""

    to: str
    """The one envelope recipient, as given."""
    header: bytes
    """CRLF line ends, closing empty line included."""
    body: bytes
    subject: str
    """Decoded."""
    message_id: str
    """Angle brackets included."""

    @property
    def eight_bit(self) -> bool:
        """Whether 8BITMIME is needed."""
        return not (self.body.isascii() and self.header.isascii())

    @property
    def smtputf8(self) -> bool:
        """Whether SMTPUTF8 is needed: the address in ``To`` is not ASCII."""
        return not self.header.isascii()


def action(kind: Kind, about: About) -> Action:
    """What a notice says became of the message; a held one counts as failed once nothing is tried any more."""
    if kind is Kind.RELAYED:
        return Action.RELAYED
    if kind is Kind.DELAY or (kind is Kind.HELD and about.will_retry_until is not None):
        return Action.DELAYED
    return Action.FAILED
