"""`relay setup`: the guided set-up in a terminal, and the same by options alone."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from relay.cli.options import ConfigPath, usage
from relay.cli.output import say
from relay.errors import RelayError
from relay.logs import visible

if TYPE_CHECKING:
    from relay.settings import Settings
    from relay.setup.answers import Answers, Known

Text = str | None
Texts = list[str] | None
ScriptModel = Annotated[
    Text,
    typer.Option(
        "--print-powershell",
        metavar="MODEL",
        help="Print the script for the Exchange side and exit: classic, rbac, graph-scope or graph-policy.",
    ),
]
ScriptObjectId = Annotated[
    Text, typer.Option("--object-id", help="For that script: object id of the Enterprise application.")
]
ScriptMailboxes = Annotated[Texts, typer.Option("--mailbox", help="For that script: a mailbox; repeatable.")]
_NOT_WRITTEN = "relay: stopped; nothing was written"


def add_command(app: typer.Typer) -> None:
    """Register `relay setup`."""
    app.command("setup")(setup)


def setup(
    tenant_id: Annotated[Text, typer.Option("--tenant-id", help="Directory (tenant) ID.")] = None,
    client_id: Annotated[Text, typer.Option("--client-id", help="Application (client) ID.")] = None,
    client_secret_file: Annotated[
        Path | None, typer.Option("--client-secret-file", metavar="FILE", help="A file that holds the secret's Value.")
    ] = None,
    client_secret_stdin: Annotated[
        bool, typer.Option("--client-secret-stdin", help="Read the secret's Value from standard input.")
    ] = False,
    client_secret_expires: Annotated[
        Text, typer.Option("--client-secret-expires", metavar="DAY", help="The day it expires, YYYY-MM-DD.")
    ] = None,
    from_email: Annotated[Text, typer.Option("--from-email", help="The mailbox that mail is sent from.")] = None,
    server_name: Annotated[Text, typer.Option("--server-name", help="Any name. Default: Microsoft 365.")] = None,
    clients: Annotated[Text, typer.Option("--clients", help="What connects: host, lan or containers.")] = None,
    listen: Annotated[Texts, typer.Option("--listen", metavar="ADDR:PORT", help="Repeatable.")] = None,
    allow: Annotated[Texts, typer.Option("--allow", metavar="NETWORK", help="Who may connect; repeatable.")] = None,
    transport: Annotated[Text, typer.Option("--transport", help="auto, smtp or graph.")] = None,
    postmaster: Annotated[Text, typer.Option("--postmaster", help="Who gets notices nobody else can get.")] = None,
    web: Annotated[
        Text, typer.Option("--web", metavar="ADDR:PORT", help="Switch the admin page on, such as 127.0.0.1:8025.")
    ] = None,
    simulator: Annotated[
        Path | None, typer.Option("--simulator", metavar="FILE", help="What relay simulator printed: rehearse with it.")
    ] = None,
    config: ConfigPath = None,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing; options and defaults decide.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Change an existing file without asking.")] = False,
    no_check: Annotated[bool, typer.Option("--no-check", help="Do not test anything at Microsoft.")] = False,
    print_powershell: ScriptModel = None,
    object_id: ScriptObjectId = None,
    mailbox: ScriptMailboxes = None,
) -> None:  # fmt: skip
    """Set relay up step by step: explains the guide's clicks, checks each value, writes the configuration, tests it.

    The secret is never taken from the command line. An existing file is changed value by value, with its comments.
    Exits 0 when all is written and no step of the check failed, 1 when one failed, 2 for wrong values.
    """
    from relay.setup.answers import Answers

    given = Answers(
        server_name=server_name, from_email=from_email, tenant_id=tenant_id, client_id=client_id,
        secret_expires=client_secret_expires, transport=transport, clients=clients, postmaster=postmaster, web=web,
    )  # fmt: skip
    if print_powershell is not None:
        _print_script(print_powershell, given, config, object_id, mailbox or [])
        return
    _take_lists(given, listen or [], allow or [])
    _take_secret(given, client_secret_file, from_stdin=client_secret_stdin)
    try:
        _whole(given, simulator, config, quiet=yes, force=force, online=not no_check)
    except (KeyboardInterrupt, typer.Abort):
        say("\n" + _NOT_WRITTEN)
        raise typer.Exit(1) from None


def _whole(
    answers: Answers, simulator: Path | None, config: Path | None, *, quiet: bool, force: bool, online: bool
) -> None:
    """From the options to the end: ask, write, check, tell."""
    import os

    from relay.check.interfaces import interfaces
    from relay.setup import files
    from relay.setup.answers import check_given, take_simulator
    from relay.setup.assistant import Assistant, fill_in

    file = config or files.default_file(os.environ)
    text, known = files.read(file)
    if simulator is not None:
        take_simulator(answers, simulator.absolute())
    try:
        check_given(answers, known)
    except RelayError as error:
        usage(str(error))
    if quiet or not sys.stdin.isatty():
        _without_questions(answers, known, file, quiet=quiet, force=force)
        fill_in(answers, known, interfaces())
    else:
        _greet(file, known)
        Assistant(Terminal(), answers, known, interfaces(), online=online).run()
    if _write(answers, known, file, text, ask=not (quiet or force)):
        _finish(answers, file, online=online)


def _without_questions(answers: Answers, known: Known, file: Path, *, quiet: bool, force: bool) -> None:
    missing = answers.missing(known)
    if missing:
        where = "" if quiet else " (there is no terminal to ask on)"
        usage(f"these options are needed{where}: {', '.join(missing)}")
    if not quiet:
        usage("there is no terminal to ask on: add --yes")
    if known.exists and not force:
        usage(f"{visible(str(file))} exists: add --force to change it (its comments and other keys stay)")


def _greet(file: Path, known: Known) -> None:
    what = "changes single values of" if known.exists else "will write"
    typer.echo(
        f"This {what} {visible(str(file))}. Ctrl-C stops at any time and leaves everything as it was.\n"
    )


def _write(answers: Answers, known: Known, file: Path, text: str, *, ask: bool) -> bool:
    """Store configuration and secret; False when the administrator does not want it."""
    from relay.setup import files
    from relay.setup.plan import changes_for

    secret_name = known.secret_file or files.SECRET_NAME
    changes = changes_for(answers, known, file, secret_name)
    if not changes and answers.secret is None:
        say(f"relay: nothing to change in {file}")
        return True
    if ask:
        replaces = answers.secret is not None and files.secret_differs(file, secret_name, answers.secret)
        note = f" and replace the secret in {secret_name}" if replaces else ""
        if not typer.confirm(f"\nWrite {visible(str(file))}{note}?", default=True):
            say(_NOT_WRITTEN)
            return False
    files.write(file, text, changes, answers.secret, secret_name)
    say(f"relay: wrote {file}" + (f" and {secret_name} beside it (mode 0600)" if answers.secret else ""))
    return True


def _finish(answers: Answers, file: Path, *, online: bool) -> None:
    """Test what was written, and say what to type where."""
    from relay.config.load import load
    from relay.setup.words import page

    settings = load(file)
    good = _checked(settings) if online else True
    typer.echo("\n" + _ending(settings, answers))
    typer.echo(
        f"\n{page(settings.web)}Then: relay run --config {file}\nTest: relay check --config {file} --send-to you@your-domain"
    )
    if not good:
        raise typer.Exit(1)


def _checked(settings: Settings) -> bool:
    from relay.cli.check import examine, tell_daemon

    typer.echo("\nChecking everything:")
    try:
        report, lanes = examine(settings, None, quiet=False)
    except KeyboardInterrupt:
        say("\nrelay: the check was stopped; what was written stays")
        raise typer.Exit(1) from None
    if report.ok and lanes:
        tell_daemon(settings, lanes)
    return report.ok


def _ending(settings: Settings, answers: Answers) -> str:
    import socket

    from relay.setup.words import ending

    return ending(settings.listeners, answers.clients, socket.gethostname())


def _take_lists(answers: Answers, listen: list[str], allow: list[str]) -> None:
    from relay.setup import values
    from relay.setup.answers import CLIENTS

    if answers.clients is not None and answers.clients not in CLIENTS:
        usage(f"--clients is one of {', '.join(CLIENTS)}, not {visible(answers.clients)}")
    try:
        answers.listen = [values.bind(one) for one in listen]
        answers.allow = [network for one in allow for network in values.networks(one)]
    except values.Refused as refusal:
        usage(f"--listen or --allow: {visible(str(refusal))}")


def _take_secret(answers: Answers, file: Path | None, *, from_stdin: bool) -> None:
    if file is not None and from_stdin:
        usage("give --client-secret-file or --client-secret-stdin, not both")
    if from_stdin:
        answers.secret = sys.stdin.readline()
    elif file is not None:
        try:
            answers.secret = file.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            usage(f"--client-secret-file: {visible(str(file))} is not plain text (UTF-8). Windows PowerShell's > "
                  "writes UTF-16: save it with Set-Content -Encoding ascii")  # fmt: skip
        except OSError as error:
            usage(f"--client-secret-file: {visible(str(file))} cannot be read: {error.strerror}")


def _print_script(
    model: str, answers: Answers, config: Path | None, object_id: str | None, mailboxes: list[str]
) -> None:
    """The script on standard output, filled in with what the options, else the configuration, know."""
    from relay.setup.exchange import MODELS, script

    if model not in MODELS:
        usage(f"--print-powershell is one of {', '.join(MODELS)}, not {visible(model)}")
    typer.echo(script(model, _target(answers, config, object_id, mailboxes)), nl=False)


def _target(answers: Answers, config: Path | None, object_id: str | None, mailboxes: list[str]) -> Any:
    from relay.setup.exchange import Target

    settings = None if answers.client_id and mailboxes else _settings_or_none(config)
    client, principal = answers.client_id or "", object_id or ""
    if settings is not None and (not client or settings.upstreams[0].client_id.lower() == client.lower()):
        from relay.check.logins import mailboxes_of

        upstream = settings.upstreams[0]
        client = upstream.client_id
        mailboxes = mailboxes or mailboxes_of(settings, upstream)
        principal = principal or _object_id(settings)
    if not mailboxes and answers.from_email:
        mailboxes = [answers.from_email]
    return Target(client, principal, tuple(mailboxes))


def _settings_or_none(config: Path | None) -> Settings | None:
    from relay.config.faults import ConfigError
    from relay.config.load import load

    try:
        return load(config)
    except ConfigError:
        if config is not None:
            raise
        return None  # the script then asks for what it needs


def _object_id(settings: Settings) -> str:
    """From a token, when one can be had; the script asks for it otherwise."""
    from relay.check.principal import object_id

    return asyncio.run(object_id(settings.upstreams[0]))


class Terminal:
    """`relay.setup.assistant.Talk` on a terminal."""

    def say(self, text: str) -> None:
        """Tell, with a line free above what is long."""
        typer.echo(("" if text.startswith("  ") else "\n") + visible_lines(text))

    def ask(self, question: str, *, default: str | None = None, secret: bool = False) -> str:
        """One line."""
        shown = default not in (None, "")
        answer: str = typer.prompt(question, default=default, hide_input=secret, show_default=shown)
        return answer

    def confirm(self, question: str, *, default: bool) -> bool:
        """Yes or no."""
        return typer.confirm(question, default=default)


def visible_lines(text: str) -> str:
    """Each line harmless; the line breaks stay."""
    return "\n".join(visible(line) for line in text.split("\n"))
