"""`relay support`: one file for whoever helps, with everything but secrets and mail."""

from __future__ import annotations

import asyncio
import datetime
import importlib.metadata
import json
import os
import platform
import ssl
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from relay.cli.options import ConfigPath
from relay.cli.output import iso, say
from relay.errors import RelayError
from relay.logs import without_secrets

if TYPE_CHECKING:
    from relay.settings import Settings
    from relay.spool.contract import MessageView, Spool

MESSAGES = 1000
"""Unfinished messages that are listed."""
LIBRARIES = (
    "aiosmtpd",
    "aiosmtplib",
    "aiohttp",
    "msal",
    "pydantic",
    "cryptography",
    "uvloop",
    "structlog",
    "typer",
)
_ABOUT = """\
Support bundle of relay, made {when}.

versions.json       relay, Python, libraries, operating system
configuration.yaml  as it takes effect; of secrets only where they come from (or faults.txt: why it cannot be used)
status.json         what `relay status --json` prints
health.json         what `relay health --json` prints
events.jsonl        the last warnings, errors and news of the running relay
queue.jsonl         unfinished messages: state, reason, attempts, domains. No content, subject or whole address

Not in it: secrets, tokens, password hashes, mail. Still in it: the names of mailboxes and hosts, tenant and client ids,
and what servers said, where addresses may occur. Look through it before you hand it on.
"""


def add_command(app: typer.Typer) -> None:
    """Register `relay support`."""
    app.command("support")(support)


def support(
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Where to; default: relay-support-TIME.zip."),
    ] = None,
    config: ConfigPath = None,
) -> None:
    """Collect configuration, versions, states and the last events into a ZIP file, nothing secret and no mail.

    Works while relay runs, while it is stopped, and with a configuration that cannot be used.
    """
    now = datetime.datetime.now(datetime.UTC)
    path = output or Path(f"relay-support-{now:%Y%m%d-%H%M%S}.zip")
    parts = {"README.txt": _ABOUT.format(when=now.isoformat(timespec="seconds")), **_collect(config)}
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except OSError as error:
        raise RelayError(
            f"{path} cannot be made: {error.strerror}", remedy="Name another file with --output."
        ) from error
    with os.fdopen(handle, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, text in parts.items():
            bundle.writestr(f"relay-support/{name}", text)
    say(f"{path}: look through it before you hand it on; README.txt in it says what it holds.")


def _collect(config: Path | None) -> dict[str, str]:
    from relay.config.faults import ConfigError
    from relay.config.load import load

    parts = {"versions.json": _json(versions())}
    try:
        settings = load(config)
    except ConfigError as error:
        return {**parts, "faults.txt": without_secrets(f"{error}\n")}
    parts["configuration.yaml"] = _configuration(settings)
    for name, read in {
        "status.json": _status,
        "health.json": _health,
        "events.jsonl": _events,
        "queue.jsonl": _queue,
    }.items():
        try:
            parts[name] = without_secrets(read(settings))
        except RelayError as error:
            parts[name.partition(".")[0] + ".missing.txt"] = f"{error}\n"
    return parts


def versions() -> dict[str, Any]:
    """What runs here."""
    from relay import __version__

    libraries = {}
    for name in LIBRARIES:
        try:
            libraries[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            libraries[name] = "not installed"
    return {
        "relay": __version__, "python": sys.version, "openssl": ssl.OPENSSL_VERSION, "system": platform.platform(),
        "libraries": libraries,
    }  # fmt: skip


def _configuration(settings: Settings) -> str:
    import yaml

    from relay.config.show import show

    shown = show(settings)
    if shown["alerts"]["command"] is not None:
        shown["alerts"]["command"] = "(set)"  # its arguments may hold a key
    text = yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, default_flow_style=False)
    return without_secrets("".join(f"# warning: {one}\n" for one in settings.warnings) + str(text))


def _status(settings: Settings) -> str:
    from relay.control import ask
    from relay.errors import ControlError
    from relay.status import offline

    try:
        return _json(ask(settings, "status"))
    except ControlError:
        return _json(asyncio.run(offline(settings)))


def _health(settings: Settings) -> str:
    from relay.control import ask

    return _json(ask(settings, "health"))


def _events(settings: Settings) -> str:
    from relay.control import ask

    rows = [{**one, "time": iso(one["time"])} for one in ask(settings, "events")["events"]]
    return "".join(json.dumps(one) + "\n" for one in rows)


def _queue(settings: Settings) -> str:
    from relay.cli.spooled import pages, with_spool
    from relay.spool.contract import Filter

    async def read(spool: Spool) -> list[MessageView]:
        return [view async for page in pages(spool, Filter(), MESSAGES) for view in page]

    return "".join(json.dumps(_message(one)) + "\n" for one in with_spool(settings, read))


def _message(view: MessageView) -> dict[str, Any]:
    """A message without its people: their domains only."""
    return {
        "id": view.id, "received": iso(view.received), "state": view.state, "lane": view.lane, "size": view.size,
        "attempts": view.attempts, "next_attempt": iso(view.next_attempt), "reason": view.reason,
        "sender": _domain(view.sender),
        "recipients": [
            {"domain": _domain(one.address), "state": str(one.state), "code": one.code} for one in view.recipients
        ],
    }  # fmt: skip


def _domain(address: str) -> str:
    return "@" + address.rpartition("@")[2] if address else "<>"


def _json(value: Any) -> str:
    return json.dumps(value, indent=2) + "\n"
