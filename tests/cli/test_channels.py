"""Several relays of one host on one spool: each has a channel of its own, and commands find one."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from relay import control
from relay.control import ControlServer, ask, channels, control_path
from relay.errors import ControlError
from relay.settings import Settings
from tests.fakes.settings import settings
from tests.fakes.spool import spool_settings


@pytest.fixture
def shared(tmp_path, monkeypatch) -> Iterator[Settings]:
    """On a server, with channels in a folder of the test's; a short one, as a socket's path must be."""
    monkeypatch.delenv("RELAY_REPLICA", raising=False)
    with tempfile.TemporaryDirectory(prefix="relay-", dir="/tmp") as folder:
        monkeypatch.setattr(control, "_OWN_FOLDER", Path(folder))
        yield dataclasses.replace(
            settings(tmp_path), spool=spool_settings(tmp_path, url="postgresql://u@h/db")
        )


async def started(shared: Settings, monkeypatch, name: str, pid: int) -> ControlServer:
    """As the process ``pid`` would start it."""

    async def answer(do: str, payload: dict[str, Any]) -> dict[str, Any]:
        return {"who": name}

    monkeypatch.setenv("RELAY_REPLICA", name)
    monkeypatch.setattr(control.os, "getpid", lambda: pid)
    server = ControlServer(control_path(shared), answer)
    await server.start()
    return server


async def test_each_has_its_own_and_a_command_asks_the_one_that_is_named(shared, monkeypatch):
    one = await started(shared, monkeypatch, "one", 11)
    two = await started(shared, monkeypatch, "two", 12)
    for name in ("one", "two"):
        monkeypatch.setenv("RELAY_REPLICA", name)
        assert (await asyncio.to_thread(ask, shared, "status"))["who"] == name
    monkeypatch.delenv("RELAY_REPLICA")
    await one.stop()
    assert (await asyncio.to_thread(ask, shared, "status"))["who"] == "two"
    await two.stop()
    with pytest.raises(ControlError, match="no running relay"):
        ask(shared, "status")


async def test_the_channel_of_one_that_was_killed_is_in_nobodys_way(shared, monkeypatch):
    monkeypatch.setenv("RELAY_REPLICA", "dead")
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(control_path(shared)))
    dead.close()
    assert len(channels(shared)) == 1
    alive = await started(shared, monkeypatch, "alive", 12)
    assert [path.name.split(".")[1] for path in channels(shared)] == ["alive"]
    assert (await asyncio.to_thread(ask, shared, "status"))["who"] == "alive"
    await alive.stop()


async def test_a_reload_is_for_the_one_that_is_named_and_for_nobody_by_chance(shared, monkeypatch):
    """Another replica's configuration read again is no help to who asked, who would believe that it was theirs."""
    one = await started(shared, monkeypatch, "one", 11)
    assert (await asyncio.to_thread(ask, shared, "reload", exactly=True))["who"] == "one"
    monkeypatch.delenv("RELAY_REPLICA")
    assert (await asyncio.to_thread(ask, shared, "reload", exactly=True))["who"] == "one"
    two = await started(shared, monkeypatch, "two", 12)
    assert (await asyncio.to_thread(ask, shared, "reload", exactly=True))["who"] == "two"
    for name in ("", "three"):
        monkeypatch.setenv("RELAY_REPLICA", name)
        with pytest.raises(ControlError, match=r"one \(process 11\), two \(process 12\)") as caught:
            await asyncio.to_thread(ask, shared, "reload", exactly=True)
        assert "RELAY_REPLICA" in caught.value.remedy
    await one.stop()
    await two.stop()


def test_the_name_of_a_channel_tells_nothing_of_the_password(shared):
    def name(url: str) -> str:
        return control_path(
            dataclasses.replace(shared, spool=dataclasses.replace(shared.spool, url=url))
        ).name

    assert name("postgresql://u:hush@h/db") == name("postgresql://u:other@h/db")
    assert name("postgresql://u@h/db") != name("postgresql://u@h/other")


async def test_one_that_stands_still_is_told_from_one_that_is_not_there(shared):
    frozen = socket.socket(socket.AF_UNIX)
    frozen.bind(str(control_path(shared)))
    frozen.listen()
    with pytest.raises(ControlError, match=r"has not answered within 0 s") as caught:
        await asyncio.to_thread(ask, shared, "status", timeout=0.2)
    assert "restart it" in caught.value.remedy
    frozen.close()
