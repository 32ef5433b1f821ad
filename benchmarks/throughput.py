"""Accept, accept and relay, large messages: relay beside Postfix, the same load from smtp-source, in turn, in one run."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import kit
from benchmarks.kit import Relay, Row, Sink, free_port, load, median
from benchmarks.postfix import Postfix, available

SMALL, CLIENTS = 10 * 1024, 20
LARGE = 25 * 1024 * 1024
NO_LIMITS = {
    "limits": {"connections": 4, "messages_per_minute": 0, "recipients_per_day": 0, "message_size": "100MB"},
    "batch_size": 100,
}
_TLS_OUT = {
    "smtp_tls_security_level": "encrypt",
    "smtp_tls_connection_reuse": "yes",
    "smtp_tls_loglevel": "0",
}


def _pairs(
    runs: int, ours: Callable[[int], float], peer: Callable[[int], float]
) -> tuple[list[float], list[float]]:
    """In turn, so that a machine that grows slower slows both."""
    mine, theirs = [], []
    for run in range(runs):
        theirs.append(peer(run))
        mine.append(ours(run))
    return mine, theirs


def _row(name: str, unit: str, target: float, mine: list[float], theirs: list[float]) -> Row:
    runs = [{"ours": a, "peer": b} for a, b in zip(mine, theirs, strict=True)]
    ours, peer = median(mine), median(theirs)
    reached = median([a / b for a, b in zip(mine, theirs, strict=True)]) >= target
    return Row(name, ours, peer, unit, f"{target:g} x", reached, peer_name="Postfix", runs=runs)


def accept(folder: Path, simulator: dict[str, Any], messages: int, runs: int) -> list[Row]:
    """Accepted and durable; nothing can be delivered, since the next server is down.

    Two peers: Postfix that meets the same (it tries, and defers), and Postfix that holds all mail at once, whose queue
    manager then has nothing to do: its cheapest way, and less than the relay does.
    """

    def postfix(name: str, more: dict[str, str]) -> Callable[[int], float]:
        def peer(run: int) -> float:
            settings = {"relayhost": f"[127.0.0.1]:{free_port()}", **more}
            with Postfix(folder / f"accept-{name}-{run}", free_port(), settings) as started:
                load(started.port, 100, SMALL, CLIENTS)
                with kit.alone(*started.processes()):
                    return messages / load(started.port, messages, SMALL, CLIENTS)

        return peer

    def ours(run: int) -> float:
        relay = Relay(folder / f"accept-{run}", simulator, {**NO_LIMITS, "port": free_port()})
        try:
            relay.start()
            load(relay.port, 100, SMALL, CLIENTS)
            with kit.alone():
                return messages / load(relay.port, messages, SMALL, CLIENTS)
        finally:
            relay.stop()

    what = "accept, 10 kB, 20 clients, a connection each"
    deferring, holding = (
        postfix("deferring", {}),
        postfix("holding", {"smtpd_client_restrictions": "static:hold"}),
    )
    mine, held, deferred = [], [], []
    for run in range(runs):
        held.append(holding(run))
        mine.append(ours(run))
        deferred.append(deferring(run))
    return [
        _row(f"{what}; next server down", "msg/s", 4.0, mine, deferred),
        _row(f"{what}; Postfix holds all at once", "msg/s", 4.0, mine, held),
    ]


def relay_through(
    folder: Path,
    simulator: dict[str, Any],
    messages: int,
    runs: int,
    size: int = SMALL,
    clients: int = CLIENTS,
    content: Path | None = None,
) -> Row:
    """Accepted, stored, submitted over TLS and settled: until the sink has them all. ``content``: a message of that size."""
    more = () if content is None else ("-F", str(content))
    certificate = Path(simulator["directory"]) / "server.pem"
    weight = size / 1e6 if size > 1e6 else 1.0

    def measured(port: int, sink: Sink, *programs: int) -> float:
        with kit.alone(*programs):
            began = time.monotonic()
            load(port, messages, 0 if more else size, clients, *more)
            return messages * weight / (sink.wait_for(messages, 300) - began)

    def peer(run: int) -> float:
        sink = Sink(certificate)
        settings = {
            **_TLS_OUT,
            "relayhost": f"[127.0.0.1]:{sink.port}",
            "default_destination_concurrency_limit": "20",
        }
        try:
            with Postfix(folder / f"through-postfix-{size}-{run}", free_port(), settings) as postfix:
                return measured(postfix.port, sink, *postfix.processes())
        finally:
            sink.stop()

    def ours(run: int) -> float:
        sink = Sink(certificate)
        relay = Relay(folder / f"through-{size}-{run}", simulator, {**NO_LIMITS, "port": sink.port})
        try:
            relay.start()
            return measured(relay.port, sink)
        finally:
            relay.stop()
            sink.stop()

    mine, theirs = _pairs(runs, ours, peer)
    if size > 1e6:
        what = "25 MB messages" if content is None else "25 MB of text with lines of any length"
        return _row(f"{what} in and out, {clients} clients", "MB/s", 1.0, mine, theirs)
    return _row("accept, store, submit over TLS, settle; same load", "msg/s", 3.0, mine, theirs)


def measure(folder: Path, runs: int) -> list[Row]:
    """All three."""
    missing = available()
    if missing:
        raise SystemExit(missing)
    with kit.simulator(folder / "simulator") as simulator:
        return [
            *accept(folder, simulator, 3000, runs),
            relay_through(folder, simulator, 3000, runs),
            relay_through(folder, simulator, 40, runs, size=LARGE, clients=4),
        ]


if __name__ == "__main__":
    kit.command("throughput", str(__doc__), measure)
