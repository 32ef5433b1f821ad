"""Wait that the relay adds: from its 250 until the next server has the message, idle and at about half load."""

from __future__ import annotations

import statistics
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks import kit
from benchmarks.kit import Relay, Row, Sink, load
from benchmarks.letters import Sender

_UNLIMITED = {
    "limits": {"connections": 4, "messages_per_minute": 0, "recipients_per_day": 0},
    "batch_size": 100,
}
LETTERS = 60
PAUSE = 0.1
"""Seconds between letters when idle: the connection upstream stays open meanwhile, as it does for 60 s."""


def _waits(relay: Relay, sink: Sink, name: str) -> list[float]:
    """Milliseconds, of each letter."""
    sink.counters("stamps")
    sender = Sender(relay.port)
    accepted = {}
    for number in range(LETTERS):
        accepted[f"{name}-{number}"] = sender.send(f"{name}-{number}")
        time.sleep(PAUSE)
    sender.close()
    kit.until(lambda: len(_seen(sink, name)) >= LETTERS, 30, "all letters at the sink")
    seen = _seen(sink, name)
    return [max(0.0, seen[mark] - at) * 1000 for mark, at in accepted.items()]


def _seen(sink: Sink, name: str) -> dict[str, float]:
    return {mark: at for at, mark in sink.counters("stamps")["stamps"] if mark.startswith(f"{name}-")}


def half_load(relay: Relay, sink: Sink, folder: Path) -> tuple[list[float], float]:
    """The same while a paced load takes about half of what the relay can; and that load, in messages a second."""
    began, before = time.monotonic(), sink.counters()["messages"]
    load(relay.port, 1500, 10240, 20)
    full = 1500 / (sink.wait_for(before + 1500, 120) - began)
    stop = threading.Event()
    threads = [
        threading.Thread(target=_pace, args=(relay.port, full / 8, stop), daemon=True) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    try:
        return _waits(relay, sink, "busy"), full / 2
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _pace(port: int, rate: float, stop: threading.Event) -> None:
    sender, due = Sender(port, "pace@example.org", 10240), time.monotonic()
    while not stop.is_set():
        sender.send("pace")
        due += 1 / rate
        stop.wait(max(0.0, due - time.monotonic()))
    sender.close()


def _row(name: str, waits: list[float], target: float | None, note: str = "") -> Row:
    median, slow = statistics.median(waits), statistics.quantiles(waits, n=20)[18]
    return Row(
        name, median, None, "ms", f"<= {target:g} ms" if target else "none set", target is None or median <= target,
        note=f"95 % within {slow:.1f} ms{note}", runs=[{"ms": one} for one in waits],
    )  # fmt: skip


def measure(folder: Path, runs: int) -> list[Row]:
    """Idle, then at half load."""
    with kit.simulator(folder / "simulator") as simulator:
        sink = Sink(Path(simulator["directory"]) / "server.pem")
        upstream: dict[str, Any] = {**_UNLIMITED, "port": sink.port}
        relay = Relay(folder / "latency", simulator, upstream)
        relay.start()
        try:
            load(relay.port, 5, 1024, 1)
            sink.wait_for(5, 30)
            idle = _waits(relay, sink, "idle")
            busy, rate = half_load(relay, sink, folder)
        finally:
            relay.stop()
            sink.stop()
    return [
        _row("wait added when idle, median (250 until submitted)", idle, 10.0),
        _row("wait added at half load, median", busy, None, f", {rate:.0f} messages/s beside"),
    ]


if __name__ == "__main__":
    kit.command("latency", str(__doc__), measure, runs=1)
