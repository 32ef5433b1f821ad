"""One message of a quiet source behind a mailing of 2,000: how many of the mailing go first once the lane moves again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks import kit
from benchmarks.kit import Relay, Row, Sink, free_port, load
from benchmarks.letters import Sender

MAILING = 2000


def measure(folder: Path, runs: int) -> list[Row]:
    """The upstream is away while both arrive; then it comes back."""
    with kit.simulator(folder / "simulator") as simulator:
        port = free_port()
        upstream: dict[str, Any] = {
            "port": port, "batch_size": 30, "limits": {"connections": 1, "messages_per_minute": 0},
        }  # fmt: skip
        relay = Relay(folder / "fairness", simulator, upstream)
        relay.start()
        try:
            load(relay.port, MAILING, 2048, 20)
            sender = Sender(relay.port, "quiet@example.org")
            sender.send("quiet")
            sender.close()
            sink = Sink(Path(simulator["directory"]) / "server.pem", "--port", str(port), "--stamps")
            try:
                kit.until(lambda: _place(sink) is not None, 180, "the quiet message arrives")
                place = _place(sink)
            finally:
                sink.stop()
        finally:
            relay.stop()
    assert place is not None
    return [Row(f"messages of a {MAILING} mailing that go first", place, None, "", "<= 2", place <= 2)]


def _place(sink: Sink) -> int | None:
    """How many came before the quiet one."""
    marks = [mark for _, mark in sink.counters("stamps")["stamps"]]
    return marks.index("quiet") if "quiet" in marks else None


if __name__ == "__main__":
    kit.command("fairness", str(__doc__), measure, runs=1)
