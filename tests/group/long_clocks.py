"""Hosts whose clocks differ by more than a minute: the windows of Exchange's limits are nobody's own."""

from __future__ import annotations

import os

from tests.group.kit import Replica, until
from tests.group.load import STRICT, promised, strict_load, strict_verdict

_CUSTOM = """
import time
_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + {seconds}
time.time_ns = lambda: _time_ns() + {seconds} * 10**9
"""


def set_clock(one: Replica, seconds: int) -> None:
    """From its next start on its host's clock is wrong by so much (Python reads ``sitecustomize`` at its start)."""
    folder = one.folder / "clock"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(_CUSTOM.format(seconds=seconds))
    one.env["PYTHONPATH"] = os.pathsep.join([str(folder), *filter(None, [one.env.get("PYTHONPATH")])])


def test_limits_hold_although_clocks_differ(make_group):
    group = make_group(STRICT, "--latency", "0.05")
    replicas = [group.replica(name) for name in ("late", "right", "early")]
    for one, seconds in zip(replicas, (-70, 0, 70), strict=True):
        set_clock(one, seconds)
        one.start(wait=False)
    for one in replicas:
        group.ready(one)
    senders = strict_load(group)
    until(lambda: len(group.received()) >= 40, what="mail is delivered")
    for one in replicas:
        one.kill()
        mail = promised(senders)
        until(lambda mail=mail: mail <= group.received(), 20, "the others take its work over")
        one.start(wait=False)
        group.ready(one)
    strict_verdict(group, senders)
