"""What route and rewrite hand to the other rooms: plain data, no I/O."""

from __future__ import annotations

from dataclasses import dataclass

from relay.message import Reply
from relay.spool.contract import lane_name


class Refused(Exception):
    """The rules do not take this sender; ``reply`` is what the client is told."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


@dataclass(frozen=True, slots=True)
class Route:
    """Where a message goes and what its From becomes."""

    upstream: str
    mailboxes: tuple[str, ...]
    """One mailbox, or the members of a pool, in the order of the rule; lower case."""
    from_address: str | None
    """The new From address; None keeps the original one."""
    name: str
    """``keep``, ``address`` or a text."""
    reply_to: str
    """``original``, ``none`` or an address."""
    rule: int | None = None
    """Index of the sender rule, None for the default."""

    @property
    def lanes(self) -> tuple[str, ...]:
        """Names of the lanes that may carry it."""
        return tuple(lane_name(self.upstream, mailbox) for mailbox in self.mailboxes)


@dataclass(frozen=True, slots=True)
class HeaderFacts:
    """What the journey needs to know of a header block."""

    from_addresses: tuple[str, ...]
    """Addresses of every From field, in order, as written (case kept); empty when none can be read."""
    message_id: str
    subject: str
    """Decoded for people, control characters made visible, at most 250 characters."""
    received_count: int
    fields: int
    sender_addresses: tuple[str, ...] = ()
    """Addresses of every Sender field: readers show them beside From."""


@dataclass(frozen=True, slots=True)
class Rewritten:
    """The header block to submit."""

    header: bytes
    """CRLF line ends, closed by an empty line."""
    from_before: str
    """The From field's value as it came, for people (decoded); empty when there was none."""
    from_after: str
    notes: tuple[str, ...] = ()
    """What was added or repaired, for the trace."""
