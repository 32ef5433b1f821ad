"""A relay killed at any moment loses nothing that it answered with 250."""

from __future__ import annotations

import threading
from collections import Counter

import pytest

from tests.journeys.kit import all_arrived_once, until
from tests.journeys.sending import Load, mail, send


@pytest.mark.parametrize("size", [2_000, 300_000], ids=["small", "large"])
def test_kill_under_load_again_and_again(fast, make_fast_relay, size):
    """Duplicates only of messages whose attempt was under way, and each of them is reported as uncertain."""
    relay = make_fast_relay().start()
    accepted: set[str] = set()
    pause = threading.Event()
    for round_ in range(5):
        load = Load(relay.port, clients=4, each=10_000, size=size)
        load._threads = [
            threading.Thread(target=load._run, args=(round_ * 10**8 + n * 10**6, 10_000), daemon=True)
            for n in range(4)
        ]
        load.start()
        pause.wait(0.3 + 0.17 * round_)  # another moment each round; any will do
        relay.kill()
        accepted |= load.finish()
        relay.start()
    assert len(accepted) > 20
    until(lambda: relay.status()["spool"]["messages"] == 0, 120, "everything is delivered")
    arrived = Counter(one["message_id"] for one in fast.messages())
    assert accepted - set(arrived) == set(), "accepted mail was lost"
    twice = {message_id for message_id, count in arrived.items() if count > 1}
    uncertain = {one["id"] for one in relay.events("uncertain")}
    for message_id in twice:
        (trace,) = [one for one in relay_trace(relay, message_id) if one["message_id"] == message_id]
        assert trace["id"] in uncertain, (message_id, trace)


def relay_trace(relay, text):
    import json

    return json.loads(relay.command("trace", text, "--json").stdout)


def test_a_stop_finishes_what_is_under_way_and_exits_with_0(fast, make_fast_relay):
    relay = make_fast_relay().start()
    load = Load(relay.port, clients=2, each=200).start()
    until(lambda: len(load.accepted) > 20, what="some mail is under way")
    assert relay.stop() == 0
    accepted = load.finish()
    relay.start()
    all_arrived_once(relay, fast, accepted)
    assert relay.events("uncertain") == []


def test_a_lost_reply_after_the_final_dot_is_reported_and_sent_again(fast, fast_relay):
    fast.fault("end-of-data:drop-after-accept;times=1")
    send(fast_relay.port, mail(1))
    arrived = fast.arrived(2)
    assert [one["message_id"] for one in arrived] == ["<1@legacy.local>"] * 2
    assert len(fast_relay.events("uncertain")) == 1
    assert fast_relay.status()["counters"]["uncertain"] == 1
    (trace,) = relay_trace(fast_relay, "<1@legacy.local>")
    assert "uncertain" in [event["event"] for event in trace["events"]]
