"""Several relays on one PostgreSQL spool: who works what, who is given up, and that nobody writes what is another's."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable

import pytest

from relay.errors import SpoolError, SpoolLost
from relay.report.budget import LIMIT
from relay.schedule.accounts import Accounts
from relay.schedule.limits import MailboxLimiter
from relay.spool import postgres_watch
from relay.spool.contract import Filter, Hold, News, Settlement, Taken
from relay.spool.postgres import PostgresSpool
from relay.spool.postgres_link import connect
from relay.spool.postgres_member import Member
from relay.spool.postgres_schema import LOCKS, OWNING, migrate
from relay.spool.postgres_watch import GONE, SILENT, Peers
from tests.fakes.settings import LIMITS
from tests.fakes.spool import FAILED, LANE, OTHER, SENT, accept, new_message, spool_settings
from tests.spool.postgres_kit import ask, make, server
from tests.spool.suite import claim_one, every, settle

__all__ = ["make", "server"]

THIRD = "Microsoft 365/third@contoso.com"


@pytest.fixture
def impatient(monkeypatch):
    """Replicas are missed after a second or two, not after fifteen."""
    monkeypatch.setattr(postgres_watch, "GONE", 0.5)
    monkeypatch.setattr(postgres_watch, "SILENT", 1.5)
    monkeypatch.setattr(postgres_watch, "_LOOK", 0.1)


def freeze(spool: PostgresSpool) -> None:
    """As SIGSTOP leaves it for the others: its sessions are alive, and silent."""
    spool._watch._look = lambda connection: None  # type: ignore[method-assign]


async def thaw(spool: PostgresSpool) -> None:
    """It goes on, and learns what happened; then it takes part anew."""
    del spool._watch._look  # type: ignore[attr-defined]
    await happens(lambda: spool._member.given_up)
    await spool.rejoin()


async def happens(condition: Callable[[], object], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


async def lanes_of(spool: PostgresSpool) -> set[str]:
    return {lane for lane, who in (await spool.workers()).items() if who.me}


async def given_up(spool: PostgresSpool, others: int) -> None:
    """Until only so many others take part."""
    async with asyncio.timeout(30):
        while len(await spool.replicas()) > others + 1:
            await asyncio.sleep(0.05)


def hears(spool: PostgresSpool) -> list[News]:
    heard: list[News] = []
    spool.listen(heard.append)
    return heard


# lanes


async def test_a_lane_is_worked_by_one_replica_at_a_time(make):
    one, two = await make(), await make()
    for _ in range(4):
        await accept(one)
    assert len(await one.claim(LANE, 2, make.clock.now())) == 2
    assert await two.take(LANE) is Taken.OTHERS
    assert await two.claim(LANE, 2, make.clock.now()) == []
    await one.let_go(LANE)
    assert await two.take(LANE) is Taken.MINE
    assert len(await two.claim(LANE, 5, make.clock.now())) == 2
    assert await one.claim(LANE, 5, make.clock.now()) == []


async def test_what_a_lane_has_used_goes_with_it(make):
    one, two = await make(), await make()
    await accept(one)
    claim = await claim_one(one, make.clock.now())
    await one.begin(claim.id, make.clock.now(), 7)
    await settle(one, claim, SENT, make.clock.now())
    await one.let_go(LANE)
    assert await two.take(LANE) is Taken.MINE
    used = await two.usage(LANE, make.clock.now())
    assert (len(used.stamps), sum(count for _, count in used.recipients_today)) == (1, 7)
    assert await two.sent_last_minute(make.clock.now()) == {LANE: 1}


async def test_free_lanes_are_left_to_those_with_fewer_and_a_newcomer_gets_its_share(make):
    one = await make()
    for n in range(5):
        assert await one.take(f"Microsoft 365/{n}@contoso.com") is Taken.MINE
    assert await one.surplus() == 0
    two = await make()
    assert (await one.surplus(), await two.surplus()) == (2, 0)
    assert await one.take(OTHER) is Taken.ENOUGH
    assert await two.take(OTHER) is Taken.MINE
    assert await one.take(THIRD) is Taken.ENOUGH
    assert await one.take(THIRD, anyway=True) is Taken.MINE, "nobody else came for it"


@pytest.mark.parametrize("count", [2, 3, 4])
async def test_shares_differ_by_one_at_most(make, count):
    spools = [await make() for _ in range(count)]
    for n in range(10):
        await spools[0].take(f"Microsoft 365/{n}@contoso.com", anyway=True)
    surplus = await spools[0].surplus()
    for lane in sorted(await lanes_of(spools[0]))[:surplus]:
        await spools[0].let_go(lane)
        assert Taken.MINE in [await one.take(lane) for one in spools[1:]]
    shares = [len(await lanes_of(one)) for one in spools]
    assert sum(shares) == 10
    assert max(shares) - min(shares) <= 1


async def test_a_replica_that_leaves_is_no_longer_counted_on(make):
    one, two = await make(), await make()
    await one.take(LANE)
    await two.take(OTHER)
    await one.leaving()
    assert await two.take(THIRD) is Taken.MINE
    assert [(who.state, who.lanes) for who in await two.replicas()] == [("leaving", 1), ("working", 2)]


async def test_a_task_is_done_by_one_and_goes_to_another_when_that_one_ends(make):
    one, two = await make(), await make()
    assert await one.on_duty("upkeep")
    assert not await two.on_duty("upkeep")
    assert await one.on_duty("upkeep")
    await one.close()
    make.opened.remove(one)
    assert await two.on_duty("upkeep")


# the lost


async def test_a_frozen_replica_is_given_up_and_can_write_nothing_of_what_it_had(make, impatient):
    frozen, other = await make(), await make()
    for _ in range(2):
        await accept(frozen)
    begun, claimed = await frozen.claim(LANE, 2, make.clock.now())
    await frozen.begin(begun.id, make.clock.now(), 1)
    await frozen.on_duty("upkeep")
    freeze(frozen)
    await given_up(other, 0)
    for attempt in (
        lambda: frozen.begin(claimed.id, make.clock.now(), 1),
        lambda: settle(frozen, begun, SENT, make.clock.now()),
        lambda: frozen.unclaim([claimed.id]),
        lambda: frozen.claim(LANE, 1, make.clock.now()),
        lambda: frozen.hold(Hold("lane", LANE, "c", "r", "m", "e", make.clock.now())),
        lambda: frozen.take(OTHER),
        lambda: frozen.on_duty("upkeep"),
    ):
        with pytest.raises(SpoolLost, match="given this one"):
            await attempt()
    assert await other.holds() == []
    assert await other.on_duty("upkeep")
    assert await other.take(LANE) is Taken.MINE
    (trace,) = await other.trace(begun.id)
    assert (trace.state, trace.events[-1].event) == ("queued", "uncertain")
    assert "was lost while this message was being submitted" in trace.events[-1].fields["reason"]
    assert [event.event for event in (await other.trace(claimed.id))[0].events] == ["accepted"]
    assert {one.id for one in await other.claim(LANE, 5, make.clock.now())} == {begun.id, claimed.id}


async def test_mail_is_still_accepted_by_a_replica_that_was_given_up(make, impatient):
    frozen, other = await make(), await make()
    freeze(frozen)
    await given_up(other, 0)
    message_id = await accept(frozen)
    assert [one.id for one in await other.find(Filter())] == [message_id]


async def test_one_that_comes_back_takes_part_anew_with_nothing_in_hand(make, impatient):
    frozen, other = await make(), await make()
    heard = hears(frozen)
    await accept(frozen)
    claim = await claim_one(frozen, make.clock.now())
    before = frozen._member.fence
    freeze(frozen)
    await given_up(other, 0)
    await other.take(LANE)
    await thaw(frozen)
    assert "lost" in [news.kind for news in heard]
    assert frozen._member.fence > before
    assert await frozen.take(LANE) is Taken.OTHERS
    with pytest.raises(SpoolLost):
        await settle(frozen, claim, SENT, make.clock.now())
    assert await frozen.take(OTHER) is Taken.MINE


async def test_the_successor_reckons_with_what_a_lost_replica_may_still_do(make, impatient):
    """Its connections may be open at Exchange, and what it had begun may be completed at any moment: for ten minutes."""
    frozen, other = await make(), await make()
    for _ in range(3):
        await accept(frozen)
    claims = await frozen.claim(LANE, 3, make.clock.now())
    await frozen.note_connections(LANE, 2)
    for claim in claims[:2]:
        await frozen.begin(claim.id, make.clock.now(), 1)
    freeze(frozen)
    make.clock.advance(30)
    await given_up(other, 0)
    now = make.clock.now()
    used = await other.usage(LANE, now)
    limits = dataclasses.replace(LIMITS, messages_per_minute=30)
    limiter = MailboxLimiter(limits, used)
    assert [round(now - stamp) for stamp in used.stamps] == [-1, -1], (
        "counted as of now, not as of when they began"
    )
    assert limiter.limit == 28
    assert limiter.connections(now) == limiter.connections(now + 599) == 1, "of three that Exchange takes"
    assert limiter.connections(now + 600) == 2
    assert limiter.limit == 30
    make.clock.advance(601)
    await other.tend(make.clock.now())
    assert await ask(make, "SELECT count(*) FROM debt") == [(0,)]


async def test_a_replica_whose_sessions_have_ended_is_given_up_soon(make, monkeypatch):
    monkeypatch.setattr(postgres_watch, "GONE", 0.5)
    killed, other = await make(), await make()
    await accept(killed)
    await claim_one(killed, make.clock.now())
    killed._watch._stopping = True
    killed._watch._outside.send(b".")
    await given_up(other, 0)
    assert len(await other.claim(LANE, 1, make.clock.now())) == 1


async def test_a_replica_that_gives_a_sign_of_life_just_then_is_not_given_up(make):
    alive, other = await make(), await make()
    (me,) = [one for one in await other.replicas() if not one.me]
    missing = postgres_watch.Missing(alive._member.fence, "x", me.seen - 1, "it said nothing")
    await other._give_up(missing)
    assert len(await other.replicas()) == 2
    await alive.take(LANE)


async def test_a_start_leaves_alone_what_others_have_in_hand(make):
    one = await make()
    await accept(one)
    claim = await claim_one(one, make.clock.now())
    two = await make()
    recovered = await two.recover()
    assert (recovered.requeued, recovered.uncertain) == (0, ())
    await settle(one, claim, SENT, make.clock.now())


async def test_what_one_that_left_could_not_give_back_is_taken_up(make):
    one, two = await make(), await make()
    await accept(one)
    claim = await claim_one(one, make.clock.now())
    await one.begin(claim.id, make.clock.now(), 1)
    await one.close()
    make.opened.remove(one)
    assert (await two.recover()).uncertain == (claim.id,)


def test_who_is_missed_is_judged_by_what_was_seen_without_a_break():
    peers = Peers()
    assert peers.look([(1, "a", 100.0, True)], 0.0) == ([], True)
    assert peers.look([(1, "a", 100.0, True)], SILENT - 0.1) == ([], False)
    assert peers.look([(1, "a", 101.0, True)], SILENT) == ([], False), "a sign of life"
    assert peers.look([(1, "a", 101.0, False)], SILENT + 1)[0] == []
    assert peers.look([(1, "a", 101.0, True)], SILENT + 2)[0] == [], "its session is back"
    assert peers.look([(1, "a", 101.0, False)], SILENT + 3)[0] == []
    (gone,) = peers.look([(1, "a", 101.0, False)], SILENT + 3 + GONE)[0]
    assert (gone.fence, gone.seen, "has ended" in gone.why) == (1, 101.0, True)
    peers.forget()
    assert peers.look([(1, "a", 101.0, False)], 1000.0)[0] == [], "the database was away"
    (silent,) = peers.look([(1, "a", 101.0, True)], 1000.0 + SILENT)[0]
    assert "said nothing" in silent.why


def test_the_servers_clock_is_followed_only_where_it_is_known_to_differ():
    """However long the answer took: within what that leaves open, nothing is changed."""
    watch = postgres_watch.Watch("", Member("x"), lambda news: None, lambda missing: None)
    watch._compare(100.2, 100.0, 100.4)
    assert (watch.offset, watch.off) == (0.0, False)
    watch._compare(103.0, 100.0, 100.1)
    assert (round(watch.offset, 3), watch.off) == (2.9, True)
    watch._compare(203.0, 200.0, 200.7)
    assert round(watch.offset, 3) == 2.9, "too slow to say anything"


# news


async def test_new_mail_wakes_the_replica_that_works_the_lane(make):
    one, two = await make(), await make()
    await two.take(LANE)
    await happens(lambda: one._watch.company)
    heard = hears(two)
    await accept(one)
    await happens(lambda: News("mail", LANE) in heard)


async def test_mail_of_ones_own_lanes_is_told_to_nobody(make):
    one, two = await make(), await make()
    await one.take(LANE)
    await happens(lambda: one._watch.company)
    heard = hears(two)
    await accept(one)
    await accept(one, message=new_message(lane=OTHER))
    await happens(lambda: heard and heard[-1] == News("mail", OTHER))
    assert News("mail", LANE) not in heard


async def test_a_hold_is_everybodys_at_once_and_so_is_its_end(make):
    one, two = await make(), await make()
    await happens(lambda: one._watch.company)
    heard = hears(two)
    await one.hold(Hold("upstream", "Microsoft 365", "secret", "wrong", "mend", "", make.clock.now()))
    await happens(lambda: heard.count(News("hold")) == 1)
    assert [hold.code for hold in await two.holds()] == ["secret"]
    await one.unhold("upstream", "Microsoft 365", make.clock.now())
    await happens(lambda: heard.count(News("hold")) == 2)


async def test_what_is_held_is_tried_by_one_replica(make):
    one, two = await make(), await make()
    now = make.clock.now()
    await one.hold(Hold("upstream", "Microsoft 365", "secret", "wrong", "mend", "", now, next_probe=now))
    tried = [await spool.claim_probe("upstream", "Microsoft 365", now, now + 60) for spool in (one, two)]
    assert tried == [True, False]
    assert await two.claim_probe("upstream", "Microsoft 365", now + 60, now + 120)


async def test_an_operators_command_is_heard_by_the_replicas(make):
    one = await make()
    await one.take(LANE)
    await accept(one)
    heard = hears(one)
    beside = PostgresSpool(spool_settings(make.folder, url=make.url))
    await beside.open(owner=False)
    try:
        await beside.operate("retry", Filter(), make.clock.now())
        await happens(lambda: News("mail", LANE) in heard)
        assert [one.me for one in await beside.replicas()] == [False]
    finally:
        await beside.close()


async def test_a_watch_that_was_cut_off_looks_at_everything_once(make):
    spool = await make()
    heard = hears(spool)
    await ask(
        make,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE '%% watching'",
    )
    await happens(lambda: News("again") in heard)
    await spool.take(LANE)
    assert not spool._member.given_up


# side by side


async def test_replicas_that_write_side_by_side_lose_nothing_and_count_right(make):
    spools = [await make() for _ in range(3)]

    async def work(spool: PostgresSpool, lane: str) -> None:
        for _ in range(10):
            await asyncio.gather(
                accept(spool, message=new_message(lane=LANE, source="shared")),
                accept(spool, message=new_message(lane=lane, source="own")),
                accept(spool, message=new_message(lane=OTHER, source="shared")),
            )
            for claim in await spool.claim(lane, 1, make.clock.now()):
                await spool.begin(claim.id, make.clock.now(), 1)
                await settle(spool, claim, SENT, make.clock.now())

    async def operate() -> None:
        for verb in ("hold", "release", "retry") * 4:
            await spools[0].operate(verb, Filter(), make.clock.now())

    lanes = [LANE, OTHER, THIRD]
    await asyncio.gather(*(work(spool, lane) for spool, lane in zip(spools, lanes, strict=True)), operate())
    counted = {one.lane: one.queued + one.deferred + one.held for one in await spools[0].lanes()}
    found = await ask(
        make,
        "SELECT l.name, count(*) FROM message m JOIN lane l ON l.id = m.lane WHERE m.state < 4 GROUP BY 1",
    )
    assert counted == dict(found)
    assert await ask(make, "SELECT count(*) FROM message") == [(90,)]
    octets = await ask(make, "SELECT coalesce(sum(size), 0) FROM content")
    assert (await spools[1].stats()).bytes == octets[0][0]
    turns = await ask(
        make,
        "SELECT count(*), count(DISTINCT turn) FROM message WHERE source = 'own' GROUP BY lane ORDER BY 1",
    )
    assert len(turns) == 3


async def test_counts_stay_right_when_replicas_leave_and_work_is_finished_by_others(make):
    one, two = await make(), await make()
    for _ in range(3):
        await accept(one)
    await one.close()
    make.opened.remove(one)
    claims = await two.claim(LANE, 2, make.clock.now())
    await settle(two, claims[0], SENT, make.clock.now())
    await two.tend(make.clock.now())
    (lane,) = await two.lanes()
    assert (lane.queued, lane.active) == (1, 1)
    assert (await two.stats()).messages == 2


async def test_ids_of_replicas_never_meet(make):
    """Though their clocks show the same."""
    one, two = await make(), await make()
    made = [await accept(spool) for spool in (one, two) * 20]
    assert len(set(made)) == 40


async def test_a_message_says_who_has_it_and_who_did_what(make, monkeypatch):
    monkeypatch.setenv("RELAY_REPLICA", "north")
    one = await make()
    monkeypatch.setenv("RELAY_REPLICA", 'so"uth')
    two = await make()
    message_id = await accept(one)
    claim = await claim_one(one, make.clock.now())
    assert [view.replica for view in await two.find(Filter())] == ["north"]
    assert [lane.replica for lane in await two.lanes()] == ["north"]
    await one.begin(claim.id, make.clock.now(), 1)
    await settle(one, claim, dataclasses.replace(SENT), make.clock.now(), details={"host": "mail.example"})
    await two.operate("delete", Filter(ids=(await accept(two),)), make.clock.now())
    events = (await two.trace(message_id))[0].events
    assert (events[-1].fields["replica"], events[-1].fields["host"]) == ("north", "mail.example")
    assert [who.name for who in await two.replicas()] == ["north", 'so"uth']


async def test_notices_of_what_failed_are_stored_with_it(make):
    one, two = await make(), await make()
    await accept(one)
    claim = await claim_one(one, make.clock.now())
    await one.settle(Settlement(claim.id, every(claim, FAILED), told=True), make.clock.now())
    assert await two.find(Filter()) == []


async def test_replicas_share_the_bound_of_notices_to_one_address(make):
    spools = [await make() for _ in range(3)]
    desks = [Accounts(spool, make.clock) for spool in spools]
    taken = await asyncio.gather(*(desk.take("Anna@x.example", "line") for desk in desks for _ in range(10)))
    assert sum(taken) == LIMIT
    assert await desks[0].owed() == []
    make.clock.advance(3601)
    (owed,) = await desks[1].owed()
    assert (owed.count, owed.samples) == (30 - LIMIT, ("line",) * (30 - LIMIT))
    await desks[1].settled(owed)
    assert await desks[2].owed() == []
    make.clock.advance(3 * 3600)
    await desks[2].owed()
    assert await spools[0].remembered("notices:") == {}, "nothing is left to remember"


# releases


async def test_replicas_wait_for_a_relay_of_the_release_before_and_it_waits_for_them(make):
    old = connect(make.url, "relay old-host:1")
    migrate(old)
    assert old.execute("SELECT pg_try_advisory_lock(%s, %s)", (LOCKS, OWNING)).fetchone() == (True,)
    new = PostgresSpool(spool_settings(make.folder, url=make.url))
    opening = asyncio.ensure_future(new.open())
    await happens(lambda: new.standing_by)
    old.execute("SELECT pg_advisory_unlock(%s, %s)", (LOCKS, OWNING))
    await asyncio.wait_for(opening, 30)
    assert not new.standing_by
    beside = await make()
    assert old.execute("SELECT pg_try_advisory_lock(%s, %s)", (LOCKS, OWNING)).fetchone() == (False,)
    await beside.close()
    make.opened.remove(beside)
    await new.close()
    await happens(  # the server sees in its own time that a session has ended
        lambda: old.execute("SELECT pg_try_advisory_lock(%s, %s)", (LOCKS, OWNING)).fetchone() == (True,)
    )
    old.close()


async def test_the_release_before_works_on_this_schema_with_counts_that_are_right(make):
    """Its statements, as it writes them; and whoever was a member when it took the spool for itself is none any more."""
    spool = await make()
    first = await accept(spool)
    await claim_one(spool, make.clock.now())
    await accept(spool)
    old = connect(make.url, "relay old")
    old.execute(
        "INSERT INTO memory VALUES ('spool:owner', 'old') ON CONFLICT (key) DO UPDATE SET value = 'old'"
    )
    counts = "SELECT queued, active, deferred, held FROM lane"
    assert old.execute(counts).fetchall() == [(1, 1, 0, 0)]
    old.execute("UPDATE message SET state = 0, begun = NULL WHERE state = 1")
    old.execute("INSERT INTO event (message, at, event, fields) SELECT id, 1, 'attempted', '{}' FROM message")
    assert old.execute(counts).fetchall() == [(2, 0, 0, 0)]
    octets = old.execute("SELECT bytes FROM total").fetchone()
    assert octets == old.execute("SELECT sum(size) FROM content").fetchone()
    with pytest.raises(SpoolLost):
        await spool.claim(LANE, 1, make.clock.now())
    await happens(lambda: spool._member.given_up)
    await spool.rejoin()
    claims = await spool.claim(LANE, 2, make.clock.now())
    assert first in [claim.id for claim in claims]
    assert [(one.queued, one.active) for one in await spool.lanes()] == [(0, 2)]
    old.close()


async def test_a_database_that_was_away_makes_nobody_look_lost(make):
    one, two = await make(), await make()
    await one.take(LANE)
    fences = [one._member.fence, two._member.fence]
    heard = hears(two)
    make.server.stop()
    make.server.start()
    await happens(lambda: News("again") in heard)

    async def works() -> bool:
        try:
            return await one.take(OTHER, anyway=True) is Taken.MINE
        except SpoolError:
            return False

    async with asyncio.timeout(30):
        while not await works():
            await asyncio.sleep(0.05)
    assert [one._member.fence, two._member.fence] == fences
    assert await lanes_of(one) == {LANE, OTHER}
