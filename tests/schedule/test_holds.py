"""Holds of single messages, of lanes without mail, and of what the configuration does not use any more."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from relay.clock import SystemClock
from relay.message import Outcome, Reply, Report, Result, Scope
from relay.schedule import holds
from relay.spool.contract import Filter, Hold
from tests.fakes.courier import SENT
from tests.fakes.spool import LANE, OTHER, accept
from tests.schedule.test_faults import POLICY
from tests.schedule.test_loop import DENIED, FULL, WRONG_SECRET, House, house

__all__ = ["house"]

PERSON = "anna@example.net"
KEY = f"{LANE}|message-policy 5.7.1"
AWAY = Outcome(Result.HELD, Scope.RECIPIENT, Reply(550, "5.7.9", "no"), "A policy", "Look", "rcpt-policy")


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setattr(holds, "PROBES", (0.02,))


async def eventually(condition) -> None:
    async with asyncio.timeout(10):
        while not await condition():
            await asyncio.sleep(0)


async def scopes(h: House) -> list[tuple[str, str]]:
    return [(one.scope, one.key) for one in await h.spool.holds()]


async def test_a_held_message_makes_a_hold_of_its_cause_told_once(house):
    h = await house()
    h.courier.answer = lambda claim: POLICY if claim.source == "bad" else SENT
    await accept(h.spool, source="bad")
    await h.shows("held")
    (hold,) = h.scheduler.holds.all()
    assert (hold.scope, hold.key, hold.evidence) == (
        "message",
        KEY,
        "550 5.7.1 TRANSPORT.RULES.RejectMessage",
    )
    await accept(h.spool, source="good")  # sent in between: the next refusal says nothing about the mailbox
    await h.sent(1)
    await accept(h.spool, source="bad")
    await h.shows("held", 2)
    assert [one.key for one in h.scheduler.holds.all()] == [KEY]
    assert h.scheduler.lanes[LANE].state() == "open"


async def test_held_messages_are_probed_one_by_one_and_go_when_mended(house, often):
    h = await house(connections=1)
    h.courier.answer = lambda claim: POLICY if claim.source.startswith("bad") else SENT
    for number in range(3):
        await accept(h.spool, source=f"bad {number}")
        await accept(h.spool, source=f"good {number}")
        await h.sent(number + 1)
    await eventually(lambda: _probed(h, 3))
    assert h.scheduler.lanes[LANE].the_hold() is None
    h.courier.answer = lambda claim: SENT
    await h.sent(6)
    await h.quiet()
    await eventually(lambda: _no_holds(h))


async def test_a_held_recipient_is_probed_and_goes_when_mended(house, often):
    h = await house()
    h.courier.answer = lambda claim: Report(
        {one.address: AWAY if one.address.startswith("away") else SENT for one in claim.envelope.recipients}
    )
    await accept(h.spool, recipients=("away@x.example", PERSON))
    await eventually(lambda: _probed(h, 2))
    h.courier.answer = lambda claim: SENT
    await h.quiet()
    assert [one.address for one in h.courier.sent[-1].envelope.recipients] == ["away@x.example"]
    await eventually(lambda: _no_holds(h))


async def test_mending_the_lane_releases_the_messages_held_for_the_same_cause(house):
    h = await house()
    h.courier.answer = lambda claim: POLICY
    await accept(h.spool, source="first")
    await h.shows("held")
    await accept(h.spool, source="second")
    await eventually(lambda: _is_held(h))
    h.courier.answer = lambda claim: SENT
    await h.scheduler.refresh([], probe_now=True)
    await h.sent(2)
    await h.quiet()
    await eventually(lambda: _no_holds(h))


async def test_a_held_lane_is_tried_with_mail_that_nobody_suspects(house, often):
    h = await house(connections=1)
    h.courier.answer = lambda claim: POLICY
    for number in range(4):
        await accept(h.spool, source=f"bad {number}")
    await eventually(lambda: _is_held(h))
    h.courier.answer = lambda claim: POLICY if claim.source.startswith("bad") else SENT
    await accept(h.spool, source="good")
    await h.sent(1)


async def test_a_message_tried_once_more_says_nothing_about_its_mailbox(house, often):
    h = await house(connections=1)
    h.courier.answer = lambda claim: POLICY if claim.source.startswith("bad") else SENT
    await accept(h.spool, source="bad 1")
    await accept(h.spool, source="good")
    await h.sent(1)
    await accept(h.spool, source="bad 2")
    await eventually(lambda: _probed(h, 6))
    assert h.scheduler.lanes[LANE].the_hold() is None


async def test_what_our_own_rules_refuse_is_tried_at_a_reload_only(house, often):
    h = await house()
    refused = dataclasses.replace(POLICY, code="sender-refused")
    h.courier.answer = lambda claim: refused
    await accept(h.spool)
    await h.shows("held")
    (hold,) = h.scheduler.holds.all()
    assert hold.next_probe is None
    h.courier.answer = lambda claim: SENT
    await h.scheduler.reload(h.settings)
    await h.sent(1)
    await eventually(lambda: _no_holds(h))


async def test_a_hold_whose_messages_are_gone_is_dropped(house, often):
    h = await house()
    h.courier.answer = lambda claim: POLICY
    message = await accept(h.spool)
    await h.shows("held")
    while (await h.spool.operate("delete", Filter(ids=(message,)), h.spool.now())).changed == 0:
        await asyncio.sleep(0)  # it was being tried
    await eventually(lambda: _no_holds(h))


async def test_a_login_is_tried_after_a_restart_although_no_mail_waits(house, tmp_path):
    first = House(tmp_path)
    first.courier.refuse = WRONG_SECRET
    await first.start()
    message = await accept(first.spool)
    await first.shows("held")
    await first.spool.operate("delete", Filter(ids=(message,)), first.spool.now())
    await first.stop()
    second = await house()
    await eventually(lambda: _no_holds(second))
    assert second.courier.opened == ["notifications@contoso.com"]


async def test_a_hold_that_only_mail_could_try_is_dropped_for_want_of_it(house, monkeypatch):
    monkeypatch.setattr(holds, "_UNTRIED", 0.05)
    h = await house()
    await h.spool.hold(Hold("lane", LANE, "mailbox-full", "full", "", "", h.spool.now()))
    await h.scheduler.refresh([], probe_now=True)
    await eventually(lambda: _no_holds(h))
    assert h.courier.tries == 0


async def test_it_is_not_dropped_while_mail_waits(house, monkeypatch):
    monkeypatch.setattr(holds, "_UNTRIED", 0.0)
    h = await house()
    h.courier.answer = lambda claim: Report({PERSON: FULL}, FULL)
    await accept(h.spool)
    await h.shows("held")
    await h.scheduler.refresh([LANE], probe_now=True)
    await eventually(lambda: _probes_of(h, 1))
    assert (await scopes(h)) == [("lane", LANE)]


async def test_holds_and_lanes_that_nothing_uses_are_forgotten(house):
    h = await house()
    gone = "Microsoft 365/gone@contoso.com"
    now = h.spool.now()
    for scope, key in (
        ("upstream", "Old tenant"),
        ("lane", gone),
        ("lane", "Old tenant/x@y"),
        ("lane", LANE),
    ):
        await h.spool.hold(Hold(scope, key, "x", "r", "", "", now, next_probe=now + 900))
    await h.scheduler.refresh([gone])
    await h.scheduler.drop_unused(lambda lane: lane in (LANE, OTHER))
    await eventually(lambda: _only_lane(h))
    async with asyncio.timeout(10):
        while gone in h.scheduler.lanes:
            await asyncio.sleep(0)
    await accept(h.spool, lane=gone)  # accepted by the rules of before: it leaves all the same
    await h.sent(1)


async def test_a_mailbox_whose_mail_no_rule_takes_keeps_its_hold(house):
    h = await house()
    await h.spool.hold(Hold("lane", LANE, "x", "r", "", "", h.spool.now(), next_probe=h.spool.now() + 900))
    await h.scheduler.refresh([LANE])
    await accept(h.spool)
    await h.scheduler.drop_unused(lambda lane: False)
    assert await scopes(h) == [("lane", LANE)]


async def test_a_reload_tries_one_message_of_a_denied_sender_before_the_rest(house):
    h = await house()
    h.courier.answer = lambda claim: Report({PERSON: DENIED}, DENIED)
    for _ in range(3):
        await accept(h.spool)
    await h.shows("held", 3)
    before = len(h.courier.tried)
    await h.scheduler.reload(h.settings)
    await h.courier.until(lambda: len(h.courier.tried) > before)
    await h.shows("held", 3)
    assert len(h.courier.tried) == before + 1
    h.courier.answer = lambda claim: SENT
    await h.scheduler.reload(h.settings)
    await h.sent(3)


async def test_a_message_the_operator_releases_may_show_that_its_sender_is_mended(house):
    h = await house()
    h.courier.answer = lambda claim: Report({PERSON: DENIED}, DENIED)
    first, _ = await accept(h.spool), await accept(h.spool)
    await h.shows("held", 2)
    h.courier.answer = lambda claim: SENT
    await h.spool.operate("release", Filter(ids=(first,)), SystemClock().now())
    await h.scheduler.refresh([LANE])
    await h.sent(2)
    await eventually(lambda: _no_holds(h))


async def _probed(h: House, times: int) -> bool:
    return any(one.probes >= times for one in h.scheduler.holds.all())


async def _no_holds(h: House) -> bool:
    return await h.spool.holds() == [] and h.scheduler.holds.all() == []


async def _is_held(h: House) -> bool:
    return h.scheduler.lanes[LANE].the_hold() is not None


async def _probes_of(h: House, times: int) -> bool:
    return any(one.probes >= times for one in await h.spool.holds())


async def _only_lane(h: House) -> bool:
    return await scopes(h) == [("lane", LANE)]


async def test_one_lane_tries_for_its_upstream_whatever_connections_of_others_do(house):
    h = await house()
    h.courier.gate.clear()
    for name in (LANE, OTHER):
        h.scheduler.kick(name)
    trying, other = h.scheduler.lanes[LANE], h.scheduler.lanes[OTHER]
    assert trying.upstream is other.upstream
    now = h.spool.now()
    await h.spool.hold(Hold("upstream", trying.upstream.name, "c", "why", "how", "", now, next_probe=now - 1))
    await h.scheduler.holds.load(probe_now=False)
    assert await h.scheduler.holds.may_probe(trying)
    h.scheduler.holds.probed(other)
    assert not h.scheduler.holds.probe_due(other, now + 1e6)
    other.wake.clear()
    h.scheduler.holds.probed(trying)
    assert other.wake.is_set()
    assert h.scheduler.holds.probe_due(other, now + 1e6)


async def test_a_denied_senders_claimed_mail_is_not_tried_again_and_again(house):
    """Exchange throttles a mailbox that repeats an error, and the next try must not come later for it."""
    h = await house(connections=1)
    h.courier.gate.clear()
    h.courier.answer = lambda claim: Report({PERSON: DENIED}, DENIED)
    for number in range(5):
        await accept(h.spool, source=str(number))
    await h.courier.until(lambda: h.courier.under_way == 1)
    h.courier.gate.set()
    await h.shows("held", 5)
    assert len(h.courier.tried) <= 2
    (hold,) = h.scheduler.holds.all()
    assert hold.probes == 0


async def test_what_several_lanes_meet_at_once_is_one_refusal(house):
    """All lanes of an upstream find the secret wrong in the same moment: the first try stays a minute away."""
    h = await house()
    names = [f"Microsoft 365/{number}@contoso.com" for number in range(8)]
    for name in names:
        h.scheduler.kick(name)
    for name in names:
        await h.scheduler.holds.impose(h.scheduler.lanes[name], WRONG_SECRET, at_login=True)
    (hold,) = h.scheduler.holds.all()
    assert hold.probes == 0
    assert hold.next_probe is not None and hold.next_probe < h.spool.now() + 70
    trying = h.scheduler.lanes[names[0]]
    assert await h.scheduler.holds.may_probe(trying)
    await h.scheduler.holds.impose(trying, WRONG_SECRET, at_login=True)
    assert h.scheduler.holds.all()[0].probes == 1
