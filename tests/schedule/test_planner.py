"""What a lane does next, for every situation that matters."""

from __future__ import annotations

import dataclasses

import pytest

from relay.schedule.planner import LaneView, Step, plan

QUIET = LaneView(
    now=1000.0,
    held=False,
    held_at_login=False,
    probe_due=False,
    resting_until=0.0,
    may_have_work=False,
    ready=0,
    oldest_ready=1000.0,
    budget=30,
    connections=0,
    room=0,
    max_connections=2,
    connected=0,
    ahead=1,
    waiting=0,
)

CASES = {
    "nothing to do": ({}, Step()),
    "work is claimed before a connection is opened, one message": ({"may_have_work": True}, Step(claim=1)),
    "once connected, as much is claimed as goes within moments": (
        {"may_have_work": True, "connections": 1, "connected": 1, "ahead": 20},
        Step(claim=20),
    ),
    "claimed mail is used up by half first": (
        {"may_have_work": True, "connections": 1, "connected": 1, "ahead": 20, "ready": 11, "room": 30},
        Step(),
    ),
    "claims never exceed what the limits let go": (
        {"may_have_work": True, "budget": 4, "connections": 1, "connected": 1, "ahead": 20},
        Step(claim=4),
    ),
    "no budget, no claim": ({"may_have_work": True, "budget": 0}, Step()),
    "what waits in the spool opens another": (
        {"ready": 1, "connections": 1, "room": 20, "waiting": 20, "budget": None},
        Step(open=1),
    ),
    "what the limits do not let go opens none": (
        {"ready": 1, "connections": 1, "room": 20, "waiting": 2000, "budget": 19},
        Step(),
    ),
    "claimed mail opens the first connection": ({"ready": 1}, Step(open=1)),
    "a connection with room in its batch is enough": ({"ready": 5, "connections": 1, "room": 20}, Step()),
    "more than the open batches can carry opens another": (
        {"ready": 31, "connections": 1, "room": 30},
        Step(open=1),
    ),
    "never more connections than allowed": ({"ready": 99, "connections": 2, "room": 0}, Step()),
    "a long wait behind a large message opens another": (
        {"ready": 1, "connections": 1, "room": 20, "oldest_ready": 989.0},
        Step(open=1),
    ),
    "resting lanes neither claim nor dial and give back": (
        {"may_have_work": True, "ready": 3, "resting_until": 1001.0},
        Step(give_back=True),
    ),
    "a held lane gives claimed mail back": (
        {"held": True, "ready": 3, "may_have_work": True},
        Step(give_back=True),
    ),
    "a probe claims one": ({"held": True, "probe_due": True, "may_have_work": True}, Step(claim=1)),
    "a probe opens one connection": ({"held": True, "probe_due": True, "ready": 1}, Step(open=1)),
    "a running probe is left alone": ({"held": True, "ready": 1, "connections": 1}, Step()),
    "a refused login is probed without mail": (
        {"held": True, "held_at_login": True, "probe_due": True},
        Step(open=1),
    ),
    "a refused message is not probed without mail": ({"held": True, "probe_due": True}, Step()),
    "a probe obeys the limits": (
        {"held": True, "probe_due": True, "may_have_work": True, "budget": 0},
        Step(),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_plan(name):
    changes, expected = CASES[name]
    assert plan(dataclasses.replace(QUIET, **changes)) == expected
