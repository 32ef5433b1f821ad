"""What every spool must do. A test module subclasses `SpoolSuite` and gives it the fixture ``make``.

``make(**settings)`` returns an open spool on a ManualClock; ``make.reopen(spool, kill=True)`` opens the same
store again, as after a stop or a kill.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterable

import pytest

from relay.errors import SpoolError, SpoolFull
from relay.message import Outcome, Reply, Result, Scope
from relay.spool.contract import Claim, Filter, Hold, NewMail, Settlement, Spool
from tests.fakes.clock import ManualClock
from tests.fakes.spool import DEFERRED, FAILED, LANE, OTHER, SENT, accept, new_message


async def body_of(spool: Spool, message_id: str) -> bytes:
    content = await spool.content(message_id)
    return content.header + b"".join([chunk async for chunk in content.body.chunks(4096)])


def every(claim: Claim, outcome: Outcome) -> dict[str, Outcome]:
    return {one.address: outcome for one in claim.envelope.recipients}


async def claim_one(spool: Spool, now: float, lane: str = LANE) -> Claim:
    (claim,) = await spool.claim(lane, 1, now)
    return claim


async def settle(spool: Spool, claim: Claim, outcome: Outcome, now: float, **more: object) -> None:
    await spool.settle(Settlement(claim.id, every(claim, outcome), **more), now)  # type: ignore[arg-type]


async def senders(spool: Spool, limit: int, now: float) -> list[str]:
    return [claim.source for claim in await spool.claim(LANE, limit, now)]


class SpoolSuite:
    """The behaviour of every spool."""

    async def test_what_is_accepted_is_kept_octet_for_octet(self, make):
        spool = await make()
        body = bytes(range(256)) * 3 + b"\r\n"
        message_id = await accept(spool, body)
        assert await body_of(spool, message_id) == new_message().header + body

    @pytest.mark.parametrize("size", [0, 1, 128 * 1024, 128 * 1024 + 1, 3_000_000])
    async def test_bodies_of_every_size_come_back(self, make, size):
        spool = await make()
        body = (b"0123456789abcdef" * (size // 16 + 1))[:size]
        message_id = await accept(spool, body)
        claim = await claim_one(spool, make.clock.now())
        assert claim.id == message_id
        assert claim.size == size + len(new_message().header)
        assert await body_of(spool, message_id) == new_message().header + body

    async def test_a_claim_carries_the_envelope_and_the_client(self, make):
        spool = await make()
        message = new_message(recipients=("a@x.example", "b@x.example"), pool=(LANE, OTHER))
        envelope = dataclasses.replace(
            message.envelope, smtputf8=True, eight_bit=True, ret="HDRS", envid="QQ1", long_lines=False
        )
        people = tuple(
            dataclasses.replace(one, notify="FAILURE", orcpt="rfc822;x") for one in envelope.recipients
        )
        envelope = dataclasses.replace(envelope, recipients=people)
        await accept(spool, message=dataclasses.replace(message, envelope=envelope))
        claim = await claim_one(spool, make.clock.now())
        assert claim.envelope == envelope
        assert claim.client == message.client
        assert (claim.lane, claim.pool, claim.message_id) == (LANE, (LANE, OTHER), "<1@legacy.local>")
        assert claim.header_from == ("app@legacy.local",)
        assert claim.attempts == 0

    async def test_a_text_is_revised_by_one_at_a_time(self, make):
        spool = await make()

        def more(text: str | None) -> tuple[str, int]:
            count = int(text or 0) + 1
            return str(count), count

        results = await asyncio.gather(*(spool.revise("count", more) for _ in range(10)))
        assert sorted(results) == list(range(1, 11))
        assert await spool.remembered("count") == {"count": "10"}
        assert await spool.revise("count", lambda text: (None, text)) == "10"
        assert await spool.remembered("count") == {}

    async def test_a_claimed_message_is_not_given_twice(self, make):
        spool = await make()
        await accept(spool)
        assert len(await spool.claim(LANE, 5, make.clock.now())) == 1
        assert await spool.claim(LANE, 5, make.clock.now()) == []

    async def test_an_unclaimed_message_goes_back_untouched(self, make):
        spool = await make()
        first, second = await accept(spool), await accept(spool)
        await spool.unclaim([claim.id for claim in await spool.claim(LANE, 2, make.clock.now())])
        again = await spool.claim(LANE, 2, make.clock.now())
        assert [claim.id for claim in again] == [first, second]
        assert again[0].attempts == 0

    async def test_sent_mail_leaves_its_trace_and_loses_its_content(self, make):
        spool = await make()
        message_id = await accept(spool, b"x" * 200_000)
        claim = await claim_one(spool, make.clock.now())
        await spool.begin(claim.id, make.clock.now(), 1)
        await settle(spool, claim, SENT, make.clock.now(), details={"host": "mail.example"})
        (trace,) = await spool.trace(message_id)
        assert trace.state == "sent"
        assert [event.event for event in trace.events] == ["accepted", "delivered"]
        assert trace.events[1].fields["reply"] == "250 2.0.0 OK"
        with pytest.raises(SpoolError):
            await spool.content(message_id)
        assert (await spool.stats()).messages == 0
        assert (await spool.stats()).bytes == 0

    async def test_a_deferred_message_comes_back_when_it_is_due_and_not_before(self, make):
        spool = await make()
        await accept(spool)
        now = make.clock.now()
        claim = await claim_one(spool, now)
        await spool.begin(claim.id, now, 1)
        await settle(spool, claim, DEFERRED, now, due=now + 60)
        assert await spool.claim(LANE, 1, now + 59) == []
        assert (await spool.lane(LANE)).next_due == pytest.approx(now + 60, abs=0.01)
        again = await claim_one(spool, now + 61)
        assert again.attempts == 1

    async def test_an_attempt_that_does_not_count_leaves_the_count(self, make):
        spool = await make()
        await accept(spool)
        now = make.clock.now()
        claim = await claim_one(spool, now)
        await settle(spool, claim, DEFERRED, now, due=now, counts=False)
        assert (await claim_one(spool, now + 1)).attempts == 0

    async def test_recipients_fare_differently(self, make):
        spool = await make()
        await accept(spool, recipients=("a@x.example", "b@x.example", "c@x.example"))
        now = make.clock.now()
        claim = await claim_one(spool, now)
        outcomes = {"a@x.example": SENT, "b@x.example": FAILED, "c@x.example": DEFERRED}
        await spool.settle(Settlement(claim.id, outcomes, due=now + 1), now)
        (view,) = await spool.find(Filter())
        states = {one.address: str(one.state) for one in view.recipients}
        assert states == {"a@x.example": "sent", "b@x.example": "failed", "c@x.example": "deferred"}
        again = await claim_one(spool, now + 2)
        assert [one.address for one in again.envelope.recipients] == ["c@x.example"]
        await settle(spool, again, SENT, now + 2)
        (trace,) = await spool.trace(claim.id)
        assert trace.state == "partly failed"

    async def test_a_failed_message_can_be_tried_again_by_an_operator(self, make):
        spool = await make()
        message_id = await accept(spool)
        now = make.clock.now()
        await settle(spool, await claim_one(spool, now), FAILED, now)
        changed = await spool.operate("retry", Filter(ids=(message_id,)), now)
        assert (changed.matched, changed.changed) == (1, 1)
        assert (await claim_one(spool, now)).id == message_id

    async def test_settling_what_is_not_claimed_is_refused(self, make):
        spool = await make()
        message_id = await accept(spool)
        with pytest.raises(SpoolError):
            await spool.settle(Settlement(message_id, {"anna@example.net": SENT}), make.clock.now())

    async def test_sources_take_turns(self, make):
        spool = await make()
        for _ in range(50):
            await accept(spool, source="mailing")
        now = make.clock.now()
        assert await senders(spool, 10, now) == ["mailing"] * 10
        await accept(spool, source="scanner")
        assert "scanner" in (await senders(spool, 2, now))

    async def test_a_source_keeps_its_own_order(self, make):
        spool = await make()
        expected = []
        for _ in range(5):
            expected.append(await accept(spool, source="one"))
            await accept(spool, source="two")
        got = [claim.id for claim in await spool.claim(LANE, 10, make.clock.now()) if claim.source == "one"]
        assert got == expected

    async def test_a_source_keeps_its_order_over_a_restart(self, make):
        spool = await make()
        expected = [await accept(spool, source="one") for _ in range(3)]
        spool = await make.reopen(spool)
        expected += [await accept(spool, source="one") for _ in range(3)]
        assert [claim.id for claim in await spool.claim(LANE, 10, make.clock.now())] == expected

    async def test_lanes_do_not_see_each_others_mail(self, make):
        spool = await make()
        await accept(spool)
        await accept(spool, lane=OTHER)
        assert [claim.lane for claim in await spool.claim(OTHER, 5, make.clock.now())] == [OTHER]
        assert {one.lane: (one.queued, one.active) for one in await spool.lanes()} == {
            LANE: (1, 0),
            OTHER: (0, 1),
        }

    async def test_a_restart_requeues_what_was_claimed(self, make):
        spool = await make()
        message_id = await accept(spool)
        await claim_one(spool, make.clock.now())
        spool = await make.reopen(spool)
        recovered = await spool.recover()
        assert (recovered.requeued, recovered.uncertain) == (1, ())
        assert (await claim_one(spool, make.clock.now())).id == message_id

    async def test_a_restart_names_what_may_have_been_delivered(self, make):
        spool = await make()
        message_id = await accept(spool)
        await spool.begin((await claim_one(spool, make.clock.now())).id, make.clock.now(), 1)
        spool = await make.reopen(spool)
        assert (await spool.recover()).uncertain == (message_id,)
        (trace,) = await spool.trace(message_id)
        assert [event.event for event in trace.events] == ["accepted", "uncertain"]
        claim = await claim_one(spool, make.clock.now())
        assert (claim.id, claim.attempts) == (message_id, 1)

    async def test_each_part_of_a_split_message_counts_when_it_ends(self, make):
        spool = await make()
        await accept(spool, recipients=tuple(f"r{n}@x.example" for n in range(3)))
        now = make.clock.now()
        claim = await claim_one(spool, now)
        await spool.begin(claim.id, now, 1)
        await spool.begin(claim.id, now + 10, 1, {"r0@x.example": SENT})
        stamps = (await spool.usage(LANE, now + 12)).stamps
        assert [round(stamp - now) // 10 for stamp in stamps] == [1, 1]
        await spool.begin(claim.id, now + 20, 1, {"r1@x.example": SENT})
        stamps = (await spool.usage(LANE, now + 22)).stamps
        assert [round(stamp - now) // 10 for stamp in stamps] == [1, 2, 2]
        assert sum(count for _, count in (await spool.usage(LANE, now + 22)).recipients_today) == 3

    async def test_a_crash_in_a_split_message_repeats_no_finished_part(self, make):
        spool = await make()
        await accept(spool, recipients=("a@x.example", "b@x.example", "c@x.example"))
        now = make.clock.now()
        claim = await claim_one(spool, now)
        await spool.begin(claim.id, now, 1)
        await spool.begin(claim.id, now + 1, 2, {"a@x.example": SENT})
        make.clock.advance(30)
        spool = await make.reopen(spool)
        await spool.recover()
        stamps = (await spool.usage(LANE, make.clock.now())).stamps
        assert [round(stamp - now) // 10 for stamp in stamps] == [
            0,
            3,
        ]  # the last may have ended just before the crash
        again = await claim_one(spool, make.clock.now())
        assert [one.address for one in again.envelope.recipients] == ["b@x.example", "c@x.example"]
        await settle(spool, again, SENT, make.clock.now())
        (trace,) = await spool.trace(claim.id)
        assert trace.state == "sent"

    async def test_what_the_limits_left_over_goes_after_others_and_before_its_own_source(self, make):
        spool = await make()
        big = await accept(spool, source="list", recipients=("a@x.example", "b@x.example"))
        later = await accept(spool, source="list")
        now = make.clock.now()
        claim = await claim_one(spool, now)
        quiet = await accept(spool, source="scanner")
        await spool.settle(Settlement(claim.id, {"a@x.example": SENT}, counts=False), now)
        assert [one.id for one in await spool.claim(LANE, 3, now)] == [quiet, big, later]

    async def test_uncertain_mail_may_be_held_instead(self, make):
        spool = await make(on_uncertain="hold")
        message_id = await accept(spool)
        await spool.begin((await claim_one(spool, make.clock.now())).id, make.clock.now(), 1)
        spool = await make.reopen(spool)
        await spool.recover()
        (view,) = await spool.find(Filter())
        assert (view.id, view.state) == (message_id, "held")
        assert await spool.claim(LANE, 1, make.clock.now()) == []

    async def test_usage_survives_a_restart(self, make):
        spool = await make()
        now = make.clock.now()
        for _ in range(3):
            await accept(spool, recipients=("a@x.example", "b@x.example"))
        for claim in await spool.claim(LANE, 3, now):
            await spool.begin(claim.id, now, len(claim.envelope.recipients))
            await settle(spool, claim, SENT, now)
        spool = await make.reopen(spool)
        usage = await spool.usage(LANE, now + 5)
        assert len(usage.stamps) == 3
        assert all(now <= stamp <= now + 1 for stamp in usage.stamps)
        assert sum(count for _, count in usage.recipients_today) == 6

    async def test_a_full_spool_says_so_and_keeps_nothing(self, make):
        spool = await make(max_size=5_000)
        assert await spool.has_room(4_000)
        await accept(spool, b"x" * 4_000)
        assert not await spool.has_room(4_000)
        assert (await spool.stats()).messages == 1

    async def test_a_discarded_draft_leaves_nothing(self, make):
        spool = await make(max_size=1_000_000)
        draft = spool.draft()
        await draft.write(b"x" * 600_000)
        assert not await spool.has_room(600_000)
        await draft.discard()
        await draft.discard()
        assert await spool.has_room(600_000)
        assert await spool.find(Filter()) == []

    @pytest.mark.parametrize("size", [10, 300_000])
    async def test_a_draft_is_used_once(self, make, size):
        spool = await make()
        draft = spool.draft()
        await draft.write(b"x" * size)
        await draft.commit(new_message())
        with pytest.raises(SpoolError, match="already used"):
            await draft.commit(new_message())
        await draft.discard()
        [message_id] = [one.id for one in await spool.find(Filter())]
        assert (await body_of(spool, message_id)).endswith(b"x" * size)
        discarded = spool.draft()
        await discarded.discard()
        with pytest.raises(SpoolError, match="already used"):
            await discarded.commit(new_message())
        assert len(await spool.find(Filter())) == 1

    async def test_a_client_that_goes_away_does_not_undo_a_commit(self, make):
        spool = await make()
        draft = spool.draft()
        await draft.write(b"y" * 300_000)
        task = asyncio.ensure_future(draft.commit(new_message()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await accept(spool)  # whatever was asked before is done by now
        while len(found := await spool.find(Filter())) < 2:
            await asyncio.sleep(0)
        assert draft.id in {one.id for one in found}

    async def test_new_mail_wakes_its_lane(self, make):
        spool = await make()
        woken: list[str] = []
        spool.subscribe(woken.append)
        await accept(spool)
        assert woken == [LANE]

    async def test_many_callers_at_once_all_get_what_they_stored(self, make):
        spool = await make()
        ids = await asyncio.gather(*(accept(spool, str(n).encode()) for n in range(200)))
        assert len(set(ids)) == 200
        bodies = await asyncio.gather(*(body_of(spool, one) for one in ids))
        assert [body.split(b"\r\n\r\n")[1] for body in bodies] == [str(n).encode() for n in range(200)]

    async def test_a_held_lane_shows_its_mail_as_held_with_reason_and_remedy(self, make):
        spool = await make()
        await accept(spool)
        hold = Hold(
            "lane",
            LANE,
            "mailbox-full",
            "The mailbox is full",
            "Empty Sent Items",
            "554 5.2.2",
            make.clock.now(),
        )
        await spool.hold(hold)
        (view,) = await spool.find(Filter(state="held"))
        assert (view.state, view.reason, view.remedy) == ("held", "The mailbox is full", "Empty Sent Items")
        assert await spool.find(Filter(state="queued")) == []
        assert await spool.holds() == [hold]
        assert await spool.unhold("lane", LANE, make.clock.now())
        assert [one.state for one in await spool.find(Filter())] == ["queued"]

    async def test_time_held_does_not_count_towards_a_messages_age(self, make):
        spool = await make()
        start = make.clock.now()
        await accept(spool)
        for scope, key in (("lane", LANE), ("upstream", "Microsoft 365")):
            await spool.hold(Hold(scope, key, "c", "r", "m", "", make.clock.now()))
        make.clock.advance(1000)
        await spool.unhold("lane", LANE, make.clock.now())
        make.clock.advance(1000)
        await spool.unhold("upstream", "Microsoft 365", make.clock.now())
        make.clock.advance(1000)
        claim = await claim_one(spool, make.clock.now())
        assert claim.held_for == pytest.approx(2000, abs=0.1)
        assert make.clock.now() - claim.received == pytest.approx(make.clock.now() - start, abs=0.1)

    async def test_mail_that_comes_during_a_hold_counts_only_its_own_time(self, make):
        spool = await make()
        await spool.hold(Hold("upstream", "Microsoft 365", "c", "r", "m", "", make.clock.now()))
        make.clock.advance(500)
        await accept(spool)
        make.clock.advance(300)
        await spool.unhold("upstream", "Microsoft 365", make.clock.now())
        assert (await claim_one(spool, make.clock.now())).held_for == pytest.approx(300, abs=0.1)

    async def test_a_sender_hold_keeps_and_releases_its_mail(self, make):
        spool = await make()
        key = f"{LANE}|bad@contoso.com"
        kept = await accept(spool)
        now = make.clock.now()
        held = Outcome(
            Result.HELD, Scope.SENDER, Reply(554, "5.2.252", "SendAsDenied"), "Send As is denied", "Grant it"
        )
        await settle(spool, await claim_one(spool, now), held, now, hold_key=key, counts=False)
        (view,) = await spool.find(Filter())
        assert (view.state, view.reason, view.remedy) == ("held", "Send As is denied", "Grant it")
        assert await spool.release_key("another", now) == 0
        make.clock.advance(100)
        assert await spool.release_key(key, make.clock.now()) == 1
        claim = await claim_one(spool, make.clock.now())
        assert claim.id == kept
        assert claim.held_for == pytest.approx(100, abs=0.1)

    async def test_operators_hold_release_and_delete(self, make):
        spool = await make()
        ids = [await accept(spool, recipients=(f"r{n}@x.example",)) for n in range(4)]
        now = make.clock.now()
        assert (await spool.operate("hold", Filter(recipient="r1@x.example"), now)).changed == 1
        assert [one.id for one in await spool.find(Filter(state="held"))] == [ids[1]]
        assert (await spool.operate("release", Filter(ids=(ids[1],)), now)).changed == 1
        assert await spool.find(Filter(state="held")) == []
        gone = await spool.operate("delete", Filter(ids=(ids[0], ids[2])), now)
        assert (gone.matched, gone.changed) == (2, 2)
        assert [one.id for one in await spool.find(Filter())] == [ids[1], ids[3]]
        (trace,) = await spool.trace(ids[0])
        assert trace.state == "deleted"
        assert trace.events[-1].event == "deleted"

    async def test_an_operator_cannot_delete_what_is_being_submitted(self, make):
        spool = await make()
        message_id = await accept(spool)
        await claim_one(spool, make.clock.now())
        changed = await spool.operate("delete", Filter(ids=(message_id,)), make.clock.now())
        assert (changed.matched, changed.changed) == (1, 0)

    async def test_retry_makes_a_deferred_message_due_now(self, make):
        spool = await make()
        await accept(spool)
        now = make.clock.now()
        await settle(spool, await claim_one(spool, now), DEFERRED, now, due=now + 3600)
        await spool.operate("retry", Filter(), now)
        assert len(await spool.claim(LANE, 1, now)) == 1

    async def test_retry_leaves_what_is_being_submitted_alone(self, make):
        spool = await make()
        message_id = await accept(spool)
        now = make.clock.now()
        await claim_one(spool, now)
        changed = await spool.operate("retry", Filter(), now)
        assert (changed.matched, changed.changed) == (1, 0)
        (trace,) = await spool.trace(message_id)
        assert [event.event for event in trace.events] == ["accepted"]

    @pytest.mark.parametrize("scope", ["lane", "upstream"])
    @pytest.mark.parametrize(
        ("wanted", "counted"),
        [
            (Filter(), (3, 2)),
            (Filter(lane="Notifications@contoso.com"), (2, 2)),
            (Filter(state="held"), (2, 2)),
            (Filter(reason="IS FULL"), (2, 2)),
            (Filter(state="active"), (1, 0)),
        ],
    )
    async def test_release_counts_what_a_lanes_hold_kept(self, make, scope, wanted, counted):
        """Mail of a held lane is held, also for the count of those freed when the hold ends."""
        spool = await make()
        await accept(spool, lane=OTHER)
        await claim_one(spool, make.clock.now(), OTHER)
        for _ in range(2):
            await accept(spool)
        key = LANE if scope == "lane" else "Microsoft 365"
        await spool.hold(Hold(scope, key, "c", "The mailbox is full", "m", "", make.clock.now()))
        changed = await spool.operate("release", wanted, make.clock.now())
        assert (changed.matched, changed.changed) == counted
        assert {one.state for one in await spool.find(Filter(lane=LANE))} == {"queued"}

    async def test_the_words_behind_a_lanes_hold_are_shown_with_its_mail(self, make):
        """List and trace show what the server said, though no attempt at this message heard it."""
        spool = await make()
        message_id = await accept(spool)
        said = "AADSTS7000222: The provided client secret keys are expired."
        since = make.clock.now() + 5
        await spool.hold(
            Hold("upstream", "Microsoft 365", "secret-expired", "The secret has expired", "m", said, since)
        )
        (view,) = await spool.find(Filter())
        assert view.recipients[0].text == said
        (trace,) = await spool.trace(message_id)
        held = trace.events[-1]
        assert (held.event, held.fields["reply"]) == ("held", said)
        assert held.time == pytest.approx(since, abs=0.01)
        await spool.unhold("upstream", "Microsoft 365", since + 1)
        (trace,) = await spool.trace(message_id)
        assert [event.event for event in trace.events] == ["accepted"]

    async def test_release_of_a_lane_ends_its_hold(self, make):
        spool = await make()
        await accept(spool)
        await spool.hold(Hold("upstream", "Microsoft 365", "c", "r", "m", "", make.clock.now()))
        changed = await spool.operate("release", Filter(lane="notifications@contoso.com"), make.clock.now())
        assert await spool.holds() == []
        assert LANE in changed.lanes

    @pytest.mark.parametrize(
        ("wanted", "expected"),
        [
            (Filter(), [0, 1, 2]),
            (Filter(sender="app@legacy.local"), [0, 1, 2]),
            (Filter(sender="App@LEGACY.local"), [0, 1, 2]),
            (Filter(sender="<app@legacy.local>"), [0, 1, 2]),
            (Filter(sender="app@legacy"), []),
            (Filter(sender="pp@legacy.local"), []),
            (Filter(sender="@Legacy.local"), [0, 1, 2]),
            (Filter(sender="@egacy.local"), []),
            (Filter(sender="legacy"), [0, 1, 2]),
            (Filter(sender="100%"), []),
            (Filter(sender="<>"), []),
            (Filter(recipient="R1@X.example"), [1]),
            (Filter(recipient="1@x.example"), []),
            (Filter(recipient="@x.example"), [0, 1, 2]),
            (Filter(recipient="r1"), [1]),
            (Filter(lane=OTHER), [2]),
            (Filter(lane="scans@contoso.com"), [2]),
            (Filter(state="queued"), [0, 1, 2]),
            (Filter(state="deferred"), []),
            (Filter(older_than=1.0), []),
            (Filter(reason="full"), []),
        ],
    )
    async def test_filters(self, make, wanted, expected):
        spool = await make()
        lanes = (LANE, LANE, OTHER)
        ids = [await accept(spool, lane=lanes[n], recipients=(f"r{n}@x.example",)) for n in range(3)]
        assert [one.id for one in await spool.find(wanted)] == [ids[n] for n in expected]
        part = await spool.find_within(wanted, seconds=60)
        assert (part.found, part.reached) == (await spool.find(wanted), None)

    async def test_a_search_for_who_waits_finds_what_the_long_one_finds(self, make):
        """In a held lane, by state, page by page, and newest first for a trace."""
        spool = await make()
        ids = [await accept(spool, lane=LANE if n < 3 else OTHER) for n in range(5)]
        await spool.hold(Hold("lane", LANE, "c", "mailbox full", "m", "", make.clock.now()))
        for wanted, expected in (
            (Filter(state="held"), ids[:3]),
            (Filter(state="queued"), ids[3:]),
            (Filter(state="held", lane=OTHER), []),
            (Filter(reason="full"), ids[:3]),
            (Filter(ids=(ids[4], ids[0])), [ids[0], ids[4]]),
        ):
            part = await spool.find_within(wanted, seconds=60)
            assert ([one.id for one in part.found], part.reached) == (expected, None), wanted
        page = await spool.find_within(Filter(), limit=2, after=ids[1], seconds=60)
        assert [one.id for one in page.found] == ids[2:4]
        newest = await spool.trace_within("app@legacy.local", limit=2, before=ids[4], seconds=60)
        assert [one.id for one in newest.found] == [ids[3], ids[2]]
        assert [one.id for one in (await spool.trace_within(ids[2], seconds=0)).found] == [ids[2]]

    @pytest.mark.parametrize("text", ["null", "false", "127.0.0.1", "4711", "[", '"', "f"])
    async def test_a_sender_is_looked_for_among_addresses_alone(self, make, text):
        """What the spool keeps beside the addresses (JSON, the client) is nobody's address."""
        spool = await make()
        envelope = dataclasses.replace(new_message().envelope, sender="x@y.example")
        await accept(spool, envelope=envelope, header_from=("Boss@y.example", "z@y.example"))
        assert await spool.find(Filter(sender=text)) == []
        assert await spool.trace(text) == []
        for meant in ("boss@y.example", "z@y.example", "x@y.example", "oss"):
            assert len(await spool.find(Filter(sender=meant))) == 1, meant
            assert len(await spool.trace(meant)) == 1, meant

    async def test_the_null_sender_is_named_by_its_brackets(self, make):
        spool = await make()
        await accept(spool)
        notice = await accept(
            spool, envelope=dataclasses.replace(new_message().envelope, sender=""), header_from=()
        )
        assert [one.id for one in await spool.find(Filter(sender="<>"))] == [notice]
        assert [one.id for one in await spool.trace("<>")] == [notice]

    async def test_lists_page(self, make):
        spool = await make()
        ids = [await accept(spool) for _ in range(5)]
        first = await spool.find(Filter(), limit=2)
        rest = await spool.find(Filter(), limit=10, after=first[-1].id)
        assert [one.id for one in first + rest] == ids

    async def test_pool_mail_moves_between_its_lanes_and_other_mail_does_not(self, make):
        spool = await make()
        await accept(spool)
        pooled = await accept(spool, pool=(LANE, OTHER))
        assert await spool.reassign(LANE, OTHER, 10) == 1
        assert [claim.id for claim in await spool.claim(OTHER, 5, make.clock.now())] == [pooled]

    async def test_mended_rules_reach_waiting_mail(self, make):
        spool = await make()
        ids = [await accept(spool, source=str(n)) for n in range(3)]
        moved = await spool.reroute(
            lambda claim: OTHER if claim.id == ids[1] else (None if claim.id == ids[2] else claim.lane),
            make.clock.now(),
        )
        assert moved == 1
        assert [claim.id for claim in await spool.claim(OTHER, 5, make.clock.now())] == [ids[1]]
        assert [claim.id for claim in await spool.claim(LANE, 5, make.clock.now())] == [ids[0], ids[2]]

    async def test_an_attempt_may_find_that_the_message_belongs_elsewhere(self, make):
        spool = await make()
        message_id = await accept(spool)
        claim = await claim_one(spool, make.clock.now())
        moved = Settlement(claim.id, {}, event="moved", details={"lane": OTHER}, move_to=OTHER, counts=False)
        await spool.settle(moved, make.clock.now())
        assert [one.id for one in await spool.claim(OTHER, 1, make.clock.now())] == [message_id]
        (trace,) = await spool.trace(message_id)
        assert trace.events[-1].event == "moved"

    async def test_history_goes_after_its_time_and_only_then(self, make):
        spool = await make(history=1000.0)
        message_id = await accept(spool)
        now = make.clock.now()
        await settle(spool, await claim_one(spool, now), SENT, now)
        await tend_until_quiet(spool, now + 999)
        assert await spool.trace(message_id)
        await tend_until_quiet(spool, now + 1001)
        assert await spool.trace(message_id) == []

    async def test_what_was_kept_of_a_failed_message_goes_with_its_history(self, make):
        spool = await make(history=1000.0)
        await accept(spool, b"x" * 200_000)
        now = make.clock.now()
        await settle(spool, await claim_one(spool, now), FAILED, now)
        assert (await spool.stats()).bytes > 200_000
        await tend_until_quiet(spool, now + 1001)
        assert (await spool.stats()).bytes == 0

    async def test_deleting_what_a_failed_message_kept_leaves_a_trace_entry(self, make):
        spool = await make()
        message_id = await accept(spool)
        now = make.clock.now()
        await settle(spool, await claim_one(spool, now), FAILED, now)
        assert (await spool.operate("delete", Filter(ids=(message_id,)), now)).changed == 1
        (trace,) = await spool.trace(message_id)
        assert (trace.state, trace.events[-1].event) == ("failed", "deleted")

    async def test_traces_are_found_by_recipient_sender_and_message_id(self, make):
        spool = await make()
        message_id = await accept(spool)
        for text in (message_id, "anna@", "app@legacy.local", "<1@legacy.local>", "1@legacy"):
            assert [trace.id for trace in await spool.trace(text)] == [message_id], text
        assert await spool.trace("nobody@nowhere") == []

    async def test_export_gives_the_stored_octets(self, make):
        spool = await make()
        message_id = await accept(spool, b"line\r\n" * 50_000)
        raw = b"".join([chunk async for chunk in spool.raw(message_id)])
        assert raw == new_message().header + b"line\r\n" * 50_000


