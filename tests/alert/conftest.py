"""Fixtures of the alert room's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from relay import events
from tests.alert.kit import Logged, Receiver, receiving


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's own proxy must not reach the tests."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def logged() -> Iterator[Logged]:
    """Events as (name, fields)."""
    seen: Logged = []
    events.plug(lambda level, event, fields: seen.append((event, dict(fields))))
    yield seen
    events.plug(None)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as one:
        yield one
