"""What Exchange has said to one replica holds for whoever takes its work over."""

from __future__ import annotations

from collections import Counter

from tests.group.judge import check_mail, queued
from tests.group.kit import BOXES, Group, until
from tests.group.load import STRICT, steady

THROTTLED, FULL, CALM = BOXES[0], BOXES[1], BOXES[2:]
RATE = "421 4.4.2 Message submission rate for this client has exceeded the configured limit"


def refusals(group: Group) -> Counter[str]:
    """How often Exchange refused something of each mailbox."""
    with group.hosts.at_hub():
        return Counter(one["mailbox"].partition("@")[0] for one in group.microsoft.call("/refusals"))


def delivered(group: Group, *boxes: str) -> int:
    with group.hosts.at_hub():
        return sum(one["mailbox"].partition("@")[0] in boxes for one in group.microsoft.messages())


def test_a_throttled_and_a_held_mailbox_rest_although_their_replicas_are_killed(make_group):
    group = make_group(STRICT)
    group.start("one", "two", "three")
    senders = group.senders()
    for _ in range(2):
        senders.start(steady(BOXES), pause=0.2)
    until(lambda: delivered(group, THROTTLED) and delivered(group, FULL), what="both have delivered mail")
    victims = {group.worker(THROTTLED), group.worker(FULL)}
    with group.hosts.at_hub():
        group.microsoft.change(mailbox_full=[f"{FULL}@contoso.com"])
        group.microsoft.fault(f"mail:reply:{RATE};mailbox={THROTTLED}@contoso.com")
    until(lambda: set(refusals(group)) == {THROTTLED, FULL}, what="Exchange refuses both")
    until(lambda: len(senders.taken()) and settled(group), what="what was under way is over")
    told, sent = refusals(group), delivered(group, THROTTLED)
    for one in victims:
        one.kill()
    calm = delivered(group, *CALM)
    until(lambda: delivered(group, *CALM) > calm + 60, 40, "the others' mail goes on")
    assert refusals(group) == told
    for one in victims:
        one.start(wait=False)
        group.ready(one)
    calm = delivered(group, *CALM)
    until(lambda: delivered(group, *CALM) > calm + 30, 40, "and on")
    # a start tries what is held once, since it may have been mended (docs/operating.md)
    assert refusals(group) - told <= Counter({FULL: len(victims)})
    assert delivered(group, THROTTLED) == sent
    senders.finish()
    group.await_delivery(senders, CALM)
    check_mail(group.look(), senders, group.replicas[0], queued(group.replicas[0]))


def settled(group: Group) -> bool:
    """The replicas have said that both mailboxes rest."""
    said = [
        one for replica in group.replicas for one in (*replica.events("held"), *replica.events("deferred"))
    ]
    return {box for box in (THROTTLED, FULL) for one in said if box in one["lane"]} == {THROTTLED, FULL}
