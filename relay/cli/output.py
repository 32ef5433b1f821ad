"""How commands show things: JSON for scripts, tables for people, and nothing that could steer a terminal."""

from __future__ import annotations

import datetime
import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import typer

from relay.figures import duration as duration
from relay.figures import octets as octets
from relay.logs import visible

WIDE = 240
"""Columns when the output is no terminal: a table that is piped into grep must not be folded."""


def iso(moment: float | None) -> str | None:
    """ISO 8601 in UTC with milliseconds and ``Z``; None stays None."""
    if moment is None:
        return None
    shown = datetime.datetime.fromtimestamp(moment, datetime.UTC).isoformat(timespec="milliseconds")
    return shown.replace("+00:00", "Z")


def local(moment: float | str | None) -> str:
    """Local date and time for people; takes seconds since 1970 or ISO 8601, empty for None."""
    if moment is None or moment == "":
        return ""
    try:
        if isinstance(moment, str):
            then = datetime.datetime.fromisoformat(moment.replace("Z", "+00:00"))
        else:
            then = datetime.datetime.fromtimestamp(moment, datetime.UTC)
        return then.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError):
        return visible(str(moment))


def emit_json(value: Any) -> None:
    """One JSON document on standard output."""
    typer.echo(json.dumps(value, indent=2))


class JsonList:
    """A JSON array on standard output, written as its items come: a long queue needs no memory."""

    def __init__(self) -> None:
        self._any = False

    def add(self, items: Iterable[Any]) -> None:
        """Write more items."""
        for item in items:
            sys.stdout.write(",\n " if self._any else "[\n ")
            sys.stdout.write(json.dumps(item))
            self._any = True

    def end(self) -> None:
        """Close the array."""
        sys.stdout.write("\n]\n" if self._any else "[]\n")
        sys.stdout.flush()


def say(text: str) -> None:
    """A message for people, on standard error."""
    typer.echo(text, err=True)


def show_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, right: Sequence[str] = ()
) -> None:
    """A table on standard output; every cell is made harmless first. ``right`` names right-aligned columns."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(visible("" if cell is None else str(cell))) for cell in row))
    Console(width=None if sys.stdout.isatty() else WIDE, highlight=False).print(table)


def show_fields(pairs: Iterable[tuple[str, Any]]) -> None:
    """Lines of ``name: value`` on standard output, the empty ones left out."""
    for name, value in pairs:
        if value not in (None, ""):
            typer.echo(f"{name + ':':14} {visible(str(value))}")
