"""A relay with a local spool beside PostgreSQL: its clients notice nothing of a database that is away."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from tests.fakes.postgres import running
from tests.journeys.kit import Relay, until
from tests.journeys.sending import Load, mail, send

server = pytest.fixture(scope="module")(running)


@pytest.fixture
def relay(make_fast_relay, server, tmp_path) -> Relay:
    """Not started, on an empty database."""
    one = make_fast_relay()
    one.env["RELAY_SPOOL_URL"] = server.database()
    one.env["RELAY_SPOOL_LOCAL"] = f"sqlite:///{tmp_path / 'local.db'}"
    return one


def test_mail_is_taken_though_the_database_is_away_at_the_start_and_delivered_later(fast, relay, server):
    server.stop()
    try:
        relay.start()
        for number in range(3):
            send(relay.port, mail(number, size=(2_000, 400_000)[number % 2]))
        health = relay.command("health")
        assert "live and ready" in health.stderr
        assert "local spool: the database of the spool cannot be used" in health.stderr
        local = relay.status()["spool"]["local"]
        assert (local["messages"], local["free"] > 0) == (3, True)
        assert local["since"] and "cannot be used" in local["reason"]
        assert "New mail goes into the local spool since" in relay.command("status").stdout
        listed = relay.command("queue", "list", "--json")
        assert [(one["state"], one["reason"]) for one in json.loads(listed.stdout)] == [
            ("queued", "waits in this host's local spool: the database is away")
        ] * 3
        assert "only mail of this host's local spool can be seen" in listed.stderr
        deleted = relay.command("queue", "delete", json.loads(listed.stdout)[2]["id"], "--yes", "--json")
        assert json.loads(deleted.stdout)["changed"] == 1
        assert fast.messages() == []
    finally:
        server.start()
    arrived = fast.arrived(2)
    assert Counter(one["message_id"] for one in arrived) == {"<0@legacy.local>": 1, "<1@legacy.local>": 1}
    until(lambda: relay.status()["spool"]["local"]["since"] is None, what="mail goes straight again")
    (trace,) = json.loads(relay.command("trace", "<1@legacy.local>", "--json").stdout)
    assert [one["event"] for one in trace["events"]][:2] == ["accepted", "forwarded"]
    assert relay.events("notice")[-1]["forwarded"] == 2
    assert relay.stop() == 0


def test_no_client_is_refused_while_the_database_crashes_and_the_relay_is_killed_under_load(
    fast, relay, server
):
    relay.start()
    load = Load(relay.port, clients=3, each=10_000).start()
    until(lambda: len(load.accepted) > 10, what="mail is accepted")
    server.stop()
    try:
        before = len(load.accepted)
        until(lambda: len(load.accepted) > before + 20, what="mail is accepted while the database is away")
        assert relay.events("rejected") == []
        relay.kill()  # some of it waits in the local spool, and some was being submitted
        accepted = load.finish()
        relay.start()
        assert relay.status()["spool"]["local"]["messages"] >= 10
    finally:
        server.start()
    until(lambda: relay.status()["spool"]["local"]["messages"] == 0, 60, "all of it is forwarded")
    until(lambda: relay.status()["spool"]["messages"] == 0, 120, "all of it is delivered")
    arrived = Counter(one["message_id"] for one in fast.messages())
    assert accepted - set(arrived) == set(), "accepted mail was lost"
    assert relay.command("queue", "list").returncode == 0
    for message_id in [one for one, count in arrived.items() if count > 1]:
        traces = json.loads(relay.command("trace", message_id, "--json").stdout)
        # stored twice only for a client that was cut off before it heard its 250; delivered twice only if uncertain
        assert len(traces) == 1 and any(one["event"] == "uncertain" for one in traces[0]["events"]), traces


def test_a_reload_while_the_database_is_away_reaches_waiting_mail_when_it_is_back(fast, relay, server):
    """Its mailbox's upstream has another name now: without being told, the message would wait for ever."""
    relay.start()
    fast.change(exchange_down=True)
    send(relay.port, mail(1))
    until(lambda: relay.lane()["state"] == "slowed", what="Exchange is missed")
    config = relay.folder / "config.yaml"
    config.write_text(config.read_text().replace("server_name: Microsoft 365", "server_name: Contoso"))
    server.stop()
    try:
        done = relay.command("reload", check=False)
        assert done.returncode == 1
        assert "in force for new mail; mail that waits follows" in done.stderr
    finally:
        server.start()
    fast.change(exchange_down=False)
    fast.arrived(1, 90)
    until(
        lambda: [one for one in relay.events("notice") if "mail that waited" in one["what"]],
        what="the log says that it is in force for mail that waited",
    )
