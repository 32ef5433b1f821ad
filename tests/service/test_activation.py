"""Ports that stay open while the relay restarts: passed by an activator of our own, under load."""

from __future__ import annotations

import contextlib
import os
import signal
import smtplib
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.journeys.kit import until

ENVIRONMENT = {
    "RELAY_FROM_EMAIL": "notifications@contoso.com",
    "RELAY_TENANT_ID": "11111111-2222-4333-8444-555555555555",
    "RELAY_CLIENT_ID": "66666666-7777-4888-9999-aaaaaaaaaaaa",
    "RELAY_CLIENT_SECRET": "a-secret",
    "RELAY_AUTHORITY": "https://127.0.0.1:9",
    "RELAY_LOG_FORMAT": "text",
}


TRY_AGAIN = 421


class Activator:
    """What systemd does for relay.socket and relay.service: holds the port, starts the service, hears from it."""

    def __init__(self, folder: Path, workers: str = "auto") -> None:
        """``workers``: of relay's configuration."""
        self.folder = folder
        self.config = folder / "config.yaml"
        self.config.write_text(f"workers: {workers}\n")
        self.port_socket = socket.socket()
        self.port_socket.bind(("127.0.0.1", 0))
        self.port_socket.listen(1024)
        self.port = self.port_socket.getsockname()[1]
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(str(folder / "notify"))
        self.notify.settimeout(60)
        self.said: list[str] = []
        self.log = folder / "relay.log"

    def start(self) -> subprocess.Popen[bytes]:
        """Start the service with the port as descriptor 3; returns when it says READY=1."""
        env = {key: value for key, value in os.environ.items() if not key.startswith("RELAY_")}
        env |= ENVIRONMENT | {
            "RELAY_CONFIG": str(self.config),
            "RELAY_LISTEN": f"127.0.0.1:{self.port}",
            "RELAY_SPOOL_URL": f"sqlite:///{self.folder / 'spool.db'}",
            "NOTIFY_SOCKET": str(self.folder / "notify"),
            "WATCHDOG_USEC": "60000000",
            "LISTEN_FDS": "1",
        }
        number = self.port_socket.fileno()
        script = f'exec 3<&{number}; export LISTEN_PID=$$; exec "$@"'
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                ["bash", "-c", script, "sh", sys.executable, "-m", "relay", "run"],
                env=env, pass_fds=[number], stdout=log, stderr=log, cwd=self.folder,
            )  # fmt: skip
        while not self.hear().startswith("READY=1"):
            pass
        return process

    def helpers(self) -> int:
        """How many times a helper process has taken over, over all starts."""
        return self.log.read_text().count("a helper process accepts mail")

    def hear(self) -> str:
        """The next thing the service says."""
        try:
            word = self.notify.recv(4096).decode()
        except TimeoutError:
            raise AssertionError(self.log.read_text()[-3000:]) from None
        self.said.append(word)
        return word

    def close(self) -> None:
        """Let go of everything."""
        self.port_socket.close()
        self.notify.close()


class Client(smtplib.SMTP):
    """Remembers the last reply: smtplib goes on talking after some."""

    told = 0

    def getreply(self):
        reply = super().getreply()
        self.told = reply[0]
        return reply


class Load:
    """Clients that send one message after another, and remember what they met."""

    def __init__(self, port: int, clients: int = 12) -> None:
        self.port = port
        self.accepted: list[str] = []
        self.refused: list[str] = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(number,)) for number in range(clients)]
        for thread in self._threads:
            thread.start()

    def _send(self, number: int) -> None:
        count = 0
        while not self._over.is_set():
            count += 1
            name = f"m{number}-{count}"
            text = f"From: a@b.example\r\nSubject: {name}\r\nMessage-ID: <{name}@b.example>\r\n\r\nx\r\n"
            while not self._once(name, text):  # a client that is told 421 tries again
                pass

    def _once(self, name: str, text: str) -> bool:
        client = Client(timeout=60)
        try:
            client.connect("127.0.0.1", self.port)
            with client:
                client.sendmail("a@b.example", ["c@contoso.com"], text)
        except (smtplib.SMTPResponseException, smtplib.SMTPRecipientsRefused):
            return False
        except OSError as error:  # not let in, or cut off without a word (SMTPServerDisconnected)
            if client.told != TRY_AGAIN:
                self.refused.append(repr(error))
            return client.told != TRY_AGAIN
        self.accepted.append(name)
        return True

    def stop(self) -> None:
        """End when each client's present message is through."""
        self._over.set()
        for thread in self._threads:
            thread.join(60)


@pytest.mark.parametrize("workers", ["never", "always"])
def test_restarts_under_load_refuse_no_connection_and_lose_no_message(tmp_path, workers):
    """The port is open all the while, whoever accepts; every message that was answered with 250 is in the spool."""
    activator = Activator(tmp_path, workers)
    process = activator.start()
    load = Load(activator.port)
    try:
        for restart in range(1, 4):
            before = len(load.accepted)
            until(lambda count=before: len(load.accepted) >= count + 20, 60, "mail flows")
            if workers == "always":
                until(lambda times=restart: activator.helpers() >= times, 60, "a helper accepts mail")
            process.send_signal(signal.SIGTERM)
            assert process.wait(40) == 0, activator.log.read_text()[-3000:]
            process = activator.start()
        before = len(load.accepted)
        until(lambda: len(load.accepted) >= before + 20, 60, "mail flows again")
        load.stop()
        process.send_signal(signal.SIGHUP)
        while not activator.hear().startswith("RELOADING=1"):
            pass
        assert activator.hear().startswith("READY=1")
    finally:
        load.stop()
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        assert process.wait(40) == 0
        activator.close()
    assert load.refused == []
    assert any(one.startswith("STOPPING=1") for one in activator.said)
    assert "WATCHDOG=1" in activator.said
    stored = stored_ids(tmp_path)
    assert {f"<{name}@b.example>" for name in load.accepted} <= stored


def stored_ids(folder: Path) -> set[str]:
    """Message-IDs of everything in the spool."""
    import json

    done = subprocess.run(
        [sys.executable, "-m", "relay", "queue", "list", "--json", "--limit", "100000"], capture_output=True, text=True,
        env={**os.environ, **ENVIRONMENT, "RELAY_SPOOL_URL": f"sqlite:///{folder / 'spool.db'}"}, timeout=60,
    )  # fmt: skip
    return {one["message_id"] for one in json.loads(done.stdout)}
