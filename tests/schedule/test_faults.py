"""The scheduler when something else fails: the spool, the disk, one message, one sender, a hasty Exchange."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from relay import events
from relay.errors import SpoolBusy
from relay.message import Outcome, Reply, Report, Result, Scope
from relay.schedule import carrier, holds, loop, outlook
from relay.spool.contract import Filter
from tests.fakes.courier import SENT
from tests.fakes.spool import LANE, accept
from tests.schedule.test_loop import DENIED, FULL, House, house

__all__ = ["house"]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Try again at once what the spool refused."""
    monkeypatch.setattr(loop, "_AGAIN", 0.01)
    monkeypatch.setattr(holds, "_AGAIN", 0.01)
    monkeypatch.setattr(carrier, "_SPOOL_AGAIN", (0.01,))


class Failing:
    """Makes one method of a spool fail so many times."""

    def __init__(self, spool, name: str, times: int) -> None:
        self._right = getattr(spool, name)
        self.left = times
        setattr(spool, name, self)

    async def __call__(self, *words, **more):
        if self.left:
            self.left -= 1
            raise SpoolBusy("locked by another process")
        return await self._right(*words, **more)


@pytest.mark.parametrize(
    "method", ["unclaim", "claim", "lane", "begin", "settle", "content", "hold", "unhold", "usage"]
)
async def test_a_spool_that_fails_for_a_while_loses_and_strands_nothing(house, method):
    h = await house(connections=1)
    failing = Failing(h.spool, method, 3)
    h.courier.answer = lambda claim: Report({"anna@example.net": FULL}, FULL)
    for number in range(5):
        await accept(h.spool, source=str(number))
    if method != "unhold":
        await h.courier.until(lambda: failing.left == 0 or len(h.courier.opened) > 0)
    h.courier.answer = lambda claim: SENT
    async with asyncio.timeout(10):
        while len(h.courier.sent) < 5:
            await h.spool.operate("retry", Filter(), h.spool.now())
            await h.scheduler.reload(h.settings)
            await asyncio.sleep(0)
    await h.quiet()
    assert len({one.id for one in h.courier.sent}) == 5


@pytest.mark.parametrize("method", ["unclaim", "claim", "lane", "usage"])
async def test_a_lane_goes_on_by_itself_after_a_spool_that_failed(house, method):
    """Nobody kicks it: no new mail comes, no operator, no reload."""
    h = await house()
    failing = Failing(h.spool, method, 0)
    later = dataclasses.replace(SENT, result=Result.DEFERRED, wait=0.5, counts=False)
    h.courier.answer = lambda claim: later if len(h.courier.tried) <= 1 else SENT
    failing.left = 2
    await accept(h.spool)
    await h.sent(1)
    await h.quiet()


@pytest.mark.parametrize("method", ["begin", "content"])
@pytest.mark.parametrize("back", [True, False], ids=["back at once", "away for a while"])
async def test_a_source_keeps_its_order_over_a_spool_that_fails_under_way(house, method, back):
    h = await house(connections=2)
    sent = [await accept(h.spool) for _ in range(6)]
    await h.courier.until(lambda: len(h.courier.sent) == 6)
    failing = [Failing(h.spool, method, 1), *([] if back else [Failing(h.spool, "unclaim", 3)])]
    sent += [await accept(h.spool) for _ in range(6)]
    await h.courier.until(lambda: len(h.courier.sent) == 12)
    assert [one.id for one in h.courier.sent] == sent
    assert not any(one.left for one in failing)


async def test_a_message_that_the_spool_always_fails_at_keeps_no_other_waiting(house):
    h = await house(connections=1)
    right = h.spool.content
    bad = await accept(h.spool, source="bad")

    async def content(message_id):
        if message_id == bad:
            raise SpoolBusy("its page cannot be read")
        return await right(message_id)

    h.spool.content = content
    good = [await accept(h.spool, source="good") for _ in range(4)]
    await h.courier.until(lambda: len(h.courier.sent) == 4)
    assert [one.id for one in h.courier.sent] == good


async def test_a_hold_that_could_not_be_written_is_in_force_and_written_later(house):
    h = await house()
    failing = Failing(h.spool, "hold", 2)
    h.courier.answer = lambda claim: Report({"anna@example.net": FULL}, FULL)
    await accept(h.spool)
    await h.shows("held")
    assert failing.left == 0
    assert h.scheduler.lanes[LANE].state() == "held"
    await accept(h.spool)  # of the same source to the same recipient: it is not blocked afterwards
    h.courier.answer = lambda claim: SENT
    await h.scheduler.reload(h.settings)
    await h.sent(2)


async def test_outcomes_that_wait_for_a_full_disk_are_told_once_and_once_when_written(house, monkeypatch):
    monkeypatch.setattr(carrier, "_SPOOL_AGAIN", (0.01,))
    told: list[tuple[str, str]] = []
    monkeypatch.setattr(events, "trouble", lambda **fields: told.append(("trouble", fields["what"])))
    monkeypatch.setattr(events, "notice", lambda **fields: told.append(("notice", fields["what"])))
    h = await house()
    failing = Failing(h.spool, "settle", 40)
    for _ in range(5):
        await accept(h.spool)
    await h.sent(5)
    await h.quiet()
    assert failing.left == 0
    async with asyncio.timeout(10):
        while len(told) < 2:
            await asyncio.sleep(0)
    assert told == [
        ("trouble", "outcomes wait to be written: locked by another process"),
        ("notice", "the spool has taken the outcomes that waited"),
    ]


