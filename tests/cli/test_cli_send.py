"""`relay send` submits to a listener and shows the server's own words."""

from __future__ import annotations

import email
import email.policy
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session

from tests.cli.kit import Bench


class Listener:
    """Takes mail, refuses what begins with ``no-``."""

    def __init__(self) -> None:
        self.taken: list[Envelope] = []

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address.startswith("no-"):
            return "550 5.1.1 No such \x1b[31mmailbox"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 Ok"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        self.taken.append(envelope)
        return "250 2.0.0 Ok: queued as 0AMGQ1NN80000"


def _login(server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: object) -> AuthResult:
    return AuthResult(success=getattr(data, "password", None) == b"right", handled=False)


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[tuple[Listener, str]]:
    handler = Listener()
    controller = Controller(
        handler, "127.0.0.1", _free_port(), authenticator=_login, auth_require_tls=False, enable_SMTPUTF8=True
    )
    controller.start()
    try:
        yield handler, f"127.0.0.1:{controller.port}"
    finally:
        controller.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _sent(envelope: Envelope) -> email.message.EmailMessage:
    assert isinstance(envelope.content, bytes)
    return email.message_from_bytes(envelope.content, policy=email.policy.default)


def test_a_test_message(bench: Bench, listener: tuple[Listener, str], tmp_path: Path) -> None:
    """Sender, recipients, subject, text and attachment go out as given; the reply is printed."""
    handler, server = listener
    (tmp_path / "scan.pdf").write_bytes(b"%PDF-1.4 \x00\xff")
    result = bench.run(
        "send", "--to", "ann@example.com", "--to", "bob@example.com", "--from", "me@legacy.local", "--server", server,
        "--subject", "Grüße", "--body", "-", "--attach", str(tmp_path / "scan.pdf"), stdin="From a pipe\n.\n",
    )  # fmt: skip
    assert (result.exit_code, result.stdout) == (0, "250 2.0.0 Ok: queued as 0AMGQ1NN80000\n")
    (envelope,) = handler.taken
    assert (envelope.mail_from, envelope.rcpt_tos) == (
        "me@legacy.local",
        ["ann@example.com", "bob@example.com"],
    )
    message = _sent(envelope)
    assert message["Subject"] == "Grüße"
    assert message["Message-ID"]
    text, attachment = message.iter_parts()
    assert text.get_content().splitlines() == ["From a pipe", "."]
    assert (attachment.get_filename(), attachment.get_content()) == ("scan.pdf", b"%PDF-1.4 \x00\xff")


def test_defaults_come_from_the_configuration(tmp_path: Path, listener: tuple[Listener, str]) -> None:
    """Without --server and --from: the first listener and the first from_email."""
    handler, server = listener
    bench = Bench(tmp_path, port=int(server.rpartition(":")[2]))
    assert bench.run("send", "--to", "ann@example.com").exit_code == 0
    assert handler.taken[0].mail_from == "notifications@contoso.com"


def test_refusals_are_shown_in_the_servers_words(bench: Bench, listener: tuple[Listener, str]) -> None:
    """A refused recipient makes the status 1; what the server said is shown, harmless to the terminal."""
    handler, server = listener
    words = ("send", "--from", "me@legacy.local", "--server", server, "--to", "no-one@example.com")
    result = bench.run(*words)
    assert result.exit_code == 1
    assert "550 5.1.1 No such \\x1b[31mmailbox" in result.stdout
    assert handler.taken == []
    mixed = bench.run(*words, "--to", "ann@example.com", "--json")
    assert mixed.exit_code == 1
    answer = json.loads(mixed.stdout)
    assert (answer["accepted"], answer["code"]) == (False, 250)
    assert answer["refused"][0]["address"] == "no-one@example.com"


def test_login(bench: Bench, listener: tuple[Listener, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """--user with its password (option or environment) logs in; a wrong one is refused with the server's words."""
    _, server = listener
    words = (
        "send",
        "--from",
        "me@legacy.local",
        "--server",
        server,
        "--to",
        "ann@example.com",
        "--user",
        "scanner-3",
    )
    assert bench.run(*words, "--password", "right").exit_code == 0
    refused = bench.run(*words, "--password", "wrong")
    assert refused.exit_code == 1
    assert refused.stdout.startswith("535 ")
    assert bench.run(*words).exit_code == 2
    monkeypatch.setenv("RELAY_SEND_PASSWORD", "right")
    assert bench.run(*words).exit_code == 0


def test_international_addresses(bench: Bench, listener: tuple[Listener, str]) -> None:
    """A recipient beyond ASCII is sent with SMTPUTF8."""
    handler, server = listener
    result = bench.run("send", "--from", "me@legacy.local", "--server", server, "--to", "jörg@example.com")
    assert result.exit_code == 0, result.output
    assert handler.taken[0].smtp_utf8
    assert handler.taken[0].rcpt_tos == ["jörg@example.com"]


def test_nobody_there(bench: Bench) -> None:
    """A server that does not answer is status 1 with a remedy, a malformed address or TLS mode status 2."""
    words = ("send", "--from", "me@legacy.local", "--to", "ann@example.com", "--server")
    result = bench.run(*words, f"127.0.0.1:{_free_port()}")
    assert result.exit_code == 1
    assert "cannot submit" in result.stderr
    assert "Check that the relay runs" in result.stderr
    assert bench.run(*words, "localhost").exit_code == 2
    assert bench.run(*words, "localhost:25", "--tls", "maybe").exit_code == 2
    assert bench.run(*words, "localhost:25", "--subject", "a\r\nBcc: b@example.com").exit_code == 2
    assert bench.run(*words, "localhost:25", "--attach", "/nonexistent").exit_code == 2
