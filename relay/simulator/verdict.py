"""What Exchange says after the last dot: a function of the tenant, the mailbox, the envelope and the header block."""

from __future__ import annotations

from dataclasses import dataclass, field

from relay.simulator.addresses import valid_address
from relay.simulator.body import Body, Header
from relay.simulator.services import Services

BARE_NEWLINE = "550 5.6.11 Invalid characters: the message holds a bare CR or LF"
LONG_LINE = "500 5.5.2 Syntax error, a line is longer than 998 octets"
TOO_LARGE = "552 5.3.4 Message size exceeds fixed maximum message size"
HEADER_TOO_LARGE = "552 5.3.4 Header size exceeds fixed maximum size"
LOOP = "554 5.4.14 Hop count exceeded - possible mail loop"
NO_FROM = "550 5.7.512 Access denied, message must be RFC 5322 section 3.6.2 compliant"
SEVERAL_FROM = "550 5.1.20 Multiple From addresses are not allowed without Sender address"
BAD_SENDER = "550 5.1.8 Access denied, bad outbound sender AS(42004)"
_STORE = "Failed to process message due to a permanent exception with message"


@dataclass
class Envelope:
    """One mail transaction. ``stamp`` is its place in the rate window; ``marked`` the mistakes already counted."""

    sender: str
    parameters: dict[str, str]
    stamp: float
    recipients: list[str] = field(default_factory=list)
    marked: set[str] = field(default_factory=set)


def refusal(services: Services, mailbox: str, envelope: Envelope, body: Body, header: Header) -> str | None:
    """The reply that refuses the message, or None. Counts the mistake that Exchange throttles for."""
    return (
        _form(services, envelope, body, header)
        or services.ledger.throttled(mailbox)
        or _sender(services, mailbox, envelope, header)
        or _quota(services, mailbox, envelope)
    )


def _form(services: Services, envelope: Envelope, body: Body, header: Header) -> str | None:
    """Faults of the message itself."""
    binary = envelope.parameters.get("BODY", "").upper() == "BINARYMIME"
    if body.too_large:
        return TOO_LARGE
    if body.bare_newline and not binary:
        return BARE_NEWLINE
    if body.long_line and services.state.refuse_long_lines and not binary:
        return LONG_LINE
    if body.header_too_large:
        return HEADER_TOO_LARGE
    if services.state.limits.hops and len(header.all("received")) > services.state.limits.hops:
        return LOOP
    return from_refusal(header)


def from_refusal(header: Header) -> str | None:
    """RFC 5322 section 3.6.2: one From field, valid addresses, a Sender when there are several."""
    addresses = header.addresses("from")
    if len(header.all("from")) != 1 or not addresses or not all(map(valid_address, addresses)):
        return NO_FROM
    return SEVERAL_FROM if len(addresses) > 1 and not header.all("sender") else None


def _sender(services: Services, mailbox: str, envelope: Envelope, header: Header) -> str | None:
    """Envelope sender, From and Sender must each be the mailbox or an address it may send as."""
    if mailbox in services.state.blocked_senders:
        return BAD_SENDER
    for address in (envelope.sender, *header.addresses("from"), *header.addresses("sender")):
        if not services.state.may_send_as(mailbox, address):
            services.ledger.mistake(mailbox, "send-as-denied")
            return (
                f"554 5.2.252 SendAsDenied; {mailbox} not allowed to send as {_printable(address)}; "
                "STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSendAsDenied; "
                f"{_STORE} Cannot submit message."
            )
    return None


def _printable(address: str) -> str:
    return address.encode("utf-8", "replace").decode()


def _quota(services: Services, mailbox: str, envelope: Envelope) -> str | None:
    if mailbox in services.state.mailbox_full:
        services.ledger.mistake(mailbox, "mailbox-full")
        return (
            "554 5.2.2 mailbox full; STOREDRV.Submission.Exception:"
            f"QuotaExceededException.MapiExceptionShutoffQuotaExceeded; {_STORE} Cannot open mailbox."
        )
    if not services.ledger.recipients_add(mailbox, len(envelope.recipients)):
        return (
            f"554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException; {_STORE} "
            "The message can't be submitted because the sender's submission quota was exceeded."
        )
    return None
