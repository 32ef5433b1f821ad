"""`relay health`: for containers and monitors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from relay.cli.options import AsJson, ConfigPath, settings_of
from relay.cli.output import emit_json, local, say
from relay.errors import ControlError
from relay.logs import visible


def add_command(app: typer.Typer) -> None:
    """Register `relay health`."""
    app.command("health")(health)


LANES = 20
"""Mailboxes that are told to people; ``--json`` has more."""


def _login(lane: Mapping[str, Any]) -> str:
    """One mailbox and its last login, as people read it."""
    last = lane.get("last_login") or {}
    when = f"last login {local(last.get('time'))} by {last.get('transport')}" if last else "no login yet"
    return visible(f"{lane.get('mailbox')}: {when}, {lane.get('state')}")


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
        for lane in answer.get("lanes", ())[:LANES]:
            say(f"  {_login(lane)}")
    if not well:
        raise typer.Exit(1)
