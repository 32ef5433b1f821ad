"""Schedulers of several replicas on one PostgreSQL spool: who carries what, and what becomes of it when one is lost."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from relay.message import Outcome, Reply, Report, Result, Scope, Trouble
from relay.schedule import sharing
from relay.schedule.loop import Scheduler
from relay.spool import postgres_watch
from relay.spool.contract import Filter
from relay.spool.postgres import PostgresSpool
from relay.status import Afar, LaneHealth
from tests.fakes.courier import SENT, FakeCourier
from tests.fakes.post import FakePost
from tests.fakes.settings import LIMITS, settings, upstream
from tests.fakes.spool import accept, new_message, spool_settings
from tests.spool.postgres_kit import Maker, make, server

__all__ = ["make", "server"]

LANES = [f"Microsoft 365/{n}@contoso.com" for n in range(6)]
FULL = Outcome(
    Result.HELD, Scope.LANE, Reply(554, "5.2.2", "mailbox full"), "The mailbox is full", code="mailbox-full"
)
TOO_FAST = Outcome(
    Result.DEFERRED, Scope.LANE, Reply(432, "4.3.2", "concurrent"), "Too fast", code="throttled", counts=False,
    slow=True, wait=30.0,
)  # fmt: skip


UNREACHABLE = Outcome(
    Result.DEFERRED, Scope.UPSTREAM, reason="Nobody answers", remedy="Open port 587", counts=False
)


class House:
    """One replica: its spool, its scheduler, its way to Exchange."""

    def __init__(self, make: Maker, name: str, **limits: object) -> None:
        changed = upstream(limits=dataclasses.replace(LIMITS, **limits))
        self.spool = PostgresSpool(spool_settings(make.folder, url=make.url))
        self.spool._member.name = name
        self.courier = FakeCourier()
        self.settings = settings(make.folder, upstreams=(changed,))
        self.scheduler = Scheduler(
            self.spool, self.courier, self.settings, self.spool.clock,
            lambda claim: claim.header_from[0], FakePost(),
        )  # fmt: skip

    async def start(self) -> House:
        await self.spool.open()
        await self.spool.recover()
        await self.scheduler.start()
        return self

    async def stop(self) -> None:
        await self.scheduler.stop(5.0)
        await self.spool.close()

    def works(self) -> set[str]:
        return {name for name in self.scheduler.lanes if self.scheduler.works(name)}


Build = Callable[..., Awaitable[House]]


@pytest.fixture
async def join(make, monkeypatch) -> AsyncIterator[Build]:
    """Another replica each time."""
    monkeypatch.setattr(sharing, "_OTHERS_FIRST", 0.3)
    made: list[House] = []

    async def build(**limits: object) -> House:
        house = House(make, f"replica {len(made) + 1}", **limits)
        made.append(house)
        return await house.start()

    yield build
    for house in made:
        await house.stop()


async def happens(condition: Callable[[], object], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


async def fill(house: House, each: int = 2, lanes: list[str] = LANES) -> int:
    for _ in range(each):
        for lane in lanes:
            await accept(house.spool, message=new_message(lane=lane))
    return each * len(lanes)


def sent(*houses: House) -> Counter[str]:
    return Counter(claim.id for house in houses for claim in house.courier.sent)


async def test_mail_is_carried_by_all_wherever_it_was_accepted(join):
    one, two, three = [await join() for _ in range(3)]
    count = await fill(one)
    await happens(lambda: len(sent(one, two, three)) == count)
    assert set(sent(one, two, three).values()) == {1}
    await happens(lambda: [len(house.works()) for house in (one, two, three)] == [2, 2, 2])


async def test_one_that_joins_gets_its_share_while_mail_goes_on(join):
    one = await join()
    count = await fill(one)
    await happens(lambda: len(sent(one)) == count)
    assert len(one.works()) == 6
    two = await join()
    await happens(lambda: len(one.works()) == 3)
    count += await fill(one)
    await happens(lambda: len(sent(one, two)) == count)
    assert set(sent(one, two).values()) == {1}
    assert (len(one.works()), len(two.works())) == (3, 3)
    assert not one.works() & two.works()


async def test_one_that_stops_leaves_its_lanes_to_the_others(join):
    one, two = await join(), await join()
    count = await fill(one)
    await happens(lambda: len(sent(one, two)) == count)
    await one.scheduler.stop(5.0)
    count += await fill(two)
    await happens(lambda: len(sent(one, two)) == count)
    assert len(two.works()) == 6


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(postgres_watch, "SILENT", 1.5)
    monkeypatch.setattr(postgres_watch, "_LOOK", 0.1)


async def test_one_that_stands_still_loses_its_lanes_and_joins_again_with_nothing_in_hand(
    join, impatient, monkeypatch
):
    one, two = await join(connections=1), await join(connections=1)
    await fill(one, 1)
    await happens(lambda: len(sent(one, two)) == 6)
    await happens(lambda: len(one.works()) == 3 and len(two.works()) == 3)
    one.courier.gate.clear()  # what it begins now has no answer
    mine = sorted(one.works())
    await fill(two, 2, mine)
    await happens(lambda: one.courier.under_way == 3)
    begun = len(sent(one, two))
    monkeypatch.setattr(one.spool._watch, "_look", lambda connection: None)
    await happens(lambda: set(mine) <= two.works())
    await happens(lambda: len(sent(two)) + len(one.courier.sent) == begun + 6)
    monkeypatch.undo()
    await happens(lambda: one.scheduler.lost)
    one.courier.gate.set()
    await happens(lambda: not one.scheduler.lost and one.spool._member.given_up is False)
    twice = [message_id for message_id, count in sent(one, two).items() if count > 1]
    assert len(twice) == 3, "those that it had begun"
    for message_id in twice:
        assert "uncertain" in [event.event for event in (await two.spool.trace(message_id))[0].events]
    assert one.courier.open_now == 0
    await happens(lambda: len(one.works()) == 3 and len(two.works()) == 3)
    assert await one.spool.find(Filter()) == []


async def test_what_holds_a_mailbox_is_known_to_all_and_ends_for_all(join, make):
    one, two = await join(), await join()
    for house in (one, two):
        house.courier.answer = lambda claim: Report({"anna@example.net": FULL}, FULL)
    await fill(one, 1, LANES[:1])
    for house in (one, two):
        await happens(
            lambda house=house: [hold.code for hold in house.scheduler.holds.all()] == ["mailbox-full"]
        )
    for house in (one, two):
        house.courier.answer = lambda claim: SENT
    operator = PostgresSpool(spool_settings(make.folder, url=make.url))
    await operator.open(owner=False)
    await operator.operate("release", Filter(), operator.now())
    await operator.close()
    await happens(lambda: len(sent(one, two)) == 1)
    for house in (one, two):
        await happens(lambda house=house: house.scheduler.holds.all() == [])


async def test_a_mailbox_that_was_slowed_down_stays_so_where_it_goes_to(join):
    one = await join(messages_per_minute=30)
    one.courier.answer = lambda claim: Report({"anna@example.net": TOO_FAST}, TOO_FAST)
    await fill(one, 1, LANES[:1])
    await happens(lambda: LANES[0] in one.scheduler.lanes and one.scheduler.lanes[LANES[0]].limiter.slowed)
    await happens_async(lambda: one.spool.remembered("pace:"))
    two = await join(messages_per_minute=30)
    await one.stop()
    await happens(lambda: LANES[0] in two.works())
    limiter = two.scheduler.lanes[LANES[0]].limiter
    assert (limiter.limit, limiter.paused_until > two.spool.now() + 10) == (15, True)
    assert two.courier.tried == []


async def happens_async(ask: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(30):
        while not await ask():
            await asyncio.sleep(0.02)


async def test_a_client_that_waits_for_exchange_hears_it_though_another_replica_has_the_lane(join):
    one, two = await join(), await join()
    await fill(one, 1, LANES[:2])
    await happens(lambda: len(one.works()) == 1 and len(two.works()) == 1)
    (theirs,) = two.works()
    draft = one.spool.draft()
    await draft.write(b"body")
    ticket = one.scheduler.answers.expect(draft.id, theirs)
    await draft.commit(new_message(lane=theirs, direct=True))
    reply = await one.scheduler.answers.wait(ticket, 20.0)
    assert (reply.code, reply.enhanced, reply.text) == (250, "2.0.0", "OK")
    assert draft.id in [claim.id for claim in two.courier.sent]


async def test_a_lane_without_work_is_let_go(join, monkeypatch):
    monkeypatch.setattr(sharing, "_IDLE", 0.2)
    one = await join()
    one.courier.batch = 1
    await fill(one, 1, LANES[:1])
    await happens(lambda: len(sent(one)) == 1)
    await happens(lambda: one.works() == set())
    assert await one.spool.workers() == {}
    await fill(one, 1, LANES[:1])
    await happens(lambda: len(sent(one)) == 2)


async def test_any_replica_can_say_how_a_lane_is_that_another_one_works(join):
    one, two = await join(messages_per_minute=30), await join(messages_per_minute=30)
    await fill(one, 1, LANES[:2])
    await happens(lambda: len(one.works()) == 1 and len(two.works()) == 1)
    await happens(lambda: len(sent(one, two)) == 2)
    (theirs,) = two.works()

    async def health() -> LaneHealth:
        afar = await Afar.look(one.settings, one.spool, {}, one.spool.now())
        return afar.health(theirs)

    assert dataclasses.astuple(await health())[1:7] == ("open", "", "", None, 1, 30)
    await two.scheduler.verdicts.could_not_open(two.scheduler.lanes[theirs], Trouble(UNREACHABLE))
    await happens_async(lambda: one.spool.remembered("trouble:"))
    seen = await health()
    assert (seen.state, seen.reason, seen.remedy) == ("slowed", "Nobody answers", "Open port 587")
    await two.scheduler.verdicts.opened(two.scheduler.lanes[theirs])
    await happens_async(lambda: gone(one, "trouble:"))
    assert (await health()).state == "open"


async def gone(house: House, key: str) -> bool:
    return not await house.spool.remembered(key)
