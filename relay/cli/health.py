"""`relay health`: for containers and monitors."""

from __future__ import annotations

import typer

from relay.cli.options import AsJson, ConfigPath, settings_of
from relay.cli.output import emit_json, say
from relay.errors import ControlError
from relay.logs import visible


def add_command(app: typer.Typer) -> None:
    """Register `relay health`."""
    app.command("health")(health)


def health(config: ConfigPath = None, as_json: AsJson = False) -> None:
    """Exit 0 when the relay is live and ready, 1 when it is not."""
    from relay.control import ask

    try:
        answer = ask(settings_of(config), "health")
    except ControlError as error:
        answer = {"ok": False, "reasons": [str(error)]}
    well = bool(answer.get("ok"))
    if as_json:
        emit_json(answer)
    else:
        reasons = "; ".join(str(one) for one in answer.get("reasons", ()))
        say("live and ready" if well else f"not ready: {visible(reasons) or 'no reason was given'}")
    if not well:
        raise typer.Exit(1)
