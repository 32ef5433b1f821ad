"""Fixtures of the deliver room: a certificate, a fake Exchange, and a desk with a courier pointed at it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.deliver.desk import Desk
from tests.fakes.exchange import FakeExchange, make_certificate

MakeDesk = Callable[..., Desk]


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """CA file, and the server's certificate with key."""
    return make_certificate(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
async def server(certificates: tuple[Path, Path]) -> AsyncIterator[FakeExchange]:
    async with FakeExchange(certificates[1]) as running:
        yield running


@pytest.fixture
def make_desk(server: FakeExchange, certificates: tuple[Path, Path]) -> MakeDesk:
    def make(**changes: object) -> Desk:
        ca_file = changes.pop("ca_file", certificates[0])
        assert ca_file is None or isinstance(ca_file, Path)
        return Desk(server, ca_file, **changes)

    return make


@pytest.fixture
def desk(make_desk: MakeDesk) -> Desk:
    return make_desk()
