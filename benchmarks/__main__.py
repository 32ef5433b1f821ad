"""`python -m benchmarks`: the short set, in under five minutes. `python -m benchmarks --long`: the rest."""

from __future__ import annotations

import argparse
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from benchmarks import (
    fairness,
    goodput,
    handshakes,
    helper,
    kit,
    lanes,
    latency,
    memory,
    postfix,
    scale,
    simulation,
    throughput,
    upkeep,
)
from benchmarks.kit import Row
from benchmarks.plan import Demand

Part = Callable[[Path], list[Row]]


def _beside_postfix(folder: Path) -> list[Row]:
    missing = postfix.available()
    if missing:
        raise RuntimeError(missing)
    with kit.simulator(folder / "simulator") as simulator:
        return [
            *throughput.accept(folder, simulator, 3000, 3),
            throughput.relay_through(folder, simulator, 3000, 3),
            throughput.relay_through(folder, simulator, 20, 2, size=throughput.LARGE, clients=4),
        ]


def _idle(folder: Path) -> list[Row]:
    with kit.simulator(folder / "simulator") as simulator:
        return memory.idle(folder, simulator)


def _large(folder: Path) -> list[Row]:
    with kit.simulator(
        folder / "simulator", "--messages-per-minute", "0", "--message-size", "100MB"
    ) as simulator:
        return [memory.large(folder, simulator)]


SHORT: dict[str, Part] = {
    "throughput": _beside_postfix,
    "memory": _idle,
    "latency": lambda folder: latency.measure(folder, 1),
    "fairness": lambda folder: fairness.measure(folder, 1),
    "handshakes": lambda folder: handshakes.measure(folder, 1),
    "lanes": lambda folder: lanes.measure(folder, 1),
    "scale": lambda folder: scale.measure(folder, scale.QUEUED[:2]),
}
LONG: dict[str, Part] = {
    "memory": _large,
    "goodput": lambda folder: goodput.measure(folder, 3),
    "upkeep": lambda folder: upkeep.measure(folder, 1),
    "helper": lambda folder: helper.measure(folder, 3),
    "simulation": lambda folder: simulation.measure(Demand(10_000_000), 1000, 150.0, simulation.SHORT),
    "scale": lambda folder: scale.measure(folder, scale.QUEUED),
}


def _run(parts: dict[str, Part], folder: Path) -> tuple[list[Row], list[str]]:
    """All rows, and the parts that could not be measured: they cost the others nothing."""
    rows: list[Row] = []
    unmeasured: list[str] = []
    for name, part in parts.items():
        print(f"{name} ...", flush=True)
        try:
            (folder / name).mkdir()
            (folder / name).chmod(0o755)
            rows += part(folder / name)
        except Exception:
            traceback.print_exc()
            unmeasured.append(name)
    return rows, unmeasured


def main() -> int:
    """For the exit status see `benchmarks.kit.finish`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--long",
        action="store_true",
        help="large messages, goodput, upkeep, a simulated day, a million queued",
    )
    parser.add_argument("--out", type=Path, help="where the JSON goes; default: benchmarks/results/")
    kit.offer_strict(parser)
    options = parser.parse_args()
    name = "long" if options.long else "short"
    out = options.out or kit.RESULTS / f"{name}.json"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began = time.monotonic()
    with kit.workshop() as folder:
        rows, unmeasured = _run(LONG if options.long else SHORT, folder)
    kit.show(rows, out)
    print(f"{time.monotonic() - began:.0f} s; {out}")
    return kit.finish(rows, strict=options.strict, unmeasured=unmeasured)


if __name__ == "__main__":
    sys.exit(main())
