"""A spool that several relays share: what each must know of the others. See docs/postgresql.md.

A lane (the mail in front of one mailbox) is worked by one replica at a time. So a mailbox's limits, the order of its
mail and its fair turns need no agreement between replicas beyond who has the lane. A spool that only one relay works
on (SQLite) answers these questions trivially: `Alone`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple, Protocol

from relay.clock import Clock


class Taken(Enum):
    """What came of asking for a lane."""

    MINE = "mine"
    OTHERS = "others"
    """Another replica works it."""
    ENOUGH = "enough"
    """It is free, and this replica has its share of lanes already: another one should take it."""


@dataclass(frozen=True, slots=True)
class Replica:
    """One relay of the group."""

    name: str
    version: str
    host: str
    pid: int
    started: float
    """Wall seconds since 1970, by the clock that the group shares."""
    seen: float
    """When it was last heard of."""
    lanes: int
    state: str
    """working, or leaving."""
    me: bool = False
    config: Mapping[str, str] = field(default_factory=dict)
    """Digests of its configuration, as it declared them; empty for an earlier release."""


class Worker(NamedTuple):
    """Who works a lane."""

    name: str
    me: bool


@dataclass(frozen=True, slots=True)
class News:
    """Something that another replica, or an operator, did to the shared spool."""

    kind: str
    """
    - ``mail``: new or changed mail in the lane named
    - ``free``: the lane named has no replica any more
    - ``hold``: holds were set or ended
    - ``replicas``: a replica came, left, or was given up; its lanes are free
    - ``memory``: the text remembered under the key named has changed
    - ``debts``: connections of a lost replica have ended earlier than had to be expected
    - ``answer``: Exchange's answer for a client that waits at another replica: id, then the reply
    - ``again``: what was said meanwhile may have been missed: look at everything once
    - ``lost``: the others have given this replica up: what it had in hand is theirs; see `Group.rejoin`
    """
    text: str = ""


Hear = Callable[[News], None]
"""Called in the event loop."""


class Group(Protocol):
    """The part of a spool's contract that is about other replicas. Errors are SpoolError and its subclasses."""

    shared: bool
    """Whether other replicas may work on it at the same time."""

    @property
    def clock(self) -> Clock:
        """The clock that all its replicas agree on; everything that is compared between them is by this one."""
        ...

    @property
    def replica_name(self) -> str:
        """What this relay is called in the group; empty where there is none."""
        ...

    def declare(self, config: Mapping[str, str]) -> None:
        """Let the others know digests of this relay's configuration (`relay.likeness`), now and whenever it joins."""
        ...

    def listen(self, hear: Hear) -> None:
        """Be told what the others do."""
        ...

    @property
    def sure(self) -> bool:
        """Whether this replica certainly takes part: the others have not given it up, and will not within moments."""
        ...

    async def assure(self) -> None:
        """Make sure of that, before something that a replica which was given up must not do. Raises SpoolLost."""
        ...

    async def note_connections(self, lane: str, connections: int) -> None:
        """Write down how many connections may be open at a lane's mailbox: whoever takes it over must reckon with them."""
        ...

    async def take(self, lane: str, *, anyway: bool = False) -> Taken:
        """Become the one that works a lane, if it is free; ``anyway``: beyond this replica's share as well."""
        ...

    async def let_go(self, lane: str, *, idle: bool = False) -> None:
        """Stop working a lane: nothing of it is claimed here any more. Others may take it; ``idle``: once it has mail."""
        ...

    async def surplus(self) -> int:
        """How many of its lanes this replica should let go, so that all have about as many."""
        ...

    async def on_duty(self, task: str) -> bool:
        """Whether this replica is the one that does a task which only one may do; it becomes it when nobody is."""
        ...

    async def leaving(self) -> None:
        """This replica stops: it takes nothing more, and its share is for the others."""
        ...

    async def rejoin(self) -> None:
        """After it was given up: take part again, as a new member that has nothing in hand."""
        ...

    async def replicas(self) -> list[Replica]:
        """All that take part, oldest first; empty for a spool that only one relay works on."""
        ...

    async def workers(self) -> dict[str, Worker]:
        """Who works which lane; empty for a spool that only one relay works on."""
        ...

    async def sent_last_minute(self, now: float) -> dict[str, int]:
        """Messages that each lane submitted in the last 60 s, whoever worked it."""
        ...

    async def claim_probe(self, scope: str, key: str, now: float, later: float) -> bool:
        """Whether this replica may try what is held; if so, nobody else does before ``later``."""
        ...

    async def answer(self, message_id: str, reply: str) -> None:
        """Tell the replica whose client waits (``answer_after: upstream``) what Exchange said."""
        ...


class Alone:
    """`Group` for a spool that one relay works on."""

    shared = False
    replica_name = ""

    def declare(self, config: Mapping[str, str]) -> None:
        """Nobody compares it."""

    sure = True

    def listen(self, hear: Hear) -> None:
        """Nobody will say anything."""

    async def assure(self) -> None:
        """Nobody else could have given it up."""

    async def note_connections(self, lane: str, connections: int) -> None:
        """Nobody takes it over."""

    async def take(self, lane: str, *, anyway: bool = False) -> Taken:
        """Every lane is its own."""
        return Taken.MINE

    async def let_go(self, lane: str, *, idle: bool = False) -> None:
        """Nobody else would take it."""

    async def surplus(self) -> int:
        """None: all are its own."""
        return 0

    async def on_duty(self, task: str) -> bool:
        """Always: there is nobody else."""
        return True

    async def leaving(self) -> None:
        """Nobody waits for its share."""

    async def rejoin(self) -> None:
        """It cannot be given up."""

    async def replicas(self) -> list[Replica]:
        """None besides itself."""
        return []

    async def workers(self) -> dict[str, Worker]:
        """It works them all."""
        return {}

    async def claim_probe(self, scope: str, key: str, now: float, later: float) -> bool:
        """Nobody else tries."""
        return True

    async def answer(self, message_id: str, reply: str) -> None:
        """Every client waits here."""
