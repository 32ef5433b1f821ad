"""The load of the group's tests: some mailboxes reach their limits, the others always have a message under way."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from tests.group.judge import Findings
from tests.group.kit import BOXES, Bounds, Group, Replica, until
from tests.group.senders import Letter, Senders

BUSY, CROWDED, CALM = BOXES[0], BOXES[1], BOXES[2:]
"""Gets more messages than a minute allows; more recipients than a day allows; neither."""
STRICT = Bounds(minute=60, day=100)


def steady(boxes: tuple[str, ...], size: int = 2000) -> Iterator[Letter]:
    """Letters for one mailbox after the other, without an end."""
    for box in itertools.cycle(boxes):
        yield Letter(box, size=size)


def strict_load(group: Group, *doors: Replica) -> Senders:
    """Mail at once for the two mailboxes that have limits to keep, and a little all the time for the others."""
    senders = group.senders(*doors)
    for _ in range(3):
        senders.start(([Letter(BUSY)] * 5 + [Letter(CROWDED, recipients=5)] * 2) * 6)
        senders.start(steady(CALM), pause=0.3)
        senders.start(steady(CALM[::-1], size=400_000), pause=1.0)
    return senders


def promised(senders: Senders) -> set[str]:
    """What was acknowledged so far and has no limit to wait for."""
    return set[str]().union(*(senders.taken(box) for box in CALM))


def strict_verdict(group: Group, senders: Senders, connections: int = 0) -> Findings:
    """The judge's, after the clients are done; and the limits were reached (or nearly: what was under way in a replica that
    ended counts although it may never have arrived), or it would prove little.
    """
    until(lambda: _limits_are_used(group.look()), 20, "the limits are used up")
    senders.finish()
    group.await_delivery(senders, CALM)
    return group.verdict(senders, connections, full=True)


def _limits_are_used(found: Findings) -> bool:
    busy, crowded = f"{BUSY}@contoso.com", f"{CROWDED}@contoso.com"
    return found.minutes.get(busy, 0) > STRICT.minute / 2 and found.recipients[crowded] > STRICT.day / 2
