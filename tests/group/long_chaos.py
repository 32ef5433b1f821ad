"""Whatever happens to replicas, one thing after the other, chosen by chance: the judge finds nothing."""

from __future__ import annotations

import random
import time

import pytest

from tests.group.judge import MINUTE
from tests.group.kit import FROZEN_CONNECTIONS, Bounds, Group, Replica, pass_time, until
from tests.group.load import BUSY, CALM, STRICT, steady, strict_load, strict_verdict
from tests.group.misfortunes import MISFORTUNES
from tests.group.senders import Letter

SECONDS = 40.0
"""How long things happen."""


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_bad_day(make_group, seed):
    chance = random.Random(seed)
    group = make_group(STRICT, "--latency", "0.05")
    replicas = group.start("one", "two", "three")
    senders = strict_load(group)
    ends = time.monotonic() + SECONDS
    while time.monotonic() < ends:
        bad_hour(group, chance, replicas)
    strict_verdict(group, senders, FROZEN_CONNECTIONS)


def test_the_minute_slides_over_whoever_works_the_mailbox(make_group):
    """Two minutes of mail for one mailbox: what one replica has sent leaves the window while another one sends."""
    chance = random.Random(101)
    group = make_group(Bounds(minute=STRICT.minute), "--latency", "0.05")
    replicas = group.start("one", "two", "three")
    senders = group.senders()
    for _ in range(3):
        senders.start([Letter(BUSY)] * 3 * STRICT.minute)
        senders.start(steady(CALM[:3]), pause=1.0)
    ends = time.monotonic() + 2.1 * MINUTE
    while time.monotonic() < ends:
        bad_hour(group, chance, replicas)
    senders.finish()
    found = group.verdict(senders, FROZEN_CONNECTIONS, full=True)
    sent = sum(found.arrived[message_id] for message_id in senders.taken(BUSY))
    assert sent > 1.5 * STRICT.minute, found.limits


def bad_hour(group: Group, chance: random.Random, replicas: list[Replica]) -> None:
    """Something happens to one or two replicas at a moment and for a time that chance chooses; then they are well again."""
    pass_time(chance.uniform(0.2, 2.0))
    mend = [
        (one, chance.choice(MISFORTUNES)(one)) for one in chance.sample(replicas, chance.choice([1, 1, 2]))
    ]
    pass_time(chance.choice([0.5, 3.0, 3.0, 8.0, 22.0]))
    for _, cure in mend:
        cure()
    for one, _ in mend:
        group.ready(one)


def test_killed_again_and_again_at_full_speed(make_group):
    """Without limits many attempts are under way at once: some arrive twice, and every one of them is reported."""
    group = make_group(Bounds())
    replicas = group.start("one", "two", "three")
    senders = group.senders()
    for _ in range(6):
        senders.start(steady(CALM))
    for one in replicas * 2:
        before = len(group.received())
        until(lambda before=before: len(group.received()) >= before + 30, what="mail is delivered")
        one.kill()
        one.start(wait=False)
        group.ready(one)
    senders.finish()
    group.await_delivery(senders)
    group.verdict(senders)
