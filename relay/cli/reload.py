"""`relay reload`: the running relay reads its configuration again, and whoever asked hears what came of it."""

from __future__ import annotations

import typer

from relay.cli.options import ConfigPath, settings_of
from relay.cli.output import say

PATIENCE = 120.0
"""Seconds: a reload may have to move much waiting mail to other lanes."""


def add_command(app: typer.Typer) -> None:
    """Register `relay reload`."""
    app.command("reload")(reload)


def reload(config: ConfigPath = None) -> None:
    """Have the running relay read its configuration, credentials and certificates again.

    Connections stay. A faulty configuration changes nothing, and its faults are listed.
    """
    from relay.control import ask

    ask(settings_of(config), "reload", timeout=PATIENCE)
    say("reloaded")
