"""`python -m tests.web.measure [COUNT]`: what each view of the page costs with so many messages queued (100,000)."""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tests.web.client import LANE, Site
from tests.web.crowd import crowd

ROUNDS = 15
VIEWS = (
    "/", "/queue", "/queue?after={middle}", "/queue?lane=Microsoft 365/notifications@contoso.com",
    "/queue?state=queued", "/queue?state=held", "/queue?sender=sender5@legacy.local",
    "/queue?recipient=person99990@customer.example", "/queue?reason=nothing has this", "/queue?older=2h",
    "/queue/{middle}", "/queue/find?text={middle}", "/queue/find?text=person50000@customer.example", "/activity",
    "/senders?sender=erp@legacy.local", "/settings",
)  # fmt: skip


async def main(count: int) -> None:
    """Median and worst of some rounds, in milliseconds, request to last octet."""
    with tempfile.TemporaryDirectory(prefix="relay-measure-") as name:
        site = Site(Path(name))
        await asyncio.to_thread(crowd, site.config, count, lane=LANE)
        await site.start()
        try:
            from relay.spool.contract import Filter

            page = await site.daemon.spool.find(Filter(), limit=count // 2)
            for view in VIEWS:
                path = view.format(middle=page[-1].id)
                times = [await _once(site, path) for _ in range(ROUNDS)]
                print(f"{statistics.median(times):7.1f} ms  worst {max(times):7.1f} ms  {path}")
        finally:
            await site.stop()


async def _once(site: Site, path: str) -> float:
    began = time.perf_counter()
    answer = await site.get(path)
    assert answer.status == 200, (path, answer.status)
    return (time.perf_counter() - began) * 1000


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000))
