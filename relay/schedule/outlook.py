"""What lies ahead of a lane: the figures the planner decides over, and when the lane must look again by itself."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from relay.schedule.lane import Lane
from relay.schedule.planner import LaneView
from relay.spool.contract import Hold

if TYPE_CHECKING:
    from relay.schedule.holds import Holds

_IMPATIENCE = 10.1
"""Seconds, a little more than the planner's own, after which a second connection is considered."""


def view(holds: Holds, lane: Lane, now: float) -> LaneView:
    """The lane as the planner sees it."""
    hold = lane.the_hold()
    return LaneView(
        now=now,
        held=hold is not None,
        held_at_login=hold is not None and hold.at_login,
        probe_due=holds.probe_due(lane, now),
        resting_until=_rests_until(lane, now),
        may_have_work=lane.may_have_work,
        ready=len(lane.ready),
        oldest_ready=lane.ready[0][0] if lane.ready else now,
        budget=_budget(lane, now),
        connections=len(lane.carriers),
        room=lane.room,
        max_connections=min(lane.limiter.connections(now), 1 if lane.limiter.slowed else lane.reserved),
        connected=lane.connected,
        ahead=lane.ahead,
        waiting=lane.backlog,
    )


def _rests_until(lane: Lane, now: float) -> float:
    return max(lane.resting_until, lane.limiter.paused_until, lane.limiter.blocked_until(now))


def _budget(lane: Lane, now: float) -> int | None:
    return lane.limiter.available(now) if lane.limiter.fits(now, lane.need) else 0


def next_look(holds: Holds, lane: Lane, now: float) -> float | None:
    """When the lane must look again by itself; None: only when woken.

    ``now`` is the moment of the plan that had nothing to do: what falls due between the plan and the sleep must be in
    the future of both, or nobody would come back for it.
    """
    times: list[float] = []
    if lane.next_due is not None and not lane.may_have_work:
        times.append(lane.next_due)
    hold = lane.the_hold()
    if hold is None:
        apart = [*lane.held_senders.values(), *lane.held_messages.values()]
        times += [one.next_probe for one in apart if one.next_probe is not None]
    if hold is not None:
        times += [] if lane.carriers else _probe_times(lane, hold, now)
        times += [untried for untried in [holds.untried(hold)] if now < untried < inf]
    elif lane.may_have_work or lane.ready:
        times += _working_times(lane, now)
    elif not lane.carriers and lane.resting_until <= now:
        lane.quiet()
    return min(times, default=None)


def _working_times(lane: Lane, now: float) -> list[float]:
    rest = _rests_until(lane, now)
    if rest > now:
        return [rest]
    times = [lane.limiter.ready_at(now, lane.need)] if lane.may_have_work and _budget(lane, now) == 0 else []
    if lane.ready and 0 < len(lane.carriers) < lane.limits.connections:
        impatient = lane.ready[0][0] + _IMPATIENCE
        times += [impatient] if impatient > now else []
    return times


def _probe_times(lane: Lane, hold: Hold, now: float) -> list[float]:
    not_before = max(hold.next_probe or 0.0, lane.limiter.blocked_until(now))
    if hold.next_probe is not None and not_before > now:
        return [not_before]
    return [lane.limiter.ready_at(now, lane.need)] if lane.may_have_work and _budget(lane, now) == 0 else []
