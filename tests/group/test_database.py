"""The database that the group shares crashes and comes back."""

from __future__ import annotations

import time

from tests.group.kit import until
from tests.group.load import STRICT, strict_load, strict_verdict


def test_a_database_that_restarts_under_load_costs_a_451_and_nothing_else(make_group, server):
    group = make_group(STRICT, "--latency", "0.05")
    replicas = group.start("one", "two", "three")
    senders = strict_load(group)
    until(lambda: len(group.received()) >= 30, what="mail is delivered")
    server.stop()
    stopped = time.monotonic()
    try:
        until(
            lambda: len([one for one in senders.failures() if one.began > stopped]) > 20,
            what="clients are told",
        )
        told = [one for one in senders.failures() if one.began > stopped]
    finally:
        server.start()
    started = time.monotonic()
    assert {one.answer for one in told} == {"451"}, told
    assert max(one.took for one in told) < 5, told
    until(
        lambda: any(one.taken and one.began > started for one in senders.tries), 15, "mail is accepted again"
    )
    strict_verdict(group, senders)
    assert [one.process.poll() for one in replicas] == [None] * 3
