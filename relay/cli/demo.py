"""`relay demo`: the whole main job on this machine."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer


def add_command(app: typer.Typer) -> None:
    """Register `relay demo`."""
    app.command("demo")(demo)


def demo(
    keep: Annotated[
        Path | None, typer.Option("--keep", metavar="DIR", help="Keep configuration and mail there.")
    ] = None,
) -> None:
    """Send real messages through a real relay to a simulated Microsoft 365, and show what arrived.

    Everything runs on this machine; no account is needed. Exits 0 only if every message arrived intact.
    """
    from relay.demo.journey import run

    raise typer.Exit(asyncio.run(run(keep)))
