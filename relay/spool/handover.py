"""Mail that passes from one host's local spool into the shared one: the words that both sides use.

A message keeps its id on the way, and its id is what makes giving it twice harmless. Two things that an id alone does
not settle are settled here as well:

- *Finished meanwhile, and even forgotten* (``spool.history``): the shared spool notes, in the transaction that stores a
  batch, whose batch it was. The note stays until the giver says that those messages have left its own disk.
- *Another message of the same id* (two hosts whose clocks and counters agreed to the last bit while neither could
  ask the database): what is compared is more than the id, and the second one gets a new id before it is stored.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from relay.message import Body
from relay.spool.contract import Draft, Spool
from relay.spool.intake import NewRow

UNCERTAIN = (
    "the database's answer was lost when it was accepted, and what was stored then would be forgotten by now"
)
"""Why a message may be delivered a second time."""


@dataclass(frozen=True, slots=True)
class Handover:
    """Some messages of one local spool, in their order."""

    rows: Sequence[NewRow]
    giver: str
    """The local spool's own name, which no other has."""
    host: str
    """Where it is, for the trace."""
    gone: frozenset[int] = frozenset()
    """Ids given before that have left the local spool: they need no note any more."""
    uncertain: frozenset[int] = frozenset()
    """Those that may have been stored, delivered and forgotten already: stored all the same, and the trace says so."""


class Stop(enum.Enum):
    """Why a batch was not taken to its end."""

    NOTHING = "it was"
    PIECES = "the next message's body must be put first"
    STRANGER = "another message has the next one's id"
    REFUSED = "the next one cannot be stored, whatever is tried"


@dataclass(frozen=True, slots=True)
class Adopted:
    """What came of a batch."""

    done: int
    """Messages, from the first on, that the shared spool has, or had."""
    stop: Stop = Stop.NOTHING
    stored: tuple[NewRow, ...] = ()
    """Those of them that were not there before."""


class Shared(Spool, Protocol):
    """A spool that takes mail over from local ones."""

    def draft_as(self, number: int) -> Draft:
        """Start a message whose id was chosen already."""
        ...

    async def put_body(self, number: int, body: Body) -> bool:
        """The large body of a message that `adopt` asked for, in bounded pieces; what is there already stays.

        False: other octets are there, those of another message.
        """
        ...

    async def adopt(self, given: Handover) -> Adopted:
        """Store what is not there yet, in order, up to the first message that cannot be; durable when it returns.

        Raises SpoolError, after which the same may be given again.
        """
        ...

    async def forget_giver(self, giver: str) -> None:
        """All that this local spool gave has left it: its note may go. Raises SpoolError."""
        ...


async def in_pieces(body: Body, size: int) -> AsyncIterator[bytes]:
    """A body in pieces of exactly ``size`` octets, the last one shorter, however it is read."""
    gathered = bytearray()
    async for chunk in body.chunks(size):
        gathered += chunk
        while len(gathered) >= size:
            yield bytes(gathered[:size])
            del gathered[:size]
    if gathered:
        yield bytes(gathered)
