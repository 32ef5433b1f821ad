"""A pool of mailboxes, large batches and lists of recipients that have to be split, while replicas come and go by chance."""

from __future__ import annotations

import itertools
import random
import time
from collections import Counter

from tests.group import kit
from tests.group.judge import MINUTE
from tests.group.kit import BOXES, FROZEN_CONNECTIONS, Bounds
from tests.group.long_chaos import SECONDS, bad_hour
from tests.group.senders import Letter

POOL, LISTS = BOXES[4:8], BOXES[2]
LIMITS = Bounds(minute=30)
_MEMBERS = ", ".join(f"{box}@contoso.com" for box in POOL)
_POOL = f"senders:\n  - {{{{match: '*@pool.local', from: box5@contoso.com, login: [{_MEMBERS}]}}}}\n"


def test_a_pool_and_lists_keep_every_mailbox_within_its_limits(make_group, monkeypatch):
    config = kit._CONFIG.replace("    timeout: 20\n", "    timeout: 20\n    batch_size: 100\n")
    config = config.replace(
        "connections: {connections}", "connections: {connections}, recipients_per_message: 5"
    )
    monkeypatch.setattr(kit, "_CONFIG", config.replace("senders:\n", _POOL, 1))
    allowed = itertools.chain.from_iterable(
        ("--send-as", f"{box}@contoso.com=box5@contoso.com") for box in POOL
    )
    group = make_group(LIMITS, "--latency", "0.05", *allowed)
    replicas, chance = group.start("one", "two", "three"), random.Random(7)
    senders = group.senders()
    for _ in range(4):
        senders.start(itertools.repeat(Letter("pool")), pause=2.4)
    senders.start((Letter(LISTS, recipients=count) for count in itertools.cycle((12, 1, 6))), pause=8.0)
    ends = time.monotonic() + SECONDS
    while time.monotonic() < ends:
        bad_hour(group, chance, replicas)
    senders.finish()
    group.await_delivery(senders, ("pool", LISTS), 2 * MINUTE)
    found = group.verdict(senders, FROZEN_CONNECTIONS)
    used = Counter({box: count for box, count in found.recipients.items() if box.partition("@")[0] in POOL})
    assert len(used) == len(POOL), "every member had its part"
