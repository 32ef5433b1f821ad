"""The mailbox's limits: no sliding minute and no sliding day ever holds more than allowed, and little less."""

from __future__ import annotations

import random

from relay.schedule.limits import Cost, MailboxLimiter, cost_of
from relay.settings import MailboxLimits
from relay.spool.contract import Usage


def limits(minute: int = 30, day: int = 10_000) -> MailboxLimits:
    return MailboxLimits(
        connections=2,
        messages_per_minute=minute,
        recipients_per_day=day,
        recipients_per_message=500,
        message_size=1,
    )


def run(limiter: MailboxLimiter, seconds: float, latency: float, seed: int = 1) -> list[float]:
    """Send as fast as allowed on two connections; the instants at which a server might have counted each message."""
    rnd, now, counted, ends = random.Random(seed), 0.0, [], []
    while now < seconds:
        for end in [one for one in ends if one <= now]:
            limiter.finish(end)
            ends.remove(end)
        if len(ends) < 2 and limiter.available(now) != 0:
            limiter.start()
            took = latency * rnd.uniform(0.5, 1.5)
            ends.append(now + took)
            counted.append(now + rnd.uniform(0, took))
            continue
        now = (
            min([*ends, max(now + 0.001, limiter.ready_at(now))])
            if len(ends) == 2 or ends
            else limiter.ready_at(now) + 1e-6
        )
    return sorted(counted)


def most_in_a_minute(times: list[float]) -> int:
    return max(sum(1 for other in times if start <= other < start + 60) for start in times)


def test_no_sliding_minute_holds_more_than_the_limit_whatever_the_latency():
    for latency in (0.01, 0.2, 3.0):
        times = run(MailboxLimiter(limits()), 600, latency)
        assert most_in_a_minute(times) <= 30, latency


def test_nearly_all_of_the_limit_is_used():
    times = run(MailboxLimiter(limits()), 3600, 0.2)
    assert len(times) / 60 >= 30 * 0.98


def test_claimed_messages_use_the_limit_before_they_are_sent():
    limiter = MailboxLimiter(limits(3))
    for _ in range(3):
        limiter.start()
    assert limiter.available(0.0) == 0
    limiter.release()
    assert limiter.available(0.0) == 1


def test_usage_from_before_a_restart_counts():
    limiter = MailboxLimiter(limits(3), Usage((100.0, 101.0, 102.0), ()))
    assert limiter.available(110.0) == 0
    assert 160.0 < limiter.ready_at(110.0) < 160.2
    assert limiter.available(160.2) == 1


def test_the_recipients_of_a_day_are_counted_over_a_sliding_day():
    limiter = MailboxLimiter(limits(0, day=10))
    limiter.start(Cost(1, 10))
    limiter.finish(1000.0, Cost(1, 10))
    assert limiter.available(1001.0) == 0
    assert limiter.day_is_full(1001.0)
    again = limiter.ready_at(1001.0)
    assert 86_400 - 60 <= again - 1001.0 <= 86_520
    assert limiter.available(again + 1) is None


def test_no_limit_means_none():
    limiter = MailboxLimiter(limits(0, day=0))
    for _ in range(1000):
        limiter.start()
    assert limiter.available(0.0) is None
    assert limiter.ready_at(5.0) == 5.0


def test_a_throttling_reply_pauses_halves_and_recovers_step_by_step():
    limiter = MailboxLimiter(limits(30))
    limiter.throttled(0.0, 60.0)
    assert limiter.available(59.0) == 0
    assert limiter.slowed
    assert limiter.available(61.0) == 15
    assert limiter.available(60.0 + 5 * 60 + 1) == 20
    assert limiter.available(60.0 + 15 * 60 + 1) == 30
    assert not limiter.slowed


def test_a_message_that_is_split_counts_as_many():
    assert cost_of(1200, limits()) == Cost(3, 1200)
    assert cost_of(1200, limits(), learned=2) == Cost(
        3, 1200
    )  # a long list does not wait for a minute of its own
    limiter = MailboxLimiter(limits(5))
    for _ in range(3):
        limiter.start()
        limiter.finish(100.0)
    assert limiter.fits(101.0, Cost(2, 700))
    assert not limiter.fits(101.0, Cost(3, 1200))
    assert 160.0 < limiter.ready_at(101.0, Cost(3, 1200)) < 160.2


def test_a_message_larger_than_the_limit_goes_when_nothing_else_counts():
    limiter = MailboxLimiter(limits(2, day=10))
    assert limiter.fits(0.0, Cost(3, 1200))
    limiter.start(Cost(3, 1200))
    assert not limiter.fits(0.0, Cost(1, 1))


def test_the_day_has_no_room_for_more_recipients_than_are_left():
    limiter = MailboxLimiter(limits(0, day=100))
    limiter.start(Cost(1, 60))
    assert not limiter.fits(0.0, Cost(1, 41))
    assert limiter.fits(0.0, Cost(1, 40))
    limiter.finish(30.0, Cost(1, 60))
    assert not limiter.fits(40.0, Cost(1, 41))
    again = limiter.ready_at(40.0, Cost(1, 41))
    assert limiter.fits(again + 1, Cost(1, 41))
