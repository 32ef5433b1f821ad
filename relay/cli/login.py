"""`relay login`: a mailbox user signs in once, by a code in any browser."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from relay.cli.options import AsJson, ConfigPath, settings_of, usage
from relay.cli.output import emit_json, iso, local, say
from relay.errors import ControlError

if TYPE_CHECKING:
    from relay.settings import Settings, Upstream
    from relay.tokens.signin import Prompt, SignedIn


def add_command(app: typer.Typer) -> None:
    """Register `relay login`."""
    app.command("login")(login)


def login(
    upstream: Annotated[
        str | None,
        typer.Option(
            "--upstream", metavar="NAME", help="server_name of the upstream; needed when several sign in."
        ),
    ] = None,
    user: Annotated[
        str | None,
        typer.Option(
            "--user", metavar="NAME", help="The sign-in name, when it is not the mailbox's address."
        ),
    ] = None,
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Sign in as the mailbox's user, for an upstream with `user_login`.

    Shows an address and a code; the browser may be on any machine. A running relay takes the sign-in at once.
    """
    from relay.clock import SystemClock
    from relay.tokens.signin import sign_in

    settings = settings_of(config)
    one = _upstream(settings, upstream)
    done = sign_in(one, SystemClock(), lambda prompt: _show(prompt, one), expect=user)
    told = _tell_daemon(settings)
    if as_json:
        emit_json(_shape(one, done, told))
    else:
        _report(done, told)


def _upstream(settings: Settings, name: str | None) -> Upstream:
    from relay.settings import UserLogin

    found = [
        one
        for one in settings.upstreams
        if isinstance(one.credential, UserLogin) and name in (None, one.name)
    ]
    if not found:
        whose = f"upstream {name!r}" if name else "upstream"
        usage(f"no {whose} with user_login in the configuration; docs/credentials.md shows how to set it up")
    if len(found) > 1:
        usage("several upstreams sign in as a user: name one with --upstream")
    return found[0]


def _show(prompt: Prompt, upstream: Upstream) -> None:
    say(f"Open {prompt.address} in any browser, enter the code {prompt.code}")
    say(f"and sign in as {upstream.from_email}. The code is good for {prompt.seconds // 60} minutes.")


def _tell_daemon(settings: Settings) -> bool:
    """Whether a running daemon took the sign-in: it tries again what was held."""
    from relay.control import ask

    try:
        ask(settings, "reload")
    except ControlError:
        return False
    return True


def _report(done: SignedIn, told: bool) -> None:
    typer.echo(f"Signed in as {done.sign_in.user}: {', '.join(done.granted)} may be used.")
    for resource, error in done.refused:
        say(f"Not for {resource}: {error} {error.remedy}")
    say(f"It renews itself as long as it is used, and would end on {local(done.sign_in.lapses)} unused.")
    say("The running relay uses it from now on." if told else "No relay is running; the next one uses it.")


def _shape(upstream: Upstream, done: SignedIn, told: bool) -> dict[str, Any]:
    return {
        "upstream": upstream.name,
        "user": done.sign_in.user,
        "granted": [one.value for one in done.granted],
        "refused": [
            {"resource": one.value, "code": error.code, "reason": str(error), "remedy": error.remedy}
            for one, error in done.refused
        ],
        "expires": iso(done.sign_in.lapses),
        "file": str(_file(upstream)),
        "running": told,
    }


def _file(upstream: Upstream) -> Path:
    from relay.settings import UserLogin

    assert isinstance(upstream.credential, UserLogin)
    return upstream.credential.file
