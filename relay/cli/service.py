"""`relay service`: install or remove relay as a service of Windows. On Linux a systemd unit does that."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from relay.cli.output import say
from relay.errors import RelayError

service_app = typer.Typer(
    help="Install or remove relay as a service of Windows.", no_args_is_help=True, add_completion=False
)


@service_app.command("install")
def install(
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="PATH",
            help="The configuration; default: ProgramData\\\\relay\\\\config.yaml.",
        ),
    ] = None,
) -> None:
    """Register the service, so that relay starts with the machine. Needs an administrator's terminal."""
    windows = _windows()
    file = config or windows.folder() / "config.yaml"
    windows.install(file)
    say(
        f"Installed. It reads {file} and writes {windows.folder() / 'relay.log'}. Start it with: sc.exe start relay"
    )


@service_app.command("remove")
def remove() -> None:
    """Stop the service and take it out. Configuration and spool stay."""
    _windows().remove()
    say("Removed. Configuration and spool are where they were.")


def _windows() -> Any:
    """Windows' side. Raises RelayError where there is none."""
    if sys.platform != "win32":
        raise RelayError(
            "services are installed by this command on Windows only",
            remedy="On Linux use the systemd unit: docs/install.md.",
        )
    try:
        return importlib.import_module("relay.winservice")
    except ImportError as error:
        raise RelayError(
            f"pywin32 is not installed ({error})", remedy="Install it with: pip install relay[windows]"
        ) from error
