"""`python -m benchmarks`: the short set, in under five minutes. `python -m benchmarks --long`: the rest."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

from benchmarks import fairness, goodput, handshakes, kit, latency, memory, postfix, scale, throughput, upkeep
from benchmarks.kit import Row


def _short(folder: Path) -> list[Row]:
    found: list[Row] = []
    missing = postfix.available()
    with kit.simulator(folder / "simulator", "--message-size", "100MB") as simulator:
        if missing:
            print(f"left out, beside Postfix: {missing}")
        else:
            found.append(throughput.accept(folder, simulator, 3000, 3))
            found.append(throughput.relay_through(folder, simulator, 3000, 3))
            found.append(throughput.relay_through(folder, simulator, 20, 2, size=throughput.LARGE, clients=4))
        found += memory.idle(folder, simulator)
    found += latency.measure(folder / "latency", 1)
    found += fairness.measure(folder / "fairness", 1)
    found += handshakes.measure(folder / "handshakes", 1)
    found += scale.measure(folder / "scale", scale.QUEUED[:2])
    return found


def _long(folder: Path) -> list[Row]:
    options = ("--messages-per-minute", "0", "--message-size", "100MB")
    with kit.simulator(folder / "simulator", *options) as simulator:
        found = [memory.large(folder, simulator)]
    found += goodput.measure(folder / "goodput", 3)
    found += upkeep.measure(folder / "upkeep", 1)
    found += scale.measure(folder / "scale", scale.QUEUED)
    return found


def main() -> int:
    """Exit status 0 when every target was reached."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--long", action="store_true", help="memory under large messages, goodput, a million queued"
    )
    parser.add_argument("--out", type=Path, help="where the JSON goes; default: benchmarks/results/")
    options = parser.parse_args()
    name = "long" if options.long else "short"
    out = options.out or kit.RESULTS / f"{name}.json"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began = time.monotonic()
    with kit.workshop() as folder:
        rows = (_long if options.long else _short)(folder)
    out.parent.mkdir(parents=True, exist_ok=True)
    reached = kit.show(rows, out)
    print(f"{time.monotonic() - began:.0f} s; {out}")
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
