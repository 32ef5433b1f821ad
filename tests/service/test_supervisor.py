"""The two protocols of the service manager: sockets that are passed, and signs of life."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest

from relay import supervisor
from relay.supervisor import Inherited


@pytest.fixture
def manager(tmp_path, monkeypatch):
    """The socket at which the service manager hears us; what it heard."""
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(path))
        heard.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        yield heard


def test_readiness_is_told_in_the_managers_words(manager):
    supervisor.ready("listening on 127.0.0.1:25")
    assert manager.recv(1000) == b"READY=1\nSTATUS=listening on 127.0.0.1:25"
    supervisor.reloading()
    word, moment = manager.recv(1000).split(b"\n")
    assert word == b"RELOADING=1"
    assert int(moment.removeprefix(b"MONOTONIC_USEC=")) > 0


def test_an_abstract_address_is_understood(monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        name = f"relay-test-{os.getpid()}"
        heard.bind("\0" + name)
        heard.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name)
        supervisor.notify("STOPPING=1")
        assert heard.recv(1000) == b"STOPPING=1"


def test_a_manager_that_has_gone_or_is_full_stops_nobody(manager, tmp_path, monkeypatch):
    for _ in range(5000):  # its queue is full long before
        supervisor.notify("WATCHDOG=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    supervisor.notify("WATCHDOG=1")
    assert manager.recv(1000) == b"WATCHDOG=1"


async def test_signs_of_life_come_three_times_in_the_interval(manager, monkeypatch):
    monkeypatch.setenv("WATCHDOG_USEC", "30000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    task = asyncio.ensure_future(supervisor.keep_watched())
    heard = [await asyncio.to_thread(manager.recv, 1000) for _ in range(4)]
    task.cancel()
    assert set(heard) == {b"WATCHDOG=1"}
    assert supervisor.watchdog_interval() == 0.03


async def test_nothing_is_said_where_nobody_watches(manager, monkeypatch):
    monkeypatch.setenv("WATCHDOG_USEC", "30000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid() + 1))
    await supervisor.keep_watched()  # returns
    monkeypatch.delenv("WATCHDOG_USEC")
    await supervisor.keep_watched()


def listening(family: int, host: str) -> socket.socket:
    """A listening socket on a port of its own."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.bind((host, 0))
    sock.listen()
    return sock


@pytest.mark.parametrize(
    ("family", "bound", "wanted", "fits"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1", True),
        (socket.AF_INET, "127.0.0.1", "localhost", True),
        (socket.AF_INET, "127.0.0.1", "127.0.0.2", False),
        (socket.AF_INET, "127.0.0.1", "0.0.0.0", False),
        (socket.AF_INET, "0.0.0.0", "0.0.0.0", True),
        (socket.AF_INET, "0.0.0.0", "::", False),
        (socket.AF_INET6, "::", "0.0.0.0", True),
        (socket.AF_INET6, "::", "::", True),
        (socket.AF_INET6, "::1", "::1", True),
        (socket.AF_INET6, "::1", "127.0.0.1", False),
    ],
)
def test_a_socket_is_taken_by_the_listener_of_its_address(family, bound, wanted, fits):
    given = Inherited([listening(family, bound)])
    port = given._sockets[0].getsockname()[1]
    assert given.take(wanted, port + 1 if port < 65535 else 1) is None
    copy = given.take(wanted, port)
    assert (copy is not None) is fits
    assert bool(given.idle()) is not fits
    if copy is not None:
        copy.close()
        again = given.take(wanted, port)  # the original is open still
        assert again is not None
        again.close()
    given.close()


def test_sockets_meant_for_another_process_are_left_alone():
    """A child of the service inherits the variables, not the sockets."""
    environment = {"LISTEN_FDS": "2", "LISTEN_PID": str(os.getpid() + 1), "LISTEN_FDNAMES": "a:b"}
    assert supervisor.inherited(environment).idle() == []
    assert environment == {}
