"""``answer_after: upstream``: what a waiting client is told, and what is left behind."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from relay.errors import SpoolError
from relay.message import Outcome, Reply, Report, Result, Scope
from relay.schedule import answers
from relay.schedule.answers import judge
from relay.spool.contract import Filter, Hold, Settlement
from tests.fakes.courier import SENT
from tests.fakes.spool import LANE, OTHER, new_message
from tests.schedule.test_judgement import claim
from tests.schedule.test_loop import FULL, WRONG_SECRET, house

__all__ = ["house"]

REFUSED = Outcome(
    Result.FAILED, reply=Reply(550, "5.1.10", "Recipient not found"), reason="no such recipient"
)
LATER = Outcome(Result.DEFERRED, reply=Reply(451, "4.7.0", "PRX2"), reason="Exchange asked to try later")


async def submit(h, patience: float = 5.0, gone: asyncio.Event | None = None, **changes) -> Reply:
    """As the listener does: expect, commit, wait."""
    draft = h.spool.draft()
    ticket = h.scheduler.answers.expect(draft.id, LANE)
    await draft.write(b"hello\r\n")
    await draft.commit(new_message(direct=True, **changes))
    return await h.scheduler.answers.wait(ticket, patience, gone)


async def left(h) -> int:
    return (await h.spool.stats()).messages


async def test_exchanges_250_is_the_clients_250(house):
    h = await house()
    reply = await submit(h)
    assert (reply.code, reply.enhanced) == (250, "2.0.0")
    assert await left(h) == 0


async def test_graphs_202_is_the_clients_250(house):
    """No mail client takes another answer to its final dot for success."""
    h = await house()
    taken = Outcome(Result.SENT, reply=Reply(202, "", "Accepted by Microsoft Graph"))
    h.courier.answer = lambda claim: taken
    assert str(await submit(h)) == "250 2.0.0 Accepted by Microsoft Graph"


async def test_a_permanent_refusal_is_passed_on_with_exchanges_words(house):
    h = await house()
    h.courier.answer = lambda claim: REFUSED
    reply = await submit(h)
    assert str(reply) == "550 5.1.10 Recipient not found"
    assert await left(h) == 0


async def test_a_temporary_failure_is_451_and_leaves_nothing(house):
    h = await house()
    h.courier.answer = lambda claim: LATER
    reply = await submit(h)
    assert reply.code == 451
    assert "Exchange asked to try later" in reply.text
    assert await left(h) == 0


async def test_what_exchange_may_have_is_not_called_unsent(house):
    h = await house()
    h.courier.answer = lambda claim: dataclasses.replace(LATER, reply=None, reason="cut off", uncertain=True)
    reply = await submit(h)
    assert str(reply) == "451 4.3.0 Not confirmed, nothing kept: cut off"
    assert await left(h) == 0


async def test_a_hold_is_451_with_the_reason_at_once(house):
    h = await house()
    h.courier.refuse = WRONG_SECRET
    reply = await submit(h, patience=60)
    assert reply.code == 451
    assert "The client secret is wrong" in reply.text
    again = await submit(h, patience=60)
    assert "The client secret is wrong" in again.text
    assert await left(h) == 0


async def test_a_hold_that_the_message_itself_meets_is_451(house):
    h = await house()
    h.courier.answer = lambda claim: Report({"anna@example.net": FULL}, FULL)
    reply = await submit(h)
    assert reply.code == 451
    assert "mailbox is full" in reply.text
    assert await left(h) == 0


async def test_a_message_that_moves_to_a_held_lane_is_451_at_once(house):
    h = await house()
    await h.spool.hold(Hold("lane", OTHER, "c", "The mailbox is full", "Empty it", "", h.spool.now()))
    h.courier.answer = lambda claim: Report({}, moved_to=OTHER)
    await h.scheduler.holds.load(probe_now=False)
    reply = await asyncio.wait_for(submit(h, patience=60), 5)
    assert (reply.code, "mailbox is full" in reply.text) == (451, True)
    assert await left(h) == 0


async def test_patience_ends_with_451_and_nothing_left(house):
    h = await house(messages_per_minute=1)
    assert (await submit(h)).code == 250
    reply = await submit(h, patience=0.05)
    assert reply.code == 451
    assert "0.05 s" in reply.text
    assert await left(h) == 0


async def test_a_message_that_an_operator_deletes_is_451(house):
    h = await house(messages_per_minute=1)
    assert (await submit(h)).code == 250
    waiting = asyncio.ensure_future(submit(h, patience=0.3))
    (view,) = await h.shows("queued")
    await h.spool.operate("delete", Filter(ids=(view.id,)), h.spool.now())
    reply = await waiting
    assert (reply.code, "operator" in reply.text) == (451, True)


async def test_a_submission_under_way_decides_even_when_patience_has_ended(house):
    h = await house()
    h.courier.gate.clear()
    waiting = asyncio.ensure_future(submit(h, patience=0.05))
    await h.courier.until(lambda: h.courier.open_now == 1)
    async with asyncio.timeout(5):
        while (await h.spool.lane(LANE)).active != 1:
            await asyncio.sleep(0)
    h.courier.gate.set()
    assert (await waiting).code == 250


async def test_a_submission_that_exchange_cannot_have_yet_ends_with_the_patience(house):
    h = await house()
    h.courier.dotted = False
    h.courier.gate.clear()
    waiting = asyncio.ensure_future(submit(h, patience=0.2))
    await h.courier.until(lambda: h.courier.under_way == 1)
    reply = await asyncio.wait_for(waiting, 5)
    assert str(reply) == "451 4.3.0 Not sent, nothing kept: Exchange did not take it within 0.2 s"
    assert await left(h) == 0
    h.courier.gate.set()
    assert (await submit(h)).code == 250
    assert len(h.courier.sent) == 1


async def test_what_was_broken_off_and_is_slow_to_end_keeps_no_client_waiting(house, monkeypatch):
    monkeypatch.setattr(answers, "_CLEARING", 0.1)
    h = await house()
    h.courier.gate.clear()
    waiting = asyncio.ensure_future(submit(h, patience=0.05))
    await h.courier.until(lambda: h.courier.under_way == 1)
    monkeypatch.setattr(h.scheduler.lanes[LANE], "break_off", lambda message_id: True)
    reply = await asyncio.wait_for(waiting, 5)
    assert reply.code == 451
    assert "nothing kept" in reply.text
    h.courier.answer = lambda claim: LATER
    h.courier.gate.set()
    await h.quiet()


async def test_a_lane_held_meanwhile_lets_a_submission_go_on_as_long_as_the_patience_does(house):
    h = await house()
    h.courier.dotted = False
    h.courier.gate.clear()
    waiting = asyncio.ensure_future(submit(h, patience=0.5))
    await h.courier.until(lambda: h.courier.under_way == 1)
    h.scheduler.answers.held({LANE}, Hold("lane", LANE, "c", "The mailbox is full", "Empty it", "", 0.0))
    _, pending = await asyncio.wait([waiting], timeout=0.2)
    assert pending
    assert (await asyncio.wait_for(waiting, 5)).code == 451
    assert await left(h) == 0


async def test_patience_is_kept_behind_a_submission_that_hangs(house):
    """Whether claimed for the one connection or still in the queue: it is taken out of the lane's hands."""
    h = await house(connections=1)
    h.courier.gate.clear()
    first = asyncio.ensure_future(submit(h, patience=60))
    await under_way(h, 1)
    others = [asyncio.ensure_future(submit(h, patience=0.2)) for _ in range(3)]
    await under_way(h, 2)
    replies = await asyncio.wait_for(asyncio.gather(*others), 5)
    assert {reply.code for reply in replies} == {451}
    assert all("nothing kept" in reply.text for reply in replies)
    assert await left(h) == 1
    h.courier.gate.set()
    assert (await first).code == 250
    assert await left(h) == 0
    assert len(h.courier.sent) == 1


