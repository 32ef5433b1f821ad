"""A pool moves N times one mailbox's limit, evenly; a held member is skipped and comes back."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest

from relay.message import Outcome, Reply, Report, Result, Scope
from relay.settings import SenderRule
from tests.fakes.courier import SENT
from tests.fakes.spool import LANE, OTHER, accept
from tests.schedule.test_loop import House

THIRD = "Microsoft 365/alerts@contoso.com"
POOL = (LANE, OTHER, THIRD)
RULE = SenderRule(
    "*",
    None,
    None,
    "scans@contoso.com",
    tuple(one.split("/")[1] for one in POOL),
    "keep",
    "original",
    "Microsoft 365",
)
FULL = Outcome(
    Result.HELD, Scope.LANE, Reply(554, "5.2.2", "full"), "The mailbox is full", code="mailbox-full"
)


@pytest.fixture
async def house(tmp_path):
    h = House(tmp_path, messages_per_minute=10)
    h.scheduler.pools.members = [POOL]
    yield h
    await h.stop()


async def fill(h, counts: dict[str, int]) -> None:
    for lane, count in counts.items():
        for _ in range(count):
            await accept(h.spool, lane=lane, pool=POOL)


async def waiting(h) -> dict[str, int]:
    return {one.lane: one.queued for one in await h.spool.lanes()}


def test_pools_come_from_the_sender_rules(tmp_path):
    h = House(tmp_path)
    changed = dataclasses.replace(h.settings, senders=(RULE,))
    from relay.schedule.pools import members

    assert members(changed) == [POOL]


async def test_three_members_move_three_times_the_limit(house):
    await house.start()
    await fill(house, dict.fromkeys(POOL, 15))
    await house.sent(30)
    await house.shows("queued", 15)
    assert Counter(one.lane for one in house.courier.sent) == dict.fromkeys(POOL, 10)


async def test_a_held_members_mail_goes_by_the_others_evenly(house):
    house.courier.answer = lambda claim: (
        Report({"anna@example.net": FULL}, FULL) if claim.lane == THIRD else SENT
    )
    await house.start()
    await fill(house, {THIRD: 8})
    await house.sent(8)
    counts = Counter(one.lane for one in house.courier.sent)
    assert counts[LANE] + counts[OTHER] == 8
    assert (await waiting(house)).get(THIRD, 0) == 0
    assert house.scheduler.avoided(POOL) == {THIRD}


async def test_other_mail_of_a_held_member_stays(house):
    house.courier.answer = lambda claim: (
        Report({"anna@example.net": FULL}, FULL) if claim.lane == THIRD else SENT
    )
    await house.start()
    await accept(house.spool, lane=THIRD)
    await house.shows("held", 1)
    assert house.courier.sent == []


async def test_a_mended_member_takes_its_share_back(house):
    house.courier.answer = lambda claim: (
        Report({"anna@example.net": FULL}, FULL) if claim.lane == THIRD else SENT
    )
    await house.start()
    await fill(house, {THIRD: 1})
    await house.sent(1)
    await fill(house, {LANE: 60})
    await house.sent(10)
    house.courier.answer = lambda claim: SENT
    assert THIRD in house.scheduler.lanes
    await house.scheduler.reload(dataclasses.replace(house.settings, senders=(RULE,)))
    assert house.scheduler.avoided(POOL) == frozenset()  # due to be tried: new mail may choose it
    await accept(house.spool, lane=THIRD, pool=POOL)
    await house.courier.until(lambda: sum(one.lane == THIRD for one in house.courier.sent) >= 9)
    assert house.scheduler.lanes[THIRD].the_hold() is None
