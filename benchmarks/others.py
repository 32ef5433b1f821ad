"""Other ways into Microsoft 365, each set up as its own documents say, against `relay simulator`: for `benchmarks.alternatives`.

What each needs from Debian or PyPI is in its ``missing``; nothing of the system's own configuration is touched.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
import urllib.parse
import urllib.request
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from benchmarks import kit, postfix
from benchmarks.kit import ROOT, Relay, free_port
from benchmarks.postfix import Postfix
from relay import __version__

MAILBOX = "notifications@contoso.com"
PROXY = ROOT / ".tools" / "emailproxy" / "bin" / "python"


class Way:
    """One way: start it, hand it mail, kill it, look at it."""

    name = ""
    version = ""

    def __init__(self, folder: Path, simulator: dict[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.env = {key: str(value) for key, value in simulator["env"].items()}
        self.port = free_port()

    @staticmethod
    def missing() -> str:
        """What has to be installed; empty when it can run."""
        return ""

    def start(self) -> None:
        """Run it until it takes mail."""
        raise NotImplementedError

    def stop(self) -> None:
        """End it in order."""
        raise NotImplementedError

    def pids(self) -> list[int]:
        """All its processes; none for what runs only while it sends."""
        return []

    def waiting(self) -> int:
        """Messages it keeps."""
        return 0

    def kill(self) -> None:
        """As a power cut would end it."""
        for pid in reversed(self.pids()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def submit(self, message: EmailMessage, timeout: float = 60.0) -> str:
        """What the sending program is told."""
        try:
            with smtplib.SMTP("127.0.0.1", self.port, timeout=timeout) as client:
                self.log_in(client)
                client.send_message(message)
        except smtplib.SMTPResponseException as error:
            return f"{error.smtp_code} {_words(error.smtp_error)}"
        except smtplib.SMTPRecipientsRefused as error:
            code, text = next(iter(error.recipients.values()))
            return f"{code} {_words(text)}"
        except (smtplib.SMTPException, OSError) as error:
            return f"no answer: {error}"
        return "250"

    def log_in(self, client: smtplib.SMTP) -> None:
        """Nothing, where no password is asked for."""


def _words(text: bytes | str) -> str:
    return text.decode("utf-8", "replace") if isinstance(text, bytes) else text


class OurWay(Way):
    """relay, with its own defaults but for where Microsoft is."""

    name = "relay"

    def __init__(self, folder: Path, simulator: dict[str, Any]) -> None:
        super().__init__(folder, simulator)
        self.version = __version__
        self._relay = Relay(folder, simulator, {"transport": "auto"})
        self.port = self._relay.port

    def start(self) -> None:
        self._relay.start()

    def stop(self) -> None:
        self._relay.stop()

    def pids(self) -> list[int]:
        process = self._relay.process
        return kit.family(process.pid) if process is not None and process.poll() is None else []

    def kill(self) -> None:
        super().kill()
        assert self._relay.process is not None
        self._relay.process.wait(10)

    def waiting(self) -> int:
        return len(list(json.loads(self._command("queue", "list", "--json", "--limit", "0"))))

    def _command(self, *words: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", "relay", *words, "--config", str(self._relay.config)],
            capture_output=True, text=True, cwd=ROOT, timeout=60, check=True,
        ).stdout  # fmt: skip


class MsmtpWay(Way):
    """msmtp in the place of sendmail: no server and no queue; a script gives it a token."""

    name = "msmtp"

    def __init__(self, folder: Path, simulator: dict[str, Any]) -> None:
        super().__init__(folder, simulator)
        done = subprocess.run(["msmtp", "--version"], capture_output=True, text=True, check=True)
        self.version = done.stdout.split()[2]
        self._token = folder / "token"
        self._config = folder / "msmtprc"
        self._config.write_text(
            f"account default\nhost localhost\nport {self.env['RELAY_PORT']}\ntls on\ntls_starttls on\n"
            f"tls_trust_file {self.env['RELAY_CA_FILE']}\nauth xoauth2\nuser {MAILBOX}\nfrom {MAILBOX}\n"
            f'passwordeval "cat {self._token}"\nset_from_header on\ntimeout 60\n'
        )
        self._config.chmod(0o600)

    @staticmethod
    def missing() -> str:
        return "" if shutil.which("msmtp") else "apt-get install msmtp"

    def start(self) -> None:
        self._token.write_text(fetch_token(self.env))

    def stop(self) -> None:
        """Nothing runs."""

    def submit(self, message: EmailMessage, timeout: float = 60.0) -> str:
        self.start()  # the script runs for each message
        done = subprocess.run(
            ["msmtp", "--file", str(self._config), "--read-recipients", "--read-envelope-from"],
            input=message.as_bytes(), capture_output=True, timeout=timeout, check=False,
        )  # fmt: skip
        told = done.stderr.decode(errors="replace").strip().splitlines()
        return "250" if done.returncode == 0 else f"exit status {done.returncode}: {' / '.join(told)[:200]}"


class ProxyWay(Way):
    """email-oauth2-proxy: the program logs in with a name and any password, and the proxy puts a token in its place."""

    name = "email-oauth2-proxy"

    def __init__(self, folder: Path, simulator: dict[str, Any]) -> None:
        super().__init__(folder, simulator)
        done = subprocess.run(
            [str(PROXY), "-m", "emailproxy", "--version"], capture_output=True, text=True, check=True
        )
        self.version = done.stdout.split()[-1]
        self._config = folder / "emailproxy.config"
        self._config.write_text(
            f"[SMTP-{self.port}]\nlocal_address = 127.0.0.1\nserver_address = localhost\n"
            f"server_port = {self.env['RELAY_PORT']}\nserver_starttls = True\n\n[{MAILBOX}]\n"
            f"token_url = {_token_url(self.env)}\noauth2_scope = https://outlook.office365.com/.default\n"
            "oauth2_flow = client_credentials\nredirect_uri = http://localhost\n"
            f"client_id = {self.env['RELAY_CLIENT_ID']}\nclient_secret = {self.env['RELAY_CLIENT_SECRET']}\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def missing() -> str:
        return (
            ""
            if PROXY.exists()
            else f"python3 -m venv {PROXY.parents[1]} && {PROXY.parent}/pip install emailproxy"
        )

    def start(self) -> None:
        with (self.folder / "proxy.log").open("ab") as log:
            self._process = kit.spawn(
                str(PROXY), "-m", "emailproxy", "--no-gui", "--config-file", str(self._config), "--log-file",
                str(self.folder / "emailproxy.log"), stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                env={**os.environ, "SSL_CERT_FILE": self.env["RELAY_CA_FILE"]},
            )  # fmt: skip
        kit.until(lambda: _listens(self.port), 30, "emailproxy listens")

    def log_in(self, client: smtplib.SMTP) -> None:
        client.login(MAILBOX, "any password")

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(20)

    def pids(self) -> list[int]:
        return [self._process.pid] if self._process is not None and self._process.poll() is None else []

    def kill(self) -> None:
        super().kill()
        assert self._process is not None
        self._process.wait(10)


class PostfixWay(Way):
    """Postfix for the queue, email-oauth2-proxy between it and Exchange for the tokens: both from packages, no compiler."""

    name = "Postfix + email-oauth2-proxy"

    def __init__(self, folder: Path, simulator: dict[str, Any]) -> None:
        super().__init__(folder, simulator)
        folder.chmod(0o755)
        self._proxy = ProxyWay(folder / "proxy", simulator)
        done = subprocess.run(["postconf", "-dh", "mail_version"], capture_output=True, text=True, check=True)
        self.version = f"{done.stdout.strip()} + {self._proxy.version}"
        passwords = folder / "passwords"
        relayhost = f"[127.0.0.1]:{self._proxy.port}"
        passwords.write_text(f"{relayhost} {MAILBOX}:any-password\n")
        self._postfix = Postfix(folder / "postfix", self.port, {
            "relayhost": relayhost, "smtp_sasl_auth_enable": "yes", "smtp_sasl_password_maps": f"texthash:{passwords}",
            "smtp_sasl_security_options": "noanonymous", "smtp_sasl_mechanism_filter": "plain, login",
            # what guides for Office 365 advise: one connection, two seconds between messages, one sender for all
            "smtp_destination_concurrency_limit": "1", "smtp_destination_rate_delay": "2s",
            "sender_canonical_classes": "envelope_sender, header_sender",
            "sender_canonical_maps": f"static:{MAILBOX}", "message_size_limit": "36700160",
        })  # fmt: skip

    @staticmethod
    def missing() -> str:
        return postfix.available() or ProxyWay.missing()

    def start(self) -> None:
        self._proxy.start()
        self._postfix.__enter__()
        kit.until(lambda: _listens(self.port), 30, "Postfix listens")

    def stop(self) -> None:
        self._postfix.__exit__()
        self._proxy.stop()

    def pids(self) -> list[int]:
        return [*self._postfix.processes(), *self._proxy.pids()]

    def kill(self) -> None:
        super().kill()
        kit.until(lambda: not self._proxy.pids(), 10, "the proxy is gone")

    def waiting(self) -> int:
        queue = self.folder / "postfix" / "queue"
        parts = ("incoming", "active", "deferred")
        return sum(1 for part in parts for one in (queue / part).rglob("*") if one.is_file())

    def log(self) -> str:
        """Its log."""
        return self._postfix.log()


WAYS: tuple[type[Way], ...] = (OurWay, PostfixWay, ProxyWay, MsmtpWay)


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def _token_url(env: dict[str, str]) -> str:
    return f"{env['RELAY_AUTHORITY']}/{env['RELAY_TENANT_ID']}/oauth2/v2.0/token"


def fetch_token(env: dict[str, str]) -> str:
    """What the scripts do that such set-ups need; empty when Entra gives none."""
    form = urllib.parse.urlencode({
        "grant_type": "client_credentials", "client_id": env["RELAY_CLIENT_ID"], "client_secret": env["RELAY_CLIENT_SECRET"],
        "scope": "https://outlook.office365.com/.default",
    }).encode()  # fmt: skip
    context = ssl.create_default_context(cafile=env["RELAY_CA_FILE"])
    with (
        contextlib.suppress(OSError),
        urllib.request.urlopen(_token_url(env), form, 20, context=context) as answer,
    ):
        return str(json.loads(answer.read())["access_token"])
    return ""