class HeldRecipients:
    """One recipient that is held never keeps the others of its message."""

    async def test_a_deferred_recipient_is_tried_while_another_is_held(self, make):
        spool = await make()
        await accept(spool, recipients=("held@x.example", "later@x.example"))
        now = make.clock.now()
        held = Outcome(Result.HELD, Scope.RECIPIENT, reason="a policy")
        claim = await claim_one(spool, now)
        outcomes = {"held@x.example": held, "later@x.example": DEFERRED}
        await spool.settle(Settlement(claim.id, outcomes, due=now + 5, hold_key="message"), now)
        again = await claim_one(spool, now + 6)
        assert [one.address for one in again.envelope.recipients] == ["later@x.example"]
        await settle(spool, again, SENT, now + 6)
        (view,) = await spool.find(Filter())
        assert view.state == "held"
        assert {one.address: str(one.state) for one in view.recipients} == {
            "held@x.example": "held",
            "later@x.example": "sent",
        }
        assert await spool.release_key(None, now + 7) == 1
        last = await claim_one(spool, now + 8)
        assert [one.address for one in last.envelope.recipients] == ["held@x.example"]

    async def test_an_operators_hold_outranks_a_hold_that_would_end_by_itself(self, make):
        spool = await make()
        message_id = await accept(spool)
        now = make.clock.now()
        held = Outcome(Result.HELD, Scope.MESSAGE, reason="a policy")
        await settle(spool, await claim_one(spool, now), held, now, hold_key="message")
        assert (await spool.operate("hold", Filter(ids=(message_id,)), now)).changed == 1
        assert await spool.release_key(None, now) == 0
        (view,) = await spool.find(Filter())
        assert (view.state, view.reason) == ("held", "held by an operator")


