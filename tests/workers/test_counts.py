"""A client's connections and messages are one count, whichever process lets it in, and while the duty changes hands."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

from tests.accept.support import TestClient, limits, listener, networks
from tests.workers.house import House, house, until

MAIL = b"From: a@scanners.local\r\nSubject: hello\r\n\r\nbody\r\n.\r\n"
BALANCED = listener(proxy_protocol_from=networks("127.0.0.0/8"), limits=limits(connections_per_client=2))


async def change(here: House, workers: str) -> None:
    await here.acceptance.update(dataclasses.replace(here.settings, workers=workers))
    if workers == "always":
        await here.helper()


@contextlib.asynccontextmanager
async def behind(here: House) -> AsyncIterator[TestClient]:
    """A balancer's connection that has not said yet whose it is."""
    client = await TestClient.open(here.server.address)
    try:
        yield client
    finally:
        client.close()


async def introduce(client: TestClient) -> str:
    client.send(b"PROXY TCP4 192.0.2.7 127.0.0.1 4711 25\r\n")
    return await client.reply()


async def test_a_balancers_connection_that_speaks_after_the_hand_over(tmp_path: Path) -> None:
    """It is the daemon's: counted by the helper when it says whose it is, and counted out when it leaves."""
    async with house(tmp_path, [BALANCED], workers="never") as here, behind(here) as early:
        await until(lambda: here.server.roster.channels)
        await change(here, "always")
        assert (await introduce(early)).startswith("220")
        async with behind(here) as second, behind(here) as third:
            assert (await introduce(second)).startswith("220")
            assert (await introduce(third)).startswith("421")
            early.close()
            await until(lambda: here.server.roster.gate.open == 0)
        async with behind(here) as fourth:
            assert (await introduce(fourth)).startswith("220")
            assert (await fourth.deliver(MAIL)).startswith("250")
        assert here.events("trouble") == []


async def test_a_balancers_connection_that_speaks_after_the_duty(tmp_path: Path) -> None:
    """It is the retired helper's: the daemon counts it, and the next helper does; nothing is counted out twice."""
    async with house(tmp_path, [BALANCED]) as here:
        old = await here.helper()
        async with behind(here) as early, behind(here) as known:
            assert (await introduce(known)).startswith("220")
            await until(lambda: here.server.connections == 2)
            await here.acceptance.renew()
            await until(lambda: here.acceptance.on_duty not in (None, old))
            assert here.server.roster.gate.open == 1
            assert (await introduce(early)).startswith("220")
            await until(lambda: here.server.roster.gate.open == 2)
            async with behind(here) as third:
                assert (await introduce(third)).startswith("421")
            early.close()
            await until(lambda: here.server.roster.gate.open == 1)
        await until(old.ended.is_set)
        assert here.server.roster.gate.open == 0
        assert here.events("trouble") == []


async def test_messages_of_old_connections_count_for_all(tmp_path: Path) -> None:
    """One client with a connection to the daemon, one to a retired helper and one to the present one has one minute."""
    conf = listener(limits=limits(messages_per_minute_per_client=4))
    async with house(tmp_path, [conf], workers="never") as here, here.client() as first:
        await change(here, "always")
        async with here.client() as second:
            old = here.acceptance.on_duty
            await here.acceptance.renew()
            await until(lambda: here.acceptance.on_duty not in (None, old))
            async with here.client() as third:
                for client in (first, second, third, first):
                    assert (await client.deliver(MAIL)).startswith("250")
                    await client.ask("RSET")
                for client in (third, second, first):
                    await client.ask("EHLO client")
                    assert (await client.ask("MAIL FROM:<a@scanners.local>")).startswith("451 4.7.1")


async def test_limits_hold_while_the_duty_goes_back_and_forth(tmp_path: Path) -> None:
    """Five changes under open connections: the count is exact after each, and nothing is left at the end."""
    conf = listener(limits=limits(connections_per_client=6, messages_per_minute_per_client=6))
    async with house(tmp_path, [conf], workers="never") as here, contextlib.AsyncExitStack() as stack:
        for turn in range(6):
            client = await stack.enter_async_context(here.client())
            assert (await client.deliver(MAIL)).startswith("250"), turn
            await change(here, "always" if turn % 2 == 0 else "never")
            assert here.server.roster.gate.open == turn + 1 if turn % 2 else True
        async with here.client("421"):
            pass
        await client.ask("EHLO client")
        assert (await client.ask("MAIL FROM:<a@scanners.local>")).startswith("451 4.7.1")
        await stack.aclose()
        await until(lambda: here.server.roster.gate.open == 0)
        await until(lambda: here.server.connections == 0)
        assert here.server.accepted == 6
        await until(lambda: not here.acceptance.helpers)
        assert here.events("trouble") == []
