"""A replica is cut off from the database that the others still reach."""

from __future__ import annotations

import time

import pytest

from tests.group.kit import FROZEN_CONNECTIONS, until
from tests.group.load import BUSY, STRICT, promised, strict_load, strict_verdict


@pytest.mark.parametrize(
    ("how", "answers", "patience"),
    [
        ("cut", {"451"}, 5),
        # nothing breaks, and nobody answers: what has been sent to the database waits for its answer
        ("stall", {"451", "broken"}, 15),
    ],
)
def test_a_replica_without_its_database_loses_its_work_to_the_others(make_group, how, answers, patience):
    group = make_group(STRICT, "--latency", "0.05")
    group.start("one", "two", "three")
    senders = strict_load(group)
    until(lambda: len(group.received()) >= 40, what="mail is delivered")
    victim = group.worker(BUSY)
    getattr(victim.database, how)()
    away = time.monotonic()
    mail = promised(senders)
    until(lambda: mail <= group.received(), 30, "the others take its work over")
    until(lambda: time.monotonic() > away + 30, 40, "it was away for long enough")
    told = [one for one in senders.failures() if one.door == victim.name and one.began > away + 5]
    victim.database.restore()
    assert told and {one.answer for one in told} <= answers, told
    assert max(one.took for one in told) < patience, told
    group.ready(victim, 30)
    strict_verdict(group, senders, FROZEN_CONNECTIONS)
