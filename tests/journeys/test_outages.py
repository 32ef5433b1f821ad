"""Outages and administrators' mistakes: nothing bounces, status says why and what to do, and all mail arrives."""

from __future__ import annotations

import pytest

from tests.journeys.kit import until
from tests.journeys.sending import mail, send


def send_some(relay, count=5):
    for number in range(count):
        send(relay.port, mail(number))
    return {f"<{number}@legacy.local>" for number in range(count)}


def all_arrive(microsoft, relay, expected):
    arrived = microsoft.arrived(len(expected), 90)
    assert {one["message_id"] for one in arrived} == expected
    until(lambda: relay.status()["spool"]["messages"] == 0, what="the spool is empty")
    assert relay.events("failed") == []
    assert relay.lane()["state"] == "open"


def test_exchange_away_for_a_while(fast, fast_relay):
    fast.change(exchange_down=True)
    expected = send_some(fast_relay)
    lane = until(lambda: (lane := fast_relay.lane())["state"] != "open" and lane, what="the lane waits")
    assert lane["state"] == "slowed", lane
    assert lane["reason"] and lane["remedy"]
    assert lane["backlog"] == 5
    fast.change(exchange_down=False)
    all_arrive(fast, fast_relay, expected)


@pytest.mark.parametrize("how", ["refuse", "503"])
def test_entra_away_for_a_while(fast, make_fast_relay, how):
    fast.change(entra_down=how)
    relay = make_fast_relay().start()
    expected = send_some(relay)
    lane = until(lambda: (lane := relay.lane())["state"] != "open" and lane, what="the lane waits")
    assert lane["reason"] and lane["remedy"]
    fast.change(entra_down=None)
    all_arrive(fast, relay, expected)


def test_entra_away_while_the_token_is_good_goes_unnoticed(fast, fast_relay):
    send(fast_relay.port, mail(100))
    fast.arrived(1)
    fast.change(entra_down="refuse")
    send_some(fast_relay)
    fast.arrived(6)
    assert fast_relay.events("failed") == []


def test_a_wrong_secret_mended_and_reloaded(fast, make_fast_relay):
    relay = make_fast_relay()
    secret = relay.folder / "secret"
    right = relay.env.pop("RELAY_CLIENT_SECRET")
    secret.write_text("wrong~secret.value\n")
    secret.chmod(0o600)
    relay.env["RELAY_CLIENT_SECRET_FILE"] = str(secret)
    config = relay.folder / "config.yaml"
    config.write_text(config.read_text().replace("env:RELAY_CLIENT_SECRET", f"file:{secret}"))
    relay.start()
    expected = send_some(relay)
    lane = until(lambda: (lane := relay.lane())["state"] == "held" and lane, what="the lane is held")
    assert "secret" in lane["reason"].lower()
    assert "Value" in lane["remedy"]
    assert lane["backlog"] == 5
    assert right not in relay.log.read_text()
    assert "wrong~secret.value" not in relay.log.read_text()
    secret.write_text(right)
    relay.reload()
    all_arrive(fast, relay, expected)


def test_a_missing_consent_holds_and_a_release_tries_again(fast, fast_relay):
    fast.change(permissions=[])
    expected = send_some(fast_relay)
    lane = until(lambda: (lane := fast_relay.lane())["state"] == "held" and lane, what="the lane is held")
    assert "535" in lane["reason"]
    fast.change(permissions=["SMTP.SendAsApp"])
    fast_relay.command("queue", "release", "--all", "--yes")
    all_arrive(fast, fast_relay, expected)


def test_smtp_auth_disabled_for_the_tenant_says_the_powershell_line(fast, fast_relay):
    fast.change(smtp_auth_disabled_tenant=True)
    send_some(fast_relay, 1)
    lane = until(lambda: (lane := fast_relay.lane())["state"] == "held" and lane, what="the lane is held")
    assert "SmtpClientAuthenticationDisabled" in lane["remedy"]


def test_send_as_denied_holds_that_sender_and_no_other(fast, make_fast_relay):
    rules = """
senders:
  - {match: "*@odd.local", from: other@contoso.com, login: notifications@contoso.com}
"""
    relay = make_fast_relay(more=rules).start()
    send(relay.port, mail(1, sender="x@odd.local"))
    until(lambda: "held" in relay.command("queue", "list", "--json").stdout, what="the sender's mail is held")
    send(relay.port, mail(2))
    arrived = fast.arrived(1)
    assert [one["message_id"] for one in arrived] == ["<2@legacy.local>"]
    assert relay.lane()["state"] == "open"
    fast.change(send_as={"notifications@contoso.com": ["other@contoso.com"]})
    relay.command("queue", "release", "--all", "--yes")
    fast.arrived(2)
