"""What a second process that accepts mail is worth: the same load with `workers: never` and `always`, in turn, in one run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from benchmarks import kit
from benchmarks.kit import Relay, Row, Sink, family, free_port, load, median, until
from benchmarks.throughput import CLIENTS, NO_LIMITS, SMALL

MESSAGES = 4000
PAYS = 1.25
"""Times as many messages a second, for which a second process and its memory are a fair price."""


class Side:
    """One way of accepting: messages a second and processor time for each."""

    def __init__(self, workers: str) -> None:
        self.workers = workers
        self.rates: list[float] = []
        self.costs: list[float] = []

    def run(self, folder: Path, simulator: dict[str, Any], *, through: bool) -> None:
        """One fresh relay under the load; ``through``: until the next server has it all."""
        sink = Sink(Path(simulator["directory"]) / "server.pem") if through else None
        port = sink.port if sink else free_port()
        relay = Relay(folder, simulator, {**NO_LIMITS, "port": port}, workers=self.workers)
        try:
            relay.start()
            assert relay.process is not None
            pid, wanted = relay.process.pid, 2 if self.workers == "always" else 1
            until(lambda: len(family(pid)) == wanted, 30, "its processes run")
            self._measure(relay, sink)
        finally:
            relay.stop()
            if sink is not None:
                sink.stop()

    def _measure(self, relay: Relay, sink: Sink | None) -> None:
        warm = 300
        load(relay.port, warm, SMALL, CLIENTS)
        if sink is not None:
            sink.wait_for(warm, 60)
        used = relay.cpu()
        with kit.alone():
            began = time.monotonic()
            load(relay.port, MESSAGES, SMALL, CLIENTS)
            ended = time.monotonic() if sink is None else sink.wait_for(warm + MESSAGES, 300)
            took = ended - began
        self.rates.append(MESSAGES / took)
        self.costs.append((relay.cpu() - used) / MESSAGES * 1e6)


def compare(folder: Path, simulator: dict[str, Any], name: str, runs: int, *, through: bool) -> Row:
    """With and without, in turn."""
    without, beside = Side("never"), Side("always")
    for run in range(runs):
        for side in (without, beside):
            side.run(folder / f"{name}-{side.workers}-{run}", simulator, through=through)
    pairs = list(zip(beside.rates, without.rates, strict=True))
    return Row(
        f"{name}, 10 kB, 20 clients, a connection each", median(beside.rates), median(without.rates), "msg/s",
        f"{PAYS} x", median([a / b for a, b in pairs]) >= PAYS,
        f"{median(beside.costs):.0f} and {median(without.costs):.0f} µs of processor time for each",
        "one process", [{"ours": a, "peer": b} for a, b in pairs],
    )  # fmt: skip


def measure(folder: Path, runs: int) -> list[Row]:
    """Accepting, and accepting with delivery."""
    with kit.simulator(folder / "simulator") as simulator:
        return [
            compare(folder, simulator, "accept", runs, through=False),
            compare(folder, simulator, "accept and relay", runs, through=True),
        ]


if __name__ == "__main__":
    kit.command("helper", str(__doc__), measure)
