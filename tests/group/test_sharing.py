"""Several relays on one PostgreSQL: all accept, all deliver, and Exchange sees no more than from one."""

from __future__ import annotations

import time

from tests.group.judge import twice
from tests.group.kit import BOXES, Bounds, until
from tests.group.load import BUSY, STRICT, promised, strict_load, strict_verdict
from tests.group.senders import Letter


def test_three_replicas_accept_and_deliver_everything_once(make_group):
    """Helper processes, which only a spool in a file has, stay out of it also when they are asked for."""
    group = make_group(Bounds(), more="workers: always")
    replicas = group.start("one", "two", "three")
    senders = group.senders()
    for number in range(6):
        senders.start([Letter(box, size=(2_000, 300_000)[number == 0]) for box in BOXES * 5])
    senders.wait()
    group.await_delivery(senders)
    found = group.verdict(senders)
    assert len(senders.taken()) == 6 * 5 * len(BOXES)
    assert senders.failures() == []
    assert twice(found) == []
    assert [len(one.events("accepted")) > 0 for one in replicas] == [True] * 3
    assert [one.delivered() > 0 for one in replicas] == [True] * 3


def test_replicas_are_killed_under_load_and_started_again(make_group):
    """Whoever works the mailbox that is at its limit, one after the other."""
    group = make_group(STRICT, "--latency", "0.05")
    group.start("one", "two", "three")
    senders = strict_load(group)
    for _ in range(3):
        before = len(group.received())
        until(lambda before=before: len(group.received()) >= before + 15, what="mail is delivered")
        victim = group.worker(BUSY)
        victim.kill()
        mail = promised(senders)
        until(lambda mail=mail: mail <= group.received(), 20, "the others take its work over")
        victim.start(wait=False)
        group.ready(victim)
    strict_verdict(group, senders)


def test_a_rolling_restart_disturbs_no_client_of_the_others_and_repeats_nothing(make_group):
    group = make_group(STRICT, "--latency", "0.05")
    replicas = group.start("one", "two", "three")
    senders = strict_load(group)
    away: list[tuple[str, float, float]] = []
    for one in replicas:
        before = len(group.received())
        until(lambda before=before: len(group.received()) >= before + 15, what="mail is delivered")
        began = time.monotonic()
        assert one.stop() == 0
        one.start(wait=False)
        group.ready(one)
        away.append((one.name, began, time.monotonic()))
    found = strict_verdict(group, senders)
    assert twice(found) == []
    for failure in senders.failures():
        ended = failure.began + failure.took
        assert any(
            failure.door == name and ended >= began and failure.began <= end for name, began, end in away
        ), failure
    assert [one.events("uncertain") for one in replicas] == [[]] * 3
