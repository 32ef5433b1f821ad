"""`relay health`: for containers and monitors."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from relay.cli.options import AsJson, ConfigPath, settings_of
from relay.cli.output import emit_json, local, say
from relay.errors import ControlError
from relay.logs import visible


def add_command(app: typer.Typer) -> None:
    """Register `relay health`."""
    app.command("health")(health)


if TYPE_CHECKING:
    from relay.settings import Settings

LANES = 20
"""Mailboxes that are told to people; ``--json`` has more."""


def _login(lane: Mapping[str, Any]) -> str:
    """One mailbox and its last login, as people read it."""
    last = lane.get("last_login") or {}
    when = f"last login {local(last.get('time'))} by {last.get('transport')}" if last else "no login yet"
    return visible(f"{lane.get('mailbox')}: {when}, {lane.get('state')}")


def _ask(settings: Settings, live: bool) -> dict[str, Any]:
    """What the running relay says of itself; that none answers is an answer, too. ``live``: any answer will do."""
    from relay.control import ask

    try:
        answer = ask(settings, "health")
    except ControlError as error:
        return {"ok": False, "reasons": [str(error)]}
    return {**answer, "ok": True} if live else answer


Strict = Annotated[bool, typer.Option("--strict", help="Exit 1 also when mail is taken but cannot leave.")]
Live = Annotated[
    bool,
    typer.Option(
        "--live", help="Exit 0 also when it takes no mail, as long as it answers: to restart one that hangs."
    ),
]
Wait = Annotated[
    float, typer.Option("--wait", metavar="SECONDS", help="Wait until it is ready, at most so long.")
]
LOOK_AGAIN = 0.2
"""Seconds between two looks while waiting."""


def health(
    config: ConfigPath = None,
    strict: Strict = False,
    live: Live = False,
    wait: Wait = 0.0,
    as_json: AsJson = False,
) -> None:
    """Exit 0 when the relay is live and takes mail, 1 when it is not. Sends no mail.

    What keeps taken mail from leaving (a token refused, a mailbox held) is told, and counts with --strict only.
    """
    settings, end = settings_of(config), time.monotonic() + wait
    while not (answer := _ask(settings, live)).get("ok") and time.monotonic() < end:
        time.sleep(LOOK_AGAIN)
    ready = bool(answer.get("ok"))
    warnings = [visible(str(one)) for one in answer.get("warnings", ())]
    well = ready and not (strict and warnings)
    if as_json:
        emit_json({**answer, "ok": well})
    else:
        reasons = "; ".join(str(one) for one in answer.get("reasons", ()))
        good = f"live, not ready: {visible(reasons)}" if reasons else "live and ready"
        say(good if ready else f"not ready: {visible(reasons) or 'no reason was given'}")
        for warning in warnings:
            say(f"  but {warning}")
        for lane in answer.get("lanes", ())[:LANES]:
            say(f"  {_login(lane)}")
    if not well:
        raise typer.Exit(1)
