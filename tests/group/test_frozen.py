"""A replica that stands still (SIGSTOP) under load: its work goes to the others, and it cannot finish it later."""

from __future__ import annotations

import signal
import time

from tests.group.kit import FROZEN_CONNECTIONS, until
from tests.group.load import BUSY, STRICT, promised, strict_load, strict_verdict

FROZEN = 26.0
"""Seconds: longer than the group waits for one that is silent."""


def test_a_frozen_replica_is_replaced_and_changes_nothing_when_it_thaws(make_group):
    group = make_group(STRICT, "--latency", "0.05")
    group.start("one", "two", "three")
    senders = strict_load(group)
    until(lambda: len(group.received()) >= 40, what="mail is delivered")
    victim = group.worker(BUSY)
    victim.signal(signal.SIGSTOP)
    frozen = time.monotonic()
    mail = promised(senders)
    until(lambda: mail <= group.received(), 30, "the others take its work over")
    until(lambda: time.monotonic() > frozen + FROZEN, what="it was frozen for long enough")
    victim.signal(signal.SIGCONT)
    group.ready(victim, 30)
    strict_verdict(group, senders, FROZEN_CONNECTIONS)
