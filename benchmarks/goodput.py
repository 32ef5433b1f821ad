"""Goodput under Exchange's 30 messages a minute, at 50 ms of round trip: relay, and Postfix as its users set it up for this.

relay submits to the simulator. Postfix has no XOAUTH2 without a plug-in, so it submits to the sink, which has the same
limit and the same latency. Goodput over k windows is 60 s x k against the time from the first message to the one that
opens the window after them.
"""

from __future__ import annotations

import json
import urllib.request
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks import kit
from benchmarks.kit import Relay, Row, Sink, free_port, load
from benchmarks.postfix import Postfix, available

LIMIT = 30
LATENCY = "0.05"
_RECOMMENDED = {
    "smtp_destination_rate_delay": "2s",
    "smtp_destination_concurrency_limit": "1",
    "smtp_tls_security_level": "encrypt",
}
"""What guides for Office 365 advise: one connection, two seconds between messages."""


def _ask(simulator: dict[str, Any], what: str) -> Any:
    with urllib.request.urlopen(f"{simulator['control']}/{what}", timeout=20) as answer:
        return json.load(answer)


def _goodput(times: list[float], windows: int) -> float:
    times = sorted(times)
    return 100 * 60 * windows / (times[LIMIT * windows] - times[0])


def _time(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else datetime.fromisoformat(str(value)).timestamp()


def measure(folder: Path, windows: int) -> list[Row]:
    """Both at once: neither comes near what the machine can do."""
    want = LIMIT * windows + 1
    with kit.simulator(folder / "simulator", "--latency", LATENCY, keep=True) as simulator:
        sink = Sink(
            Path(simulator["directory"]) / "server.pem",
            "--per-minute",
            str(LIMIT),
            "--latency",
            LATENCY,
            "--stamps",
        )
        relay = Relay(folder / "goodput", simulator, {})
        relay.start()
        missing = available()
        settings = {**_RECOMMENDED, "relayhost": f"[127.0.0.1]:{sink.port}"}
        postfix = None if missing else Postfix(folder / "postfix", free_port(), settings)
        try:
            if postfix is not None:
                postfix.__enter__()
                load(postfix.port, want + 10, 10240, 5)
            load(relay.port, want + 10, 10240, 5)
            kit.until(
                lambda: _ask(simulator, "counters").get("messages", 0) >= want,
                75 * (windows + 1),
                "relay's last window",
            )
            ours = _goodput([_time(one["received"]) for one in _ask(simulator, "messages")], windows)
            refused = len(_ask(simulator, "refusals"))
            theirs, provoked = _postfix_result(postfix, sink, want, windows)
        finally:
            relay.stop()
            if postfix is not None:
                postfix.__exit__()
            sink.stop()
    note = f"refusals: relay {refused}, Postfix {provoked}" if postfix else missing
    return [
        Row(
            f"goodput of 30 a minute, {windows} windows", ours, theirs, "%", ">= 98 %, no refusal",
            ours >= 98 and not refused, note=note, peer_name="Postfix",
        )
    ]  # fmt: skip


def _postfix_result(postfix: Postfix | None, sink: Sink, want: int, windows: int) -> tuple[float | None, int]:
    if postfix is None:
        return None, 0
    sink.wait_for(want, 90 * (windows + 1))
    found = sink.counters("stamps")
    return _goodput([at for at, _ in found["stamps"]], windows), int(found["refused"])


if __name__ == "__main__":
    kit.command("goodput", str(__doc__), measure, runs=3)
