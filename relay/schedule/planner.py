"""Choose, then do: what a lane should do next, decided over plain numbers with no I/O.

Rules behind the numbers:

- Mail is claimed only as fast as it goes (by the mailbox's limits, by the pace of its connections), so that the order
  of turns is decided at the last moment and a quiet source never waits behind another's claimed mail. One message is
  enough to dial for.
- A further connection is opened only when the open ones could not carry what waits within their batches (so
  there is never more than one handshake per batch), or when the next message has waited long behind a large one.
"""

from __future__ import annotations

from dataclasses import dataclass

_IMPATIENT = 10.0
"""Seconds that a message may wait behind a slow one before a second connection is worth a handshake."""


@dataclass(frozen=True, slots=True)
class LaneView:
    """A lane as the planner sees it; times are wall seconds."""

    now: float
    held: bool
    held_at_login: bool
    """Held because connecting or logging in was refused."""
    probe_due: bool
    """Held, and the time has come to try one message."""
    resting_until: float
    """No dialling before this (after a failed connection)."""
    may_have_work: bool
    """The spool may hold mail that is due."""
    ready: int
    """Claimed and waiting for a connection."""
    oldest_ready: float
    """When the first of these was claimed; ``now`` if none."""
    budget: int | None
    """Messages that the mailbox's limits let start now; None for no limit."""
    connections: int
    room: int
    """Messages that the open connections can still carry in their batches."""
    max_connections: int
    connected: int
    """Connections past their handshake."""
    ahead: int
    """Messages worth claiming before their turn, so that connections never wait for the spool."""
    waiting: int
    """Messages that wait in the spool, as far as is known."""


@dataclass(frozen=True, slots=True)
class Step:
    """What to do now."""

    claim: int = 0
    open: int = 0
    give_back: bool = False
    """Return claimed mail to the spool: the lane is held."""


def plan(lane: LaneView) -> Step:
    """The next step of a lane; an empty step means wait."""
    if lane.held:
        return _held(lane)
    if lane.now < lane.resting_until and not lane.connections:
        return Step(give_back=lane.ready > 0)
    claim = _claims(lane)
    return Step(claim=claim, open=0 if claim else _opens(lane))


def _held(lane: LaneView) -> Step:
    """Nothing moves but one probe at a time; a refused login is probed without mail, too."""
    if lane.connections:
        return Step()
    if not lane.probe_due or not lane.max_connections:
        return Step(give_back=lane.ready > 0)
    if not lane.ready and lane.may_have_work and lane.budget != 0:
        return Step(claim=1)
    return Step(open=1 if lane.ready or lane.held_at_login else 0)


def _claims(lane: LaneView) -> int:
    if not lane.may_have_work or lane.now < lane.resting_until:
        return 0
    ahead = lane.ahead if lane.connected else 1
    want = ahead - lane.ready if lane.ready <= ahead // 2 else 0
    return max(0, want if lane.budget is None else min(want, lane.budget))


def _opens(lane: LaneView) -> int:
    if not lane.ready or lane.connections >= lane.max_connections or lane.now < lane.resting_until:
        return 0
    impatient = lane.now - lane.oldest_ready > _IMPATIENT
    soon = lane.waiting if lane.budget is None else min(lane.waiting, lane.budget)
    return 1 if lane.ready + soon > lane.room or impatient else 0
