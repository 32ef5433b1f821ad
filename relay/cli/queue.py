"""`relay queue`: the operator's verbs over what is not finished. They work with the daemon running or stopped."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from relay.cli.acting import UNFINISHED, Done, act
from relay.cli.options import AsJson, ConfigPath, moment_before, settings_of, usage
from relay.cli.output import (
    JsonList,
    duration,
    emit_json,
    local,
    octets,
    say,
    show_fields,
    show_table,
)
from relay.cli.shapes import message_shape
from relay.cli.spooled import pages, wake, with_spool
from relay.logs import visible
from relay.spool.contract import Filter, MessageView

if TYPE_CHECKING:
    from relay.cli.export import Exported
    from relay.spool.contract import Spool

LISTED = 100
"""Messages that `list` shows a person without ``--limit``."""
COUNTED = 10_000
"""Messages that are counted one by one, where no sum is at hand; beyond, it says "at least" or "or more"."""

queue_app = typer.Typer(help="See and steer what is queued.", no_args_is_help=True)

Ids = Annotated[
    list[str] | None, typer.Argument(metavar="[ID]...", help="Messages by id.", show_default=False)
]
All = Annotated[bool, typer.Option("--all", help="Every unfinished message.")]
InState = Annotated[
    str | None, typer.Option("--state", metavar="STATE", help="queued, active, deferred or held.")
]
InLane = Annotated[str | None, typer.Option("--lane", help="A lane (upstream/mailbox), or a mailbox.")]
OfSender = Annotated[
    str | None, typer.Option("--sender", help="Envelope sender or From: an address, @domain, or a part.")
]
ToRecipient = Annotated[
    str | None, typer.Option("--recipient", help="One recipient: an address, @domain, or a part.")
]
OlderThan = Annotated[
    str | None, typer.Option("--older-than", metavar="DURATION", help="Such as 30s, 5m, 4h, 5d.")
]
ForReason = Annotated[str | None, typer.Option("--reason", help="A part of the reason.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def _filter(
    ids: list[str] | None,
    state: str | None,
    lane: str | None,
    sender: str | None,
    recipient: str | None,
    older_than: str | None,
    reason: str | None,
) -> Filter:
    _not_empty(
        state=state, lane=lane, sender=sender, recipient=recipient, older_than=older_than, reason=reason
    )
    if state is not None and state not in UNFINISHED:
        usage(f"--state is one of {', '.join(UNFINISHED)}, not {visible(state)}")
    before = None if older_than is None else moment_before(older_than)
    names = tuple(dict.fromkeys(one.upper() for one in ids or ()))
    return Filter(names, state, lane, sender, recipient, before, reason)


def _not_empty(**given: str | None) -> None:
    """An empty value would match everything, and it is most often a script's variable that was never set."""
    for name, value in given.items():
        if value is not None and not value.strip():
            usage(f"--{name.replace('_', '-')} is empty; leave it out to mean every message")


