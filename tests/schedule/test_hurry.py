"""Hurried lanes (a mailbox without the usual limit): attempts written down before their turn, and mail claimed by its pace."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from relay.clock import SystemClock
from relay.message import Outcome, Report, Result, Scope
from relay.schedule import lane
from relay.schedule.loop import Scheduler
from relay.spool.sqlite import SqliteSpool
from tests.fakes.courier import SENT, FakeCourier
from tests.fakes.post import FakePost
from tests.fakes.settings import LIMITS, settings, upstream
from tests.fakes.spool import LANE, accept, spool_settings

LOST = Outcome(
    Result.DEFERRED, Scope.LANE, reason="connection lost", code="connection-lost", counts=False, wait=0.0
)


class Recorded(SqliteSpool):
    """A spool that tells what was begun."""

    def __init__(self, *words) -> None:
        super().__init__(*words)
        self.begun: list[str] = []
        self.returned: list[str] = []

    async def begin(self, claim_id, now, recipients, sent=None) -> None:
        self.begun.append(claim_id)
        await super().begin(claim_id, now, recipients, sent)

    async def unclaim(self, ids_) -> None:
        self.returned += ids_
        await super().unclaim(ids_)


class House:
    def __init__(self, folder, batch: int = 30, **limits) -> None:
        self.spool = Recorded(spool_settings(folder))
        self.courier = FakeCourier(batch)
        changed = upstream(
            limits=dataclasses.replace(LIMITS, **{"connections": 1, **limits}), batch_size=batch
        )
        self.scheduler = Scheduler(
            self.spool, self.courier, settings(folder, upstreams=(changed,)), SystemClock(),
            lambda claim: claim.header_from[0], FakePost(),
        )  # fmt: skip

    async def open(self, messages: int) -> None:
        """With so many waiting, and the first of them under way."""
        self.courier.gate.clear()
        await self.spool.open()
        for _ in range(messages):
            await accept(self.spool)
        await self.scheduler.start()
        await self.courier.until(lambda: self.courier.under_way == 1)

    async def active(self, count: int) -> None:
        async with asyncio.timeout(10):
            while (await self.spool.lane(LANE)).active != count:
                await asyncio.sleep(0)

    async def sent(self, count: int) -> None:
        await self.courier.until(lambda: len(self.courier.sent) >= count)


@pytest.fixture
def fast(monkeypatch):
    """A lane that has carried a thousand messages a second."""
    monkeypatch.setattr(lane.Pace, "now", lambda pace: 1000.0)
    monkeypatch.setattr(lane, "RECONNECT", (0.01,))


async def begun(house: House, count: int) -> None:
    async with asyncio.timeout(10):
        while len(house.spool.begun) < count:
            await asyncio.sleep(0)


async def test_the_next_attempts_are_written_down_while_one_is_under_way(fast, tmp_path):
    house = House(tmp_path)
    await house.open(10)
    house.courier.gate.set()
    await house.sent(2)
    house.courier.gate.clear()
    await begun(house, 6)
    assert len(house.courier.sent) < 6
    house.courier.gate.set()
    await house.sent(10)
    await house.scheduler.stop(5.0)
    assert sorted(house.spool.begun) == sorted(claim.id for claim in house.courier.sent)
    await house.spool.close()


async def test_under_exchanges_limit_each_is_written_down_in_its_turn(fast, tmp_path):
    house = House(tmp_path, messages_per_minute=30)
    await house.open(10)
    assert len(house.spool.begun) <= 1
    house.courier.gate.set()
    await house.sent(10)
    await house.scheduler.stop(5.0)
    await house.spool.close()


async def test_a_slow_lane_claims_one_ahead_and_writes_none_down(tmp_path):
    house = House(tmp_path)
    await house.open(10)
    await house.active(2)
    assert len(house.spool.begun) <= 1
    house.courier.gate.set()
    await house.sent(10)
    await house.scheduler.stop(5.0)
    await house.spool.close()


async def test_a_lost_connection_gives_back_what_was_written_down(fast, tmp_path):
    house = House(tmp_path)
    lost = Report({"anna@example.net": LOST}, LOST)
    answers = iter([SENT, lost])
    house.courier.answer = lambda claim: next(answers, SENT)
    await house.open(10)
    house.courier.gate.set()
    await house.sent(10)
    await house.scheduler.stop(5.0)
    assert len({claim.id for claim in house.courier.sent}) == len(house.courier.sent) == 10
    assert len(house.courier.opened) == 2
    assert (await house.spool.stats()).messages == 0
    await house.spool.close()


async def test_what_a_stop_finds_written_down_is_not_uncertain(fast, tmp_path):
    house = House(tmp_path)
    await house.open(10)
    house.courier.gate.set()
    await house.sent(1)
    house.courier.gate.clear()
    await begun(house, 5)
    stopping = asyncio.ensure_future(house.scheduler.stop(5.0))
    await asyncio.sleep(0)
    house.courier.gate.set()
    await stopping
    assert (await house.spool.recover()).uncertain == ()
    assert (await house.spool.lane(LANE)).queued == 10 - len(house.courier.sent)
    await house.spool.close()


async def test_connections_without_mail_lend_their_attempts_to_the_one_that_has_it(fast, tmp_path):
    """Mail of one source to one recipient keeps to one connection; the bound for all of them together stays."""
    house = House(tmp_path, connections=2)
    await house.open(60)
    house.courier.gate.set()
    await house.sent(5)
    house.courier.gate.clear()
    lane_ = house.scheduler.lanes[LANE]
    async with asyncio.timeout(10):
        while lane_.begun_ahead < 8:
            await asyncio.sleep(0)
    assert (lane_.connected, lane_.carrying, lane_.begun_ahead) == (2, 1, 8)
    house.courier.gate.set()
    await house.sent(60)
    await house.scheduler.stop(5.0)
    assert lane_.begun_ahead == 0
    assert [claim.id for claim in house.courier.sent] == sorted(claim.id for claim in house.courier.sent)
    await house.spool.close()


async def test_at_the_end_of_a_batch_another_connection_goes_on_with_what_is_written_down(fast, tmp_path):
    """Each attempt is written down once, in its order, and none is taken back for the change of connections."""
    house = House(tmp_path, batch=10, connections=2)
    await house.open(40)
    lane_ = house.scheduler.lanes[LANE]
    async with asyncio.timeout(10):
        while not lane_.spare:
            await asyncio.sleep(0)
    house.courier.gate.set()
    await house.sent(9)
    house.courier.gate.clear()
    await begun(house, 12)  # this connection takes one more at most
    house.courier.gate.set()
    await house.sent(40)
    await house.scheduler.stop(5.0)
    sent = [claim.id for claim in house.courier.sent]
    assert sent == sorted(sent) == house.spool.begun
    assert (house.spool.returned, lane_.begun_ahead) == ([], 0)
    assert len(house.courier.opened) >= 4
    await house.spool.close()
