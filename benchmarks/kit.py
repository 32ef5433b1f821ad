"""What the measurements share: processes, load, the operating system's own figures, and the table at the end."""

from __future__ import annotations

import argparse
import atexit
import contextlib
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
PYTHON = sys.executable
TENANT = "11111111-2222-4333-8444-555555555555"


@dataclass
class Row:
    """One measured figure. ``ratio`` is ours against the peer's, larger is better unless ``lower`` is set."""

    name: str
    ours: float
    peer: float | None
    unit: str
    target: str
    reached: bool
    note: str = ""
    peer_name: str = ""
    runs: list[dict[str, float]] = field(default_factory=list)

    @property
    def ratio(self) -> float | None:
        """Ours against the peer's."""
        return self.ours / self.peer if self.peer else None


def free_port() -> int:
    """A port nobody uses just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Ask until the answer is true; the answer. RuntimeError with ``what`` after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise RuntimeError(f"did not happen within {seconds} s: {what}")
        time.sleep(0.005)
    return answer


_children: list[subprocess.Popen[Any]] = []


def spawn(*command: str, **options: Any) -> subprocess.Popen[Any]:
    """Start a program that ends with this one, whatever happens."""
    child = subprocess.Popen(command, cwd=ROOT, **options)
    _children.append(child)
    return child


@atexit.register
def _end_children() -> None:
    for child in _children:
        if child.poll() is None:
            child.kill()
            child.wait(10)


class Process:
    """A program of ours that says its ports in one line of JSON."""

    def __init__(self, *words: str) -> None:
        self.process = spawn(PYTHON, "-m", *words, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.facts: dict[str, Any] = json.loads(self.process.stdout.readline())

    def stop(self) -> None:
        """SIGTERM, and wait."""
        self.process.terminate()
        self.process.wait(10)


class Sink(Process):
    """`benchmarks.sink`, and its counters."""

    def __init__(self, certificate: Path, *options: str) -> None:
        super().__init__("benchmarks.sink", "--certificate", str(certificate), *options)
        self.port: int = self.facts["port"]

    def counters(self, word: str = "") -> dict[str, Any]:
        """Connections, handshakes, logins, messages, octets, refused; with ``stamps`` also those (kept from then on)."""
        with socket.create_connection(("127.0.0.1", self.facts["control"]), 10) as asking:
            asking.sendall(word.encode() + b"\n")
            return json.loads(asking.makefile().readline())

    def wait_for(self, messages: int, seconds: float) -> float:
        """Until so many messages came; when that was seen, monotonic."""
        until(lambda: self.counters()["messages"] >= messages, seconds, f"{messages} messages at the sink")
        return time.monotonic()


class Relay:
    """`relay run` against a simulated Entra ID, delivering to any SMTP port."""

    def __init__(
        self,
        folder: Path,
        simulator: dict[str, Any],
        upstream: dict[str, Any],
        *,
        workers: str = "auto",
        **spool: Any,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = free_port()
        env = {key: str(value) for key, value in simulator["env"].items()}
        self.config = folder / "config.json"  # JSON is YAML
        self.config.write_text(json.dumps({
            "upstreams": [{
                "server_name": "bench", "from_email": env["RELAY_FROM_EMAIL"], "tenant_id": env["RELAY_TENANT_ID"],
                "client_id": env["RELAY_CLIENT_ID"], "client_secret": env["RELAY_CLIENT_SECRET"],
                "host": "localhost", "port": int(env["RELAY_PORT"]), "authority": env["RELAY_AUTHORITY"],
                "graph_url": env["RELAY_GRAPH_URL"], "ca_file": env["RELAY_CA_FILE"], "transport": "smtp", **upstream,
            }],
            "listeners": [{"bind": f"127.0.0.1:{self.port}", "limits": {
                "connections": 6000, "connections_per_client": 6000, "message_size": "100MB"}}],
            "spool": {"url": f"sqlite:///{folder / 'spool.db'}", "max_size": "100GB", **spool},
            "log": {"level": "info", "format": "json"},
            "workers": workers,
        }))  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, seconds: float = 60.0) -> float:
        """Run it until it listens; seconds that took."""
        began = time.monotonic()
        with (self.folder / "relay.log").open("ab") as log:
            self.process = spawn(
                PYTHON, "-m", "relay", "run", "--config", str(self.config), stderr=log, stdout=log
            )
        until(self._listening, seconds, f"relay listens; see {self.folder / 'relay.log'}")
        return time.monotonic() - began

    def _listening(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as probe:
            return probe.recv(3) == b"220"
        if self.process is not None and self.process.poll() is not None:
            raise RuntimeError((self.folder / "relay.log").read_text()[-2000:])
        return False

    def stop(self) -> None:
        """SIGTERM, and wait."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(40)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)

    def memory(self, what: str = "VmRSS") -> float:
        """MB resident now (VmRSS), or at most ever (VmHWM), as the kernel counts it; worker processes included."""
        assert self.process is not None
        return sum(_memory(pid, what) for pid in family(self.process.pid)) / 1024

    def cpu(self) -> float:
        """Seconds of processor time used so far, worker processes included."""
        assert self.process is not None
        return sum(_cpu(pid) for pid in family(self.process.pid))


