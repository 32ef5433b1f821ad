"""`relay reload`: what changed is in force when it returns, and a fault changes nothing. It is the unit's ExecReload=, too."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import socket
import sys
from pathlib import Path

from typer.testing import CliRunner

from relay.cli.app import build_app
from tests.web.client import Site
from tests.web.conftest import site as site

UNIT = Path(__file__).parents[2] / "systemd" / "relay.service"


async def test_the_command_returns_when_the_change_is_in_force(tmp_path):
    site = Site(tmp_path)
    await site.start()
    try:
        text = site.config.read_text()

        def reload():
            return CliRunner().invoke(build_app("reload"), ["reload", "--config", str(site.config)])

        site.config.write_text(text + "postmaster: admin@contoso.com\n")
        done = await asyncio.to_thread(reload)
        assert done.exit_code == 0, done.output
        assert site.daemon.settings.postmaster == "admin@contoso.com"
        site.config.write_text(text + "postmaster: not an address\n")
        done = await asyncio.to_thread(reload)
        assert done.exit_code == 2
        assert "postmaster" in done.output
        assert site.daemon.settings.postmaster == "admin@contoso.com"
    finally:
        await site.stop()
    gone = await asyncio.to_thread(reload)
    assert gone.exit_code == 2
    site.config.write_text(text)
    gone = await asyncio.to_thread(reload)
    assert gone.exit_code == 1
    assert "no running relay" in gone.output


async def exec_reload(config: Path, journal: Path) -> int:
    """Run the unit's ExecReload= as systemd would, its output going to the journal; its exit status."""
    (words,) = re.findall(r"^ExecReload=(.+)$", UNIT.read_text(), re.MULTILINE)
    program, *rest = shlex.split(words.replace("/etc/relay/config.yaml", str(config)))
    assert program == "/opt/relay/bin/relay"
    with journal.open("wb") as stream:
        about = os.fstat(stream.fileno())
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "relay", *rest, stdout=stream, stderr=stream,
            env={**os.environ, "JOURNAL_STREAM": f"{about.st_dev}:{about.st_ino}"},
        )  # fmt: skip
        return await asyncio.wait_for(process.wait(), 60)


async def test_systemctl_reload_fails_with_the_reason_in_the_journal(site, tmp_path, monkeypatch):
    """The faults, each with its key and remedy, at priority error; the relay goes on with what it had."""
    text, journal = site.config.read_text(), tmp_path / "journal"
    site.config.write_text(text.replace("from: scans@contoso.com", "form: scans@contoso.com"))
    before = site.daemon.settings
    assert await exec_reload(site.config, journal) == 2
    said = journal.read_text()
    assert all(line.startswith("<3>") for line in said.splitlines())
    assert "the configuration cannot be used" in said
    assert "senders[0].form" in said
    assert site.daemon.settings is before
    assert site.daemon.listeners


async def test_a_port_that_cannot_be_had_is_told_as_well(site, tmp_path):
    """The file is right; only the running relay can say that it will not do."""
    journal, before = tmp_path / "journal", site.daemon.settings
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        text = site.config.read_text()
        site.config.write_text(text.replace("listeners:\n", f"listeners:\n  - bind: 127.0.0.1:{port}\n"))
        assert await exec_reload(site.config, journal) == 1
    assert "nothing was changed" in journal.read_text()
    assert str(port) in journal.read_text()
    assert site.daemon.settings is before


async def test_the_service_manager_hears_that_a_reload_is_over_before_the_command_ends(
    site, tmp_path, monkeypatch
):
    """RELOADING=1, then READY=1: with Type=notify the service is running again when `systemctl reload` returns."""
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        site.config.write_text(site.config.read_text() + "postmaster: admin@contoso.com\n")
        assert await exec_reload(site.config, tmp_path / "journal") == 0
        assert site.daemon.settings.postmaster == "admin@contoso.com"
        said = [manager.recv(4096).decode() for _ in range(2)]
    assert re.match(r"RELOADING=1\nMONOTONIC_USEC=\d+$", said[0])
    assert said[1].startswith("READY=1")
    assert (tmp_path / "journal").read_text() == "reloaded\n"
