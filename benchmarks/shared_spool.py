"""PostgreSQL as the spool: what a message costs beside SQLite, with several relays on one queue, and with a million queued.

    python -m benchmarks.shared_spool                          # everything, with a server of its own; a quarter of an hour
    python -m benchmarks.shared_spool --only replicas,spools   # some of spools, replicas, queued
    python -m benchmarks.shared_spool --only spools --url postgresql://user@host/database   # an empty database of yours

spools: the spool alone, in this process. replicas: 1, 2 and 3 times `relay run` on one database, each with the same load, six
mailboxes without limits, delivery over TLS to `benchmarks.sink`; before them one relay on SQLite. queued: `relay run` with 1,000
and 1,000,000 messages waiting. Processor time is that of the relays and of all processes of the server.
"""

from __future__ import annotations

import argparse
import asyncio
import concurrent.futures
import contextlib
import dataclasses
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import database, kit
from benchmarks.database import Database
from benchmarks.kit import Relay, Row, Sink, free_port, load
from relay.message import Outcome, Reply, Result
from relay.spool.contract import Settlement, Spool, lane_name
from relay.spool.factory import build_spool
from tests.fakes.spool import LANE, accept, spool_settings

PARTS = ("spools", "replicas", "queued")
MAILBOXES = 6
_SENT = Outcome(Result.SENT, reply=Reply(250, "2.0.0", "OK"))
_CLIENTS = 20
_SIZE = 10_240
_BODY = b"x" * 10_000
_WITHOUT_LIMITS = {"connections": 2, "messages_per_minute": 0, "recipients_per_day": 0}
_LEAST = 1_000
"""Queued, to compare with."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """What messages took; microseconds of processor time for each."""

    rate: float
    """Messages a second."""
    relays: float
    server: float
    written: float = 0.0
    """Octets of write-ahead log for each."""

    @property
    def all(self) -> float:
        """Relays and server together."""
        return self.relays + self.server

    def __str__(self) -> str:
        return (
            f"relay {self.relays:.0f} us + server {self.server:.0f} us of processor time each; load {_load()}"
        )


def _load() -> str:
    return f"{os.getloadavg()[0]:.1f}"


class Meter:
    """Processor time of relays and server between two moments."""

    def __init__(self, relays: list[Relay], server: Database | None) -> None:
        self._relays, self._server = relays, server
        self._began = time.monotonic()
        self._before = self._now()

    def _now(self) -> tuple[float, float, float]:
        server = self._server
        mine = sum(relay.cpu() for relay in self._relays)
        return (mine, server.cpu(), server.written()) if server is not None else (mine, 0.0, 0.0)

    def cost(self, messages: int) -> Cost:
        """Since it was made."""
        relays, server, written = (b - a for a, b in zip(self._before, self._now(), strict=True))
        elapsed = time.monotonic() - self._began
        return Cost(messages / elapsed, relays * 1e6 / messages, server * 1e6 / messages, written / messages)


# the spool alone


async def _accept(spool: Spool, messages: int) -> float:
    async def client() -> None:
        for _ in range(messages // _CLIENTS):
            await accept(spool, _BODY)

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(_CLIENTS)))
    return messages / (time.perf_counter() - began)


async def _deliver(spool: Spool, messages: int) -> float:
    async def connection() -> None:
        while claims := await spool.claim(LANE, 30, time.time()):
            for claim in claims:
                await spool.content(claim.id)
                await spool.begin(claim.id, time.time(), 1)
                await spool.settle(Settlement(claim.id, {"anna@example.net": _SENT}), time.time())

    await spool.take(LANE)
    began = time.perf_counter()
    await asyncio.gather(*(connection() for _ in range(8)))
    return messages / (time.perf_counter() - began)


async def _alone(url: str, folder: Path, messages: int) -> tuple[float, float]:
    """Stored a second; claimed, begun and settled a second."""
    spool = build_spool(dataclasses.replace(spool_settings(folder), url=url))
    await spool.open()
    try:
        await spool.recover()
        return await _accept(spool, messages), await _deliver(spool, messages)
    finally:
        await spool.close()


def spools(url: str, folder: Path, messages: int) -> list[Row]:
    """SQLite first, then the given database, then SQLite again: the machine may be busier at one time than at another."""

    def lite(name: str) -> tuple[float, float]:
        place = folder / name
        place.mkdir()
        return asyncio.run(_alone(f"sqlite:///{place}/spool.db", place, messages))

    before = lite("before")
    ours = asyncio.run(_alone(url, folder, messages))
    after = lite("after")
    return [
        Row(
            f"PostgreSQL, {what} a second", mine, (a + b) / 2, "", "-", True, f"20 clients, 10 kB; load {_load()}", "SQLite",
        )
        for what, mine, a, b in zip(("stored", "claimed, begun and settled"), ours, before, after, strict=True)
    ]  # fmt: skip


# several relays


def _relay(folder: Path, simulator: dict[str, Any], port: int, mailboxes: int, **spool: Any) -> Relay:
    """Not started; its mail is spread over so many mailboxes."""
    relay = Relay(
        folder, simulator, {"port": port, "limits": _WITHOUT_LIMITS, "batch_size": 100}, max_age="5d", **spool
    )
    config = json.loads(relay.config.read_text())
    sender = config["upstreams"][0]["from_email"]
    domain = sender.partition("@")[2]
    boxes = [sender, *(f"box{n}@{domain}" for n in range(1, mailboxes))]
    config["senders"] = [{"match": "/.*/", "from": sender, "login": boxes, "upstream": "bench"}]
    relay.config.write_text(json.dumps(config))
    return relay


@contextlib.contextmanager
def _started(relays: list[Relay]) -> Iterator[None]:
    try:
        for relay in relays:
            relay.start()
        yield
    finally:
        for relay in relays:
            relay.stop()


def _through(relays: list[Relay], server: Database | None, sink: Sink, messages: int) -> Cost:
    """All of it, from the first connection until the last message is at the sink."""
    share = messages // len(relays)
    clients = max(1, _CLIENTS // len(relays))
    with concurrent.futures.ThreadPoolExecutor(len(relays)) as pool:
        list(pool.map(lambda relay: load(relay.port, 60, _SIZE, 4), relays))  # connections, plans, caches
        kit.until(lambda: sink.counters()["messages"] >= 60 * len(relays), 60, "the first messages arrive")
        seen = sink.counters()["messages"]
        meter = Meter(relays, server)
        list(pool.map(lambda relay: load(relay.port, share, _SIZE, clients, timeout=600), relays))
        sink.wait_for(seen + share * len(relays), 600)
    return meter.cost(share * len(relays))


def replicas(server: Database, folder: Path, messages: int) -> list[Row]:
    """One relay on SQLite, then one, two and three on one database."""
    found: dict[str, Cost] = {}
    kept = 0.0
    with kit.simulator(folder / "simulator") as simulator:
        for name, count in (("SQLite, 1 relay", 0), *((f"PostgreSQL, {n}", n) for n in (1, 2, 3))):
            sink = Sink(Path(simulator["directory"]) / "server.pem")
            spool = {"url": server.empty()} if count else {}
            relays = [
                _relay(folder / f"{count}-{n}", simulator, sink.port, MAILBOXES, **spool) for n in range(max(1, count))
            ]  # fmt: skip
            try:
                with _started(relays):
                    found[name] = _through(relays, server if count else None, sink, messages)
            finally:
                sink.stop()
            kept = server.kept() if count == 1 else kept
    lite, one = found["SQLite, 1 relay"], found["PostgreSQL, 1"]
    rows = [Row("SQLite, 1 relay: messages a second", lite.rate, None, "", "-", True, str(lite))]
    rows += [
        Row(
            f"PostgreSQL, {n} relay(s): messages a second", found[f"PostgreSQL, {n}"].rate, one.rate, "", "-", True,
            str(found[f"PostgreSQL, {n}"]), "1 relay",
        )
        for n in (1, 2, 3)
    ]  # fmt: skip
    rows.append(
        Row(
            "PostgreSQL: processor time for each message", one.all, lite.all, "us", "-", True,
            f"1 relay; {one.written / 1024:.1f} kB of write-ahead log each", "SQLite",
        )
    )  # fmt: skip
    rows.append(
        Row(
            "PostgreSQL: kept of each finished message", kept, None, "octets", "-", True, "rows and indexes, packed",
        )
    )  # fmt: skip
    return rows


# a long queue


async def _forget(server: Database, folder: Path, seconds: float) -> tuple[float, float]:
    """Finished mail beyond ``spool.history`` that one relay deletes a second, its pauses included; cores of the server."""
    spool = build_spool(dataclasses.replace(spool_settings(folder), url=server.url))
    await spool.open()
    try:
        left, before, began = server.messages(), server.cpu(), time.monotonic()
        while time.monotonic() - began < seconds:
            await asyncio.sleep(await spool.tend(time.time()))
        elapsed = time.monotonic() - began
        return (left - server.messages()) / elapsed, (server.cpu() - before) / elapsed
    finally:
        await spool.close()


def _with(
    server: Database, folder: Path, simulator: dict[str, Any], queued: int
) -> tuple[float, Cost, Cost, int]:
    """Seconds until it listens; what accepting one costs, and delivering one; octets of the tables before that."""
    port, place = free_port(), folder / f"queued-{queued}-{time.monotonic_ns()}"
    place.mkdir()
    mailbox = simulator["env"]["RELAY_FROM_EMAIL"]
    database.fill(server, lane_name("bench", mailbox), queued, place)
    size = server.size()
    relay = _relay(place, simulator, port, 1, url=server.url)
    began = time.monotonic()
    with _started([relay]):
        started = time.monotonic() - began
        load(relay.port, 200, _SIZE, 10)
        meter = Meter([relay], server)
        load(relay.port, 1000, _SIZE, _CLIENTS)
        accepting = meter.cost(1000)
        sink = Sink(Path(simulator["directory"]) / "server.pem", "--port", str(port))
        try:
            sink.wait_for(200, 120)
            meter, seen = Meter([relay], server), sink.counters()["messages"]
            sink.wait_for(seen + 1000, 300)
            delivering = meter.cost(sink.counters()["messages"] - seen)
        finally:
            sink.stop()
    return started, accepting, delivering, size


def queued(server: Database, folder: Path, count: int) -> list[Row]:
    """The long queue between two short ones."""
    with kit.simulator(folder / "simulator") as simulator:
        before = _with(server, folder, simulator, _LEAST)
        ours = _with(server, folder, simulator, count)
        server.finish_all()
        forgotten, cores = asyncio.run(_forget(server, folder, 10.0))
        after = _with(server, folder, simulator, _LEAST)
    rows = []
    for what, mine, a, b in zip(("accept", "deliver"), ours[1:3], before[1:3], after[1:3], strict=True):
        base = (a.all + b.all) / 2
        rows.append(
            Row(
                f"PostgreSQL, {count:,} queued: processor time to {what} one", mine.all, base, "us", "<= 1.2 x",
                mine.all <= 1.2 * base, str(mine), f"with {_LEAST:,}",
            )
        )  # fmt: skip
    note = f"tables and indexes {ours[3] / 1024**2:,.0f} MB: {ours[3] / count:,.0f} octets for each small message"
    rows.append(
        Row(
            f"PostgreSQL, {count:,} queued: start until listening", ours[0], (before[0] + after[0]) / 2, "s", "<= 2 s",
            ours[0] <= 2, note, f"with {_LEAST:,}",
        )
    )  # fmt: skip
    rows.append(
        Row(
            "PostgreSQL: finished messages forgotten a second", forgotten, None, "", ">= 116, 10 million a day",
            forgotten >= 10_000_000 / 86_400, f"of {count:,}; {cores:.2f} cores of the server; load {_load()}",
        )
    )  # fmt: skip
    return rows


def measure(folder: Path, options: argparse.Namespace) -> list[Row]:
    """The parts that were asked for."""
    if options.url is not None:
        return spools(options.url, folder, options.messages)
    rows: list[Row] = []
    with database.running() as server:
        for part in options.only:
            (folder / part).mkdir()
            if part == "spools":
                rows += spools(server.empty(), folder / part, options.messages)
            elif part == "replicas":
                rows += replicas(server, folder / part, options.messages)
            else:
                rows += queued(server, folder / part, options.queued)
    return rows


def _parts(text: str) -> list[str]:
    wanted = text.split(",")
    if not set(wanted) <= set(PARTS):
        raise argparse.ArgumentTypeError(f"some of {', '.join(PARTS)}, separated by commas")
    return wanted


def main() -> int:
    """For the exit status see `benchmarks.kit.finish`."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.shared_spool", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--url", help="an empty database of yours, for the part spools alone")
    parser.add_argument("--only", type=_parts, default=list(PARTS), help="parts, separated by commas")
    parser.add_argument("--messages", type=int, default=3000, help="for spools and for each run of replicas")
    parser.add_argument("--queued", type=int, default=1_000_000)
    parser.add_argument(
        "--out", type=Path, default=kit.RESULTS / "shared_spool.json", help="where the JSON goes"
    )
    kit.offer_strict(parser)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with kit.workshop() as folder:
        rows = measure(folder, options)
    kit.show(rows, options.out)
    return kit.finish(rows, strict=options.strict)


if __name__ == "__main__":
    sys.exit(main())
