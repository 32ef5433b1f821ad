"""A scripted Exchange and a house in front of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from relay.schedule import lane
from tests.fakes.exchange import FakeExchange, make_certificate
from tests.replies.kit import House

Build = Callable[..., Awaitable[House]]


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """CA file, and the server's certificate with key."""
    return make_certificate(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
async def server(certificates: tuple[Path, Path]) -> AsyncIterator[FakeExchange]:
    async with FakeExchange(certificates[1]) as running:
        yield running


@pytest.fixture
async def build(
    server: FakeExchange, certificates: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Build]:
    """Houses with an open spool, stopped at the end. What rests stays at rest for longer than a test takes."""
    monkeypatch.setattr(lane, "RECONNECT", (60.0,))
    made: list[House] = []

    async def make(**changes: object) -> House:
        one = House(tmp_path, server, certificates[0], **changes)
        made.append(one)
        await one.open()
        return one

    yield make
    for one in made:
        await one.stop()