class HeldTime:
    """What a message was held in all, whoever held it, each second once."""

    async def test_a_message_held_inside_a_held_lane_counts_each_second_once(self, make):
        spool = await make()
        start = make.clock.now()
        message_id = await accept(spool)
        await spool.hold(a_hold(start + 100))
        make.clock.advance(200)
        await spool.operate("hold", Filter(ids=(message_id,)), start + 200)
        assert (await held_time(spool, make.clock, 200)) == pytest.approx(100, abs=0.1)
        await spool.unhold("lane", LANE, start + 300)
        assert (await held_time(spool, make.clock, 400)) == pytest.approx(300, abs=0.1)
        await spool.hold(a_hold(start + 500))
        await spool.operate("release", Filter(ids=(message_id,)), start + 600)
        assert (await held_time(spool, make.clock, 700)) == pytest.approx(600, abs=0.1)
        await spool.unhold("lane", LANE, start + 800)
        (claim,) = await spool.claim(LANE, 1, start + 900)
        assert claim.held_for == pytest.approx(700, abs=0.1)

    async def test_held_time_goes_along_to_another_lane(self, make):
        spool = await make()
        start = make.clock.now()
        message_id = await accept(spool)
        await spool.hold(a_hold(start))
        await spool.operate("hold", Filter(ids=(message_id,)), start + 100)
        await spool.reroute(lambda claim: OTHER, start + 200)
        await spool.operate("release", Filter(ids=(message_id,)), start + 300)
        (claim,) = await spool.claim(OTHER, 1, start + 400)
        assert claim.held_for == pytest.approx(300, abs=0.1)


