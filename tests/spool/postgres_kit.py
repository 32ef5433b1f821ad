"""Spools on a real PostgreSQL server, for the tests of what they do alone and of what they do as a group."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import pytest

from relay.errors import SpoolError
from relay.spool.postgres import PostgresSpool
from tests.fakes.clock import ManualClock
from tests.fakes.postgres import PostgresServer, running
from tests.fakes.spool import spool_settings

T = TypeVar("T")


class Maker:
    """Opens spools on a database of their own."""

    def __init__(self, server: PostgresServer, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.url = server.database()
        self.clock = ManualClock()
        self.opened: list[Any] = []
        self.settings: dict[str, object] = {}

    def closed(self, **settings: object) -> Any:
        """One that is not open yet."""
        return PostgresSpool(spool_settings(self.folder, url=self.url, **settings), self.clock)

    async def __call__(self, **settings: object) -> Any:
        self.settings = settings
        spool = self.closed(**settings)
        await spool.open()
        self.opened.append(spool)
        return spool

    async def close(self, spool: Any) -> None:
        await spool.close()
        self.opened.remove(spool)

    async def reopen(self, spool: Any) -> Any:
        await self.close(spool)
        return await self(**self.settings)


server = pytest.fixture(scope="module")(running)


@pytest.fixture
async def make(server, tmp_path):
    maker = Maker(server, tmp_path)
    yield maker
    for spool in maker.opened:
        await spool.close()


async def ask(make: Maker, statement: str, *values: object) -> list[tuple]:
    """What the database says, on a connection of the test's own."""
    async with await psycopg.AsyncConnection.connect(make.url, autocommit=True) as connection:
        await connection.execute("SET search_path = relay")
        cursor = await connection.execute(statement.encode(), values or None)
        return await cursor.fetchall() if cursor.description else []


async def eventually(attempt: Callable[[], Awaitable[T]], seconds: float = 30.0) -> T:
    """Its first answer that is no SpoolError."""
    async with asyncio.timeout(seconds):
        while True:
            try:
                return await attempt()
            except SpoolError:
                await asyncio.sleep(0.05)
