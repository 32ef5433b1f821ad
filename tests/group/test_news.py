"""Replicas hear of one another's news at once: new mail, and what an operator does at any of them."""

from __future__ import annotations

from statistics import median

from tests.group.kit import BOXES, Bounds, until
from tests.group.senders import Letter


def test_mail_and_operators_reach_the_lane_wherever_it_is_worked(make_group):
    group = make_group(Bounds())
    replicas = group.start("one", "two", "three")
    box = BOXES[0]
    first = group.senders().start([Letter(one) for one in BOXES * 3]).wait()
    group.await_delivery(first)
    waits = [group.seconds_to_exchange(one, Letter(box)) for one in replicas * 3]
    assert median(waits) < 1, waits
    assert max(waits) < 5, waits

    with group.hosts.at_hub():
        group.microsoft.change(mailbox_full=[f"{box}@contoso.com"])
    waiting = group.senders().start([Letter(box)] * 3).wait()
    until(lambda: any(one.events("held") for one in replicas), what="the mailbox is held")
    with group.hosts.at_hub():
        group.microsoft.change(mailbox_full=[])
    assert not waiting.taken() & group.received()
    (other, *_) = [one for one in replicas if one is not group.worker(box)]
    other.command("queue", "release", "--lane", f"{box}@contoso.com", "--yes")
    until(lambda: waiting.taken() <= group.received(), 5, "what waited goes")
