"""Writes the manual page relay(1) from what `relay --help` knows: every command with its options.

python deploy/debian/manpage.py > relay.1
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import typer.main

from relay import __version__
from relay.cli.app import build_app
from relay.config.environment import VARIABLES

Command = Any
"""Of typer, or of click, which typer builds on: which one depends on the release of typer."""

FILES = {
    "/etc/relay/config.yaml": "The configuration, where neither --config nor RELAY_CONFIG names another.",
    "/etc/relay/client-secret": "The client secret, handed over by the systemd unit.",
    "/var/lib/relay/spool.db": "Accepted mail, with what lies beside it. Never copy it while relay runs.",
    "/usr/share/doc/relay": "config.example.yaml explains every key; the folder docs, everything else.",
}
_ENVIRONMENT = """
Laid over the first upstream and the first listener of the configuration; without a file they are enough.
"""
STATUS = {
    "0": "Done.",
    "1": "A check or an operation failed.",
    "2": "Wrong usage, or a configuration that cannot be used: each fault is listed.",
}


def escaped(text: str) -> str:
    """Text as it stands: roff takes backslashes, and dots or apostrophes that begin a line, for its own."""
    plain = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + plain if plain.startswith((".", "'")) else plain


def paragraphs(text: str) -> Iterator[str]:
    """Each paragraph of a help text as one line."""
    for part in inspect.cleandoc(text).split("\n\n"):
        if words := " ".join(part.split()):
            yield escaped(words)


def commands(name: str, command: Command) -> Iterator[tuple[str, Command]]:
    """The commands of a group with their full names, in the order of the help; groups resolved."""
    for word, inner in getattr(command, "commands", {}).items():
        if hasattr(inner, "commands"):
            yield from commands(f"{name} {word}", inner)
        else:
            yield f"{name} {word}", inner


def is_flag(parameter: Any) -> bool:
    """Whether an option stands alone."""
    return bool(getattr(parameter, "is_flag", False) or getattr(parameter, "count", False))


def written(parameter: Any) -> str:
    """An option or argument as it is typed, in roff."""
    value = parameter.metavar or parameter.name.upper()
    if not parameter.opts[0].startswith("-"):  # an argument
        return f"\\fI{escaped(value)}\\fR"
    names = ", ".join(f"\\fB{escaped(one)}\\fR" for one in sorted(parameter.opts, key=len))
    return names if is_flag(parameter) else f"{names} \\fI{escaped(value)}\\fR"


def entries(rows: dict[str, str]) -> Iterator[str]:
    """A list of terms, each with what it means; terms are roff already."""
    for term, text in rows.items():
        yield from (".TP", term, *(list(paragraphs(text)) or ["\\&"]))


def described(name: str, command: Command) -> Iterator[str]:
    """One command: what it does, and its options."""
    yield f".SS {escaped(name)}"
    first, *others = paragraphs(command.help or "")
    yield first
    for one in others:
        yield from (".PP", one)
    shown = [one for one in command.params if not getattr(one, "hidden", False) and one.name != "help"]
    yield from entries({written(one): getattr(one, "help", "") or "" for one in shown})


def page() -> Iterator[str]:
    """The lines of the manual page."""
    whole = typer.main.get_command(build_app())
    yield f'.TH RELAY 1 "" "relay {__version__}" "User Commands"'
    yield from (".SH NAME", "relay \\- local SMTP relay for Microsoft 365")
    yield from (".SH SYNOPSIS", "\\fBrelay\\fR \\fICOMMAND\\fR [\\fIOPTION\\fR]... [\\fIARGUMENT\\fR]...")
    yield from (".SH DESCRIPTION", *paragraphs(whole.help or ""))
    yield ".SH COMMANDS"
    for name, command in commands("relay", whole):
        yield from described(name, command)
    yield ".SH ENVIRONMENT"
    yield from paragraphs(_ENVIRONMENT)
    yield from entries({f"\\fB{escaped(one.name)}\\fR": one.description for one in VARIABLES})
    yield from (".SH FILES", *entries({f"\\fI{escaped(name)}\\fR": text for name, text in FILES.items()}))
    yield from (".SH EXIT STATUS", *entries(STATUS))


if __name__ == "__main__":
    print("\n".join(page()))  # noqa: T201 (for standard output)
