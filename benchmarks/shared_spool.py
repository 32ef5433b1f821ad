"""What a message costs in either spool: stored, claimed, begun and settled, durable at each step.

    python -m benchmarks.shared_spool postgresql://user@host/database [--messages 3000]

The database must be empty; it is the server's own fsync that is measured, so give it the disk that production has.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import tempfile
import time
from pathlib import Path

from relay.message import Outcome, Reply, Result
from relay.spool.contract import Settlement, Spool
from relay.spool.factory import build_spool
from tests.fakes.spool import LANE, accept, spool_settings

_SENT = Outcome(Result.SENT, reply=Reply(250, "2.0.0", "OK"))
_CLIENTS = 20
_BODY = b"x" * 10_000


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

    began = time.perf_counter()
    await asyncio.gather(*(connection() for _ in range(8)))
    return messages / (time.perf_counter() - began)


async def measure(url: str, folder: Path, messages: int) -> None:
    """Print one line for one spool."""
    spool = build_spool(dataclasses.replace(spool_settings(folder), url=url))
    await spool.open()
    try:
        stored, delivered = await _accept(spool, messages), await _deliver(spool, messages)
    finally:
        await spool.close()
    print(f"{url.partition(':')[0]:<12} {stored:8.0f} stored/s {delivered:8.0f} claimed, begun and settled/s")


def main() -> None:
    """SQLite first, then the given database."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--messages", type=int, default=3000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for url in (f"sqlite:///{folder}/spool.db", options.url):
            asyncio.run(measure(url, Path(folder), options.messages))


if __name__ == "__main__":
    main()
