"""`relay reload`: the running relay reads its configuration again, and whoever asked hears what came of it."""

from __future__ import annotations

import typer

from relay.cli.options import ConfigPath, settings_of
from relay.cli.output import say
from relay.logs import visible

PATIENCE = 120.0
"""Seconds: a reload may have to move much waiting mail to other lanes."""


def add_command(app: typer.Typer) -> None:
    """Register `relay reload`."""
    app.command("reload")(reload)


def reload(config: ConfigPath = None) -> None:
    """Have the running relay read its configuration, credentials and certificates again.

    Connections stay. A faulty configuration changes nothing, and its faults are listed. Of a group only this host's
    replica is meant; of several on this host the one that RELAY_REPLICA names.
    """
    from relay.control import ask

    done = ask(settings_of(config), "reload", timeout=PATIENCE, exactly=True)
    say(f"reloaded: replica {visible(str(done['replica']))}" if done.get("replica") else "reloaded")
    if done.get("differing"):
        say(f"  replicas that have another configuration now: {visible(str(done['differing']))}")
        say("  give them the same, and reload each of them")
