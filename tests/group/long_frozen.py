"""A replica that stands still at the worst of moments: between two statements of a change, with rows locked."""

from __future__ import annotations

import signal
import time

from tests.fakes.postgres import PostgresServer
from tests.group.kit import BOXES, FROZEN_CONNECTIONS, Bounds, Replica, until
from tests.group.load import steady


def in_a_change(server: PostgresServer, one: Replica) -> bool:
    """Whether the database waits for this replica in the middle of a transaction."""
    found = server.ask(
        "SELECT count(*) FROM pg_stat_activity WHERE xact_start IS NOT NULL AND wait_event = 'ClientRead'"
        f" AND application_name LIKE 'relay {one.name}%'"
    )
    return found != [(0,)]


def freeze_in_a_change(server: PostgresServer, one: Replica) -> bool:
    """Stop it; let it run on unless that was in the middle of a change."""
    one.signal(signal.SIGSTOP)
    time.sleep(0.05)  # what it had sent is answered
    if in_a_change(server, one):
        return True
    one.signal(signal.SIGCONT)
    return False


def test_a_replica_frozen_in_the_middle_of_a_change_keeps_nobody_waiting(make_group, server):
    group = make_group(Bounds())
    group.start("one", "two", "three")
    senders = group.senders()
    for _ in range(4):
        senders.start(steady(BOXES))
    victim = group.worker(BOXES[0])
    until(lambda: freeze_in_a_change(server, victim), 60, "it is frozen in the middle of a change")
    mail = senders.taken()
    until(lambda: mail <= group.received(), 30, "the others take its work over")
    more = len(senders.taken())
    until(lambda: len(senders.taken()) > more + 20, what="and take mail")
    victim.signal(signal.SIGCONT)
    group.ready(victim, 30)
    senders.finish()
    group.await_delivery(senders)
    group.verdict(senders, FROZEN_CONNECTIONS)
