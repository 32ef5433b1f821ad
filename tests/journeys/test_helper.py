"""A helper process that accepts mail: killed, orphaned, stopped; nothing that was answered is lost, nothing is left behind."""

from __future__ import annotations

import os
import signal
import smtplib
from pathlib import Path

import pytest

from tests.journeys.kit import Relay, all_arrived_once, free_port, until
from tests.journeys.sending import Load, mail, send

ALWAYS = "workers: always"


def helpers(relay: Relay) -> list[int]:
    """The relay's child processes, as the kernel has them."""
    assert relay.process is not None
    pid = relay.process.pid
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def on_duty(relay: Relay, count: int = 1) -> int:
    """The helper's process, once one has begun its duty for the so many-th time."""

    def begun() -> int:
        said = [one for one in relay.events("notice") if one["what"] == "a helper process accepts mail"]
        return int(said[count - 1]["process"]) if len(said) >= count else 0

    return int(until(begun, what="a helper is on duty"))


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_helper_killed_under_load_loses_nothing_and_doubles_nothing(fast, make_fast_relay):
    """The daemon goes on accepting, and soon another helper does; delivery is not disturbed."""
    relay = make_fast_relay(ALWAYS).start()
    first = on_duty(relay)
    load = Load(relay.port, clients=4, each=10_000).start()
    until(lambda: len(load.accepted) > 30, what="mail goes through the helper")
    os.kill(first, signal.SIGKILL)
    seen = len(load.accepted)
    until(lambda: len(load.accepted) > seen + 30, what="mail is accepted by the daemon")
    second = on_duty(relay, 2)
    os.kill(second, signal.SIGKILL)
    accepted = load.finish()
    all_arrived_once(relay, fast, accepted)
    assert relay.events("uncertain") == []
    (listener,) = relay.status()["listeners"]
    assert listener["accepted"] >= len(accepted)


def test_a_killed_daemon_takes_its_helper_along(fast, make_fast_relay):
    """Its clients are cut off at once, so that none of them is answered by a process that cannot store."""
    relay = make_fast_relay(ALWAYS).start()
    helper = on_duty(relay)
    assert helpers(relay) == [helper]
    secret = fast.env["RELAY_CLIENT_SECRET"].encode()
    told = Path(f"/proc/{helper}/environ").read_bytes() + Path(f"/proc/{helper}/cmdline").read_bytes()
    assert secret not in told
    load = Load(relay.port, clients=4, each=10_000).start()
    until(lambda: len(load.accepted) > 30, what="mail goes through the helper")
    relay.kill()
    until(lambda: is_gone(helper), what="the helper is gone, too")
    accepted = load.finish()
    relay.start()
    until(lambda: relay.status()["spool"]["messages"] == 0, what="everything is delivered")
    arrived = {one["message_id"] for one in fast.messages()}
    assert accepted - arrived == set()


def test_a_stop_drains_the_helper_and_exits_with_0(fast, make_fast_relay):
    """SIGTERM, sent to both as systemd does: what is under way is finished and answered."""
    relay = make_fast_relay(ALWAYS).start()
    helper = on_duty(relay)
    load = Load(relay.port, clients=2, each=10_000).start()
    until(lambda: len(load.accepted) > 20, what="some mail is under way")
    os.kill(helper, signal.SIGTERM)
    assert relay.stop() == 0
    assert is_gone(helper)
    accepted = load.finish()
    relay.start()
    all_arrived_once(relay, fast, accepted)
    assert relay.events("trouble") == []


def test_a_quiet_relay_is_one_process(fast, make_fast_relay):
    """By default a helper comes with the load only."""
    relay = make_fast_relay().start()
    send(relay.port, mail(1))
    fast.arrived(1)
    assert helpers(relay) == []


def test_a_reload_reaches_the_helper_and_takes_a_listener_from_it(fast, make_fast_relay):
    """New clients meet the new settings; a listener that is gone is closed, whoever accepted there."""
    relay, gone = make_fast_relay(ALWAYS), free_port()
    config = relay.folder / "config.yaml"
    text = config.read_text()
    config.write_text(text + f"\nlisteners: [{{bind: '127.0.0.1:25'}}, {{bind: '127.0.0.1:{gone}'}}]\n")
    relay.start()
    on_duty(relay)
    with smtplib.SMTP("127.0.0.1", gone, timeout=30) as client:
        client.noop()
        config.write_text(text + "\nrecipients: {deny: ['*@example.net']}\n")
        relay.reload()
        on_duty(relay, 2)
        assert client.getreply()[0] == 421
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        send(relay.port, mail(1))
    with pytest.raises(ConnectionRefusedError):
        send(gone, mail(2))
