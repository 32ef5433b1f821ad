"""The judge can find fault, the gate really holds things up, and nothing outlives a test run that is killed."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.fakes.gate import Gate
from tests.fakes.postgres import sweep
from tests.group.judge import Bounds, Findings, busiest, check_limits, check_mail
from tests.group.senders import Senders, Try
from tests.journeys.kit import until


class Witness:
    """Stands for a relay: its `relay trace` shows this many reports of uncertainty for every message."""

    def __init__(self, reports: int = 0) -> None:
        self._trace = (
            '[{"message_id": "%s", "events": [' + ", ".join(['{"event": "uncertain"}'] * reports) + "]}]"
        )

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(words, 0, self._trace % f"<{words[1]}>")


def senders_of(*tries: Try) -> Senders:
    senders = Senders([])
    senders.tries += tries
    return senders


def tried(name: str, answer: str = "250", *, sent: bool = True) -> Try:
    return Try(f"<{name}>", "box1", "one", 0.0, answer=answer, sent=sent)


def test_what_was_promised_and_did_not_arrive_is_lost_unless_it_waits():
    senders = senders_of(tried("a"), tried("b"), tried("c", "451"))
    found = Findings(Counter({"<a>": 1}))
    with pytest.raises(AssertionError, match="1 acknowledged messages are lost"):
        check_mail(found, senders, Witness())
    check_mail(found, senders, Witness(), frozenset({"<b>"}))


def test_what_was_refused_before_it_was_sent_must_not_arrive():
    found = Findings(Counter({"<a>": 1, "<b>": 1}))
    check_mail(found, senders_of(tried("a"), tried("b", "451")), Witness())
    with pytest.raises(AssertionError, match=r"were refused: .'<b>'"):
        check_mail(found, senders_of(tried("a"), tried("b", "451", sent=False)), Witness())


def test_every_copy_too_many_needs_a_report_of_its_own():
    found, senders = Findings(Counter({"<a>": 3})), senders_of(tried("a"))
    check_mail(found, senders, Witness(reports=2))
    with pytest.raises(AssertionError, match="arrived 3 times"):
        check_mail(found, senders, Witness(reports=1))


@pytest.mark.parametrize(
    ("account", "minutes", "recipients"),
    [
        ({"connections_tried": 3}, 60, 100),
        ({"messages_per_minute_tried": 61}, 60, 100),
        ({"refusals": {"connections": 1}}, 60, 100),
        ({}, 61, 100),
        ({}, 60, 101),
        ({}, 60, 100),
    ],
)
def test_one_more_than_the_limit_is_found(account, minutes, recipients):
    whole = {"connections_tried": 2, "messages_per_minute_tried": 60, "refusals": {}}
    limits = {"m": whole | account}
    found = Findings(minutes={"m": minutes}, recipients=Counter({"m": recipients}), limits=limits)
    bounds = Bounds(minute=60, day=100, connections=2)
    if (account, minutes, recipients) == ({}, 60, 100):
        check_limits(found, bounds)
    else:
        with pytest.raises(AssertionError):
            check_limits(found, bounds)


def test_the_busiest_minute_is_found_wherever_it_begins():
    assert busiest([0, 30, 59, 61, 62, 89, 121.5]) == 5
    assert busiest([0, 60, 120]) == 1
    assert busiest([]) == 0


def test_a_gate_passes_on_holds_back_and_cuts():
    with socket.create_server(("127.0.0.1", 0)) as service:
        gate = Gate(service.getsockname())
        client = socket.create_connection((gate.address, gate.port), 10)
        there, _ = service.accept()
        client.sendall(b"one")
        assert there.recv(10) == b"one"
        gate.stall()
        client.sendall(b"two")
        there.settimeout(0.2)
        with pytest.raises(TimeoutError):
            there.recv(10)
        gate.restore()
        there.settimeout(10)
        assert there.recv(10) == b"two"
        gate.cut()
        assert client.recv(10) == b""
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((gate.address, gate.port), 10)
        gate.restore()
        socket.create_connection((gate.address, gate.port), 10).close()
        gate.close()
        there.close()
        client.close()


_RUN = """
import sys
from tests.fakes.postgres import PostgresServer
print(PostgresServer().folder, flush=True)
sys.stdin.read()
"""


def test_a_killed_test_run_takes_its_database_along():
    """Its folder is left, and taken away by the next run that starts a server."""
    root = Path(__file__).parent.parent.parent
    run = subprocess.Popen(
        [sys.executable, "-c", _RUN], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert run.stdout is not None and run.stdin is not None
    folder = Path(run.stdout.readline().strip())
    postmaster = int((folder / "data" / "postmaster.pid").read_text().split()[0])
    run.kill()
    run.wait(10)
    run.stdin.close()
    run.stdout.close()
    until(lambda: not running(postmaster), what="PostgreSQL ends")
    sweep()
    assert not folder.exists()


def running(pid: int) -> bool:
    """Whether a process lives (one that ended and that nobody has waited for does not)."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
