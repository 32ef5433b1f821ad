"""`relay password`: the hash that belongs in the configuration."""

from __future__ import annotations

import getpass
import sys

import typer

from relay.cli.options import usage


def add_command(app: typer.Typer) -> None:
    """Register `relay password`."""
    app.command("password")(password)


def password() -> None:
    """Make an argon2 hash for `clients` or `web.password`. Asks on a terminal, else reads one line of input."""
    from argon2 import PasswordHasher

    text = _asked() if sys.stdin.isatty() else _piped()
    if not text:
        usage("the password is empty")
    # the library's own parameters: the listener checks unknown names at the same cost
    typer.echo(PasswordHasher().hash(text))


def _asked() -> str:
    first = getpass.getpass("Password: ")
    if getpass.getpass("Once more: ") != first:
        usage("the two passwords differ")
    return first


def _piped() -> str:
    return sys.stdin.readline().rstrip("\r\n")
