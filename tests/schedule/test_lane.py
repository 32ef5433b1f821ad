"""Which message a connection takes: mail of one source to one recipient never overtakes itself."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest

from relay.message import Client, Envelope, Recipient
from relay.schedule.lane import Lane, UpstreamState, pairs
from relay.schedule.limits import MailboxLimiter
from relay.spool.contract import Claim
from tests.fakes.settings import LIMITS as NO_LIMITS

LIMITS = replace(NO_LIMITS, messages_per_minute=30)


def claim(name: str, source: str, *people: str) -> Claim:
    envelope = Envelope("s@l", tuple(Recipient(one) for one in people))
    return Claim(name, "U/m@c", envelope, Client(), 0.0, 1, 0, source=source)


@pytest.fixture
def lane():
    return Lane("U/m@c", UpstreamState("U"), LIMITS, 30, MailboxLimiter(LIMITS))


def taken(lane: Lane) -> str | None:
    found = lane.take()
    return found.id if found else None


def test_different_recipients_go_side_by_side(lane):
    lane.add([claim("1", "s", "a@x"), claim("2", "s", "b@x")], 0.0)
    assert [taken(lane), taken(lane), taken(lane)] == ["1", "2", None]


def test_the_same_recipient_waits_for_the_earlier_message(lane):
    first = claim("1", "s", "A@x")
    lane.add([first, claim("2", "s", "a@X"), claim("3", "other", "a@x")], 0.0)
    assert [taken(lane), taken(lane), taken(lane)] == ["1", "3", None]
    lane.finished(first)
    assert taken(lane) == "2"


def test_what_waits_is_not_overtaken_either(lane):
    lane.add([claim("1", "s", "a@x"), claim("2", "s", "a@x", "b@x"), claim("3", "s", "b@x")], 0.0)
    assert [taken(lane), taken(lane)] == ["1", None]


def test_given_back_mail_frees_the_limit(lane):
    lane.add([claim("1", "s", "a@x"), claim("2", "s", "b@x")], 0.0)
    assert [one.id for one in lane.give_back()] == ["1", "2"]
    assert lane.take() is None


@pytest.mark.parametrize("most", [0, 30, 601])
def test_order_is_kept_whatever_the_limit(lane, most):
    lane.limits = replace(LIMITS, messages_per_minute=most)
    lane.add([claim("1", "s", "a@x"), claim("2", "s", "a@x")], 0.0)
    assert [taken(lane), taken(lane)] == ["1", None]


def test_one_connection_may_have_a_run_of_the_same_pair_and_no_other_connection_passes_it(lane):
    run = [claim(str(number), "s", "a@x") for number in range(3)]
    lane.add([*run, claim("4", "s", "a@x")], 0.0)
    first = lane.take()
    second = lane.take(Counter(pairs(first)))
    assert [first, second] == run[:2]
    assert lane.take() is None
    lane.finished(first)
    assert lane.take() is None  # the second is still under way
    lane.finished(second)
    assert taken(lane) == "2"


async def test_a_connection_is_woken_for_what_it_could_take_and_for_nothing_else(lane):
    """While earlier mail of the same source and recipient is under way, the rest waits for it without a look."""
    run = [claim(str(number), "s", "a@x") for number in range(3)]
    lane.add(run, 0.0)
    first = lane.take()
    second = lane.take(Counter(pairs(first)))
    waiting = asyncio.ensure_future(lane.wait_for_mail(30.0))
    await asyncio.sleep(0)
    lane.finished(first)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not waiting.done()
    lane.finished(second)
    await asyncio.wait_for(waiting, 10)
    assert taken(lane) == "2"


async def test_what_is_handed_on_to_a_connection_that_is_cut_off_goes_back(lane):
    lane.add([claim("1", "s", "a@x"), claim("2", "s", "a@x")], 0.0)
    first = lane.take()
    ended = []
    leave = SimpleNamespace(claim=first, end=lambda: ended.append(first.id))
    lane.begun_ahead = 1
    waiting = asyncio.ensure_future(lane.wait_for_mail(30.0))
    await asyncio.sleep(0)
    assert lane.spare
    assert lane.hand_on([leave])
    assert not lane.hand_on([leave])
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (lane.owed, ended, lane.begun_ahead) == ([first], ["1"], 0)
    assert taken(lane) == "2"
