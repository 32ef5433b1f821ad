"""Start and cost per message with 1,000, 100,000 and 1,000,000 messages queued. The spool is filled by its own code."""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path
from typing import Any

from benchmarks import kit
from benchmarks.kit import Relay, Row, Sink, free_port, load
from relay.message import Client, Envelope, Recipient
from relay.spool import ids
from relay.spool.contract import NewMessage
from relay.spool.intake import NewRow, insert_all
from relay.spool.schema import connect, migrate

QUEUED = (1_000, 100_000, 1_000_000)
ACCEPTED = DELIVERED = 2000
Figures = tuple[float, float, float]
_BODY = b"A status line.\r\n" * 12
_STEP = 5000


def fill(database: Path, lane: str, count: int) -> None:
    """So many messages of 100 sources in one lane, as if accepted within the last hour, each with its turn."""
    database.parent.mkdir(parents=True, exist_ok=True)
    connection = connect(database)
    migrate(connection)
    connection.execute("PRAGMA synchronous = OFF")
    numbers, began = ids.Ids(), time.time() - 3600
    messages = itertools.cycle([message(lane, f"source{number}@example.org") for number in range(100)])
    for start in range(0, count, _STEP):
        connection.execute("BEGIN")
        insert_all(connection, [
            NewRow(numbers.next(began + n / 1000), began + n / 1000, next(messages), _BODY, len(_BODY))
            for n in range(start, min(count, start + _STEP))
        ])  # fmt: skip
        connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    with database.open("rb+") as file:
        os.fsync(file.fileno())  # else the first start would pay for it


def message(lane: str, source: str) -> NewMessage:
    """A small message of that source, as the listener would hand it over."""
    header = b"From: " + source.encode() + b"\r\nTo: someone@example.net\r\nSubject: status\r\n\r\n"
    return NewMessage(
        Envelope(source, (Recipient("someone@example.net"),)), Client("127.0.0.1"), header, lane, source=source,
        header_from=(source,), subject="status",
    )  # fmt: skip


def _with(folder: Path, simulator: dict[str, Any], queued: int) -> Figures:
    """Seconds until it listens; milliseconds of processor time to accept one message, and to deliver one."""
    place = folder / f"queued-{queued}"
    port = free_port()
    limits = {"connections": 2, "messages_per_minute": 0, "recipients_per_day": 0}
    relay = Relay(place, simulator, {"port": port, "limits": limits, "batch_size": 100}, max_age="5d")
    fill(place / "spool.db", f"bench/{simulator['env']['RELAY_FROM_EMAIL'].lower()}", queued)
    started = relay.start()
    try:
        load(relay.port, 200, 10240, 10)
        before = relay.cpu()
        load(relay.port, ACCEPTED, 10240, 20)
        accepting = (relay.cpu() - before) * 1000 / ACCEPTED
        sink = Sink(Path(simulator["directory"]) / "server.pem", "--port", str(port))
        try:
            first = min(500, queued // 4)
            sink.wait_for(first, 120)
            before, seen = relay.cpu(), sink.counters()["messages"]
            sink.wait_for(min(first + DELIVERED, queued), 300)
            delivering = (relay.cpu() - before) * 1000 / (sink.counters()["messages"] - seen)
        finally:
            sink.stop()
    finally:
        relay.stop()
    return started, accepting, delivering


def rows(folder: Path, simulator: dict[str, Any], sizes: tuple[int, ...]) -> list[Row]:
    """Each size between two runs of the smallest: the machine may be busier at one time than at another."""
    least, shown = sizes[0], []
    before = _with(folder / "0", simulator, least)
    for number, queued in enumerate(sizes[1:], 1):
        ours = _with(folder, simulator, queued)
        after = _with(folder / str(number), simulator, least)
        started, accepting, delivering = ((a + b) / 2 for a, b in zip(before, after, strict=True))
        shown += _compare(queued, ours, (started, accepting, delivering), least)
        before = after
    return shown


def _compare(queued: int, ours: Figures, base: Figures, least: int) -> list[Row]:
    names = ("accept", "deliver")
    costs = [
        Row(
            f"processor time to {what} one, {queued:,} queued", mine, peer, "ms", "<= 1.2 x", mine / peer <= 1.2,
            peer_name=f"with {least:,}",
        )
        for what, mine, peer in zip(names, ours[1:], base[1:], strict=True)
    ]  # fmt: skip
    began = ours[0]
    start = Row(
        f"start until listening, {queued:,} queued", began, base[0], "s", "<= 2 s", began <= 2,
        peer_name=f"with {least:,}",
    )  # fmt: skip
    return [*costs, start]


def measure(folder: Path, sizes: tuple[int, ...]) -> list[Row]:
    """All sizes, one after another."""
    with kit.simulator(folder / "simulator") as simulator:
        return rows(folder, simulator, sizes)


if __name__ == "__main__":
    kit.command("scale", str(__doc__), lambda folder, runs: measure(folder, QUEUED), runs=1)
