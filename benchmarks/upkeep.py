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


class Steps:
    """Milliseconds of each step: on the clock, and on a processor, which is what the step itself can do about it."""

    def __init__(self) -> None:
        self.took: list[float] = []
        self.worked: list[float] = []

    def timed(self, work: Callable[..., T]) -> Callable[..., T]:
        """The same, measured."""

        def timed(*words: Any) -> T:
            began, used = time.monotonic(), time.thread_time()
            try:
                return work(*words)
            finally:
                self.took.append((time.monotonic() - began) * 1000)
                self.worked.append((time.thread_time() - used) * 1000)

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
    steps, whole = Steps(), upkeep.forget
    upkeep.forget = steps.timed(whole)
    try:
        waits, _ = asyncio.run(_tend(database))
    finally:
        upkeep.forget = whole
    return [
        _row("the writer's own work in one step of upkeep, the longest", steps.worked, 1.0, ""),
        _row("the writer held by one step of upkeep, 95 % within", steps.took, 0.95, "on the clock, with all that runs here"),
        _row("acceptance meanwhile, 95 % within", waits, 0.95, "its own commit included"),
    ]  # fmt: skip


def _row(name: str, times: list[float], share: float, about: str) -> Row:
    times.sort()
    shown = times[min(len(times) - 1, int(len(times) * share))]
    note = f"{len(times)} times, {kit.median(times):.1f} ms at the median, the longest {times[-1]:.1f} ms; {about}"
    return Row(name, shown, None, "ms", "<= 20 ms", shown <= 20, note.removesuffix("; "))


if __name__ == "__main__":
    kit.command("upkeep", str(__doc__), measure, runs=1)
