"""`relay send`: submit a test message to a listener, and show the server's own words."""

from __future__ import annotations

import mimetypes
import os
import smtplib
import socket
import ssl
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from email.utils import formatdate, make_msgid, parseaddr
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from relay.cli.options import AsJson, ConfigPath, settings_of, usage
from relay.cli.output import emit_json, say
from relay.errors import RelayError
from relay.logs import visible

if TYPE_CHECKING:
    from relay.settings import Listener, Settings

TIMEOUT = 60.0
"""Seconds for each step; a listener that answers after delivery may take its time."""
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - compared, not bound


def add_command(app: typer.Typer) -> None:
    """Register `relay send`."""
    app.command("send")(send)


@dataclass(slots=True)
class Target:
    """Where to submit, and how."""

    host: str
    port: int
    tls: str = "none"
    certificate: Path | None = None
    """The listener's own certificate, trusted for this one connection."""
    ca_file: Path | None = None


@dataclass(slots=True)
class Answer:
    """What the server said: the last reply, and the recipients it refused."""

    code: int
    text: str
    refused: dict[str, str] = field(default_factory=dict)

    @property
    def accepted(self) -> bool:
        """Whether the message was taken for every recipient."""
        return 200 <= self.code < 300 and not self.refused


def send(
    to: Annotated[list[str], typer.Option("--to", metavar="ADDR", help="A recipient; may be repeated.")],
    sender: Annotated[
        str | None, typer.Option("--from", metavar="ADDR", help="Default: the first from_email.")
    ] = None,
    server: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Default: the first listener.")
    ] = None,
    subject: Annotated[str, typer.Option(help="The subject.")] = "Test message from relay",
    body: Annotated[str, typer.Option(metavar="TEXT", help="The text; - reads it from standard input.")] = (
        "This is a test message. If you can read it, the way from here to you works."
    ),
    attach: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Attach a file; may be repeated.")
    ] = None,
    user: Annotated[str | None, typer.Option(help="User name for AUTH.")] = None,
    password: Annotated[
        str | None, typer.Option(help="Its password; without it RELAY_SEND_PASSWORD, or a question.")
    ] = None,
    tls: Annotated[str | None, typer.Option(metavar="MODE", help="none, starttls or implicit.")] = None,
    ca_file: Annotated[Path | None, typer.Option(metavar="FILE", help="Trust this CA, too.")] = None,
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Submit a test message to a listener and print its answer. Exits 1 when it is refused."""
    settings = settings_of(config) if server is None or sender is None else None
    target = _target(settings, server, tls, ca_file)
    message = _compose(sender or _default_sender(settings), to, subject, body, attach or [])
    answer = submit(target, message, to, user, _secret(user, password))
    _show(answer, target, as_json)
    if not answer.accepted:
        raise typer.Exit(1)


def _default_sender(settings: Settings | None) -> str:
    return settings.upstreams[0].from_email if settings and settings.upstreams else usage("--from is needed")


def _target(settings: Settings | None, server: str | None, tls: str | None, ca_file: Path | None) -> Target:
    if tls not in (None, "none", "starttls", "implicit"):
        usage(f"--tls is one of none, starttls, implicit, not {visible(tls)}")
    if server is not None:
        host, port = _host_and_port(server)
        return Target(host, port, tls or "none", ca_file=ca_file)
    if settings is None or not settings.listeners:
        usage("--server is needed: the configuration has no listener")
    one = settings.listeners[0]
    return Target(
        EVERYWHERE.get(one.host, one.host), one.port, tls or _mode(one), one.tls.certificate, ca_file
    )


def _mode(listener: Listener) -> str:
    """What a listener asks for: TLS where it has it, so that AUTH works."""
    return {"starttls": "starttls", "auto": "starttls", "implicit": "implicit"}.get(listener.tls.mode, "none")


def _host_and_port(server: str) -> tuple[str, int]:
    host, colon, port = server.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        usage("--server is written host:port, such as 127.0.0.1:25 or [::1]:25")
    return host.strip("[]"), int(port)


def _secret(user: str | None, password: str | None) -> str | None:
    if user is None:
        return None
    if password is None:
        password = os.environ.get("RELAY_SEND_PASSWORD")
    if password is None and sys.stdin.isatty():
        password = str(typer.prompt("Password", hide_input=True, err=True))
    return password if password is not None else usage("--user needs --password, or RELAY_SEND_PASSWORD")


def _compose(sender: str, to: list[str], subject: str, body: str, attach: Iterable[Path]) -> EmailMessage:
    message = EmailMessage()
    try:
        message["From"], message["To"], message["Subject"] = sender, ", ".join(to), subject
    except (ValueError, IndexError) as error:  # a line break in a header, or an address that is none
        usage(f"the message cannot be made: {error}")
    message["Date"] = formatdate(localtime=True)
    message["Message-ID"] = make_msgid(domain="relay.invalid")
    message.set_content(sys.stdin.read() if body == "-" else body)
    for path in attach:
        _attach(message, path)
    return message


def _attach(message: EmailMessage, path: Path) -> None:
    try:
        data = path.read_bytes()
    except OSError as error:
        usage(f"cannot read {visible(str(path))}: {error.strerror}")
    kind = (mimetypes.guess_type(path.name)[0] or "application/octet-stream").split("/")
    message.add_attachment(data, maintype=kind[0], subtype=kind[1], filename=path.name)


def submit(
    target: Target, message: EmailMessage, to: list[str], user: str | None, password: str | None
) -> Answer:
    """One SMTP session. Raises RelayError when there is nobody to talk to; refusals are in the answer."""
    try:
        with _connect(target) as smtp:
            smtp.ehlo_or_helo_if_needed()
            if target.tls == "starttls":
                smtp.starttls(context=_trust(target))
                smtp.ehlo()
            if user is not None:
                smtp.login(user, password or "")
            return _transaction(smtp, message, to)
    except smtplib.SMTPResponseException as error:
        return Answer(error.smtp_code, _words(error.smtp_error))
    except (OSError, smtplib.SMTPException) as error:
        raise RelayError(
            f"cannot submit to {target.host}:{target.port}: {error}",
            remedy="Check that the relay runs, and that --server and --tls fit its listener.",
        ) from error


def _connect(target: Target) -> smtplib.SMTP:
    name = socket.gethostname()
    if target.tls == "implicit":
        return smtplib.SMTP_SSL(
            target.host, target.port, local_hostname=name, timeout=TIMEOUT, context=_trust(target)
        )
    return smtplib.SMTP(target.host, target.port, local_hostname=name, timeout=TIMEOUT)


def _trust(target: Target) -> ssl.SSLContext:
    """Verified TLS. A listener of our own configuration is known by its very certificate, whatever its name."""
    context = ssl.create_default_context()
    if target.certificate is not None:
        context.load_verify_locations(target.certificate)
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.check_hostname = False
    if target.ca_file is not None:
        context.load_verify_locations(target.ca_file)
    return context


def _transaction(smtp: smtplib.SMTP, message: EmailMessage, to: list[str]) -> Answer:
    sender = parseaddr(str(message["From"]))[1]
    international = not all(address.isascii() for address in (sender, *to))
    data = message.as_bytes(policy=SMTPUTF8 if international else SMTP)
    options = [f"size={len(data)}"] + (["SMTPUTF8", "BODY=8BITMIME"] if international else [])
    smtp.command_encoding = "utf-8" if international else "ascii"
    code, text = smtp.mail(sender, options)
    if code != 250:
        return Answer(code, _words(text))
    refused: dict[str, str] = {}
    for address in to:
        code, text = smtp.rcpt(address)
        if code not in (250, 251):
            refused[address] = f"{code} {_words(text)}"
    if len(refused) == len(to):
        return Answer(code, _words(text), refused)
    code, text = smtp.data(data)
    return Answer(code, _words(text), refused)


def _words(text: bytes | str) -> str:
    shown = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return visible(" ".join(shown.split()))


def _show(answer: Answer, target: Target, as_json: bool) -> None:
    if as_json:
        emit_json(_shape(answer, target))
        return
    typer.echo(f"{answer.code} {answer.text}")
    for address, reply in answer.refused.items():
        say(f"relay: refused for {visible(address)}: {reply}")


def _shape(answer: Answer, target: Target) -> dict[str, Any]:
    return {
        "accepted": answer.accepted,
        "server": f"{target.host}:{target.port}",
        "code": answer.code,
        "text": answer.text,
        "refused": [{"address": address, "reply": reply} for address, reply in answer.refused.items()],
    }