def a_hold(since: float) -> Hold:
    return Hold("lane", LANE, "x", "for the test", "", "", since)


async def held_time(spool, clock, seconds: float) -> float:
    """Of the only waiting message, so many seconds after the clock's start."""
    clock.advance(ManualClock().now() + seconds - clock.now())
    (claim,) = await spool.overdue(clock.now() + 1, unnoticed=False)
    return claim.held_for


class NoticesAndAnswers:
    """Notices stored with what caused them, waiting messages decided about, and answers that waited for Exchange."""

    async def test_a_notice_is_stored_with_the_outcome_that_causes_it(self, make):
        spool = await make()
        await accept(spool)
        now = make.clock.now()
        claim = await claim_one(spool, now)
        woken: list[str] = []
        spool.subscribe(woken.append)
        notice = NewMail(new_message(lane=OTHER, source="notices"), b"it failed\r\n")
        await settle(spool, claim, FAILED, now, notices=(notice,), told=True)
        (sent,) = await spool.claim(OTHER, 5, now)
        assert (await body_of(spool, sent.id)).endswith(b"it failed\r\n")
        assert woken == [OTHER]
        with pytest.raises(SpoolError):
            await spool.content(claim.id)

    async def test_failed_mail_nobody_could_be_told_of_keeps_its_content(self, make):
        spool = await make()
        message_id = await accept(spool)
        await settle(spool, await claim_one(spool, make.clock.now()), FAILED, make.clock.now())
        assert (await body_of(spool, message_id)).startswith(new_message().header)

    @pytest.mark.parametrize("told", [True, False])
    async def test_content_stays_only_while_a_failure_is_untold(self, make, told):
        """One recipient fails first, the other is delivered later; what counts is whether the failure was told."""
        spool = await make()
        message_id = await accept(spool, b"x" * 200_000, recipients=("a@x.example", "b@x.example"))
        now = make.clock.now()
        claim = await claim_one(spool, now)
        first = {"a@x.example": FAILED, "b@x.example": DEFERRED}
        await spool.settle(Settlement(claim.id, first, due=now, told=told), now)
        await settle(spool, await claim_one(spool, now), SENT, now)
        if told:
            assert (await spool.stats()).bytes == 0
        else:
            assert (await body_of(spool, message_id)).startswith(new_message().header)

    async def test_a_later_notice_does_not_speak_for_an_earlier_failure(self, make):
        spool = await make()
        message_id = await accept(spool, recipients=("a@x.example", "b@x.example"))
        now = make.clock.now()
        claim = await claim_one(spool, now)
        first = {"a@x.example": FAILED, "b@x.example": DEFERRED}
        await spool.settle(Settlement(claim.id, first, due=now), now)
        await settle(spool, await claim_one(spool, now), FAILED, now, told=True)
        assert (await body_of(spool, message_id)).startswith(new_message().header)
        assert (await spool.operate("retry", Filter(ids=(message_id,)), now)).changed == 1
        await settle(spool, await claim_one(spool, now), SENT, now)
        assert (await spool.stats()).bytes == 0

    async def test_waiting_mail_can_be_given_up(self, make):
        spool = await make()
        message_id = await accept(spool)
        decided = await spool.decide(Settlement(message_id, {"anna@example.net": FAILED}), make.clock.now())
        assert decided
        assert [trace.state for trace in await spool.trace(message_id)] == ["failed"]

    async def test_what_is_under_way_is_not_decided_about(self, make):
        spool = await make()
        message_id = await accept(spool)
        await claim_one(spool, make.clock.now())
        assert not await spool.decide(Settlement(message_id, {"anna@example.net": FAILED}), make.clock.now())
        (view,) = await spool.find(Filter())
        assert view.state == "active"

    async def test_a_delay_is_told_once_and_changes_nothing_else(self, make):
        spool = await make()
        message_id = await accept(spool)
        now = make.clock.now()
        await settle(spool, await claim_one(spool, now), DEFERRED, now, due=now + 60)
        make.clock.advance(50)
        late = await spool.overdue(now + 10, unnoticed=True)
        assert [(one.id, one.state, one.delay_noticed) for one in late] == [(message_id, "deferred", False)]
        told = Settlement(message_id, {}, event="delay-notice", details={"to": "x"}, delay_noticed=True)
        assert await spool.decide(told, now + 50)
        assert await spool.overdue(now + 10, unnoticed=True) == []
        assert [one.id for one in await spool.overdue(now + 10, unnoticed=False)] == [message_id]
        assert await spool.claim(LANE, 1, now + 59) == []
        assert (await claim_one(spool, now + 61)).attempts == 1

    async def test_overdue_mail_is_found_in_pages_oldest_first(self, make):
        spool = await make()
        ids = []
        for _ in range(5):
            ids.append(await accept(spool))
            make.clock.advance(1)
        first = await spool.overdue(make.clock.now(), unnoticed=True, limit=2)
        rest = await spool.overdue(make.clock.now(), unnoticed=True, after=(first[-1].received, first[-1].id))
        assert [one.id for one in first + rest] == ids

    async def test_a_withdrawn_message_leaves_only_its_trace(self, make):
        spool = await make()
        message_id = await accept(spool, b"x" * 200_000, direct=True)
        claim = await claim_one(spool, make.clock.now())
        assert claim.direct
        await settle(spool, claim, DEFERRED, make.clock.now(), withdraw=True)
        assert (await spool.stats()).messages == 0
        assert (await spool.stats()).bytes == 0
        assert [trace.state for trace in await spool.trace(message_id)] == ["deleted"]

    async def test_a_restart_forgets_mail_whose_client_was_never_answered(self, make):
        spool = await make()
        await accept(spool, direct=True)
        kept = await accept(spool)
        answered = await accept(spool, direct=True)
        claims = {claim.id: claim for claim in await spool.claim(LANE, 5, make.clock.now())}
        await settle(spool, claims[answered], DEFERRED, make.clock.now(), due=make.clock.now(), keep=True)
        spool = await make.reopen(spool)
        await spool.recover()
        assert {one.id for one in await spool.find(Filter())} == {kept, answered}

    async def test_small_texts_are_remembered_over_a_restart(self, make):
        spool = await make()
        await spool.remember("alert:a", "1")
        await spool.remember("alert:b", "2")
        await spool.remember("budget:c", "3")
        await spool.remember("alert:b", None)
        spool = await make.reopen(spool)
        assert await spool.remembered("alert:") == {"alert:a": "1"}


async def tend_until_quiet(spool: Spool, now: float) -> None:
    while await spool.tend(now) < 1:
        await asyncio.sleep(0)


def full(errors: Iterable[BaseException]) -> bool:
    return any(isinstance(error, SpoolFull) for error in errors)
