"""`relay status`: listeners, lanes, tokens, the secret's expiry and the spool."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import typer

from relay.cli.options import AsJson, ConfigPath, settings_of
from relay.cli.output import duration, emit_json, local, octets, say, show_fields, show_table
from relay.errors import ControlError
from relay.logs import visible

Shape = Mapping[str, Any]


def add_command(app: typer.Typer) -> None:
    """Register `relay status`."""
    app.command("status")(status)


def status(config: ConfigPath = None, as_json: AsJson = False) -> None:
    """Show how the relay is: lanes with their reasons and remedies, limits used, tokens, secret expiry.

    With the daemon stopped, the spool is read instead.
    """
    from relay.control import ask

    settings = settings_of(config)
    try:
        shape: Shape = ask(settings, "status")
    except ControlError as error:
        from relay.status import offline

        shape = asyncio.run(offline(settings))
        say(f"relay: {error}; this is what the spool says")
    if as_json:
        emit_json(shape)
    else:
        show(shape)


def show(shape: Shape) -> None:
    """The status for people."""
    started = shape.get("started")
    fields = [("version", shape.get("version")), ("started", local(started) if started else "not running")]
    if shape.get("replica"):
        fields.append(
            ("replica", f"{shape['replica']} answers; listeners, tokens and credentials are its own")
        )
    show_fields(fields)
    _table("Listeners", ("bind", "connections", "accepted", "rejected"), shape.get("listeners", ()))
    _replicas(shape.get("replicas", ()))
    _lanes(shape.get("lanes", ()))
    for lane in shape.get("lanes", ()):
        _trouble(lane)
    for hold in shape.get("holds", ()):
        _apart(hold)
    _transports(shape.get("transports", ()))
    _tokens(shape.get("tokens", ()))
    _credentials(shape.get("credentials", ()))
    _spool(shape.get("spool") or {})


def _table(title: str, columns: Sequence[str], items: Sequence[Shape]) -> None:
    if items:
        typer.echo("")
        show_table(title, columns, [[item.get(column) for column in columns] for item in items])


def _replicas(replicas: Sequence[Shape]) -> None:
    """The relays that share the spool, where several may."""
    rows = [
        (one.get("name"), one.get("state"), one.get("lanes"), local(one.get("seen")), one.get("version"))
        for one in replicas
    ]
    if rows:
        typer.echo("")
        show_table("Replicas", ("replica", "state", "lanes", "seen", "version"), rows, right=("lanes",))
    for one in replicas:
        if one.get("differs"):
            typer.echo(
                f"\n{visible(str(one.get('name')))} has another configuration: {', '.join(one['differs'])}\n"
                "  remedy: give all replicas the same configuration, and reload each of them (relay reload)"
            )


def _lanes(lanes: Sequence[Shape]) -> None:
    if not lanes:
        return
    shared = any("replica" in lane for lane in lanes)
    rows = [
        (
            f"{lane.get('upstream')}/{lane.get('mailbox')}",
            lane.get("transport"),
            lane.get("state"),
            lane.get("backlog"),
            local(lane.get("oldest")),
            f"{lane.get('sent_last_minute') or 0}/{lane.get('limit_per_minute') or 'no limit'}",
            duration(lane.get("time_to_drain")),
            *([lane["replica"] or "nobody"] if shared else []),
        )
        for lane in lanes
    ]
    columns = ["lane", "transport", "state", "backlog", "oldest", "sent/min", "drained in"]
    columns += ["replica"] if shared else []
    typer.echo("")
    show_table("Lanes", columns, rows, right=("backlog",))


def _trouble(lane: Shape) -> None:
    """Why a lane is not open, in full: a table's cell is too narrow for a remedy."""
    if lane.get("state") in (None, "open") or not lane.get("reason"):
        return
    name = visible(f"{lane.get('upstream')}/{lane.get('mailbox')}")
    typer.echo(f"\n{name} is {visible(str(lane['state']))} since {local(lane.get('since'))}")
    typer.echo(f"  why:    {visible(str(lane['reason']))}")
    if lane.get("remedy"):
        typer.echo(f"  remedy: {visible(str(lane['remedy']))}")


