"""Whole journeys: a real relay process, a simulated Microsoft 365 in another, real clients; seen from outside."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.fakes.jsonlines import whole_lines
from tests.fakes.tied import tied

PYTHON = [sys.executable, "-m", "relay"]
PATIENCE = 30.0
"""Seconds that a test waits for something that takes milliseconds on an idle machine."""


def free_port() -> int:
    """A port nobody uses just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(
    condition: Callable[[], Any], seconds: float = PATIENCE, what: str = "", *, pause: float = 0.02
) -> Any:
    """Ask until the answer is true, every ``pause`` seconds; the answer. Fails with ``what`` after ``seconds``."""
    deadline = time.monotonic() + seconds
    between = threading.Event()
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"did not happen within {seconds} s: {what or condition}"
        between.wait(pause)


class Microsoft:
    """The simulator as a process, and its control address."""

    def __init__(self, folder: Path, *options: str, prefix: Sequence[str] = ()) -> None:
        """``options`` of `relay simulator`; ``prefix``: words that start it elsewhere."""
        command = [*prefix, *PYTHON, "simulator", "--dir", str(folder), *options]
        self._process = subprocess.Popen(tied(command), stdout=subprocess.PIPE, text=True, cwd=folder.parent)
        assert self._process.stdout is not None
        self.facts: dict[str, Any] = json.loads(self._process.stdout.readline())
        self.env: dict[str, str] = {key: str(value) for key, value in self.facts["env"].items()}
        self.env["RELAY_CA_FILE"] = str(folder / "ca.pem")

    def call(self, path: str, body: Any = None, method: str = "GET") -> Any:
        """One request to the control address."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.facts["control"] + path, data=data, method=method)
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def messages(self) -> list[dict[str, Any]]:
        """What Exchange has accepted."""
        return self.call("/messages")

    def raw(self, message: dict[str, Any]) -> bytes:
        """The octets of one of them."""
        with urllib.request.urlopen(
            f"{self.facts['control']}/messages/{message['id']}", timeout=60
        ) as answer:
            return answer.read()

    def counters(self) -> dict[str, int]:
        """Connections, handshakes, logins, tokens."""
        return self.call("/counters")

    def change(self, **state: Any) -> None:
        """What an administrator or an outage changes."""
        self.call("/state", state, "PATCH")

    def fault(self, text: str) -> None:
        """Misbehave."""
        self.call("/faults", text, "POST")

    def clear_faults(self) -> None:
        """Behave again."""
        self.call("/faults", method="DELETE")

    def arrived(self, count: int, seconds: float = PATIENCE) -> list[dict[str, Any]]:
        """Wait for ``count`` messages; all of them."""
        until(lambda: len(self.messages()) >= count, seconds, f"{count} messages at Exchange")
        return self.messages()

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)


class Relay:
    """`relay run` as a process."""

    address = "127.0.0.1"

    def __init__(self, folder: Path, env: dict[str, str], config: Path | None = None) -> None:
        self.folder = folder
        self.port = free_port()
        base = {key: value for key, value in os.environ.items() if not key.startswith("RELAY_")}
        self.env = {
            **base,
            **env,
            "RELAY_LISTEN": f"127.0.0.1:{self.port}",
            "RELAY_SPOOL_URL": f"sqlite:///{folder / 'spool.db'}",
        }
        if config is not None:
            self.env["RELAY_CONFIG"] = str(config)
        self.log = folder / "relay.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, wait: bool = True) -> Relay:
        """Run it; returns when it listens."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                tied(self._words("run")), env=self.env, stderr=log, stdout=log, cwd=self.folder
            )
        if wait:
            until(self._listening, what=f"relay listens; its log: {self.log.read_text()[-2000:]}")
        return self

    def _words(self, *words: str) -> list[str]:
        """A relay command as it is started."""
        return [*PYTHON, *words]

    def _listening(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()[-4000:]
        with contextlib.suppress(OSError), socket.create_connection((self.address, self.port), 1) as probe:
            return probe.recv(3) == b"220"
        return False

    def kill(self) -> None:
        """As a power cut would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> int:
        """SIGTERM, as systemd would; the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(40)

    def reload(self) -> None:
        """SIGHUP."""
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)

    def command(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """One relay command with the same configuration."""
        done = subprocess.run(
            self._words(*words), env=self.env, capture_output=True, text=True, timeout=60, cwd=self.folder
        )
        assert not check or done.returncode == 0, (words, done.returncode, done.stdout, done.stderr)
        return done

    def status(self) -> dict[str, Any]:
        """`relay status --json`."""
        return json.loads(self.command("status", "--json").stdout)

    def lane(self, mailbox: str = "notifications@contoso.com") -> dict[str, Any]:
        """One lane of the status."""
        return next(one for one in self.status()["lanes"] if one["mailbox"] == mailbox)

    def events(self, name: str) -> list[dict[str, Any]]:
        """The log's lines of one event."""
        return [line for line in whole_lines(self.log) if line["event"] == name]

    def resident_peak(self) -> int:
        """Peak resident memory in kB, as the kernel counts it."""
        assert self.process is not None
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in text.splitlines() if line.startswith("VmHWM")).split()[1])

    def close(self) -> None:
        """End it if it still runs."""
        if self.process is not None and self.process.poll() is None:
            self.kill()


def all_arrived_once(relay: Relay, microsoft: Microsoft, accepted: set[str]) -> None:
    """Everything is delivered; nothing that was answered is missing, and nothing arrived twice."""
    until(lambda: relay.status()["spool"]["messages"] == 0, 120, "everything is delivered")
    arrived = Counter(one["message_id"] for one in microsoft.messages())
    assert accepted - set(arrived) == set()
    assert set(arrived.values()) == {1}


@contextlib.contextmanager
def running(relay: Relay) -> Iterator[Relay]:
    """Start, and end whatever happens."""
    try:
        yield relay.start()
    finally:
        relay.close()
