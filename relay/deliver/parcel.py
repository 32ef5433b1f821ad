"""What a transport is given to carry: a message rewritten by today's rules, and to whom it goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from relay.deliver.contract import Begin
from relay.message import Body, Outcome, Recipient


@dataclass(frozen=True, slots=True)
class Parcel:
    """One message as it is submitted. ``header`` and ``body`` go out one after the other."""

    mail_from: str
    recipients: tuple[Recipient, ...]
    header: bytes
    body: Body
    size: int
    """Octets of header and body."""
    eight_bit: bool
    utf8_needed: bool
    """An address holds more than ASCII (RFC 6531 section 3.4); a header alone could have been encoded."""
    utf8_welcome: bool
    """Needed, or the header holds UTF-8."""
    ret: str | None = None
    envid: str | None = None


class Carrier(Protocol):
    """A transport, as `Attempt` sees it: the SMTP one now, Graph's beside it."""

    @property
    def mailbox(self) -> str:
        """The mailbox it submits as."""
        ...

    @property
    def size_limit(self) -> int:
        """Octets a message may have; 0: no limit known."""
        ...

    @property
    def utf8(self) -> bool:
        """Whether headers may hold raw UTF-8 (SMTPUTF8 is offered)."""
        ...

    def unfit(self, parcel: Parcel) -> Outcome | None:
        """Why this transport cannot carry that message at all; None when it can."""
        ...

    async def carry(self, parcel: Parcel, begin: Begin) -> dict[str, Outcome]:
        """Submit. An outcome for each recipient that ``begin`` had room for. Raises SpoolError (unreadable message)."""
        ...

    def details(self) -> dict[str, str]:
        """For the trace: host, transport, tls and the like; a new dictionary each time."""
        ...
