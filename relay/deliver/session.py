"""What is known of one login: the wire, what the server offers, and what has been carried so far."""

from __future__ import annotations

from dataclasses import dataclass

from aiosmtplib import SMTPResponse
from aiosmtplib.esmtp import parse_esmtp_extensions

from relay.deliver.classify import Names
from relay.deliver.wire import Wire


@dataclass(frozen=True, slots=True)
class Features:
    """The service extensions of an EHLO reply that matter to us (facts 4)."""

    pipelining: bool = False
    size: int | None = None
    """Octets a message may have; 0: no fixed limit; None: SIZE is not offered (RFC 1870)."""
    eight_bit: bool = False
    utf8: bool = False
    dsn: bool = False
    starttls: bool = False
    logins: tuple[str, ...] = ()
    """AUTH mechanisms in lower case."""


def features_of(reply: SMTPResponse) -> Features:
    """Read an EHLO reply. A SIZE that is no number counts as no fixed limit."""
    offered, logins = parse_esmtp_extensions(reply.message)
    size = offered.get("size")
    return Features(
        pipelining="pipelining" in offered,
        size=None if size is None else int(size) if size.isascii() and size.isdigit() else 0,
        eight_bit="8bitmime" in offered,
        utf8="smtputf8" in offered,
        dsn="dsn" in offered,
        starttls="starttls" in offered,
        logins=tuple(logins),
    )


@dataclass(slots=True)
class Session:
    """One authenticated dialogue; used by one message at a time."""

    wire: Wire
    features: Features
    names: Names
    timeout: float
    """Seconds for each network step."""
    most_recipients: int
    """Recipients that one MAIL transaction may carry."""
    tls: str = ""
    needs_reset: bool = False
    """A MAIL transaction is open on the server: RSET must come before the next MAIL (RFC 5321 section 4.1.1.5)."""
    carried: int = 0
    """Messages submitted so far."""
