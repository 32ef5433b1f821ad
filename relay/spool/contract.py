"""The spool as the other rooms see it. Every spool (memory, SQLite, PostgreSQL) passes the same suite, tests/spool/suite.py.

Rules that hold for every implementation:

- `Draft.commit` returns only after the message is durable; cancelling the caller does not cancel the commit.
- A claim gives a message to one process; only that process may settle it: SpoolLost for any other.
- One settlement is one transaction: recipient states, the next due time, the trace, and messages to add.
- Lanes are named ``upstream/mailbox``. Times are wall seconds since 1970.
- Inside a lane sources take turns: each new message gets the turn after its source's last one, but never before
  the lane's present turn, so one message of a quiet source is next or next but one, however long another's list is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from relay.message import Client, Content, Envelope, Outcome
from relay.spool.group import Group
from relay.spool.group import News as News
from relay.spool.group import Replica as Replica
from relay.spool.group import Taken as Taken
from relay.spool.group import Worker as Worker
from relay.spool.host import Host
from relay.spool.views import Changed as Changed
from relay.spool.views import Filter as Filter
from relay.spool.views import LocalMail as LocalMail
from relay.spool.views import MessageView as MessageView
from relay.spool.views import Operators
from relay.spool.views import Part as Part
from relay.spool.views import RecipientView as RecipientView
from relay.spool.views import SpoolStats as SpoolStats
from relay.spool.views import Trace as Trace
from relay.spool.views import TraceEvent as TraceEvent

T = TypeVar("T")


def lane_name(upstream: str, mailbox: str) -> str:
    """``upstream/mailbox``, the mailbox in lower case."""
    return f"{upstream}/{mailbox.lower()}"


def lane_parts(lane: str) -> tuple[str, str]:
    """The upstream and the mailbox of a lane name (an upstream's name may hold slashes, a mailbox may not)."""
    upstream, _, mailbox = lane.rpartition("/")
    return upstream, mailbox


@dataclass(frozen=True, slots=True)
class NewMessage:
    """What the listener knows when it commits; the body went into the draft already."""

    envelope: Envelope
    client: Client
    header: bytes
    """The header block as accepted, our ``Received`` field first, closing empty line included if there was one."""
    lane: str
    pool: tuple[str, ...] = ()
    """All lanes that may carry it, when its sender rule names a pool; empty otherwise."""
    source: str = ""
    """Fairness key: who takes turns with whom inside the lane."""
    header_from: tuple[str, ...] = ()
    """Addresses of the From field(s), kept so that mended rules can route it again without its content."""
    message_id: str = ""
    subject: str = ""
    """Decoded, for people; at most 250 characters."""
    notes: tuple[str, ...] = ()
    """What was repaired on the way in, for the trace."""
    came: int = 0
    """Octets that the client sent, for the log."""
    direct: bool = False
    """Its client waits for Exchange's answer (``answer_after: upstream``): a restart forgets it, since no 250 was given."""


@dataclass(frozen=True, slots=True)
class NewMail:
    """A message of our own (a notice), small, stored together with what caused it."""

    message: NewMessage
    body: bytes


class Draft(Protocol):
    """A message that is arriving. Its body goes to disk as it comes, past a small bound."""

    @property
    def id(self) -> str:
        """The id it will have: 13 characters, sortable by time of arrival."""
        ...

    async def write(self, data: bytes) -> None:
        """Body octets, in order. Raises SpoolFull / SpoolError; the draft must then be discarded."""
        ...

    async def commit(self, message: NewMessage) -> None:
        """Make it durable and queue it. Raises SpoolFull / SpoolError, and then nothing is left behind."""
        ...

    async def discard(self) -> None:
        """Forget it and what it wrote. Harmless after commit (does nothing) and when repeated."""
        ...


@dataclass(frozen=True, slots=True)
class Claim:
    """One message given to this process for one attempt."""

    id: str
    lane: str
    envelope: Envelope
    """Its ``recipients`` are the unfinished ones only."""
    client: Client
    received: float
    size: int
    attempts: int
    """Attempts that counted, before this one."""
    message_id: str = ""
    subject: str = ""
    header_from: tuple[str, ...] = ()
    pool: tuple[str, ...] = ()
    source: str = ""
    held_for: float = 0.0
    """Seconds it was held so far; they do not count towards its age."""
    delay_noticed: bool = False
    direct: bool = False
    """See `NewMessage.direct`."""
    tried_for: str = ""
    """Key of the sender's or messages' hold that kept it before, if one did: what comes of it says whether that is over."""
    state: str = "active"
    """Its state in the spool; other than ``active`` only where a waiting message is looked at (`Spool.overdue`)."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """What an attempt (or a decision without one) came to; see `Spool.settle`."""

    id: str
    outcomes: dict[str, Outcome]
    """By recipient address; recipients not named go back to QUEUED without a count."""
    due: float | None = None
    """When deferred recipients are tried again."""
    event: str = "attempted"
    details: dict[str, str] = field(default_factory=dict)
    """For the trace."""
    move_to: str | None = None
    """Another lane for what is left of the message."""
    counts: bool = True
    """Whether the attempt adds to ``attempts``."""
    hold_key: str | None = None
    """The sender's or messages' hold that keeps the message, when an outcome is HELD; see `Spool.release_key`."""
    notices: tuple[NewMail, ...] = ()
    """Messages to store in the same transaction."""
    behind: bool = False
    """What goes back to the queue goes behind all that waits there: it was tried for the lane, and another one is next."""
    told: bool = False
    """Nobody is left who must hear of the failures: one of ``notices`` or a summary that is owed tells of them, or
    nobody may be told. The content goes when the message is finished, unless an earlier failure is still untold."""
    delay_noticed: bool = False
    """The sender has been told of the delay (sets the mark, never clears it)."""
    withdraw: bool = False
    """Nobody was told that we have it (``answer_after: upstream``): take what is left out of the spool."""
    keep: bool = False
    """The client was told 250 after all: from now on it is a message like any other."""


@dataclass(frozen=True, slots=True)
class LaneSummary:
    """One lane's mail in numbers; cost does not grow with what is queued."""

    lane: str
    queued: int
    active: int
    deferred: int
    held: int
    """Messages held one by one (not by a hold of the lane)."""
    oldest: float | None
    """Arrival of the oldest unfinished message; None when empty."""
    next_due: float | None
    """Earliest due time of a deferred message."""
    replica: str = ""
    """The replica that works it, where several share the spool."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Why a lane, a sender or an upstream is not tried."""

    scope: str
    """upstream, lane, sender, or message: messages (or recipients of them) that a cause of their own keeps."""
    key: str
    """Upstream name; lane name; ``lane|sender address``; ``lane|cause`` for messages."""
    code: str
    reason: str
    remedy: str
    evidence: str
    """The server's own words."""
    since: float
    probes: int = 0
    next_probe: float | None = None
    at_login: bool = False
    """True when connecting or logging in was refused: a login that works then ends the hold."""


@dataclass(frozen=True, slots=True)
class Debt:
    """What a replica that was lost may still do: Exchange would count it, and nobody would write it down."""

    until: float
    """Wall seconds; afterwards its connections have ended for certain."""
    messages: int
    """Begun by it, and perhaps not complete yet."""
    connections: int = 0
    """Perhaps still open."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a lane has used of its mailbox's limits: for the sliding minute and the sliding day."""

    stamps: tuple[float, ...]
    """Times of the messages submitted in the last 60 s."""
    recipients_today: tuple[tuple[float, int], ...]
    """(minute, recipients) of the last 24 h."""
    debts: tuple[Debt, ...] = ()
    """What replicas that were lost may still do at Exchange."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a start found: work that a stopped or killed relay had under way."""

    requeued: int
    """Claimed, but its attempt had not begun."""
    uncertain: tuple[str, ...]
    """Ids whose attempt had begun: delivered perhaps, or not."""


Wake = Callable[[str], None]
"""Called in the event loop with the name of a lane that has new work."""


class Spool(Group, Host, Operators, Protocol):
    """Durable mail. All methods are coroutine-safe; errors are SpoolError and its subclasses."""

    standing_by: bool
    """A relay of an older release has the spool for itself: `open` waits until it has left."""

    async def open(self, *, owner: bool = True) -> None:
        """Create or migrate the schema. ``owner`` takes the place of the one daemon (SQLite); operators' commands do not."""
        ...

    async def close(self) -> None:
        """Finish what was promised, then let go."""
        ...

    def subscribe(self, wake: Wake) -> None:
        """Tell the scheduler about new mail."""
        ...

    # accepting
    def draft(self) -> Draft:
        """Start a message."""
        ...

    async def has_room(self, size: int) -> bool:
        """Whether ``size`` more octets fit, by ``max_size`` and the disk; cheap enough for each MAIL command."""
        ...

    # delivering
    async def recover(self) -> Recovered:
        """Once at start: what was ACTIVE goes back to QUEUED (or, on_uncertain ``hold``, uncertain ones to HELD).

        What another replica, that works, has in hand is left alone.
        """
        ...

    async def lanes(self) -> list[LaneSummary]:
        """All lanes that hold unfinished mail."""
        ...

    async def lane(self, name: str) -> LaneSummary:
        """One lane."""
        ...

    async def claim(self, lane: str, limit: int, now: float) -> list[Claim]:
        """Take up to ``limit`` messages that are due, in turn order; deferred ones whose time has come first rejoin."""
        ...

    async def unclaim(self, ids: Sequence[str]) -> None:
        """Give claimed messages back untouched."""
        ...

    async def begin(
        self, claim_id: str, now: float, recipients: int, sent: Mapping[str, Outcome] | None = None
    ) -> None:
        """A submission to so many recipients starts: durable before it returns, and counted in the lane's usage.

        A message that is split begins several times, one after the other; ``sent``: who has it by the one before,
        and will not be tried again.
        """
        ...

    async def settle(self, settlement: Settlement, now: float) -> None:
        """Write down what came of it, durable before it returns. Content of a finished message goes."""
        ...

    async def decide(self, settlement: Settlement, now: float) -> bool:
        """As `settle`, for a message that waits (queued, deferred, held). False, and nothing done, when it does not."""
        ...

    async def overdue(
        self, before: float, *, unnoticed: bool, after: tuple[float, str] | None = None, limit: int = 100
    ) -> list[Claim]:
        """Waiting messages that came before a time, oldest first; ``unnoticed``: only those without a delay notice."""
        ...

    async def content(self, message_id: str) -> Content:
        """Header and body as accepted. Raises SpoolError when it is gone."""
        ...

    async def usage(self, lane: str, now: float) -> Usage:
        """What the mailbox has used, so that limits survive a restart."""
        ...

    async def reassign(self, lane: str, to: str, limit: int) -> int:
        """Move up to ``limit`` waiting messages of a pool from one member lane to another; how many moved."""
        ...

    # holds
    async def hold(self, hold: Hold) -> None:
        """Set or replace a hold."""
        ...

    async def unhold(self, scope: str, key: str, now: float) -> bool:
        """End a hold; the time it lasted is added to its mail's held time. False when there was none."""
        ...

    async def release_key(self, key: str | None, now: float, *, limit: int | None = None) -> int:
        """Queue again what a sender's or messages' hold keeps, at most ``limit``, in bounded steps; how many.

        Those held longest first; None: those whose hold is no more. Their claims say what kept them
        (`Claim.tried_for`).
        """
        ...

    async def keeps(self, key: str) -> bool:
        """Whether any unfinished message is, or was last, kept by that hold."""
        ...

    async def holds(self) -> list[Hold]:
        """All holds."""
        ...

    # by today's rules
    async def reroute(
        self, choose: Callable[[Claim], str | None], now: float, *, lanes: Sequence[str] | None = None
    ) -> int:
        """Ask ``choose`` for each waiting message's lane by today's rules and move those that differ; in bounded steps.

        ``lanes``: only messages that wait there.

        Messages whose rules now refuse them (``None``) stay where they are.
        """
        ...

    # small texts that survive a restart
    async def remembered(self, prefix: str = "") -> dict[str, str]:
        """What was remembered under keys that begin so."""
        ...

    async def remember(self, key: str, value: str | None) -> None:
        """Set, or forget with None."""
        ...

    async def revise(self, key: str, change: Callable[[str | None], tuple[str | None, T]]) -> T:
        """Read a text and set it to what ``change`` makes of it (None: forget it), in one transaction; its other result.

        ``change`` only reckons: it may be called more than once, in another thread.
        """
        ...

    # upkeep
    async def tend(self, now: float) -> float:
        """One bounded step of housekeeping (old traces, spent turns, checkpoint); seconds until the next is due."""
        ...
