"""`relay check`: the guide's "validate credentials", step by step, with what to do about each."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from relay.check.contract import CheckReport, Status, Step
from relay.cli.options import AsJson, ConfigPath, usage
from relay.cli.output import emit_json, say
from relay.config.faults import ConfigError
from relay.logs import visible

if TYPE_CHECKING:
    from rich.console import Console

    from relay.settings import Settings

_ADDRESS = re.compile(r"[^\s@<>,;]+@[^\s@<>,;]+")
_MARKS = {Status.OK: "ok", Status.WARN: "warn", Status.FAIL: "FAIL", Status.SKIPPED: "skipped"}
_COLOURS = {Status.OK: "green", Status.WARN: "yellow", Status.FAIL: "bold red", Status.SKIPPED: "dim"}


def add_command(app: typer.Typer) -> None:
    """Register `relay check`."""
    app.command("check")(check)


def check(
    send_to: Annotated[
        str | None,
        typer.Option(
            "--send-to", metavar="ADDR", help="Also send a message to this address that really travels."
        ),
    ] = None,
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Test everything that must be right before mail flows: each step ok, warn or fail, and how to mend it.

    Exits 0 when no step failed, 1 when one did, 2 when the configuration cannot be read. With --json a report is
    printed in each of these cases.
    """
    if send_to is not None and not _ADDRESS.fullmatch(send_to):
        usage(f"--send-to takes one address, such as you@contoso.com, not {visible(send_to)}")
    try:
        settings = _load(config)
    except ConfigError as error:
        if not as_json:
            raise
        from relay.check.local import invalid_step

        emit_json(CheckReport((invalid_step(error),)).to_json())
        raise typer.Exit(2) from error
    report, lanes = examine(settings, send_to, quiet=as_json)
    if as_json:
        emit_json(report.to_json())
    if lanes and report.ok:
        tell_daemon(settings, lanes)
    if not report.ok:
        raise typer.Exit(1)


def _load(config: Path | None) -> Settings:
    from relay.config.load import load

    return load(config)


def examine(settings: Settings, send_to: str | None, *, quiet: bool) -> tuple[CheckReport, list[str]]:
    """Run the check and show each step as it ends; the report, and the lanes that were let in."""
    from relay.check.engine import check_with_lanes

    view = None if quiet else View()
    if view is None:
        return asyncio.run(check_with_lanes(settings, send_to=send_to))
    with view:
        report, lanes = asyncio.run(check_with_lanes(settings, send_to=send_to, progress=view.add))
    view.summary(report)
    return report, lanes


def tell_daemon(settings: Settings, lanes: list[str]) -> None:
    """What was held for a reason that is mended goes on at once. Nobody to tell is no fault."""
    from relay.control import ask
    from relay.errors import ControlError

    try:
        ask(settings, "release", lanes=lanes, timeout=10.0)
    except ControlError:
        return
    say("relay: the running relay tries mail that it holds again, now")


class View:
    """One line per step as it ends; on a terminal with a spinner for what is still to come."""

    def __init__(self) -> None:
        from rich.console import Console

        terminal = sys.stdout.isatty()
        self._console = Console(highlight=False, soft_wrap=not terminal)
        self._status = self._console.status("checking ...") if terminal else None

    def __enter__(self) -> View:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *details: object) -> None:
        if self._status is not None:
            self._status.stop()

    def add(self, step: Step) -> None:
        """Show a step: what was seen, and below it what to do."""
        show_step(self._console, step)

    def summary(self, report: CheckReport) -> None:
        """The count, and what to mend first."""
        fails = [one for one in report.steps if one.status is Status.FAIL]
        warns = sum(one.status is Status.WARN for one in report.steps)
        if not fails:
            say(f"relay: no step failed, {warns} to look at" if warns else "relay: every step is ok")
            return
        say(f"relay: {len(fails)} failed; begin with: {visible(fails[0].title)} [{visible(fails[0].id)}]")


def show_step(console: Console, step: Step) -> None:
    """One step for people. Everything is shown as plain text: servers' words must not steer a terminal."""
    from rich.text import Text

    line = Text(f"{_MARKS[step.status]:8}", style=_COLOURS[step.status])
    line.append(f"{visible(step.title)}: ", style="default not bold")
    line.append(visible(step.seen), style="default not bold")
    console.print(line)
    if step.remedy and step.status is not Status.OK:
        guide = f" (the guide's step {step.guide_step})" if step.guide_step is not None else ""
        console.print(Text(f"{'':8}-> {visible(step.remedy)}{guide}"))
