"""Bounds seen from the operating system, and refusals to start that say why."""

from __future__ import annotations

import socket
import threading

import pytest

from tests.journeys.kit import until
from tests.journeys.sending import mail, send

LARGE = b"From: app@legacy.local\r\nSubject: large\r\n\r\n" + (b"x" * 74 + b"\r\n") * (25_000_000 // 76)


def send_raw(port: int, data: bytes, replies: list[bytes]) -> None:
    with (
        socket.create_connection(("127.0.0.1", port), timeout=120) as connection,
        connection.makefile("rb") as file,
    ):
        file.readline()
        for command in (b"HELO big", b"MAIL FROM:<app@legacy.local>", b"RCPT TO:<anna@example.net>", b"DATA"):
            connection.sendall(command + b"\r\n")
            file.readline()
        connection.sendall(data + b".\r\n")
        replies.append(file.readline())


def test_twenty_clients_with_25_mb_each_stay_under_150_mb(fast, fast_relay):
    """Also while the same mail goes out again over TLS."""
    replies: list[bytes] = []
    threads = [threading.Thread(target=send_raw, args=(fast_relay.port, LARGE, replies)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(180)
    assert [reply[:3] for reply in replies] == [b"250"] * 20
    arrived = fast.arrived(20, 180)
    assert {one["size"] > 25_000_000 for one in arrived} == {True}
    assert fast_relay.resident_peak() < 150_000, f"{fast_relay.resident_peak()} kB"


def test_an_open_relay_is_refused(relay, tmp_path):
    relay.stop()
    relay.env["RELAY_LISTEN"] = "0.0.0.0:2525"
    done = relay.command("run", check=False)
    assert done.returncode == 2
    assert "allow" in done.stderr
    assert "open relay" in done.stderr.lower() or "anyone" in done.stderr.lower()


def test_a_port_in_use_is_named(relay):
    other = relay.command("run", check=False)
    text = other.stdout + other.stderr
    assert other.returncode == 1
    assert "spool" in text  # the spool's lock comes first
    relay.env["RELAY_SPOOL_URL"] = f"sqlite:///{relay.folder / 'other.db'}"
    other = relay.command("run", check=False)
    assert other.returncode == 1
    assert str(relay.port) in other.stdout + other.stderr


def test_the_spools_limit_answers_452_and_recovers(fast, make_fast_relay):
    relay = make_fast_relay()
    config = relay.folder / "config.yaml"
    config.write_text(config.read_text().replace("spool: {", "spool: {max_size: 200KB, "))
    relay.start()
    fast.change(exchange_down=True)
    import smtplib

    with pytest.raises(smtplib.SMTPException) as caught:
        for number in range(100):
            send(relay.port, mail(number, size=20_000))
    assert "452" in str(caught.value)
    queued = relay.status()["spool"]["messages"]
    assert queued >= 5
    fast.change(exchange_down=False)
    fast.arrived(queued, 90)
    until(lambda: relay.status()["spool"]["messages"] == 0, what="the spool is empty")
    send(relay.port, mail(1000))
    fast.arrived(queued + 1)
