"""`relay health`: for containers and monitors."""

from __future__ import annotations

from typing import Annotated

import typer

from relay.cli.options import AsJson, ConfigPath, settings_of
from relay.cli.output import emit_json, say
from relay.errors import ControlError
from relay.logs import visible


def add_command(app: typer.Typer) -> None:
    """Register `relay health`."""
    app.command("health")(health)


Strict = Annotated[bool, typer.Option("--strict", help="Exit 1 also when mail is taken but cannot leave.")]


def health(config: ConfigPath = None, strict: Strict = False, as_json: AsJson = False) -> None:
    """Exit 0 when the relay is live and takes mail, 1 when it is not. Sends no mail.

    What keeps taken mail from leaving (a token refused, a mailbox held) is told, and counts with --strict only.
    """
    from relay.control import ask

    try:
        answer = ask(settings_of(config), "health")
    except ControlError as error:
        answer = {"ok": False, "reasons": [str(error)]}
    ready = bool(answer.get("ok"))
    warnings = [visible(str(one)) for one in answer.get("warnings", ())]
    well = ready and not (strict and warnings)
    if as_json:
        emit_json({**answer, "ok": well})
    else:
        reasons = "; ".join(str(one) for one in answer.get("reasons", ()))
        say("live and ready" if ready else f"not ready: {visible(reasons) or 'no reason was given'}")
        for warning in warnings:
            say(f"  but {warning}")
    if not well:
        raise typer.Exit(1)
