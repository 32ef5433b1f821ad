"""`relay reload`: what changed is in force when it returns, and a fault changes nothing."""

from __future__ import annotations

import asyncio

from typer.testing import CliRunner

from relay.cli.app import build_app
from tests.web.client import Site


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
