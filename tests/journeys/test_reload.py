"""Reloads and restarts with a changed configuration, and a stop while something hangs."""

from __future__ import annotations

import contextlib
import socket
import time

from tests.journeys.kit import free_port, until
from tests.journeys.sending import mail, send


def test_mail_of_a_renamed_upstream_leaves_after_the_restart(fast, make_fast_relay):
    relay = make_fast_relay().start()
    fast.change(exchange_down=True)
    for number in range(5):
        send(relay.port, mail(number))
    until(lambda: relay.lane()["state"] == "slowed", what="Exchange is missed")
    assert relay.stop() == 0
    config = relay.folder / "config.yaml"
    config.write_text(config.read_text().replace("server_name: Microsoft 365", "server_name: Contoso"))
    fast.change(exchange_down=False)
    relay.start()
    fast.arrived(5)
    until(lambda: relay.status()["spool"]["messages"] == 0, what="the spool is empty")


def test_mail_of_an_upstream_renamed_by_a_reload_leaves_too(fast, make_fast_relay):
    relay = make_fast_relay().start()
    fast.change(exchange_down=True)
    for number in range(5):
        send(relay.port, mail(number))
    until(lambda: relay.lane()["state"] == "slowed", what="Exchange is missed")
    config = relay.folder / "config.yaml"
    config.write_text(config.read_text().replace("server_name: Microsoft 365", "server_name: Contoso"))
    relay.reload()
    until(lambda: "reloaded" in [one["what"] for one in relay.events("notice")], what="the reload")
    fast.change(exchange_down=False)
    fast.arrived(5, 90)
    until(lambda: relay.status()["spool"]["messages"] == 0, what="the spool is empty")


def test_a_reload_that_cannot_listen_changes_nothing_and_says_why(fast, make_fast_relay):
    relay = make_fast_relay(more="").start()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config = relay.folder / "config.yaml"
        good = config.read_text()
        config.write_text(
            good.replace("batch_size: medium", "batch_size: small")
            + f"\nlisteners: [{{bind: '127.0.0.1:25'}}, {{bind: '127.0.0.1:{port}'}}]\n"
        )
        relay.reload()
        trouble = until(
            lambda: [one for one in relay.events("trouble") if one["where"] == "reload"], what="the refusal"
        )
    assert "nothing was changed" in trouble[0]["what"]
    assert str(port) in trouble[0]["what"]
    assert "Traceback" not in relay.log.read_text()
    send(relay.port, mail(1))
    fast.arrived(1)


def test_a_reload_brings_a_new_listener_and_takes_an_old_one_away(fast, make_fast_relay):
    relay = make_fast_relay()
    first, second = free_port(), free_port()
    config = relay.folder / "config.yaml"
    text = config.read_text()
    config.write_text(text + f"\nlisteners: [{{bind: '127.0.0.1:25'}}, {{bind: '127.0.0.1:{first}'}}]\n")
    relay.start()
    send(first, mail(1))
    config.write_text(text + f"\nlisteners: [{{bind: '127.0.0.1:25'}}, {{bind: '127.0.0.1:{second}'}}]\n")
    relay.reload()
    until(lambda: "reloaded" in [one["what"] for one in relay.events("notice")], what="the reload")
    send(second, mail(2))
    fast.arrived(2)
    until(lambda: refused(first), what="the old listener is closed")


def refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_stop_ends_within_thirty_seconds_whatever_hangs(fast, make_fast_relay):
    relay = make_fast_relay().start()
    fast.fault("end-of-data:hang")
    send(relay.port, mail(1))
    until(lambda: relay.lane()["connections"] == 1, what="the message is under way")
    with socket.create_connection(("127.0.0.1", relay.port)) as client:
        client.sendall(b"EHLO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n")
        client.recv(100)
        began = time.monotonic()
        assert relay.stop() == 0
        assert time.monotonic() - began < 30
    fast.clear_faults()
    relay.start()
    fast.arrived(1)
    assert len(relay.events("uncertain")) == 1


def test_a_mailbox_that_no_rule_uses_any_more_is_forgotten_with_its_hold(fast, make_fast_relay):
    """Its mail, held and deferred, leaves by today's mailbox at once; status shows neither lane nor hold."""
    rule = "senders: [{match: '*', from: %s, upstream: Microsoft 365}]"
    relay = make_fast_relay(more=rule % "scans@contoso.com").start()
    fast.change(smtp_auth_disabled_mailboxes=["scans@contoso.com"])
    for number in range(3):
        send(relay.port, mail(number))
    until(lambda: relay.lane("scans@contoso.com")["state"] == "held", what="the mailbox is held")
    config = relay.folder / "config.yaml"
    config.write_text(config.read_text().replace("scans@contoso.com", "alerts@contoso.com"))
    relay.reload()
    arrived = fast.arrived(3)
    assert {one["mailbox"] for one in arrived} == {"alerts@contoso.com"}
    until(lambda: relay.status()["holds"] == [], what="the hold is dropped")
    assert "scans@contoso.com" not in [one["mailbox"] for one in relay.status()["lanes"]]
    assert "does not use it" in relay.events("released")[-1]["why"]


def test_deferred_mail_of_a_mailbox_that_no_rule_uses_moves_at_a_restart(fast, make_fast_relay):
    """Without a try by the old mailbox, and so without its login."""
    rule = "senders: [{match: '*', from: %s, upstream: Microsoft 365}]"
    relay = make_fast_relay(more=rule % "scans@contoso.com").start()
    fast.fault("rcpt:reply:450 4.2.1 Mailbox busy")
    send(relay.port, mail(1))
    until(lambda: relay.events("deferred"), what="it is deferred")
    relay.stop()
    fast.clear_faults()
    config = relay.folder / "config.yaml"
    config.write_text(config.read_text().replace("scans@contoso.com", "alerts@contoso.com"))
    relay.start()
    (arrived,) = fast.arrived(1)
    assert arrived["mailbox"] == "alerts@contoso.com"
    assert "scans@contoso.com" not in [one["mailbox"] for one in relay.status()["lanes"]]


def test_a_storm_of_reloads_ends_with_what_the_file_says(fast, make_fast_relay):
    """One after another: two at once would bind the same new port, or leave the older settings in force."""
    relay, port = make_fast_relay("workers: always").start(), free_port()
    config = relay.folder / "config.yaml"
    plain = config.read_text()
    more = plain + f"\nlisteners: [{{bind: '127.0.0.1:25'}}, {{bind: '127.0.0.1:{port}'}}]\n"
    for number, text in enumerate((more, plain, more, plain, more)):
        beside = config.with_suffix(".new")
        beside.write_text(text)
        beside.replace(config)
        for _ in range(10):
            relay.reload()
            send(relay.port, mail(number))
    until(lambda: listens(port), what="the file's listener")
    send(port, mail(5))
    fast.arrived(51)
    assert [one["what"] for one in relay.events("trouble")] == []


def listens(port: int) -> bool:
    """Whether somebody greets there."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as probe:
        return probe.recv(3) == b"220"
    return False
