"""Batches at 50 ms of round trip: TLS handshakes and logins per batch, and the time saved against one login per message."""

from __future__ import annotations

import json
import time
import urllib.request
from pathlib import Path
from typing import Any

from benchmarks import kit
from benchmarks.kit import Relay, Row, load

MESSAGES, BATCH = 60, 30
ROUND_TRIP = 0.05


def counters(simulator: dict[str, Any]) -> dict[str, int]:
    """The simulator's own."""
    with urllib.request.urlopen(f"{simulator['control']}/counters", timeout=10) as answer:
        found: dict[str, int] = json.load(answer)
    return found


def _drain(folder: Path, simulator: dict[str, Any], batch: int) -> tuple[float, int]:
    """Seconds from the first 250 until all are delivered, and handshakes meanwhile."""
    limits = {"connections": 1, "messages_per_minute": 0, "recipients_per_day": 0}
    relay = Relay(folder / f"batch-{batch}", simulator, {"limits": limits, "batch_size": batch})
    relay.start()
    try:
        before = counters(simulator)
        began = time.monotonic()
        load(relay.port, MESSAGES, 10240, 10)
        kit.until(
            lambda: counters(simulator).get("messages", 0) - before.get("messages", 0) >= MESSAGES,
            300,
            "all delivered",
        )
        return time.monotonic() - began, counters(simulator)["tls_handshakes"] - before.get(
            "tls_handshakes", 0
        )
    finally:
        relay.stop()


def measure(folder: Path, runs: int) -> list[Row]:
    """Batches of 30 beside batches of one."""
    options = ("--latency", str(ROUND_TRIP), "--messages-per-minute", "0", "--recipients-per-day", "0")
    with kit.simulator(folder / "simulator", *options) as simulator:
        single, _ = _drain(folder, simulator, 1)
        batched, handshakes = _drain(folder, simulator, BATCH)
    batches = -(-MESSAGES // BATCH)
    each = handshakes / batches
    return [
        Row("TLS and AUTH handshakes per batch of 30", each, None, "", "<= 1", each <= 1),
        Row(
            "messages per second at 50 ms, batches of 30", MESSAGES / batched, MESSAGES / single, "msg/s",
            "> 1 x", batched < single, peer_name="a login for each",
        ),
    ]  # fmt: skip


if __name__ == "__main__":
    kit.command("handshakes", str(__doc__), measure, runs=1)
