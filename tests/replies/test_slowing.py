"""Throttling replies: what stops at once, what ends, and when it goes on; and holds that are tried ever more seldom."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from relay.deliver.classify import Names, judge, reply_of
from relay.deliver.phases import Phase
from relay.message import Outcome, Reply
from relay.schedule.backoff import PROBES, later, next_probe
from tests.fakes.exchange import FakeExchange, Talk
from tests.replies.conftest import Build
from tests.replies.kit import (
    BAD,
    CONTOSO,
    GOOD,
    LANE,
    OTHER,
    OTHER_LANE,
    STRANGER,
    from_line,
    mails_of,
    refuse,
)

RATE = "421 4.4.2 Message submission rate for this client has exceeded the configured limit"
THREADS = "432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded"
TENANT = "550 5.7.233 Tenant has exceeded its external recipient limit"


def judged_with_wait(seconds: float) -> Callable[..., Outcome]:
    """The reply table with shorter waits."""

    def soon(phase: Phase, reply: Reply, names: Names) -> Outcome:
        outcome = judge(phase, reply, names)
        return outcome if outcome.wait is None else dataclasses.replace(outcome, wait=seconds)

    return soon


@pytest.mark.parametrize("reply", [RATE, THREADS])
async def test_nothing_more_goes_after_too_fast(build: Build, server: FakeExchange, reply: str) -> None:
    """Mail that was claimed already goes back too, and the connection ends: Exchange is not provoked."""
    house = await build()
    refuse(server, Phase.BODY, reply)
    first = await house.accept(BAD)
    rest = [await house.accept(GOOD) for _ in range(5)]
    await house.start()
    await house.comes_to(first, "deferred")
    tried = mails_of(server, GOOD)
    for one in rest[tried:]:
        await house.comes_to(one, "queued")
    await house.disconnects()
    assert mails_of(server, GOOD) == tried <= 1
    assert house.lane.limiter.slowed
    assert len(server.talks) == 1


async def test_a_pause_ends_by_itself(
    build: Build, server: FakeExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No operator is needed: the mail goes when the time has come."""
    monkeypatch.setattr("relay.schedule.lane.RECONNECT", (0.01,))
    monkeypatch.setattr("relay.deliver.transaction.judge", judged_with_wait(0.02))
    house = await build(messages_per_minute=30)
    refused: list[bool] = []

    def choose(talk: Talk, line: str) -> bytes | None:
        if line != "BODY" or refused:
            return None
        refused.append(True)
        return RATE.encode()

    server.script.choose = choose
    message = await house.accept(BAD)
    await house.start()
    await house.comes_to(message, "sent")
    assert mails_of(server, BAD) == 2
    assert [one.event for one in (await house.trace(message)).events].count("deferred") == 1


async def test_a_connection_too_many_leaves_one_and_slows_the_lane(
    build: Build, server: FakeExchange
) -> None:
    """432 at AUTH for the second connection: the first goes on, and no third is tried."""
    house = await build(batch_size=2)
    logins: list[str] = []

    def choose(talk: Talk, line: str) -> bytes | None:
        if not line.startswith("AUTH"):
            return None
        logins.append(line)
        return b"432 4.3.2 Concurrent connections limit exceeded" if len(logins) == 2 else None

    server.script.choose = choose
    ids = [await house.accept(GOOD, f"r{n}@customer.org", source=str(n)) for n in range(4)]
    await house.start()

    async def look() -> tuple[bool, int]:
        return house.lane.limiter.slowed, len(logins)

    await house.settles(look, (True, 2))
    states = [await house.state(one) for one in ids]
    assert set(states) <= {"sent", "active", "queued"}
    assert house.lane.state() == "slowed"
    assert len(server.talks) == 2
    assert (await house.view(ids[-1])).attempts == 0


