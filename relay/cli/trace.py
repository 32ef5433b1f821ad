"""`relay trace`: what happened to messages, finished ones included."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from relay.cli.options import AsJson, ConfigPath, settings_of, usage
from relay.cli.output import emit_json, local, say
from relay.cli.shapes import trace_shape
from relay.cli.spooled import with_spool
from relay.logs import visible

if TYPE_CHECKING:
    from relay.spool.contract import Trace


def add_command(app: typer.Typer) -> None:
    """Register `relay trace`."""
    app.command("trace")(trace)


def trace(
    text: Annotated[
        str, typer.Argument(metavar="TEXT", help="An id, or a Message-ID, sender, From or recipient (part).")
    ],
    limit: Annotated[int, typer.Option(min=1, help="At most so many messages, the newest.")] = 100,
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Show what happened to messages: by id, Message-ID, sender or recipient; newest first."""
    if not text.strip():
        usage("nothing to look for: give an id, or a part of a Message-ID, sender or recipient")
    found = with_spool(settings_of(config), lambda spool: spool.trace(text, limit=limit))
    if as_json:
        emit_json([trace_shape(one) for one in found])
        return
    if not found:
        say(f"Nothing is known of {visible(text)}.")
    for one in found:
        _show(one)


def _show(one: Trace) -> None:
    people = ", ".join(one.recipients[:5]) + (
        f" and {len(one.recipients) - 5} more" if len(one.recipients) > 5 else ""
    )
    typer.echo(visible(f"{one.id}  {one.state}  {one.sender or '<>'} -> {people}  {one.message_id}"))
    for event in one.events:
        fields = "  ".join(f"{name}: {value}" for name, value in event.fields.items() if value)
        typer.echo(f"  {local(event.time)}  {visible(event.event):10}  {visible(fields)}")
    typer.echo("")
