"""``answer_after: upstream`` in a group: 250 means that Exchange has it, whichever replica delivered it."""

from __future__ import annotations

from tests.group.kit import BOXES, Bounds, until
from tests.group.load import steady

LISTENER = "listeners: [{bind: 127.0.0.1:25, answer_after: upstream, answer_within: 10s}]"


def test_a_client_hears_250_only_when_exchange_has_it(make_group):
    group = make_group(Bounds(), "--latency", "0.05", more=LISTENER)
    group.start("one", "two", "three")
    senders = group.senders()
    for number in range(6):
        senders.start(steady(BOXES[number:] + BOXES[:number]))
    for box in BOXES[:3]:
        before = len(group.received())
        until(lambda before=before: len(group.received()) >= before + 30, what="mail is delivered")
        victim = group.worker(box)
        victim.kill()
        more = len(senders.taken())
        until(lambda more=more: len(senders.taken()) >= more + 20, what="the others' clients are answered")
        victim.start(wait=False)
        group.ready(victim)
    senders.finish()
    group.await_delivery(senders)
    found = group.verdict(senders)
    early = [one for one in senders.tries if one.taken and one.answered < found.when[one.message_id]]
    assert not early, early
