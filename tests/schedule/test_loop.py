"""The scheduler with a real spool and a courier that answers as told."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from relay.clock import SystemClock
from relay.message import Outcome, Reply, Report, Result, Scope
from relay.schedule import holds, lane
from relay.schedule.loop import Scheduler
from relay.spool.contract import Filter
from relay.spool.sqlite import SqliteSpool
from tests.fakes.courier import SENT, FakeCourier
from tests.fakes.post import FakePost
from tests.fakes.settings import LIMITS, settings, upstream
from tests.fakes.spool import LANE, OTHER, accept, new_message, spool_settings

WRONG_SECRET = Outcome(
    Result.HELD, Scope.UPSTREAM, reason="The client secret is wrong", remedy="Paste it", code="secret"
)
UNREACHABLE = Outcome(
    Result.DEFERRED, Scope.UPSTREAM, reason="Nobody answers", remedy="Open port 587", counts=False
)
FULL = Outcome(
    Result.HELD, Scope.LANE, Reply(554, "5.2.2", "mailbox full"), "The mailbox is full", code="mailbox-full"
)
DENIED = Outcome(
    Result.HELD,
    Scope.SENDER,
    Reply(554, "5.2.252", "SendAsDenied"),
    "Send As is denied",
    code="send-as-denied",
)


class House:
    def __init__(self, folder, **limits: object) -> None:
        changed = upstream(limits=dataclasses.replace(LIMITS, **limits))
        self.settings = settings(folder, upstreams=(changed,))
        self.spool = SqliteSpool(spool_settings(folder))
        self.courier = FakeCourier()
        self.scheduler = Scheduler(
            self.spool,
            self.courier,
            self.settings,
            SystemClock(),
            lambda claim: claim.header_from[0],
            FakePost(),
        )

    async def start(self) -> None:
        await self.spool.open()
        await self.spool.recover()
        await self.scheduler.start()

    async def stop(self) -> None:
        await self.scheduler.stop(5.0)
        await self.spool.close()

    async def sent(self, count: int) -> None:
        await self.courier.until(lambda: len(self.courier.sent) >= count)

    async def quiet(self) -> None:
        """Until nothing is unfinished in the spool."""
        async with asyncio.timeout(10):
            while (await self.spool.stats()).messages:
                await asyncio.sleep(0)

    async def shows(self, state: str, count: int = 1):
        """Until ``count`` messages are in that state; their views."""
        async with asyncio.timeout(10):
            while len(found := await self.spool.find(Filter(state=state))) != count:
                await asyncio.sleep(0)
        return found


@pytest.fixture
async def house(tmp_path, monkeypatch):
    monkeypatch.setattr(lane, "RECONNECT", (0.02,))
    made: list[House] = []

    async def build(**limits: object) -> House:
        one = House(tmp_path, **limits)
        made.append(one)
        await one.start()
        return one

    yield build
    for one in made:
        await one.stop()


async def test_new_mail_is_delivered_and_settled(house):
    h = await house()
    await accept(h.spool)
    await h.sent(1)
    await h.quiet()


async def test_mail_from_before_a_restart_is_delivered(tmp_path):
    spool = SqliteSpool(spool_settings(tmp_path))
    await spool.open()
    for _ in range(3):
        await accept(spool)
    await spool.close()
    h = House(tmp_path)
    await h.start()
    await h.sent(3)
    await h.stop()


async def test_never_more_than_one_handshake_per_batch(house):
    h = await house()
    h.courier.gate.clear()
    for _ in range(300):
        await accept(h.spool)
    h.courier.gate.set()
    await h.sent(300)
    assert len(h.courier.opened) <= 10


async def test_never_more_connections_than_the_mailbox_allows(house):
    h = await house(connections=3)
    h.courier.gate.clear()
    for _ in range(400):
        await accept(h.spool)
    await h.courier.until(lambda: h.courier.open_now == 3)
    h.courier.gate.set()
    await h.sent(400)
    assert h.courier.most_open == 3


async def test_the_limit_of_a_minute_is_kept(house):
    h = await house(messages_per_minute=5)
    for _ in range(20):
        await accept(h.spool)
    await h.sent(5)
    await h.shows("queued", 15)
    assert len(h.courier.sent) == 5


async def test_a_message_of_many_recipients_waits_until_all_its_parts_fit(house):
    h = await house(messages_per_minute=30, recipients_per_message=2)
    for _ in range(28):
        await accept(h.spool, source="small")
    await h.sent(28)
    await accept(h.spool, source="big", recipients=tuple(f"r{n}@x.example" for n in range(6)))
    (view,) = await h.shows("queued")
    lane = h.scheduler.lanes[LANE]
    async with asyncio.timeout(5):
        while lane.need.messages != 3:
            await asyncio.sleep(0)
    assert view.attempts == 0
    assert len(h.courier.sent) == 28


async def test_the_limit_of_a_minute_is_kept_over_a_restart(tmp_path):
    first = House(tmp_path, messages_per_minute=5)
    await first.start()
    for _ in range(10):
        await accept(first.spool)
    await first.sent(5)
    await first.stop()
    second = House(tmp_path, messages_per_minute=5)
    await second.start()
    runner = second.scheduler.lanes[LANE]
    async with asyncio.timeout(10):
        while runner.limiter.sent_last_minute(SystemClock().now()) < 5:
            await asyncio.sleep(0)
    assert second.courier.sent == []
    await second.stop()


async def test_a_quiet_source_is_next_however_long_anothers_list_is(house):
    h = await house(connections=1, messages_per_minute=40)
    for _ in range(200):
        await accept(h.spool, source="mailing")
    await h.sent(40)
    await accept(h.spool, source="scanner")
    assert [one.source for one in await h.spool.claim(LANE, 2, SystemClock().now())] == ["scanner", "mailing"]


async def test_unreachable_means_waiting_in_the_queue_without_a_count(house):
    h = await house()
    h.courier.refuse = UNREACHABLE
    await accept(h.spool)
    await h.courier.until(lambda: h.courier.tries >= 3)
    assert h.scheduler.lanes[LANE].state() == "slowed"
    h.courier.refuse = None
    await h.sent(1)
    assert h.courier.sent[0].attempts == 0
    await h.quiet()


async def test_a_wrong_secret_holds_the_upstream_and_a_reload_tries_at_once(house):
    h = await house()
    h.courier.refuse = WRONG_SECRET
    for name in (LANE, OTHER):
        await accept(h.spool, lane=name)
    views = await h.shows("held", 2)
    assert {(one.reason, one.remedy) for one in views} == {("The client secret is wrong", "Paste it")}
    assert [(one.scope, one.key) for one in await h.spool.holds()] == [("upstream", "Microsoft 365")]
    h.courier.refuse = None
    await h.scheduler.reload(h.settings)
    await h.sent(2)
    await h.quiet()
    assert await h.spool.holds() == []


async def test_a_hold_is_probed_by_itself_ever_more_seldom(house, monkeypatch):
    monkeypatch.setattr(holds, "PROBES", (0.02,))
    h = await house()
    h.courier.refuse = WRONG_SECRET
    await accept(h.spool)
    await h.courier.until(lambda: h.courier.tries >= 4)
    assert h.scheduler.lanes[LANE].the_hold().probes >= 2
    h.courier.refuse = None
    await h.sent(1)


async def test_a_hold_from_before_a_restart_is_known_and_tried(tmp_path):
    first = House(tmp_path)
    first.courier.refuse = WRONG_SECRET
    await first.start()
    await accept(first.spool)
    await first.shows("held")
    await first.stop()
    second = House(tmp_path)
    await second.start()
    await second.sent(1)
    await second.stop()


async def test_a_full_mailbox_holds_its_lane_and_no_other(house):
    h = await house()
    h.courier.answer = lambda claim: Report({"anna@example.net": FULL}, FULL) if claim.lane == LANE else SENT
    await accept(h.spool)
    await accept(h.spool)
    await accept(h.spool, lane=OTHER)
    await h.sent(1)
    views = await h.shows("held", 2)
    assert {one.lane for one in views} == {LANE}
    assert {one.attempts for one in views} == {0}
    h.courier.answer = lambda claim: SENT
    await h.spool.operate("release", Filter(lane=LANE), SystemClock().now())
    await h.scheduler.refresh([LANE])
    await h.sent(3)


async def test_the_only_message_of_a_held_lane_is_the_one_to_try(house, monkeypatch):
    monkeypatch.setattr(holds, "PROBES", (0.02,))
    h = await house()
    h.courier.answer = lambda claim: Report({"anna@example.net": FULL}, FULL)
    await accept(h.spool)
    await h.shows("held", 1)
    await h.courier.until(lambda: h.scheduler.lanes[LANE].the_hold().probes >= 2)
    h.courier.answer = lambda claim: SENT
    await h.sent(1)


async def test_a_probe_sends_one_message_and_then_the_rest(house, monkeypatch):
    h = await house()
    h.courier.answer = lambda claim: Report({"anna@example.net": FULL}, FULL)
    for _ in range(5):
        await accept(h.spool)
    await h.shows("held", 5)
    tries = h.courier.tries
    h.courier.answer = lambda claim: SENT
    await h.scheduler.reload(h.settings)
    await h.sent(5)
    assert h.courier.tries == tries + 1


async def test_a_denied_sender_is_held_alone(house):
    h = await house()
    h.courier.answer = lambda claim: (
        Report({"anna@example.net": DENIED}, DENIED) if claim.header_from == ("bad@l",) else SENT
    )
    await accept(h.spool, header_from=("bad@l",))
    await h.shows("held")
    await accept(h.spool, header_from=("good@l",))
    await h.sent(1)
    tries_of_bad = [one for one in h.courier.sent if one.header_from == ("bad@l",)]
    assert tries_of_bad == []
    await accept(h.spool, header_from=("bad@l",))
    await h.shows("held", 2)
    h.courier.answer = lambda claim: SENT
    await h.scheduler.reload(h.settings)
    await h.sent(3)


async def test_a_message_of_another_lane_by_todays_rules_moves_there(house):
    h = await house()
    h.courier.answer = lambda claim: Report({}, moved_to=OTHER) if claim.lane == LANE else SENT
    await accept(h.spool)
    await h.sent(1)
    assert h.courier.sent[0].lane == OTHER


async def test_an_unexpected_error_defers_the_message_and_spares_the_lane(house):
    h = await house()

    def answer(claim):
        if claim.source == "poison":
            raise RuntimeError("boom")
        return SENT

    h.courier.answer = answer
    await accept(h.spool, source="poison")
    await accept(h.spool, source="fine")
    await h.sent(1)
    (view,) = await h.shows("deferred")
    assert "unexpected error" in view.reason


async def test_stop_finishes_what_is_under_way_and_gives_back_the_rest(tmp_path):
    h = House(tmp_path)
    await h.start()
    h.courier.gate.clear()
    for _ in range(50):
        await accept(h.spool, message=new_message())
    await h.courier.until(lambda: h.courier.open_now > 0)
    stopping = asyncio.ensure_future(h.scheduler.stop(5.0))
    await asyncio.sleep(0)
    h.courier.gate.set()
    await stopping
    counts = (await h.spool.lane(LANE)).active
    assert counts == 0
    assert (await h.spool.stats()).messages == 50 - len(h.courier.sent)
    await h.spool.close()
