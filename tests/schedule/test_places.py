"""So many connections at once, over all lanes: whoever has no mail makes room for who has."""

from __future__ import annotations

import pytest

from relay.clock import SystemClock
from relay.schedule import carrier, loop
from relay.schedule.loop import Scheduler
from relay.spool.contract import lane_name
from relay.spool.sqlite import SqliteSpool
from tests.fakes.courier import FakeCourier
from tests.fakes.post import FakePost
from tests.fakes.settings import settings
from tests.fakes.spool import LANE, OTHER, accept, spool_settings


@pytest.fixture
async def crowded(tmp_path, monkeypatch):
    """A scheduler that may have two connections at once, and its spool and courier."""
    monkeypatch.setattr(loop, "_CONNECTIONS", 2)
    monkeypatch.setattr(carrier, "_IDLE_CHECK", 0.01)
    spool, courier = SqliteSpool(spool_settings(tmp_path)), FakeCourier()
    await spool.open()
    scheduler = Scheduler(
        spool, courier, settings(tmp_path), SystemClock(), lambda claim: claim.header_from[0], FakePost()
    )
    await scheduler.start()
    yield spool, courier
    await scheduler.stop(5.0)
    await spool.close()


async def test_idle_connections_make_room_for_lanes_that_have_mail(crowded):
    spool, courier = crowded
    lanes = [LANE, OTHER, *(lane_name("Microsoft 365", f"box{n}@contoso.com") for n in range(6))]
    for lane in lanes:
        await accept(spool, lane=lane)
    await courier.until(lambda: len(courier.sent) == len(lanes))
    assert {claim.lane for claim in courier.sent} == set(lanes)
    assert courier.most_open == 2


async def test_a_connection_rests_while_nobody_wants_its_place(crowded):
    spool, courier = crowded
    for count in range(1, 4):
        await accept(spool, lane=LANE)
        await courier.until(lambda count=count: len(courier.sent) == count)
    assert courier.tries == 1