async def under_way(h, count: int) -> None:
    """Until so many messages are claimed."""
    async with asyncio.timeout(5):
        while (await h.spool.lane(LANE)).active != count:
            await asyncio.sleep(0)


async def test_a_client_that_leaves_takes_its_message_along(house):
    h = await house(connections=1)
    h.courier.gate.clear()
    first = asyncio.ensure_future(submit(h, patience=60))
    await under_way(h, 1)
    gone = asyncio.Event()
    leaving = asyncio.ensure_future(submit(h, 60, gone, message_id="<leaving@x>"))
    await under_way(h, 2)
    gone.set()
    assert (await asyncio.wait_for(leaving, 5)).code == 451
    (trace,) = await h.spool.trace("<leaving@x>")
    assert "the client went away" in [event.fields.get("reason") for event in trace.events]
    h.courier.gate.set()
    await first
    assert len(h.courier.sent) == 1


async def test_a_client_that_leaves_during_the_attempt_is_named_in_the_trace(house):
    h = await house()
    h.courier.gate.clear()
    gone = asyncio.Event()
    leaving = asyncio.ensure_future(submit(h, 60, gone, message_id="<leaving@x>"))
    await under_way(h, 1)
    await h.courier.until(lambda: h.courier.under_way == 1)
    gone.set()
    h.courier.gate.set()
    assert (await asyncio.wait_for(leaving, 5)).code == 250
    (trace,) = await h.spool.trace("<leaving@x>")
    assert trace.events[-1].fields["client"] == "went away before the answer"


