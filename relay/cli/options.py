"""Options that several commands share, and how they are read."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from relay.settings import Settings

ConfigPath = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="PATH",
        readable=False,  # not looked at before: our own reader says more, and to scripts in their form
        help="The configuration file. Without it: RELAY_CONFIG, /etc/relay/config.yaml, ./config.yaml, the environment.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


def settings_of(path: Path | None) -> Settings:
    """The settings that file and environment give. Raises `relay.config.faults.ConfigError` with every fault."""
    from relay.config.load import load

    return load(path)


def usage(text: str) -> NoReturn:
    """Wrong usage: say so, exit with status 2."""
    typer.echo(f"relay: {text}", err=True)
    raise typer.Exit(2)


def moment_before(duration: str) -> float:
    """The time (seconds since 1970) that is a duration such as ``30s``, ``5m``, ``4h`` or ``5d`` ago."""
    from relay.config.values import read_duration

    try:
        return time.time() - read_duration(duration)
    except ValueError as error:
        usage(f"--older-than {error}")
