"""Many queued messages, put into the spool's tables directly: what they cost to accept is not the matter here."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from pathlib import Path

from relay.config.load import load
from relay.message import Client, Envelope
from relay.spool.contract import NewMessage
from relay.spool.factory import build_spool
from relay.spool.ids import Ids
from relay.spool.records import pack_details


def crowd(config: Path, count: int, *, lane: str) -> None:
    """Queue ``count`` messages of the lane, a second apart, in the spool of a relay that is not started."""
    settings = load(config, {}).spool
    asyncio.run(_make(settings))
    now, ids = time.time(), Ids()
    sample = NewMessage(
        Envelope("", ()), Client("10.0.0.7", 40000, "erp"), b"", lane, header_from=("erp@legacy.local",)
    )
    details = pack_details(sample)
    numbers = [ids.next(now - count + n) for n in range(count)]
    connection = sqlite3.connect(settings.url.removeprefix("sqlite:///"))
    with connection:
        row = connection.execute("INSERT INTO lane (name) VALUES (?) RETURNING id", (lane,)).fetchone()
        connection.executemany(
            "INSERT INTO message (id, received, lane, state, turn, size, sender, client, source, message_id, subject,"
            " details) VALUES (?, ?, ?, 0, ?, 2000, ?, '10.0.0.7', 'erp', ?, ?, ?)",
            (
                (number, int((now - count + n) * 1000), row[0], n, f"sender{n % 97}@legacy.local",
                 f"<{n}@legacy.local>", f"Order {n}", details)
                for n, number in enumerate(numbers)
            ),
        )  # fmt: skip
        connection.executemany(
            "INSERT INTO recipient (message, n, address, state) VALUES (?, 0, ?, 0)",
            ((number, f"person{n}@customer.example") for n, number in enumerate(numbers)),
        )
    connection.close()


async def _make(settings: object) -> None:
    spool = build_spool(settings)  # type: ignore[arg-type]
    await spool.open()
    await spool.close()
