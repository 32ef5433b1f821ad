"""``relay simulator``: the stand-in as a command."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from relay.simulator.app import Simulator
from relay.simulator.faults import Fault
from relay.simulator.options import DEFAULT_MAILBOXES, SimulatorOptions
from relay.simulator.state_values import checked_certificate, checked_permissions

Texts = list[str] | None

_UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}
_SIZE = re.compile(r"(\d+)\s*([KMG]?)B?", re.I)


def read_size(text: str) -> int:
    """``35MB`` in octets (powers of 1024). Raises ValueError."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"a size reads 35MB, 512KB or a number of octets, not {text!r}")
    return int(match[1]) * _UNITS[match[2].upper()]


def read_send_as(texts: list[str]) -> dict[str, set[str]]:
    """``MAILBOX=ADDRESS`` pairs. Raises ValueError."""
    allowed: dict[str, set[str]] = {}
    for text in texts:
        mailbox, equals, address = text.partition("=")
        if not (mailbox and equals and address):
            raise ValueError(f"--send-as reads MAILBOX=ADDRESS, not {text!r}")
        allowed.setdefault(mailbox, set()).add(address)
    return allowed


def read_certificate(path: Path) -> str:
    """A public certificate's PEM text. Raises ValueError."""
    try:
        return checked_certificate(path.read_text())
    except OSError as error:
        raise ValueError(f"--certificate: {error}") from error


def default_mailboxes(domain: str) -> list[str]:
    """The usual mailboxes, in this domain."""
    return [f"{mailbox.partition('@')[0]}@{domain}" for mailbox in DEFAULT_MAILBOXES]


def announcement(simulator: Simulator) -> str:
    """One line of JSON: where everything is, and the environment for a relay."""
    return json.dumps(
        {
            "smtp": f"{simulator.options.public_name}:{simulator.smtp_port}",
            "authority": simulator.authority,
            "graph_url": simulator.graph_url,
            "ca_file": str(simulator.ca_file),
            "control": simulator.control_url,
            "directory": str(simulator.directory),
            "env": simulator.environment(),
        }
    )


async def serve(options: SimulatorOptions) -> int:
    """Start, announce, and serve until SIGTERM or SIGINT; the exit status."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    simulator = Simulator(options)
    try:
        await simulator.start()
    except OSError as error:
        print(f"the simulator cannot listen: {error}", file=sys.stderr)  # noqa: T201 - for the person at the terminal
        return 1
    try:
        print(announcement(simulator), flush=True)  # noqa: T201 - data, on stdout
        await stop.wait()
    finally:
        await simulator.stop()
    return 0


def run(options: SimulatorOptions) -> int:
    """`serve` on an event loop of its own."""
    return asyncio.run(serve(options))


@contextlib.contextmanager
def usage_errors() -> Iterator[None]:
    """A value that does not fit is wrong usage: exit status 2, with the reason."""
    try:
        yield
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def simulator_command(
    directory: Annotated[Path | None, typer.Option("--dir", help="for CA and mail; default: new")] = None,
    host: Annotated[str, typer.Option(help="address to bind")] = "127.0.0.1",
    name: Annotated[str, typer.Option(help="host name in the addresses handed out")] = "localhost",
    smtp_port: Annotated[int, typer.Option(help="0: any")] = 0,
    https_port: Annotated[int, typer.Option(help="Entra's port; 0: any")] = 0,
    graph_port: Annotated[int, typer.Option(help="Graph's port; 0: any")] = 0,
    control_port: Annotated[int, typer.Option(help="0: any")] = 0,
    tenant: Annotated[str, typer.Option(help="tenant id")] = SimulatorOptions.tenant_id,
    client_id: Annotated[str, typer.Option(help="application id")] = SimulatorOptions.client_id,
    secret: Annotated[str, typer.Option(help="client secret")] = SimulatorOptions.client_secret,
    mailbox: Annotated[Texts, typer.Option(help="a mailbox (repeatable)")] = None,
    any_mailbox: Annotated[bool, typer.Option("--any-mailbox", help="every address of the domains")] = False,
    domain: Annotated[Texts, typer.Option(help="a domain of the tenant (repeatable)")] = None,
    permission: Annotated[Texts, typer.Option(help="what the app may do (repeatable)")] = None,
    messages_per_minute: Annotated[int, typer.Option(help="per mailbox; 0: no limit")] = 30,
    connections: Annotated[int, typer.Option(help="at once, per mailbox; 0: no limit")] = 3,
    recipients_per_day: Annotated[int, typer.Option(help="per mailbox; 0: no limit")] = 10_000,
    recipients_per_message: Annotated[int, typer.Option(help="0: no limit")] = 500,
    message_size: Annotated[str, typer.Option(help="of the mailbox")] = "35MB",
    token_lifetime: Annotated[int, typer.Option(help="seconds")] = 3599,
    latency: Annotated[float, typer.Option(help="seconds added to every round trip")] = 0.0,
    fault: Annotated[Texts, typer.Option(help="where:action[:reply][;times=..] (repeatable)")] = None,
    send_as: Annotated[Texts, typer.Option(help="MAILBOX=ADDRESS (repeatable)")] = None,
    certificate: Annotated[
        list[Path] | None, typer.Option(help="public certificate, PEM (repeatable)")
    ] = None,
    no_keep: Annotated[bool, typer.Option("--no-keep", help="count the mail only")] = False,
) -> None:
    """A stand-in for Entra ID, Exchange Online SMTP and Graph, for demos, tests and rehearsals."""
    with usage_errors():
        options = SimulatorOptions(
            directory=directory or Path(tempfile.mkdtemp(prefix="relay-simulator-")),
            host=host,
            public_name=name,
            smtp_port=smtp_port,
            https_port=https_port,
            graph_port=graph_port,
            control_port=control_port,
            tenant_id=tenant,
            client_id=client_id,
            client_secret=secret,
            mailboxes=mailbox or default_mailboxes((domain or ["contoso.com"])[0]),
            any_mailbox=any_mailbox,
            domains=domain or ["contoso.com"],
            permissions=checked_permissions(permission or ["SMTP.SendAsApp"]),
            messages_per_minute=messages_per_minute,
            connections=connections,
            recipients_per_day=recipients_per_day,
            recipients_per_message=recipients_per_message,
            message_size=read_size(message_size),
            token_lifetime=token_lifetime,
            latency=latency,
            faults=[Fault.parse(text) for text in fault or []],
            send_as=read_send_as(send_as or []),
            certificates=[read_certificate(path) for path in certificate or []],
            keep=not no_keep,
        )
    raise typer.Exit(run(options))


def add_command(app: typer.Typer) -> None:
    """Register ``simulator`` with the command line."""
    app.command("simulator")(simulator_command)
