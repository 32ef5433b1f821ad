"""The table of states, and every operation of a spool against every state."""

from __future__ import annotations

import pytest

from relay.message import Outcome, Reply, Result, Scope
from relay.spool.contract import Filter, Settlement
from relay.spool.sqlite import SqliteSpool
from relay.spool.states import DONE, FINAL, MOVES, State, may_move, message_state
from tests.fakes.clock import ManualClock
from tests.fakes.spool import LANE, OTHER, accept, spool_settings

OUTCOMES = {result: Outcome(result, Scope.MESSAGE, Reply(250, "", "x")) for result in Result}
KEY = f"{LANE}|a@contoso.com"


@pytest.fixture
async def spool(tmp_path):
    one = SqliteSpool(spool_settings(tmp_path), ManualClock())
    await one.open()
    yield one
    await one.close()


async def settle(spool, message_id, result):
    now = spool.now()
    await spool.settle(
        Settlement(message_id, {"anna@example.net": OUTCOMES[result]}, due=now + 9, hold_key=KEY), now
    )


async def bring_to(spool, state: State) -> str:
    message_id = await accept(spool)
    if state is State.QUEUED:
        return message_id
    if state is State.DELETED:
        await spool.operate("delete", Filter(ids=(message_id,)), spool.now())
        return message_id
    await spool.claim(LANE, 1, spool.now())
    results = {
        State.DEFERRED: Result.DEFERRED,
        State.HELD: Result.HELD,
        State.SENT: Result.SENT,
        State.FAILED: Result.FAILED,
    }
    if state in results:
        await settle(spool, message_id, results[state])
    return message_id


async def state_of(spool, message_id) -> State:
    (view,) = await spool.find(Filter(ids=(message_id,)))
    return view.recipients[0].state


async def attempt(spool, message_id, result):
    try:
        await settle(spool, message_id, result)
    except Exception as error:
        assert "not claimed" in str(error)


OPERATIONS = {
    "claim": lambda s, m: s.claim(LANE, 1, s.now()),
    "claim later": lambda s, m: s.claim(LANE, 1, s.now() + 60),
    "unclaim": lambda s, m: s.unclaim([m]),
    "recover": lambda s, m: s.recover(),
    "release key": lambda s, m: s.release_key(KEY, s.now()),
    "reroute": lambda s, m: s.reroute(lambda claim: OTHER, s.now()),
    **{f"settle {r}": lambda s, m, r=r: attempt(s, m, r) for r in Result},
    **{
        verb: lambda s, m, verb=verb: s.operate(verb, Filter(ids=(m,)), s.now())
        for verb in ("retry", "hold", "release", "delete")
    },
}


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_every_operation_keeps_to_the_table(spool, state, operation):
    message_id = await bring_to(spool, state)
    assert await state_of(spool, message_id) is state
    await OPERATIONS[operation](spool, message_id)
    after = await state_of(spool, message_id)
    steps = {state} | MOVES[state]
    if operation == "claim later" and state is State.DEFERRED:  # due, then claimed: two moves at once
        steps |= MOVES[State.QUEUED]
    assert after in steps, f"{operation}: {state} -> {after}"


def test_final_states_have_no_way_out_but_an_operators_retry_of_a_failure():
    for state in FINAL:
        assert MOVES[state] <= ({State.QUEUED} if state is State.FAILED else set())


def test_every_state_can_be_reached_and_unfinished_ones_can_end():
    reached = {after for moves in MOVES.values() for after in moves}
    assert reached | {State.QUEUED} == set(State)
    for state in set(State) - FINAL:
        assert MOVES[state] & (FINAL | {State.ACTIVE, State.QUEUED})
    assert not may_move(State.SENT, State.QUEUED)


@pytest.mark.parametrize(
    ("states", "whole"),
    [
        ([State.SENT, State.FAILED], DONE),
        ([State.SENT, State.DEFERRED], "deferred"),
        ([State.QUEUED, State.DEFERRED], "deferred"),
        ([State.HELD, State.DEFERRED], "deferred"),
        ([State.HELD, State.SENT], "held"),
        ([State.QUEUED, State.SENT], "queued"),
        ([], DONE),
    ],
)
def test_a_messages_state_is_that_of_its_unfinished_recipients(states, whole):
    assert message_state(states) == whole