def family(pid: int) -> list[int]:
    """A process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    return [pid, *(int(one) for one in children.read_text().split())] if children.exists() else [pid]


def _memory(pid: int, what: str) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith(what)).split()[1])


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def simulator(folder: Path, *options: str, keep: bool = False) -> Iterator[dict[str, Any]]:
    """`relay simulator`; what it printed. It counts the mail, and lists it only with ``keep``."""
    folder.mkdir(parents=True, exist_ok=True)
    running = Process("relay", "simulator", "--dir", str(folder), *([] if keep else ["--no-keep"]), *options)
    try:
        yield running.facts
    finally:
        running.stop()


alone_wanted = False
"""Set by ``--alone``."""


@contextlib.contextmanager
def alone(*others: int) -> Iterator[None]:
    """With ``--alone``: real-time priority for our programs (and ``others``) meanwhile, so that what else runs on the
    machine hardly counts. Needs root."""
    if not alone_wanted:
        yield
        return
    programs = [*_descendants(os.getpid()), *others]
    _schedule(programs, os.SCHED_RR)
    try:
        yield
    finally:
        _schedule([*programs, *_descendants(os.getpid())], os.SCHED_OTHER)


def _descendants(pid: int) -> list[int]:
    found = [pid]
    for one in found:
        for children in Path(f"/proc/{one}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += [int(child) for child in children.read_text().split()]
    return found


def _schedule(programs: list[int], policy: int) -> None:
    """All their threads; what they start later inherits it."""
    for task in {task for pid in programs for task in Path(f"/proc/{pid}/task").glob("[0-9]*")}:
        with contextlib.suppress(ProcessLookupError):
            os.sched_setscheduler(int(task.name), policy, os.sched_param(int(policy == os.SCHED_RR)))


def load(port: int, messages: int, size: int, clients: int, *more: str, timeout: float = 300.0) -> float:
    """Postfix's smtp-source: a connection per message, from ``clients`` at once. Seconds until all had their 250.

    ``size`` 0: ``more`` says what is sent.
    """
    sized = ["-l", str(size)] if size else []
    began = time.monotonic()
    subprocess.run(
        ["smtp-source", "-m", str(messages), "-s", str(clients), *sized, "-f", "source@example.org",
         "-t", "someone@example.net", *more, f"127.0.0.1:{port}"],
        check=True, timeout=timeout,
    )  # fmt: skip
    return time.monotonic() - began


def median(values: list[float]) -> float:
    """The median; figures of single runs are kept beside it."""
    return statistics.median(values)


def command(name: str, about: str, measure: Callable[[Path, int], list[Row]], runs: int = 3) -> None:
    """The command line of one measurement: a folder of its own, the table, the JSON; for its exit status see `finish`."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=about)
    parser.add_argument("--runs", type=int, default=runs, help="repetitions; the median counts")
    parser.add_argument("--out", type=Path, default=RESULTS / f"{name}.json", help="where the JSON goes")
    parser.add_argument(
        "--alone", action="store_true", help="real-time priority for what is measured; needs root"
    )
    offer_strict(parser)
    options = parser.parse_args()
    global alone_wanted
    alone_wanted = options.alone
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with workshop() as folder:
        rows = measure(folder, options.runs)
    show(rows, options.out)
    sys.exit(finish(rows, strict=options.strict))


@contextlib.contextmanager
def workshop() -> Iterator[Path]:
    """A temporary folder that Postfix's account may enter, too."""
    with tempfile.TemporaryDirectory(prefix="relay-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def offer_strict(parser: argparse.ArgumentParser) -> None:
    """The option of every measurement that has targets."""
    parser.add_argument("--strict", action="store_true", help="exit status 1 for a missed target, too")


def finish(rows: list[Row], *, strict: bool, unmeasured: Sequence[str] = ()) -> int:
    """Say in the last line what was missed, and what could not be measured; the exit status.

    0: everything was measured, 1: something could not be (or, if ``strict``, a target was missed).
    """
    missed = [row.name for row in rows if not row.reached]
    words = [
        f"missed targets: {'; '.join(missed)}" if missed else "every target that was measured was reached"
    ]
    if unmeasured:
        words.append(f"NOT MEASURED (see above): {', '.join(unmeasured)}")
    print(". ".join(words))
    return 1 if unmeasured or (strict and missed) else 0


def show(rows: list[Row], out: Path | None) -> None:
    """Print the table, write the JSON."""
    for row in rows:
        ratio = f"{row.ratio:.2f} x {row.peer_name}" if row.ratio else ""
        print(
            f"{row.name:<52} {row.ours:>12,.2f} {row.unit:<6} {ratio:<22} "
            f"{'ok  ' if row.reached else 'MISS'} target {row.target}  {row.note}"
        )
    if out is not None:
        about = {"python": platform.python_version(), "cpus": os.cpu_count(), "machine": platform.machine()}
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps({"about": about, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")
