"""Replicas on hosts of their own: one host goes off the network without a word, and comes back."""

from __future__ import annotations

import time

from tests.group.kit import FROZEN_CONNECTIONS, until
from tests.group.load import BUSY, STRICT, promised, strict_load, strict_verdict


def test_a_host_that_vanishes_loses_its_work_and_comes_back(make_group, hosts):
    """Neither the database nor Exchange hears of it: both keep its connections open for a while."""
    group = make_group(STRICT, "--latency", "0.05", hosts=hosts)
    group.start("one", "two", "three")
    senders = strict_load(group)
    until(lambda: len(group.received()) >= 40, what="mail is delivered")
    victim = group.worker(BUSY)
    victim.vanish()
    away = time.monotonic()
    mail = promised(senders)
    until(lambda: mail <= group.received(), 30, "the others take its work over")
    until(lambda: time.monotonic() > away + 30, 40, "it was away for long enough")
    victim.reappear()
    group.ready(victim)
    strict_verdict(group, senders, FROZEN_CONNECTIONS)
