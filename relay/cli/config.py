"""`relay config`: the effective configuration without secrets, and its JSON Schema for editors."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from relay.config.faults import ConfigError
from relay.config.load import load
from relay.config.show import schema, show
from relay.config.upcoming import refusals

config_app = typer.Typer(
    help="Show the effective configuration, or its JSON Schema.", no_args_is_help=True, add_completion=False
)

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="PATH", help="The file to read. Default: RELAY_CONFIG, then the usual places."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of YAML.")]


@config_app.command("show")
def show_command(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Print the configuration as it takes effect: file, environment and defaults, secrets left out.

    Exit status 2, with every fault on stderr, when it is not valid.
    """
    try:
        settings = load(config)
    except ConfigError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    for warning in (*settings.warnings, *refusals(settings)):
        typer.echo(f"warning: {warning}", err=True)
    _print(show(settings), as_json)


@config_app.command("schema")
def schema_command() -> None:
    """Print the JSON Schema of the configuration file."""
    _print(schema(), as_json=True)


def _print(data: dict[str, Any], as_json: bool) -> None:
    if as_json:
        json.dump(data, sys.stdout, indent=2, ensure_ascii=False)
        sys.stdout.write("\n")
    else:
        yaml.safe_dump(data, sys.stdout, sort_keys=False, allow_unicode=True, default_flow_style=False)
