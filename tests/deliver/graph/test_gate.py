"""Graph's four requests at once of an app are four for all relays of a group together."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from relay.deliver.graph import gate
from relay.deliver.graph.gate import AT_ONCE, Gate
from tests.spool.postgres_kit import ask, make, server

__all__ = ["make", "server"]

APP = "c11e0000-8d2f-4b6a-b1d3-0c0000000000"


class Graph:
    """Counts what is under way."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self.served: dict[Gate, int] = {}

    async def request(self, through: Gate, seconds: float) -> None:
        async with through:
            self.now += 1
            self.most = max(self.most, self.now)
            await asyncio.sleep(seconds)
            self.now -= 1
            self.served[through] = self.served.get(through, 0) + 1


@pytest.fixture
def hasty(monkeypatch):
    monkeypatch.setattr(gate, "_KEEP", 0.05)
    monkeypatch.setattr(gate, "_AGAIN", 0.01)


async def test_three_relays_of_an_app_have_four_requests_at_once_together(make, hasty):
    graph, gates = Graph(), [Gate(APP, await make()) for _ in range(3)]
    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        for one in gates * 20:
            tasks.create_task(graph.request(one, 0.01))
    assert graph.most == AT_ONCE
    assert set(graph.served.values()) == {20}


async def test_a_busy_relay_leaves_places_to_the_others(make, hasty):
    graph, busy, other = Graph(), Gate(APP, await make()), Gate(APP, await make())
    stop = asyncio.Event()

    async def always() -> None:
        while not stop.is_set():
            await graph.request(busy, 0.005)

    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        for _ in range(2 * AT_ONCE):
            tasks.create_task(always())
        while graph.served.get(busy, 0) < AT_ONCE:
            await asyncio.sleep(0)
        for _ in range(3):
            await graph.request(other, 0.005)
        stop.set()
    assert graph.served[other] == 3 and graph.most <= AT_ONCE


async def test_places_that_are_not_used_are_given_back(make, hasty):
    spool = await make()
    await Graph().request(Gate(APP, spool), 0.0)
    async with asyncio.timeout(30):
        while await ask(make, "SELECT 1 FROM lease WHERE kind = 'place'"):
            await asyncio.sleep(0.01)


async def test_a_request_that_fails_or_is_cancelled_leaves_its_place(make, hasty):
    spool = await make()
    one = Gate(APP, spool)
    for _ in range(2 * AT_ONCE):
        with contextlib.suppress(ZeroDivisionError):
            async with one:
                raise ZeroDivisionError
        task = asyncio.create_task(Graph().request(one, 30))
        await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    async with asyncio.timeout(30):
        await Graph().request(one, 0.0)


async def test_a_place_that_is_not_certain_any_more_is_no_place_lost(make, hasty, monkeypatch):
    """The database was away for some seconds, and this relay is a member all the same."""
    spool = await make()
    one, graph = Gate(APP, spool), Graph()
    monkeypatch.setattr(gate, "_KEEP", 60.0)
    for _ in range(2 * AT_ONCE):
        await graph.request(one, 0.0)
        monkeypatch.setattr(spool, "has_place", lambda place: False)
        async with asyncio.timeout(30):
            await graph.request(one, 0.0)
        monkeypatch.undo()
        monkeypatch.setattr(gate, "_KEEP", 60.0)
    assert graph.served[one] == 4 * AT_ONCE


async def test_a_request_that_is_cancelled_while_it_asks_leaves_no_place_taken(make, hasty):
    spool, other = await make(), await make()
    one = Gate(APP, spool)
    for _ in range(2 * AT_ONCE):
        task = asyncio.create_task(Graph().request(one, 30))
        while not one._tasks._all:
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    graph, rest = Graph(), Gate(APP, other)
    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            tasks.create_task(graph.request(rest, 0.5))
    assert graph.most == AT_ONCE


async def test_without_others_only_this_process_is_counted():
    graph, one = Graph(), Gate(APP)
    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        for _ in range(3 * AT_ONCE):
            tasks.create_task(graph.request(one, 0.0))
    assert graph.most == AT_ONCE
