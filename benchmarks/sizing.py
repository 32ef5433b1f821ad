"""What a host needs: memory at rest with and without the admin page, and disk for the trace of a message that has left."""

from __future__ import annotations

import json
import sqlite3
import time
import urllib.request
from pathlib import Path
from typing import Any

from benchmarks import kit
from benchmarks.kit import Relay, Row, free_port, load

MESSAGES = 2000
FREE = {"limits": {"connections": 2, "messages_per_minute": 0, "recipients_per_day": 0}}
REST = 3.0
"""Seconds after which a relay that has nothing to do counts as at rest."""


def _with_page(relay: Relay) -> None:
    config = json.loads(relay.config.read_text())
    relay.config.write_text(json.dumps({**config, "web": {"bind": f"127.0.0.1:{free_port()}"}}))


def _at_rest(folder: Path, simulator: dict[str, Any], *, page: bool) -> float:
    """MB resident after one message."""
    relay = Relay(folder, simulator, FREE)
    if page:
        _with_page(relay)
    relay.start()
    try:
        load(relay.port, 1, 10240, 1)
        time.sleep(REST)
        return relay.memory()
    finally:
        relay.stop()


def _trace(folder: Path, simulator: dict[str, Any]) -> float:
    """Octets of the database for each message that has left."""
    relay = Relay(folder, simulator, FREE)
    relay.start()
    before = _arrived(simulator)
    load(relay.port, MESSAGES, 10240, 20)
    kit.until(lambda: _arrived(simulator) >= before + MESSAGES, 120, "all of them at Exchange")
    time.sleep(REST)
    relay.stop()
    database = sqlite3.connect(folder / "spool.db")
    database.execute("VACUUM")
    database.close()
    return (folder / "spool.db").stat().st_size / MESSAGES


def _arrived(simulator: dict[str, Any]) -> int:
    with urllib.request.urlopen(f"{simulator['control']}/counters", timeout=20) as answer:
        return int(json.load(answer).get("messages", 0))


def measure(folder: Path, runs: int) -> list[Row]:
    """Each figure the median of ``runs``."""
    with kit.simulator(
        folder / "simulator", "--messages-per-minute", "0", "--recipients-per-day", "0"
    ) as simulator:
        bare = [_at_rest(folder / f"bare-{run}", simulator, page=False) for run in range(runs)]
        page = [_at_rest(folder / f"page-{run}", simulator, page=True) for run in range(runs)]
        trace = [_trace(folder / f"trace-{run}", simulator) for run in range(runs)]
    return [
        Row("memory at rest", kit.median(bare), None, "MB", "<= 70 MB", kit.median(bare) <= 70),
        Row(
            "memory at rest, with the admin page",
            kit.median(page),
            None,
            "MB",
            "<= 100 MB",
            kit.median(page) <= 100,
        ),
        Row(
            "kept of a message that has left",
            kit.median(trace),
            None,
            "octets",
            "<= 1,500",
            kit.median(trace) <= 1500,
        ),
    ]


if __name__ == "__main__":
    kit.command("sizing", str(__doc__), measure, runs=1)
