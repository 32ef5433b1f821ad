"""What does not fit the limits lets others pass, is saved for, and keeps its own source in order."""

from __future__ import annotations

import dataclasses

import pytest

from relay.schedule.lane import Lane
from relay.schedule.limits import MailboxLimiter
from relay.schedule.upstream import UpstreamState
from relay.spool.contract import Claim
from tests.fakes.settings import LIMITS
from tests.schedule.test_lane import claim

DAY = dataclasses.replace(LIMITS, recipients_per_day=100)


@pytest.fixture
def lane() -> Lane:
    return Lane("U/m@c", UpstreamState("U"), DAY, 30, MailboxLimiter(DAY))


def mail(name: str, source: str, recipients: int) -> Claim:
    return claim(name, source, *(f"r{n}@x" for n in range(recipients)))


def admitted(lane: Lane, claims: list[Claim], count: int = 50, now: float = 1000.0) -> list[str]:
    found = lane.admission.admit(lane, claims, count, now)
    lane.owed.clear()
    return [one.id for one in found]


def used(lane: Lane, recipients: int, now: float) -> None:
    """So many recipients were served just then."""
    cost = lane.cost(mail("earlier", "earlier", recipients))
    lane.limiter.start(cost)
    lane.limiter.finish(now, cost)


def test_small_mail_of_another_source_passes_a_large_one_that_does_not_fit(lane):
    used(lane, 80, 0.0)
    assert admitted(lane, [mail("large", "list", 50), mail("small", "scanner", 1)]) == ["small"]


def test_mail_of_the_same_source_keeps_its_order(lane):
    used(lane, 80, 0.0)
    claims = [mail("large", "list", 50), mail("later", "list", 1), mail("small", "scanner", 1)]
    assert admitted(lane, claims) == ["small"]


def test_half_of_what_is_free_is_saved_for_the_one_that_waits(lane):
    used(lane, 80, 0.0)
    claims = [mail("large", "list", 50)] + [mail(f"s{n}", f"scanner {n}", 1) for n in range(40)]
    assert len(admitted(lane, claims)) == 10
    assert admitted(lane, [claims[0], mail("next", "another", 1)]) == []


def test_the_large_one_goes_although_others_never_stop(lane):
    """Small mail without end, the window always full: 60 recipients of 100 become free bit by bit, half of them for it."""
    for hour in range(20):
        used(lane, 5, hour * 3600.0)
    large, now, passed = mail("large", "list", 60), 86_400.0, 0
    while "large" not in (gone := admitted(lane, [large, mail(f"s{now}", f"scanner {now}", 1)], 1, now)):
        for _ in gone:
            passed += 1
            lane.limiter.finish(now)
        now += 600.0
    assert now <= 86_400.0 + 36 * 3600
    assert passed >= 20


def test_no_more_start_than_were_asked_for(lane):
    claims = [mail(f"s{n}", f"scanner {n}", 1) for n in range(9)]
    assert admitted(lane, claims, 4) == ["s0", "s1", "s2", "s3"]


def test_the_window_grows_past_what_waits(lane):
    used(lane, 80, 0.0)
    assert lane.admission.window(2) == 2
    admitted(lane, [mail("a", "one", 50), mail("b", "two", 60)], 2)
    assert lane.admission.window(2) > 4
    admitted(lane, [mail("small", "scanner", 1)], 2)
    assert lane.admission.window(2) == 2
