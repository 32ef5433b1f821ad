"""The control channel: for the daemon's own account alone, from its first moment."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from relay.control import ControlServer, _private_socket


async def nothing(do: str, payload: dict[str, Any]) -> dict[str, Any]:
    """An answer that nobody reads."""
    return {}


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
async def test_the_socket_is_ours_alone_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    """Mode 0600 does not depend on the umask that the service was started with."""
    server = ControlServer(tmp_path / "spool.db.control", nothing)
    before = os.umask(umask)
    try:
        await server.start()
    finally:
        os.umask(before)
    assert (tmp_path / "spool.db.control").stat().st_mode & 0o777 == 0o600
    await server.stop()
    assert list(tmp_path.iterdir()) == []


async def test_starting_it_leaves_the_umask_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The umask is the whole process's: files that are made meanwhile must not get other rights."""
    changes: list[int] = []
    monkeypatch.setattr(os, "umask", changes.append)
    server = ControlServer(tmp_path / "spool.db.control", nothing)
    await server.start()
    await server.stop()
    assert changes == []


def test_nobody_is_served_before_the_socket_is_private(tmp_path: Path) -> None:
    """The rights are set between binding and listening: until then a connection is refused."""
    sock = _private_socket(tmp_path / "spool.db.control")
    try:
        with socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
            client.connect(str(tmp_path / "spool.db.control"))
    finally:
        sock.close()
