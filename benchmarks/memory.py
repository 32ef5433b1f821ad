"""Memory, as the kernel counts it: idle, with thousands of idle connections, and under large messages from many clients."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import Any

from benchmarks import kit
from benchmarks.kit import Relay, Row, free_port, load, until

IDLE_CONNECTIONS = 5000


def idle(folder: Path, simulator: dict[str, Any], connections: int = IDLE_CONNECTIONS) -> list[Row]:
    """Peak resident memory idle, and with so many clients that say EHLO and then nothing."""
    relay = Relay(folder / "idle", simulator, {"port": free_port()})
    relay.start()
    try:
        load(relay.port, 20, 1024, 2)
        alone = relay.memory("VmHWM")
        with contextlib.ExitStack() as clients:
            for _ in range(connections):
                client = clients.enter_context(socket.create_connection(("127.0.0.1", relay.port), 10))
                client.recv(512)
                client.sendall(b"EHLO idle\r\n")
                client.recv(1024)
            crowded = relay.memory("VmHWM")
    finally:
        relay.stop()
    return [
        Row("peak memory, idle", alone, None, "MB", "<= 70 MB", alone <= 70),
        Row(f"peak memory, {connections} idle connections", crowded, None, "MB", "<= 250 MB", crowded <= 250),
    ]


def large(folder: Path, simulator: dict[str, Any]) -> Row:
    """Peak resident memory while 20 clients send 25 MB each at once, delivered meanwhile."""
    relay = Relay(
        folder / "large", simulator, {"limits": {"messages_per_minute": 0, "message_size": "100MB"}}
    )
    relay.start()
    try:
        load(relay.port, 20, 25 * 1024 * 1024, 20)
        until(lambda: not list((folder / "large").glob("spool.db.bodies/*/*")), 120, "the queue drains")
        peak = relay.memory("VmHWM")
    finally:
        relay.stop()
    return Row("peak memory, 20 clients x 25 MB at once", peak, None, "MB", "<= 150 MB", peak <= 150)


def measure(folder: Path, runs: int) -> list[Row]:
    """All; peaks do not vary enough to repeat them."""
    with kit.simulator(
        folder / "simulator", "--messages-per-minute", "0", "--message-size", "100MB"
    ) as simulator:
        return [*idle(folder, simulator), large(folder, simulator)]


if __name__ == "__main__":
    kit.command("memory", str(__doc__), measure, runs=1)
