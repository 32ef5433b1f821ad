"""Large mail costs little memory, and its temporary file is nobody else's and never stays."""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
import time
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from relay.deliver.graph import structure
from relay.deliver.graph.contract import Answer
from relay.deliver.graph.convert import convert
from relay.deliver.graph.large import send_large
from relay.message import Result
from tests.deliver.desk import Begin, make_upstream
from tests.deliver.graph.large_kit import MAILBOX, ScanBody, make_parcel, make_scan

MB = 1024 * 1024


class Sink:
    """A Graph that says yes to everything and keeps a checksum only."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self.received = 0

    async def call(self, method: str, target: str, *, body: Any = None, **given: Any) -> Answer:
        if method == "PUT":
            self.digest.update(body)
            self.received += len(body)
            return Answer(200, {}, content={"nextExpectedRanges": [f"{self.received}-"]})
        if target.endswith("/createUploadSession"):
            return Answer(201, {}, content={"uploadUrl": "https://upload.example/1"})
        if "$select=id&" in target:
            return Answer(200, {}, content={"value": [{"id": "1"}]})
        return Answer(202 if target.endswith("/send") else 201, {}, content={"id": "d"})


async def test_a_hundred_megabytes_cost_a_few(tmp_path: Path) -> None:
    """A 100 MB message is converted and uploaded within 20 MB of memory, octets intact, in reasonable time."""
    body, parcel = make_scan(75_000_000)
    assert parcel.size > 100_000_000
    sink = Sink()
    started = time.process_time()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        result = await send_large(sink, MAILBOX, parcel, parcel.recipients, Begin(), make_upstream(587, None))
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert result.outcome is not None and result.outcome.result is Result.SENT
    assert peak < 20 * MB, f"{peak / MB:.1f} MB"
    expected = hashlib.sha256()
    for at in range(0, 75_000_000, len(body.block)):
        expected.update(body.block[: 75_000_000 - at])
    assert sink.digest.digest() == expected.digest()
    assert time.process_time() - started < 30


async def test_the_temporary_file_is_private_and_nameless(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Readable by us alone; no name in the folder, so nothing stays even after a kill."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    _, parcel = make_scan(200_000)
    async with convert(parcel, MAILBOX, parcel.recipients) as made:
        mode = os.fstat(made.store._file.fileno()).st_mode
        assert stat.S_IMODE(mode) == 0o600
        assert list(tmp_path.iterdir()) == []


async def test_the_temporary_file_goes_with_a_cancelled_conversion(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelled in the middle of reading the body: the file is closed all the same."""
    stores: list[structure.Store] = []
    reached = asyncio.Event()

    class Watched(structure.Store):
        def __init__(self) -> None:
            super().__init__()
            stores.append(self)

    class Stuck(ScanBody):
        async def chunks(self, size: int = 65536) -> AsyncIterator[bytes]:
            async for piece in super().chunks(size):
                yield piece
                reached.set()
                await asyncio.Event().wait()

    monkeypatch.setattr("relay.deliver.graph.convert.Store", Watched)
    body = Stuck(4_000_000)
    parcel = make_parcel((body.header, body))

    async def run() -> None:
        async with convert(parcel, MAILBOX, parcel.recipients):
            pass

    task = asyncio.create_task(run())
    await asyncio.wait_for(reached.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stores[0]._file.closed
