"""`relay run`: the daemon."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from relay.cli.options import ConfigPath, settings_of

if TYPE_CHECKING:
    from relay.settings import Settings


def add_command(app: typer.Typer) -> None:
    """Register `relay run`."""
    app.command("run")(run)


def run(config: ConfigPath = None) -> None:
    """Run the relay until it is told to stop.

    SIGTERM: stop accepting, finish what is in flight (30 s), exit 0. SIGHUP: read the configuration again.
    """
    from relay.daemon import serve

    raise typer.Exit(serve(lambda: _startable(config)))


def _startable(config: Path | None) -> Settings:
    """The settings, if this release can keep what they ask for. Raises ConfigError when it cannot without harm."""
    from relay.config.faults import ConfigError, Fault
    from relay.config.upcoming import refusals

    settings = settings_of(config)
    faults = []
    for text in refusals(settings):
        key, _, problem = text.partition(": ")
        faults.append(Fault(key, None, problem, "", settings.source))
    if faults:
        raise ConfigError(faults)
    return settings
