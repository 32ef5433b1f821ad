"""A lane with 100,000 messages waiting beside another lane: what the other's messages cost, and how long they take."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from benchmarks import kit
from benchmarks.kit import Row
from benchmarks.scale import fill, message
from relay.message import Outcome, Reply, Result
from relay.settings import SpoolSettings
from relay.spool.contract import Settlement
from relay.spool.sqlite import SqliteSpool

CROWDED, OTHER = "bench/mailing@contoso.com", "bench/notifications@contoso.com"
WAITING = 100_000
ROUNDS, AT_ONCE = 60, 10
_SENT = {"someone@example.net": Outcome(Result.SENT, reply=Reply(250, "2.0.0", "OK"))}


async def _journeys(spool: SqliteSpool) -> tuple[float, float]:
    """Accept, claim, begin and settle messages of the other lane: milliseconds for each, of work and on the clock."""
    used, began = time.process_time(), time.monotonic()
    for _ in range(ROUNDS):
        await asyncio.gather(*(_accept(spool) for _ in range(AT_ONCE)))
        claims = await spool.claim(OTHER, AT_ONCE, time.time())
        assert len(claims) == AT_ONCE
        await asyncio.gather(*(spool.begin(one.id, time.time(), 1) for one in claims))
        await asyncio.gather(*(spool.settle(Settlement(one.id, dict(_SENT)), time.time()) for one in claims))
        assert (await spool.lane(OTHER)).queued == 0
    count = ROUNDS * AT_ONCE
    return (time.process_time() - used) * 1000 / count, (time.monotonic() - began) * 1000 / count


async def _accept(spool: SqliteSpool) -> None:
    draft = spool.draft()
    await draft.write(b"x" * 1000)
    await draft.commit(message(OTHER, "quiet@example.org"))


async def _with(database: Path, waiting: int) -> tuple[float, float]:
    fill(database, CROWDED, waiting)
    spool = SqliteSpool(SpoolSettings(
        f"sqlite:///{database}", 10**12, (60.0,), 5 * 86_400.0, 30 * 86_400.0, "resend", 4 * 3600.0, 30 * 86_400.0,
    ))  # fmt: skip
    await spool.open()
    try:
        assert len(await spool.claim(CROWDED, 30, time.time())) == 30  # a batch of it is under way
        await _journeys(spool)  # nothing is read for the first time
        return await _journeys(spool)
    finally:
        await spool.close()


def measure(folder: Path, runs: int) -> list[Row]:
    """With few waiting, with many, with few again: the machine may be busier at one time than at another."""
    few: list[tuple[float, float]] = []
    many: list[tuple[float, float]] = []
    for run in range(runs):
        few.append(asyncio.run(_with(folder / f"few-{run}" / "spool.db", 1000)))
        many.append(asyncio.run(_with(folder / f"many-{run}" / "spool.db", WAITING)))
        few.append(asyncio.run(_with(folder / f"few-again-{run}" / "spool.db", 1000)))
    rows = []
    for place, what in enumerate(("processor time of", "time taken by")):
        ours = kit.median([one[place] for one in many])
        peer = kit.median([one[place] for one in few])
        rows.append(
            Row(
                f"{what} another lane's message, {WAITING:,} waiting in one", ours, peer, "ms", "<= 1.2 x",
                ours / peer <= 1.2, peer_name="with 1,000",
            )
        )  # fmt: skip
    return rows


if __name__ == "__main__":
    kit.command("lanes", str(__doc__), measure, runs=3)