POLICY = Outcome(
    Result.HELD,
    Scope.MESSAGE,
    Reply(550, "5.7.1", "TRANSPORT.RULES.RejectMessage"),
    "A policy refused it",
    code="message-policy",
)


async def test_one_refused_message_spares_the_mailbox(house):
    h = await house()
    h.courier.answer = lambda claim: POLICY if claim.source == "bad" else SENT
    await accept(h.spool, source="bad")
    (view,) = await h.shows("held")
    await accept(h.spool, source="good")
    await h.sent(1)
    assert h.scheduler.lanes[LANE].the_hold() is None
    assert view.reason == "A policy refused it"


async def test_a_second_message_with_the_same_refusal_holds_the_mailbox(house):
    h = await house()
    h.courier.answer = lambda claim: POLICY
    await accept(h.spool, source="bad")
    await h.shows("held")
    await accept(h.spool, source="worse")
    async with asyncio.timeout(5):
        while h.scheduler.lanes[LANE].the_hold() is None:
            await asyncio.sleep(0)
    assert h.scheduler.lanes[LANE].the_hold().code == "message-policy"


async def test_a_probe_that_fails_lets_another_message_be_the_next(house):
    h = await house()
    h.courier.answer = lambda claim: Report({"anna@example.net": FULL}, FULL)
    await accept(h.spool, source="stubborn")
    await accept(h.spool, source="fine")
    await h.shows("held", 2)
    h.courier.answer = lambda claim: (
        Report({"anna@example.net": FULL}, FULL) if claim.source == "stubborn" else SENT
    )
    async with asyncio.timeout(10):
        while not h.courier.sent:
            await h.scheduler.reload(h.settings)
            await asyncio.sleep(0)
    assert h.courier.sent[0].source == "fine"


def held_senders(h: House):
    return h.scheduler.lanes[LANE].held_senders


async def test_a_denied_sender_is_tried_again_by_itself(house, monkeypatch):
    monkeypatch.setattr(holds, "PROBES", (0.02,))
    h = await house()
    h.courier.answer = lambda claim: Report({"anna@example.net": DENIED}, DENIED)
    for _ in range(3):
        await accept(h.spool)
    await h.courier.until(lambda: any(one.probes >= 2 for one in held_senders(h).values()))
    h.courier.answer = lambda claim: SENT
    await h.sent(3)


async def test_a_denied_sender_is_tried_after_a_restart(tmp_path):
    first = House(tmp_path)
    first.courier.answer = lambda claim: Report({"anna@example.net": DENIED}, DENIED)
    await first.start()
    await accept(first.spool)
    await first.shows("held")
    await first.stop()
    second = House(tmp_path)
    await second.start()
    await second.sent(1)
    await second.stop()


async def queued(h: House) -> int:
    return len(await h.spool.find(Filter(state="queued")))


async def test_a_throttling_reply_stops_the_lane_for_its_time_and_slows_it_once(house):
    slow = Outcome(
        Result.DEFERRED,
        Scope.LANE,
        Reply(421, "4.4.2", "too fast"),
        "too fast",
        wait=60.0,
        counts=False,
        slow=True,
    )
    h = await house(messages_per_minute=30)
    h.courier.answer = lambda claim: Report({"anna@example.net": slow}, slow)
    for number in range(20):
        await accept(h.spool, source=str(number))
    async with asyncio.timeout(10):
        while len(tried := await h.spool.find(Filter(state="deferred"))) + await queued(h) != 20 or not tried:
            await asyncio.sleep(0)
    assert h.scheduler.lanes[LANE].limiter.slowed
    assert len(h.courier.opened) <= 2
    assert h.scheduler.lanes[LANE].limiter.limit == 15
    assert {view.attempts for view in tried} == {0}


async def test_an_operators_hold_outlives_a_reload(house):
    h = await house()
    h.courier.gate.clear()
    await h.spool.hold(dataclasses.replace(_hold(), since=h.spool.now(), next_probe=h.spool.now() + 999))
    await h.scheduler.refresh([LANE])
    message_id = await accept(h.spool)
    await h.spool.operate("hold", Filter(ids=(message_id,)), h.spool.now())
    await h.spool.unhold("lane", LANE, h.spool.now())
    h.courier.gate.set()
    await h.scheduler.reload(h.settings)
    await accept(h.spool)
    await h.sent(1)
    (view,) = await h.shows("held")
    assert view.id == message_id


def _hold():
    from relay.spool.contract import Hold

    return Hold("lane", LANE, "x", "for the test", "", "", 0.0)


async def test_a_slow_exchange_costs_no_processor_time(house, monkeypatch):
    h = await house(connections=1)
    h.courier.gate.clear()
    for number in range(70):
        await accept(h.spool, source=str(number))
    await h.courier.until(lambda: h.courier.open_now == 1)
    lane = h.scheduler.lanes[LANE]
    looks = 0
    right = outlook.next_look

    def counted(*given):
        nonlocal looks
        looks += 1
        return right(*given)

    monkeypatch.setattr(outlook, "next_look", counted)
    lane.ready = type(lane.ready)(
        (when - 60, claim) for when, claim in lane.ready
    )  # they have waited a minute
    lane.wake.set()
    for _ in range(2000):
        await asyncio.sleep(0)
    assert looks <= 3
    h.courier.gate.set()
    await h.sent(70)


async def test_a_stop_ends_in_time_whatever_hangs(tmp_path):
    h = House(tmp_path)
    await h.start()
    h.courier.gate.clear()
    await accept(h.spool)
    await h.courier.until(lambda: h.courier.open_now == 1)
    Failing(h.spool, "unclaim", 1000)
    async with asyncio.timeout(5):
        await h.scheduler.stop(0.05)
    await h.spool.close()