@queue_app.command("list")
def list_(
    config: ConfigPath = None,
    state: InState = None,
    lane: InLane = None,
    sender: OfSender = None,
    recipient: ToRecipient = None,
    older_than: OlderThan = None,
    reason: ForReason = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=0, help="At most so many; 0: all. Without it 100, and all with --json.", show_default=False
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List unfinished messages, oldest first."""
    wanted = _filter(None, state, lane, sender, recipient, older_than, reason)
    settings = settings_of(config)
    with_spool(
        settings, lambda spool: _json_list(spool, wanted, limit) if as_json else _list(spool, wanted, limit)
    )


async def _json_list(spool: Spool, wanted: Filter, limit: int | None) -> None:
    out = JsonList()
    async for page in pages(spool, wanted, limit or None):
        out.add(message_shape(view) for view in page)
    out.end()


async def _list(spool: Spool, wanted: Filter, limit: int | None) -> None:
    bound = LISTED if limit is None else limit or None
    found = [view async for page in pages(spool, wanted, bound) for view in page]
    if not found:
        say("No message is waiting." if wanted == Filter() else "No message matches.")
        return
    now = time.time()
    columns = ("id", "age", "state", "sender", "recipients", "size", "tries", "next try", "subject", "reason")
    show_table("", columns, [_row(view, now) for view in found], right=("age", "size", "tries"))
    if len(found) == bound and (more := await _beyond(spool, wanted, found)):
        say(f"These are the oldest {bound}; {more} more. See them with --limit N, or --limit 0 for all.")


async def _beyond(spool: Spool, wanted: Filter, found: list[MessageView]) -> str:
    """How many match besides those found; empty for none."""
    if wanted == Filter():
        lanes = await spool.lanes()
        more = sum(one.queued + one.active + one.deferred + one.held for one in lanes) - len(found)
    else:
        more = sum([len(page) async for page in pages(spool, wanted, COUNTED, after=found[-1].id)])
        if more >= COUNTED:
            return f"at least {more}"
    return str(more) if more > 0 else ""


def _row(view: MessageView, now: float) -> tuple[str, ...]:
    first = view.recipients[0].address if view.recipients else ""
    more = f" +{len(view.recipients) - 1}" if len(view.recipients) > 1 else ""
    return (
        view.id,
        duration(now - view.received),
        view.state,
        view.sender or "<>",
        first + more,
        octets(view.size),
        str(view.attempts),
        local(view.next_attempt),
        view.subject,
        view.reason,
    )


@queue_app.command()
def show(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Messages by id; finished ones, too.")],
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Show messages with all their recipients."""
    wanted = _filter(ids, None, None, None, None, None, None)

    async def find(spool: Spool) -> list[MessageView]:
        return [view async for page in pages(spool, wanted) for view in page]

    found = with_spool(settings_of(config), find)
    if as_json:
        emit_json([message_shape(view) for view in found])
    else:
        for view in found:
            _show(view)
    if not _all_there(wanted, {view.id for view in found}):
        raise typer.Exit(1)


def _show(view: MessageView) -> None:
    show_fields(
        [
            ("id", view.id),
            ("state", view.state),
            ("received", local(view.received)),
            ("client", view.client),
            ("sender", view.sender or "<>"),
            ("subject", view.subject),
            ("Message-ID", view.message_id),
            ("size", octets(view.size)),
            ("lane", view.lane),
            ("attempts", view.attempts),
            ("next attempt", local(view.next_attempt)),
            ("reason", view.reason),
            ("remedy", view.remedy),
        ]
    )
    rows = [(one.address, str(one.state), one.code or "", one.text) for one in view.recipients]
    show_table("", ("recipient", "state", "code", "reply"), rows)


def _all_there(wanted: Filter, found: set[str]) -> bool:
    """Whether each id that was asked for exists; says which do not."""
    missing = [one for one in wanted.ids if one not in found]
    for one in missing:
        say(f"relay: there is no message {visible(one)}")
    return not missing


def _acts(
    verb: str,
    wanted: Filter,
    everything: bool,
    yes: bool,
    config: Path | None,
    as_json: bool,
) -> None:
    """One verb, from the question to the summary."""
    _must_name(wanted, everything)
    settings = settings_of(config)
    if not wanted.ids and not yes:
        _confirm(verb, with_spool(settings, lambda spool: _count(spool, wanted)))
    done = with_spool(settings, lambda spool: act(spool, verb, wanted))
    answered = done.tells and wake(settings, done.lanes)
    _summarise(done, answered, as_json)
    matched = done.changed.matched
    if len(wanted.ids) > matched:
        say(f"relay: {len(wanted.ids) - matched} of the ids are not messages here")
        raise typer.Exit(1)
    if verb == "delete" and done.changed.changed < matched:
        raise typer.Exit(1)


def _must_name(wanted: Filter, everything: bool) -> None:
    if everything and wanted.ids:
        usage("give ids or --all, not both")
    if not everything and wanted == Filter():
        usage("name the messages: by id, by a filter such as --state or --lane, or --all")


async def _count(spool: Spool, wanted: Filter) -> int:
    """How many match, counted up to a bound."""
    return sum([len(page) async for page in pages(spool, wanted, COUNTED)])


def _confirm(verb: str, found: int) -> None:
    """Ask a person before a filter acts on more than one message; without a person, ``--yes`` must say so."""
    if found < 2:
        return
    many = f"{found} or more" if found >= COUNTED else str(found)
    if not _has_person():
        usage(f"{verb} would act on {many} messages and there is no terminal to ask; add --yes to do it")
    if not typer.confirm(f"{verb} {many} messages?", err=True):
        raise typer.Exit(1)


def _has_person() -> bool:
    return sys.stdin.isatty()


def _summarise(done: Done, answered: bool, as_json: bool) -> None:
    changed = done.changed
    if as_json:
        emit_json({"matched": changed.matched, "changed": changed.changed})
        return
    say(f"{done.verb}: {changed.matched} matched, {changed.changed} changed")
    if done.verb == "release" and changed.lanes:
        say(f"Tried again: {visible(', '.join(changed.lanes))}")
    for sentence in done.sentences(answered=answered):
        say(sentence)


def _add_verb(verb: str, what: str) -> None:
    def command(
        ids: Ids = None,
        everything: All = False,
        state: InState = None,
        lane: InLane = None,
        sender: OfSender = None,
        recipient: ToRecipient = None,
        older_than: OlderThan = None,
        reason: ForReason = None,
        yes: Yes = False,
        config: ConfigPath = None,
        as_json: AsJson = False,
    ) -> None:
        wanted = _filter(ids, state, lane, sender, recipient, older_than, reason)
        _acts(verb, wanted, everything, yes, config, as_json)

    queue_app.command(verb, help=what)(command)


for _verb, _what in {
    "retry": "Try messages now instead of at their next time; failed ones that are still kept, too.",
    "hold": "Keep messages back until they are released.",
    "release": "Let held messages go; by a filter, also end the hold of the lanes it names.",
    "delete": "Delete messages for good. Nobody is told.",
}.items():
    _add_verb(_verb, _what)


@queue_app.command()
def export(
    ids: Ids = None,
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="Where the .eml files go.")] = Path(),
    stdout: Annotated[bool, typer.Option("--stdout", help="Write one message to standard output.")] = False,
    everything: All = False,
    state: InState = None,
    lane: InLane = None,
    sender: OfSender = None,
    recipient: ToRecipient = None,
    older_than: OlderThan = None,
    reason: ForReason = None,
    yes: Annotated[
        bool,
        typer.Option("--yes", "-y", hidden=True, help="As the other verbs have it; an export never asks."),
    ] = False,
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Write messages as .eml files, exactly as they are stored. The queue keeps them."""
    from relay.cli import export as files

    wanted = _filter(ids, state, lane, sender, recipient, older_than, reason)
    _must_name(wanted, everything)
    if stdout and len(wanted.ids) != 1:
        usage("--stdout takes exactly one id")
    settings = settings_of(config)
    if stdout:
        with_spool(settings, lambda spool: files.to_stdout(spool, wanted.ids[0]))
        return
    done = with_spool(settings, lambda spool: files.to_directory(spool, wanted, to))
    _summarise_export(done, to, as_json)
    if not _all_there(wanted, done.found) or done.failed:
        raise typer.Exit(1)


def _summarise_export(done: Exported, to: Path, as_json: bool) -> None:
    for reason in done.failed:
        say(f"relay: {visible(reason)}")
    if as_json:
        emit_json({"matched": len(done.found), "changed": done.written})
    else:
        say(f"export: {len(done.found)} matched, {done.written} written to {visible(str(to))}")
