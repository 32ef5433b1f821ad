"""The same happens to all replicas at once, or to the database they share: nobody is left to take over."""

from __future__ import annotations

import pytest

from tests.group.kit import FROZEN_CONNECTIONS, pass_time, until
from tests.group.load import STRICT, strict_load, strict_verdict
from tests.group.misfortunes import cut_off, frozen, held_back, killed


@pytest.mark.parametrize(
    ("misfortune", "seconds"),
    [(killed, 1), (frozen, 21), (cut_off, 8), (held_back, 21)],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_all_replicas_at_once(make_group, misfortune, seconds):
    group = make_group(STRICT, "--latency", "0.05")
    replicas = group.start("one", "two", "three")
    senders = strict_load(group)
    until(lambda: len(group.received()) >= 40, what="mail is delivered")
    cures = [misfortune(one) for one in replicas]
    pass_time(seconds)
    for cure in cures:
        cure()
    for one in replicas:
        group.ready(one)
    strict_verdict(group, senders, FROZEN_CONNECTIONS)


def test_the_power_fails(make_group, server):
    """Replicas and database are gone in one moment; they start in any order."""
    group = make_group(STRICT, "--latency", "0.05")
    replicas = group.start("one", "two", "three")
    senders = strict_load(group)
    until(lambda: len(group.received()) >= 40, what="mail is delivered")
    for one in replicas:
        one.kill()
    server.stop()
    replicas[0].start(wait=False)
    server.start()
    for one in replicas[1:]:
        one.start(wait=False)
    for one in replicas:
        group.ready(one)
    strict_verdict(group, senders)
