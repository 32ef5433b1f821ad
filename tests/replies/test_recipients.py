"""Recipients that fare differently: each has its own outcome, and none delays the others."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain

import pytest

from relay.schedule.lane import Lane
from relay.schedule.limits import MailboxLimiter
from relay.schedule.upstream import UpstreamState
from tests.fakes.exchange import FakeExchange, Talk
from tests.replies.conftest import Build
from tests.replies.kit import BAD, GOOD, LANE, House, mails_of

FINE, LATE, GONE = "fine@customer.org", "late@customer.org", "gone@customer.org"
ANSWERS = {LATE: b"450 4.2.1 Mailbox busy", GONE: b"550 5.1.10 Recipient not found"}


def by_recipient(answers: dict[str, bytes]) -> Callable[[Talk, str], bytes | None]:
    """Each RCPT its own reply."""

    def choose(talk: Talk, line: str) -> bytes | None:
        found = (reply for address, reply in answers.items() if line.startswith(f"RCPT TO:<{address}>"))
        return next(found, None)

    return choose


def full_after(
    most: int, reply: bytes = b"452 4.5.3 Too many recipients"
) -> Callable[[Talk, str], bytes | None]:
    """No more than that many recipients in one message."""
    return lambda talk, line: reply if line.startswith("RCPT") and len(talk.recipients) >= most else None


def envelopes(server: FakeExchange) -> list[list[str]]:
    """The recipients of each message that Exchange took."""
    return [[line.split("<")[1].split(">")[0] for line in one.recipients] for one in server.messages]


def people(count: int) -> tuple[str, ...]:
    return tuple(f"r{n}@customer.org" for n in range(count))


async def test_sent_deferred_and_failed_each_for_itself(build: Build, server: FakeExchange) -> None:
    """One message, three replies: delivered, tried again, told; the second try goes to the one that waits."""
    house = await build()
    server.script.choose = by_recipient(ANSWERS)
    await house.start()
    message = await house.accept(BAD, FINE, LATE, GONE)
    await house.comes_to(message, "deferred")
    assert await house.people(message) == {FINE: "sent", LATE: "deferred", GONE: "failed"}
    assert envelopes(server)[0] == [FINE]
    (notice,) = await house.told()
    assert GONE.encode() in notice.data
    assert FINE.encode() not in notice.data.split(b"\r\n\r\n", 1)[1].split(b"message/rfc822")[0]
    server.script.choose = None
    await house.again(message)
    await house.comes_to(message, "partly failed")
    assert [one for one in envelopes(server) if one in ([LATE], [FINE], [GONE])] == [[FINE], [LATE]]
    assert len(house.notices) == 1


async def test_a_recipient_that_must_wait_does_not_delay_the_others(
    build: Build, server: FakeExchange
) -> None:
    """450 for one of three: the other two have it, and the next message goes at once."""
    house = await build()
    server.script.choose = by_recipient({LATE: ANSWERS[LATE]})
    await house.start()
    message = await house.accept(BAD, FINE, LATE, GONE)
    await house.comes_to(message, "deferred")
    assert envelopes(server) == [[FINE, GONE]]
    assert house.lane.state() == "open"
    assert (await house.view(message)).attempts == 1
    await house.comes_to(await house.accept(GOOD), "sent")


async def test_several_refused_recipients_make_one_notice(build: Build, server: FakeExchange) -> None:
    """The notice names each of them, with its own reply."""
    house = await build()
    server.script.choose = by_recipient({GONE: ANSWERS[GONE], LATE: b"501 5.1.3 Invalid address"})
    await house.start()
    message = await house.accept(BAD, GONE, LATE, FINE)
    await house.comes_to(message, "partly failed")
    (notice,) = await house.told()
    for piece in (GONE, LATE, "5.1.10", "5.1.3"):
        assert piece.encode() in notice.data


async def test_a_policy_for_one_recipient_holds_that_recipient(build: Build, server: FakeExchange) -> None:
    """An unknown 5.7 at RCPT: the others have it, one waits for an administrator, nothing else is held."""
    house = await build()
    server.script.choose = by_recipient({GONE: b"550 5.7.999 Odd policy"})
    await house.start()
    message = await house.accept(BAD, FINE, GONE)
    await house.comes_to(message, "held")
    assert await house.people(message) == {FINE: "sent", GONE: "held"}
    assert [one.scope for one in await house.holds()] == ["message"]
    await house.comes_to(await house.accept(GOOD), "sent")
    assert house.notices == []


async def test_a_throttled_recipient_slows_the_lane_and_the_others_are_served(
    build: Build, server: FakeExchange
) -> None:
    """451 4.7.500 for one of two: the other has it; the lane waits, without a count against the message."""
    house = await build()
    server.script.choose = by_recipient({LATE: b"451 4.7.500 Access denied, please try again later AS1"})
    await house.start()
    message = await house.accept(BAD, FINE, LATE)
    await house.comes_to(message, "deferred")
    assert await house.people(message) == {FINE: "sent", LATE: "deferred"}
    assert house.lane.state() == "slowed"


async def test_a_banned_mailbox_at_one_recipient_holds_the_lane_and_loses_nobody(
    build: Build, server: FakeExchange
) -> None:
    """550 5.7.503 for the second recipient: the first has it, the second waits with the lane."""
    house = await build()
    server.script.choose = by_recipient({LATE: b"550 5.7.503 Access denied, banned sender"})
    await house.start()
    message = await house.accept(BAD, FINE, LATE)
    await house.comes_to(message, "held")
    states = await house.people(message)
    assert states[FINE] == "sent"
    assert states[LATE] in ("queued", "held")
    assert [one.scope for one in await house.holds()] == ["lane"]
    server.script.choose = None
    await house.scheduler.reload(house.settings)
    await house.comes_to(message, "sent")
    assert envelopes(server) == [[FINE], [LATE]]


@pytest.mark.parametrize("reply", [b"452 4.5.3 Too many recipients", b"452 5.5.3 Too many recipients"])
async def test_too_many_recipients_splits_within_the_attempt(
    build: Build, server: FakeExchange, reply: bytes
) -> None:
    """Refused mid-list: the rest follows in messages of the size that was taken, on the same connection, at once."""
    house = await build()
    server.script.choose = full_after(4, reply)
    await house.start()
    message = await house.accept(BAD, *people(10))
    await house.comes_to(message, "sent")
    assert envelopes(server) == [list(people(10)[:4]), list(people(10)[4:8]), list(people(10)[8:])]
    assert len(server.talks) == 1
    assert [one.event for one in (await house.trace(message)).events].count("delivered") == 1


async def test_splitting_keeps_refusals_with_their_recipients(build: Build, server: FakeExchange) -> None:
    """One of the second part is unknown: it alone fails."""
    house = await build()
    gone = people(6)[4]
    crowd, refusal = full_after(3), by_recipient({gone: ANSWERS[GONE]})
    server.script.choose = lambda talk, line: crowd(talk, line) or refusal(talk, line)
    await house.start()
    message = await house.accept(BAD, *people(6))
    await house.comes_to(message, "partly failed")
    states = await house.people(message)
    assert [one for one, state in states.items() if state != "sent"] == [gone]
    assert len(await house.told()) == 1


async def test_a_list_that_is_too_long_for_one_is_a_refusal_like_any_other(
    build: Build, server: FakeExchange
) -> None:
    """452 4.5.3 although nobody was taken: it counts, and the next try is a minute away, not a second."""
    house = await build()
    server.script.choose = full_after(0)
    await house.start()
    message = await house.accept(BAD, *people(2))
    await house.comes_to(message, "deferred")
    view = await house.view(message)
    assert view.attempts == 1
    assert view.next_attempt - house.clock.now() > 50
    assert mails_of(server, BAD) == 1


async def test_more_recipients_than_a_message_may_have(build: Build, server: FakeExchange) -> None:
    """limits.recipients_per_message: 500; each has it once."""
    house = await build()
    await house.start()
    message = await house.accept(BAD, *people(1203))
    await house.comes_to(message, "sent")
    assert [len(one) for one in envelopes(server)] == [500, 500, 203]
    assert sorted(chain.from_iterable(envelopes(server))) == sorted(people(1203))
    assert len(server.talks) == 1


async def test_a_part_that_fails_takes_no_other_part_with_it(build: Build, server: FakeExchange) -> None:
    """The second of three parts is refused for now: the first and the third are not sent again."""
    house: House = await build(recipients_per_message=2)
    server.script.answers["BODY"] = [b"250 2.0.0 OK", b"451 4.7.0 Temporary server error. PRX5"]
    await house.start()
    message = await house.accept(BAD, *people(6))
    await house.comes_to(message, "deferred")
    await house.again(message)
    await house.comes_to(message, "sent")
    assert envelopes(server) == [list(people(6)[0:2]), list(people(6)[4:6]), list(people(6)[2:4])]


def the_least(server: FakeExchange, most: int) -> None:
    server.script.choose = full_after(most)


async def test_what_exceeds_a_minute_goes_on_in_the_next_one(build: Build, server: FakeExchange) -> None:
    """Ten recipients one by one at four a minute: four go, six wait in the queue, and no try is counted."""
    house = await build(recipients_per_message=1, messages_per_minute=4)
    await house.start()
    message = await house.accept(BAD, *people(10))
    await house.comes_to(message, "queued")
    await house.settles(lambda: sent_to(house, message), list(people(4)))
    view = await house.view(message)
    assert (view.state, view.attempts) == ("queued", 0)
    assert len(server.messages) == 4
    assert len((await house.spool.usage(LANE, house.clock.now())).stamps) == 4
    restarted = MailboxLimiter(house.lane.limits, await house.spool.usage(LANE, house.clock.now()))
    assert restarted.available(house.clock.now()) == 0


async def test_transactions_of_a_split_are_counted_and_stop_at_the_limit(
    build: Build, server: FakeExchange
) -> None:
    """One expected, three a minute allowed, and Exchange takes two recipients at once: six of nine are served."""
    house = await build(messages_per_minute=3)
    the_least(server, 2)
    await house.start()
    message = await house.accept(BAD, *people(9))
    await house.settles(lambda: sent_to(house, message), list(people(6)))
    assert [len(one) for one in envelopes(server)] == [2, 2, 2]
    assert mails_of(server, BAD) == 3
    view = await house.view(message)
    assert (view.state, view.attempts) == ("queued", 0)
    usage = await house.spool.usage(LANE, house.clock.now())
    assert len(usage.stamps) == 3
    assert sum(count for _, count in usage.recipients_today) >= 6  # those offered in vain, too


async def test_the_next_message_is_split_right_from_the_start(build: Build, server: FakeExchange) -> None:
    """What Exchange takes at once is remembered: one 452 in all, and the cost is known before the claim."""
    house = await build()
    refusals = 0
    crowd = full_after(3)

    def choose(talk: Talk, line: str) -> bytes | None:
        nonlocal refusals
        reply = crowd(talk, line)
        refusals += reply is not None
        return reply

    server.script.choose = choose
    await house.start()
    await house.comes_to(await house.accept(BAD, *people(5)), "sent")
    assert refusals == 2
    await house.comes_to(await house.accept(BAD, *people(7)), "sent")
    assert refusals == 2
    assert [len(one) for one in envelopes(server)] == [3, 2, 3, 3, 1]
    again = Lane(LANE, UpstreamState("Contoso"), house.lane.limits, 30, MailboxLimiter(house.lane.limits))
    again.remember((await house.spool.remembered())[f"recipients-per-message:{LANE}"])
    assert again.most_recipients(house.clock.now()) == 3
    assert again.most_recipients(house.clock.now() + 90_000) == 500


async def test_the_day_is_kept_by_the_parts_of_a_message(build: Build, server: FakeExchange) -> None:
    """Five recipients a day, seven in the message: five go, two wait, whatever Exchange takes at once."""
    house = await build(recipients_per_day=5)
    the_least(server, 3)
    await house.start()
    message = await house.accept(BAD, *people(7))
    await house.settles(lambda: sent_to(house, message), list(people(5)))
    assert (await house.view(message)).state == "queued"
    assert house.lane.limiter.day_is_full(house.clock.now())


async def sent_to(house: House, message: str) -> list[str]:
    """Its recipients that are served."""
    return [address for address, state in (await house.people(message)).items() if state == "sent"]