async def test_the_rest_of_a_partly_sent_message_is_not_kept_for_a_client_that_left(house):
    h = await house()
    h.courier.gate.clear()
    h.courier.answer = lambda claim: Report({"a@x.example": SENT, "b@x.example": LATER})
    gone = asyncio.Event()
    leaving = asyncio.ensure_future(submit(h, 60, gone, recipients=("a@x.example", "b@x.example")))
    await h.courier.until(lambda: h.courier.under_way == 1)
    gone.set()
    await asyncio.sleep(0)
    h.courier.gate.set()
    await asyncio.wait_for(leaving, 5)
    assert await left(h) == 0


async def test_a_spool_that_fails_is_not_called_empty_and_is_emptied_as_soon_as_it_works(house, monkeypatch):
    h = await house(messages_per_minute=1)
    assert (await submit(h)).code == 250
    broken = asyncio.Event()
    decide = h.spool.decide

    async def failing(settlement, now):
        if not broken.is_set():
            raise SpoolError("the disk of the spool is full")
        return await decide(settlement, now)

    monkeypatch.setattr(h.spool, "decide", failing)
    reply = await submit(h, patience=0.05)
    assert reply.code == 451
    assert "nothing kept" not in reply.text
    assert "may still be sent" in reply.text and "disk" in reply.text
    assert await left(h) == 1
    broken.set()
    await h.quiet()


async def test_an_attempt_that_outlasts_all_patience_is_not_denied(house, monkeypatch):
    monkeypatch.setattr(answers, "_UNDER_WAY", 0.1)
    h = await house()
    h.courier.gate.clear()
    reply = await submit(h, patience=1.0, message_id="<slow@x>")
    assert (reply.code, "may still be sent" in reply.text) == (451, True)
    h.courier.gate.set()
    await h.sent(1)
    await h.quiet()
    (trace,) = await h.spool.trace("<slow@x>")
    assert trace.events[-1].fields["client"] == "was told to try again before Exchange answered"


async def test_a_partly_sent_message_is_ours_from_then_on(house):
    h = await house()
    h.courier.answer = lambda claim: Report({"a@x.example": SENT, "b@x.example": LATER})
    reply = await submit(h, recipients=("a@x.example", "b@x.example"))
    assert reply.code == 250
    (view,) = await h.spool.find(Filter())
    assert [str(one.state) for one in view.recipients] == ["sent", "deferred"]
    await h.spool.recover()
    assert await left(h) == 1


@pytest.mark.parametrize(
    ("outcomes", "code", "keep", "withdraw"),
    [
        ([SENT, REFUSED], 250, True, False),
        ([REFUSED, REFUSED], 550, False, True),
        ([REFUSED, LATER], 451, False, True),
        ([LATER, Outcome(Result.HELD, Scope.SENDER, reason="denied")], 451, False, True),
        ([], 451, False, True),
    ],
)
def test_judgement_of_mixed_outcomes(outcomes, code, keep, withdraw):
    people = {f"{n}@x": one for n, one in enumerate(outcomes)}
    done, reply = judge(claim(), Settlement("0" * 13, people))
    assert reply is not None
    assert (reply.code, done.keep, done.withdraw) == (code, keep, withdraw)
