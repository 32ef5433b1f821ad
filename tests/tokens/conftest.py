"""Fixtures of the tokens room: a fake Entra, a clock that moves when told, and token sources that get closed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from relay import events
from relay.tokens.entra import EntraTokens
from tests.tokens.fake_entra_server import FakeClock, FakeEntra, Identity, Make, make_identity, make_upstream
from tests.tokens.fake_registration import FakeRegistration

PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(scope="session")
def authority_ca() -> Identity:
    return make_identity("Contoso Test Root", ca=True)


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's own proxy and Azure settings must not reach the tests."""
    names = ("MSAL_FORCE_REGION", "IDENTITY_ENDPOINT", "IDENTITY_HEADER", "AZURE_POD_IDENTITY_AUTHORITY_HOST")
    for name in (*PROXY_VARIABLES, *(name.lower() for name in PROXY_VARIABLES), *names):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
async def entra(tmp_path: Path, authority_ca: Identity) -> AsyncIterator[FakeEntra]:
    fake = FakeEntra(tmp_path, authority_ca)
    await fake.start()
    yield fake
    await fake.stop()


@pytest.fixture
async def registration(tmp_path: Path, authority_ca: Identity) -> AsyncIterator[FakeRegistration]:
    fake = FakeRegistration(tmp_path, authority_ca)
    await fake.start()
    yield fake
    await fake.stop()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def make(entra: FakeEntra, clock: FakeClock) -> AsyncIterator[Make]:
    made: list[EntraTokens] = []

    def build(**changes: object) -> EntraTokens:
        changes = {"authority": entra.authority, "ca_file": entra.ca_file, **changes}
        made.append(EntraTokens(make_upstream(**changes), clock=clock))  # type: ignore[arg-type]
        return made[-1]

    yield build
    for tokens in made:
        await tokens.close()


@pytest.fixture
def logged() -> Iterator[list[tuple[str, dict[str, object]]]]:
    """Events as (name, fields)."""
    seen: list[tuple[str, dict[str, object]]] = []
    events.plug(lambda level, event, fields: seen.append((event, dict(fields))))
    yield seen
    events.plug(None)
