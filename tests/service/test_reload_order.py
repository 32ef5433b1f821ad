"""Reloads that come faster than they are done: one after another, and the last word is the file's."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from relay.daemon import Daemon
from relay.settings import Settings
from tests.accept.support import listener
from tests.fakes.settings import settings
from tests.workers.house import until


class File:
    """What `relay run` reads at each reload; the first reading takes its time."""

    def __init__(self, folder: Path) -> None:
        self.settings = settings(folder, listeners=(listener(),), workers="never")
        self.read = 0
        self.going = threading.Event()
        self.reading = threading.Event()

    def __call__(self) -> Settings:
        self.read += 1
        found = self.settings
        if self.read == 1:
            self.reading.set()
            assert self.going.wait(30)
        return found

    def change(self, postmaster: str) -> None:
        self.settings = dataclasses.replace(self.settings, postmaster=postmaster)


@asynccontextmanager
async def daemon_of(file: File) -> AsyncIterator[Daemon]:
    daemon = Daemon(file.settings, file)
    await daemon.start()
    try:
        yield daemon
    finally:
        file.going.set()
        await daemon.stop(1.0)


async def test_the_newer_settings_win_over_a_reload_that_took_longer(tmp_path: Path) -> None:
    """The first has read the old file when the second begins; it must not have the last word."""
    file = File(tmp_path)
    async with daemon_of(file) as daemon:
        first = asyncio.ensure_future(daemon.reload())
        await until(file.reading.is_set)
        file.change("new@contoso.com")
        second = asyncio.ensure_future(daemon.reload())
        await asyncio.sleep(0)
        file.going.set()
        await asyncio.wait_for(asyncio.gather(first, second), 30)
        assert daemon.settings.postmaster == "new@contoso.com"


async def test_a_storm_of_signals_is_one_reload_more(tmp_path: Path) -> None:
    """All that come while one is under way are served by the next, which reads the file after the last of them."""
    file = File(tmp_path)
    async with daemon_of(file) as daemon:
        daemon.reload_soon()
        await until(file.reading.is_set)
        for number in range(50):
            file.change(f"p{number}@contoso.com")
            daemon.reload_soon()
            await asyncio.sleep(0)
        file.going.set()
        await until(lambda: daemon.settings.postmaster == "p49@contoso.com")
        assert file.read == 2
