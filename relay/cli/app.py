"""The command `relay`: which commands there are, and what their exit status means.

0 done; 1 a check or an operation failed; 2 wrong usage or invalid configuration. Messages for people go to
standard error, data to standard output.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import threading
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from relay import logs
from relay.errors import RelayError

MODULES: dict[str, str] = {
    "run": "relay.cli.run",
    "setup": "relay.cli.setup",
    "check": "relay.cli.check",
    "status": "relay.cli.status",
    "queue": "relay.cli.queue",
    "trace": "relay.cli.trace",
    "send": "relay.cli.send",
    "health": "relay.cli.health",
    "reload": "relay.cli.reload",
    "support": "relay.cli.support",
    "password": "relay.cli.password",
    "config": "relay.cli.config",
    "certificate": "relay.cli.certificate",
    "login": "relay.cli.login",
    "service": "relay.cli.service",
    "simulator": "relay.simulator.cli",
    "demo": "relay.cli.demo",
}
"""Where each command lives, in the order of the help. Only the module of the command that was asked for is
loaded: `relay health` runs every few seconds in a container, and must not load a web server to do so."""


class Commands(TyperGroup):
    """Turns our own errors into a message and an exit status; anything else is a bug and shows its traceback."""

    def invoke(self, ctx: Any) -> Any:  # the context's class lives elsewhere in older releases of typer
        """Run the command."""
        try:
            return super().invoke(ctx)
        except RelayError as error:
            raise typer.Exit(tell(error)) from error


def tell(error: RelayError) -> int:
    """Show an error and its remedy on standard error; the exit status it stands for."""
    from relay.config.faults import ConfigError

    wrong_config = isinstance(error, ConfigError)
    lines = f"relay: {error}".splitlines()
    if error.remedy and not wrong_config:
        lines += f"  {error.remedy}".splitlines()
    # as a service, whose start or reload failed: the journal is told that it is an error
    mark = logs.PRIORITIES["error"] if logs.to_journal(sys.stderr) else ""
    for line in lines:
        typer.echo(mark + line, err=True)
    return 2 if wrong_config else 1


def build_app(only: str | None = None) -> typer.Typer:
    """All commands, or ``only`` one of them."""
    app = typer.Typer(
        name="relay",
        help="A local SMTP relay: takes plain SMTP, delivers through Microsoft 365 with OAuth2.",
        cls=Commands,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_version_option)
    for name in [only] if only in MODULES else MODULES:
        _add(app, str(name))
    return app


def _show_version(wanted: bool) -> None:
    if wanted:
        from relay import __version__

        typer.echo(f"relay {__version__}")
        raise typer.Exit(0)


def _version_option(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version),
    ] = False,
) -> None:
    """Take plain SMTP; deliver through Microsoft 365 with OAuth2."""


def _add(app: typer.Typer, name: str) -> None:
    module = importlib.import_module(MODULES[name])
    if hasattr(module, "add_command"):
        module.add_command(app)
    else:
        app.add_typer(getattr(module, f"{name}_app"), name=name)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        build_app(words[0] if words else None)(args=words, prog_name="relay")
    except SystemExit as end:
        _leave_behind(end.code if isinstance(end.code, int) else 1 if end.code else 0)
        raise


def _leave_behind(status: int) -> None:
    """End at once where a thread is still at work that nobody waits for: a token asked for, a server that hangs.

    Inside OpenSSL it would meet what the interpreter's own end has freed, and turn a clean stop into a crash (SIGSEGV).
    """
    logs.close()
    if not any(one.daemon for one in threading.enumerate() if one is not threading.current_thread()):
        return
    for stream in (sys.stdout, sys.stderr):
        # closed, a broken pipe, or none at all
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(status)
