"""Handshakes and tokens: one token for all, at most one handshake for a batch."""

from __future__ import annotations

from tests.journeys.sending import Load


def test_three_hundred_messages_need_one_token_and_ten_handshakes(fast, fast_relay):
    accepted = Load(fast_relay.port, clients=3, each=100).start().wait()
    assert len(accepted) == 300
    arrived = fast.arrived(300)
    assert {one["message_id"] for one in arrived} == accepted
    counters = fast.counters()
    assert counters["token_requests"] == 1
    assert counters["auths"] <= 10, counters
    assert counters["tls_handshakes"] <= 10, counters