def _apart(hold: Shape) -> None:
    """Mail that is held although its lane is open: one sender's, or single messages. Lanes say their own holds."""
    if hold.get("scope") not in ("sender", "message"):
        return
    name = visible(str(hold.get("key")).replace("|", ": ", 1))
    whose = "mail of one sender" if hold["scope"] == "sender" else "some messages"
    typer.echo(f"\n{name}: {whose} held since {local(hold.get('since'))}")
    typer.echo(f"  why:    {visible(str(hold.get('reason')))}")
    if hold.get("evidence"):
        typer.echo(f"  said:   {visible(str(hold['evidence']))}")
    if hold.get("remedy"):
        typer.echo(f"  remedy: {visible(str(hold['remedy']))}")


def _transports(transports: Sequence[Shape]) -> None:
    for one in transports:
        name, transport = visible(str(one.get("upstream"))), visible(str(one.get("transport")))
        since = f" since {local(one.get('since'))}" if one.get("since") else ""
        typer.echo(f"\n{name} sends by {transport}{since}: {visible(str(one.get('why')))}")


def _tokens(tokens: Sequence[Shape]) -> None:
    rows = [
        (one.get("upstream"), one.get("resource"), local(one.get("expires")), one.get("error"))
        for one in tokens
    ]
    if rows:
        typer.echo("")
        show_table("Tokens", ("upstream", "resource", "expires", "error"), rows)


def _credentials(credentials: Sequence[Shape]) -> None:
    rows = [
        (
            one.get("upstream"),
            one.get("kind"),
            local(one.get("expires")) or _no_end(one),
            one.get("days_left"),
            _use(one),
        )
        for one in credentials
    ]
    if rows:
        typer.echo("")
        show_table(
            "Credentials", ("upstream", "kind", "expires", "days left", "state"), rows, right=("days left",)
        )
    for one in credentials:
        if one.get("error"):
            name = visible(f"{one.get('upstream')}: {one.get('slot')} ({one.get('kind')})")
            typer.echo(f"\n{name}: {visible(str(one['error']))}")
            typer.echo(f"  remedy: {visible(str(one.get('remedy') or ''))}")


def _no_end(credential: Shape) -> str:
    """A managed identity and a workload's token have no end that one could wait for."""
    endless = credential.get("kind") in ("managed_identity", "federated_token_file")
    return "does not end" if endless else "not known"


def _use(credential: Shape) -> str:
    """What a person wants to know about one of two credentials; and of one that renews itself."""
    words = []
    if credential.get("slot") == "next_credential":
        words.append("second")
    if credential.get("error"):
        words.append("does not work")
    elif credential.get("in_use"):
        words.append("in use")
    if credential.get("rotates"):
        words.append("renewed by relay")
    return ", ".join(words)


def _spool(spool: Shape) -> None:
    if spool:
        typer.echo("")
        show_fields(
            [
                ("spool", spool.get("url")),
                ("messages", str(spool.get("messages"))),
                ("size", octets(spool.get("bytes"))),
                ("free", octets(spool.get("free"))),
            ]
        )
        _local(spool.get("local") or {})


def _local(mine: Shape) -> None:
    """The local spool beside a shared one: shown when anything waits there, or new mail goes there."""
    if not mine:
        return
    typer.echo("")
    fields = [("local spool", mine.get("url")), ("messages", str(mine.get("messages")))]
    if mine.get("messages"):
        fields += [("size", octets(mine.get("bytes"))), ("oldest", local(mine.get("oldest")))]
    show_fields([*fields, ("free", octets(mine.get("free")))])
    if mine.get("since"):
        typer.echo(f"\nNew mail goes into the local spool since {local(mine.get('since'))}")
        typer.echo(f"  why:    {visible(str(mine.get('reason')))}")
        typer.echo("  remedy: mend the database; what waits here is forwarded by itself, in its order")
