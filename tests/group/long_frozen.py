"""A replica that stands still at the worst of moments: between two statements of a change, with rows locked."""

from __future__ import annotations

import signal
import time

from tests.fakes.postgres import PostgresServer
from tests.group.kit import BOXES, FROZEN_CONNECTIONS, Bounds, Replica, until
from tests.group.load import steady
from tests.group.senders import Letter


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
    until(lambda: len(senders.taken()) > more + 5, what="and take mail")
    victim.signal(signal.SIGCONT)
    group.ready(victim, 30)
    senders.finish()
    group.await_delivery(senders)
    group.verdict(senders, FROZEN_CONNECTIONS)


def test_two_replicas_frozen_one_after_the_other_at_the_same_mailbox(make_group):
    """The connections of both stay open at Exchange, which takes three of a mailbox: the third replica opens none until
    one of them has told that its own have ended.
    """
    group = make_group(Bounds(), "--latency", "0.05")
    replicas = group.start("one", "two", "three")
    box, victims = BOXES[0], list[Replica]()
    senders = group.senders()
    for _ in range(4):
        senders.start([Letter(box)] * 80)
    for _ in range(2):
        left = [one for one in replicas if one not in victims]
        before = {one: deliveries(one, box) for one in left}
        until(
            lambda left=left, before=before: any(deliveries(one, box) >= before[one] + 8 for one in left), 40
        )
        victims.append(max(left, key=lambda one, before=before: deliveries(one, box) - before[one]))
        victims[-1].signal(signal.SIGSTOP)
    (last,) = [one for one in replicas if one not in victims]
    until(lambda: "lost one after the other" in (reason(last, box) or ""), 40, "the third says why it waits")
    for one in victims:
        one.signal(signal.SIGCONT)
        group.ready(one, 30)
    senders.finish()
    group.await_delivery(senders, (box,))
    assert reason(last, box) is None
    group.verdict(senders, FROZEN_CONNECTIONS)


def test_a_replica_that_stood_still_with_all_that_exchange_takes(make_group):
    """Three connections are configured: while the frozen one may hold all of them, nobody tries a fourth; its end, noticed
    by the next process on its host, is enough to go on.
    """
    group = make_group(Bounds(connections=3), "--latency", "0.05")
    replicas = group.start("one", "two", "three")
    senders = group.senders()
    for _ in range(4):
        senders.start([Letter(BOXES[0])] * 80)
    victim = group.worker(BOXES[0])
    until(lambda: deliveries(victim, BOXES[0]) >= 8)
    victim.signal(signal.SIGSTOP)
    others = [one for one in replicas if one is not victim]
    until(lambda: "lost one after the other" in (reason(others[0], BOXES[0]) or ""), 40, "the others wait")
    victim.kill()
    victim.start(wait=False)
    group.ready(victim, 30)
    senders.finish()
    group.await_delivery(senders, BOXES[:1])
    group.verdict(senders, FROZEN_CONNECTIONS, witness=others[0])


def reason(one: Replica, box: str) -> str | None:
    """Why a mailbox's mail waits, as it says."""
    lanes = one.status()["lanes"]
    return next((lane["reason"] for lane in lanes if lane["mailbox"] == f"{box}@contoso.com"), None)


def deliveries(one: Replica, box: str) -> int:
    """Messages of a mailbox that it has delivered."""
    return sum(box in event["lane"] for event in one.events("delivered"))
