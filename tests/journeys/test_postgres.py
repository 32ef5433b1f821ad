"""A relay whose spool is on PostgreSQL: killed under load, and its database crashed under load; nothing is lost."""

from __future__ import annotations

import smtplib
import threading
import time
from collections import Counter

import pytest

from tests.fakes.postgres import running
from tests.journeys.kit import Relay, until
from tests.journeys.sending import Load, mail, send
from tests.journeys.test_crash import relay_trace

__all__ = ["all_arrived", "load_for"]

server = pytest.fixture(scope="module")(running)


@pytest.fixture
def relay(make_fast_relay, server) -> Relay:
    """Started, on an empty database."""
    one = make_fast_relay()
    one.env["RELAY_SPOOL_URL"] = server.database()
    return one.start()


def load_for(relay: Relay, round_: int, size: int = 2_000) -> Load:
    """Clients whose messages no other round sends."""
    load = Load(relay.port, clients=3, each=10_000, size=size)
    load._threads = [
        threading.Thread(target=load._run, args=(round_ * 10**8 + n * 10**6, 10_000), daemon=True)
        for n in range(3)
    ]
    return load.start()


def all_arrived(fast, relay, accepted: set[str]) -> None:
    """Everything that was answered with 250 is at Exchange; twice only what an uncertain attempt explains."""
    until(lambda: relay.status()["spool"]["messages"] == 0, 120, "everything is delivered")
    arrived = Counter(one["message_id"] for one in fast.messages())
    assert accepted - set(arrived) == set(), "accepted mail was lost"
    for message_id in [one for one, count in arrived.items() if count > 1]:
        traces = relay_trace(relay, message_id)
        # a client that was told 451 while the message was stored after all may have sent it again itself
        assert len(traces) > 1 or any(one["event"] == "uncertain" for one in traces[0]["events"]), traces


def test_a_relay_killed_under_load_loses_nothing(fast, relay):
    accepted: set[str] = set()
    for round_ in range(2):
        load = load_for(relay, round_, size=(2_000, 400_000)[round_])
        until(lambda load=load: len(load.accepted) > 10, what="mail is accepted")
        relay.kill()
        accepted |= load.finish()
        relay.start()
    all_arrived(fast, relay, accepted)


def test_a_database_that_crashes_under_load_loses_nothing_and_clients_hear_451_at_once(fast, relay, server):
    load = load_for(relay, 0)
    until(lambda: len(load.accepted) > 10, what="mail is accepted")
    server.stop()
    try:
        until(lambda: relay.command("health", check=False).returncode == 1, what="health says no")
        assert "cannot be used" in relay.command("health", check=False).stderr
        began = time.monotonic()
        with pytest.raises(smtplib.SMTPSenderRefused) as refused:
            send(relay.port, mail(1))
        assert refused.value.smtp_code == 451
        assert time.monotonic() - began < 3
    finally:
        server.start()
    before = len(load.accepted)
    until(lambda: len(load.accepted) > before + 5, what="mail is accepted again")
    accepted = load.finish()
    all_arrived(fast, relay, accepted)
    assert relay.command("health").returncode == 0
