"""Exchange's limits, counted by Exchange: never exceeded, restarts included, and no throttling reply."""

from __future__ import annotations

import json
import smtplib
from collections import Counter

from tests.journeys.kit import Microsoft, Relay, running, until
from tests.journeys.sending import Load, mail


def test_thirty_a_minute_over_a_restart_and_a_kill(microsoft, tmp_path):
    relay = Relay(tmp_path, microsoft.env)
    with running(relay):
        Load(relay.port, clients=4, each=15).start().wait()
        until(lambda: len(microsoft.messages()) >= 20, what="most of the first minute's mail")
        relay.kill()
        relay.start()
        until(lambda: relay.lane()["sent_last_minute"] >= 29, what="the limit is used up again")
        relay.stop()
        relay.start()
        until(lambda: len(microsoft.messages()) >= 45, 90, "mail of the second minute")
        report = microsoft.call("/limits")
    mailbox = report["mailboxes"]["notifications@contoso.com"]
    assert 25 <= mailbox["messages_per_minute_tried"] <= 30, mailbox
    assert mailbox["connections_tried"] <= 2, mailbox
    assert mailbox["refusals"] == {}, mailbox


def test_a_backlog_that_will_not_drain_is_said_with_the_pool_that_would_help(microsoft, tmp_path):
    relay = Relay(tmp_path, {**microsoft.env, "RELAY_POSTMASTER": "it@contoso.com"})
    with running(relay):
        accepted = Load(relay.port, clients=4, each=510, size=100).start().wait()
        assert len(accepted) == 2040
        lane = until(lambda: (lane := relay.lane())["reason"] and lane, 60, "the backlog is noticed")
        assert lane["state"] == "open"
        assert lane["time_to_drain"] > 3600
        assert "login:" in lane["remedy"]
        advice = relay.events("advice")
        assert [one for one in advice if "login:" in one["remedy"]]


def test_the_parts_of_split_mail_are_counted_over_a_kill(tmp_path):
    """Exchange takes two recipients at once: a message to 80 is 40 for it, and a kill in between hides none."""
    folder = tmp_path / "microsoft"
    folder.mkdir()
    microsoft = Microsoft(folder, "--recipients-per-message", "2", "--latency", "0.05")
    relay = Relay(tmp_path, microsoft.env)
    people = [f"r{number}@example.net" for number in range(80)]
    try:
        with running(relay):
            with smtplib.SMTP("127.0.0.1", relay.port, timeout=30) as client:
                client.send_message(mail(1), to_addrs=people)
            until(lambda: len(microsoft.messages()) >= 10, what="a quarter of it")
            relay.kill()
            relay.start()
            until(lambda: relay.lane()["sent_last_minute"] >= 29, what="the limit is used up")
            arrived = Counter(one for message in microsoft.messages() for one in message["recipients"])
            report = microsoft.call("/limits")["mailboxes"]["notifications@contoso.com"]
            (waiting,) = json.loads(relay.command("queue", "list", "--json").stdout)
    finally:
        microsoft.stop()
    assert 28 <= report["messages_per_minute_tried"] <= 30, report
    assert sum(count > 1 for count in arrived.values()) <= 2  # only the part that was under way
    assert waiting["state"] == "queued"