async def test_a_limit_of_the_tenant_slows_all_of_its_mailboxes(build: Build, server: FakeExchange) -> None:
    """5.7.233: those that are known, those that come later, and nobody of another tenant."""
    house = await build()
    await house.start()
    await house.comes_to(await house.accept(OTHER), "sent")
    refuse(server, Phase.BODY, TENANT)
    message = await house.accept(BAD)
    await house.comes_to(message, "deferred")
    known = house.scheduler.lanes[OTHER_LANE]
    assert known.state() == "slowed"
    assert "external recipients" in known.trouble.reason
    assert known.trouble.remedy
    assert known.limiter.paused_until - house.clock.now() > 3500
    late = house.scheduler._lane(f"{CONTOSO}/late@contoso.com")
    assert late.state() == "slowed"
    await house.comes_to(await house.accept(STRANGER), "sent")


async def test_an_old_connection_between_messages_is_no_error(build: Build, server: FakeExchange) -> None:
    """421 4.4.1 at the next MAIL: the message goes over a new connection at once, and nobody is slowed."""
    house = await build()
    await house.start()
    await house.comes_to(await house.accept(GOOD), "sent")
    offered: list[str] = []

    def choose(talk: Talk, line: str) -> bytes | None:
        if not line.startswith(from_line(BAD)):
            return None
        offered.append(line)
        return b"421 4.4.1 Connection timed out" if len(offered) == 1 else None

    server.script.choose = choose
    message = await house.accept(BAD)
    await house.comes_to(message, "sent")
    assert len(server.talks) == 2
    assert house.lane.state() == "open"
    assert (await house.view(message)).attempts == 0


async def test_a_refused_token_is_minted_once_more_and_not_again(build: Build, server: FakeExchange) -> None:
    """535 5.7.3: one fresh token, one more login, then the lane is held."""
    house = await build()
    refuse(server, Phase.AUTH, "535 5.7.3 Authentication unsuccessful")
    await house.start()
    await house.comes_to(await house.accept(BAD), "held")
    assert house.tokens.discarded == ["TOKEN"]
    assert len(server.talks) == 2


@pytest.mark.parametrize(
    ("phase", "reply", "hours"),
    [
        (
            Phase.BODY,
            "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException",
            [1, 2, 3, 4, 4],
        ),
        (Phase.MAIL, "550 5.2.251 Sender throttled due to continuous mailbox full errors", [1, 2, 3, 4, 4]),
        (Phase.AUTH, "535 5.7.3 Authentication unsuccessful", [0.25, 0.25, 0.25, 0.25, 0.25]),
    ],
)
async def test_a_hold_is_tried_ever_more_seldom(
    build: Build, phase: Phase, reply: str, hours: list[float]
) -> None:
    """Quotas and blocks in steps of 1 to 4 hours; a refused login every 10 to 15 minutes at first."""
    house = await build()
    await house.start()
    lane = house.scheduler._lane(LANE)
    outcome = judge(phase, reply_of(int(reply[:3]), reply[4:]))
    for expected in hours:
        assert await house.scheduler.holds.may_probe(lane)
        await house.scheduler.holds.impose(lane, outcome)
        (hold,) = await house.holds()
        assert hold.next_probe - house.clock.now() == pytest.approx(expected * 3600, rel=0.11)


def test_a_probe_is_never_sooner_than_asked() -> None:
    """Nor than the usual steps, the widest of which is 4 hours."""
    for probes in range(12):
        for asked in (0.0, 900.0, 3600.0, 7200.0):
            wait = next_probe(PROBES, probes, asked, lambda: 0.0)
            assert asked <= wait <= 4 * 3600.0
            assert wait >= PROBES[min(probes, len(PROBES) - 1)] * 0.9


def test_who_was_told_to_wait_does_not_come_back_with_the_others() -> None:
    """Up to a tenth later, never sooner."""
    assert [later(15.0, lambda: 0.0), later(15.0, lambda: 1.0)] == [15.0, 16.5]
