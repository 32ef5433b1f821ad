"""How long housekeeping keeps the spool's writer: 50,000 traces past their time go while mail is accepted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from benchmarks import kit
from benchmarks.kit import Row
from benchmarks.scale import fill, message
from relay.settings import SpoolSettings
from relay.spool import upkeep
from relay.spool.schema import connect
from relay.spool.sqlite import SqliteSpool

OLD, LANE = 50_000, "bench/notifications@contoso.com"
T = TypeVar("T")


def _age(database: Path) -> None:
    """All that is there was delivered long ago."""
    connection = connect(database)
    connection.execute("BEGIN")
    connection.execute("UPDATE recipient SET state = 5")
    connection.execute("UPDATE message SET state = 4, finished = 1000")
    connection.execute("DELETE FROM content")
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def _timed(work: Callable[..., T], times: list[float]) -> Callable[..., T]:
    def timed(*words: Any) -> T:
        began = time.monotonic()
        try:
            return work(*words)
        finally:
            times.append((time.monotonic() - began) * 1000)

    return timed


async def _tend(database: Path) -> tuple[list[float], int]:
    """Milliseconds of each acceptance meanwhile, and how many steps it took."""
    settings = SpoolSettings(
        f"sqlite:///{database}",
        10**12,
        (60.0,),
        5 * 86_400.0,
        30 * 86_400.0,
        "resend",
        4 * 3600.0,
        30 * 86_400.0,
    )
    spool = SqliteSpool(settings)
    await spool.open()
    waits: list[float] = []
    steps = 0
    accepting = asyncio.ensure_future(_accept(spool, waits))
    try:
        while await spool.tend(time.time()) < 1.0:
            steps += 1
    finally:
        accepting.cancel()
        await asyncio.gather(accepting, return_exceptions=True)
        await spool.close()
    return waits, steps


async def _accept(spool: SqliteSpool, waits: list[float]) -> None:
    while True:
        began = time.monotonic()
        draft = spool.draft()
        await draft.write(b"x" * 1000)
        await draft.commit(message(LANE, "source@example.org"))
        waits.append((time.monotonic() - began) * 1000)


def measure(folder: Path, runs: int) -> list[Row]:
    """The writer's own time in each step: without waiting for the disk at its commit, which others share."""
    database = folder / "spool.db"
    fill(database, LANE, OLD)
    _age(database)
    times: list[float] = []
    whole = upkeep.forget
    upkeep.forget = _timed(whole, times)
    try:
        waits, steps = asyncio.run(_tend(database))
    finally:
        upkeep.forget = whole
    times.sort()
    typical, longest = times[len(times) * 95 // 100], times[-1]
    note = (
        f"{steps} steps of {kit.median(times):.1f} ms at the median, the longest {longest:.1f} ms;"
        f" acceptance meanwhile {kit.median(waits):.1f} ms at the median"
    )
    return [
        Row(
            "the writer held by one step of upkeep, 95 % within",
            typical,
            None,
            "ms",
            "<= 20 ms",
            typical <= 20,
            note,
        )
    ]


if __name__ == "__main__":
    kit.command("upkeep", str(__doc__), measure, runs=1)
