"""Fixtures of the simulator room: simulators that get stopped, connections that get closed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from relay.simulator.app import Simulator
from relay.simulator.options import SimulatorOptions
from tests.simulator.graphkit import GraphClient
from tests.simulator.kit import GRAPH_SCOPE, Clock, Connect, Dialog, Start, fetch_token, http


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts simulators with the given options; all are stopped afterwards."""
    async with contextlib.AsyncExitStack() as stack:

        async def begin(**options: Any) -> Simulator:
            options.setdefault("directory", tmp_path / "sim")
            return await stack.enter_async_context(Simulator(SimulatorOptions(**options)))

        yield begin


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Opens raw SMTP connections: in clear, after STARTTLS and EHLO (``tls``), or logged on (``auth``)."""
    writers: list[asyncio.StreamWriter] = []

    async def begin(sim: Simulator, stage: str = "auth") -> Dialog:
        dialog = Dialog(sim, *await asyncio.open_connection("127.0.0.1", sim.smtp_port))
        writers.append(dialog.writer)
        if stage == "raw":
            return dialog
        assert (await dialog.read()).startswith("220 ")
        assert (await dialog.say("EHLO relay.test")).startswith("250")
        if stage in ("tls", "auth"):
            await dialog.starttls()
            assert (await dialog.say("EHLO relay.test")).startswith("250")
        if stage == "auth":
            assert (await dialog.auth()).startswith("235 ")
        return dialog

    yield begin
    for writer in writers:
        writer.close()


@pytest.fixture
async def graph(start: Start, clock: Clock) -> Any:
    """A client whose app has everything, in a tenant with Graph permissions."""
    sim = await start(permissions={"Mail.Send", "Mail.ReadWrite", "Application.Read.All"}, clock=clock)
    async with http(sim) as session:
        yield GraphClient(sim, session, await fetch_token(sim, GRAPH_SCOPE))


@pytest.fixture(autouse=True)
def _no_foreign_trust(monkeypatch: pytest.MonkeyPatch) -> None:
    """requests prefers these variables to the ``verify`` that msal hands it."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
