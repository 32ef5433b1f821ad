"""Floods, dribbles and half-open connections: memory, descriptors and tasks stay bounded, and others are served."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import tracemalloc
from collections.abc import AsyncIterator

import pytest

from tests.accept.support import WAIT, Bench, TestClient, limits, listener, running

OTHER = ("127.0.0.2", 0)
"""Another client's address."""
MESSAGE = b"From: a@scanners.local\r\nSubject: s\r\n\r\nbody\r\n.\r\n"


async def until(condition: object, what: str) -> None:
    for _ in range(2000):
        if condition():  # type: ignore[operator]
            return
        await asyncio.sleep(0.002)
    raise AssertionError(what)


@contextlib.asynccontextmanager
async def crowd(bench: Bench, count: int) -> AsyncIterator[list[TestClient]]:
    """So many connections from one address."""
    clients = [await bench.client() for _ in range(count)]
    try:
        yield clients
    finally:
        for one in clients:
            one.close()
        for one in clients:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(one.writer.wait_closed(), WAIT)


async def served(bench: Bench) -> None:
    """Another client gets its message through at once."""
    async with bench.session(local_addr=OTHER) as client:
        assert (await client.deliver(MESSAGE)).startswith("250 2.0.0")


async def test_a_flood_of_connections_costs_no_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those beyond the limit are told and closed; beyond a crowd of lingering ones they are closed at once."""
    monkeypatch.setattr("relay.accept.channel.STRANGERS", 20)
    async with running(listener(limits=limits(connections=60, connections_per_client=30))) as bench:
        async with crowd(bench, 300):
            await until(lambda: bench.server.rejected >= 270, "270 turned away")
            assert bench.server.connections <= 30 + 20 + 1
            assert len(asyncio.all_tasks()) < 30
            await served(bench)
        await until(lambda: bench.server.connections == 0, "all gone")
        await served(bench)


async def test_half_open_connections_are_cut_off() -> None:
    """Clients that connect, or stop in the middle of a command or a message, are gone after the idle time."""
    async with running(listener(limits=limits(idle=0.3))) as bench, crowd(bench, 20) as clients:
        for index, one in enumerate(clients):
            one.send((b"", b"EHL", b"MAIL FROM:<a@b.c>\r\nRCPT TO:<b@c.d>\r\nDATA\r\nhalf")[index % 3])
        await served(bench)
        for one in clients:
            assert b"421 4.4.2" in await one.closed()
        await until(lambda: bench.server.connections == 0, "all gone")
        assert len(bench.spool.stored) == 1


async def test_octet_by_octet() -> None:
    """A client that sends one octet at a time is served like any other, and costs no more than its line."""
    async with running() as bench, bench.session() as client:
        for octet in b"EHLO x\r\nMAIL FROM:<a@b.c>\r\nRCPT TO:<b@c.d>\r\nDATA\r\n" + MESSAGE:
            client.send(bytes([octet]))
            await client.writer.drain()
        answers = [await client.reply() for _ in range(5)]
        assert [one[:3] for one in answers] == ["250", "250", "250", "354", "250"]


async def test_endless_input_of_many_is_bounded() -> None:
    """Thirty clients that send header without end, command lines without end, or read nothing: a few megabytes."""
    gc.collect()
    tracemalloc.start()
    try:
        async with running() as bench, crowd(bench, 30) as clients:
            before = tracemalloc.get_traced_memory()[0]
            for index, one in enumerate(clients):
                start = (b"", b"MAIL FROM:<a@b.c>\r\nRCPT TO:<b@c.d>\r\nDATA\r\nSubject: ", b"NOOP\r\n" * 10)
                one.send(start[index % 3])
            await served(bench)
            await asyncio.gather(*(pour(one) for one in clients))
            await served(bench)
            gc.collect()
            grown = tracemalloc.get_traced_memory()[0] - before
            assert grown < 30 * 1024 * 1024, grown
            assert len(asyncio.all_tasks()) < 50
    finally:
        tracemalloc.stop()


async def test_header_blocks_share_their_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the listener's memory for header blocks a large one is put off, ordinary mail is not; all is given back."""
    monkeypatch.setattr("relay.accept.limits.HEADERS_TOGETHER", 50_000)
    envelope = b"MAIL FROM:<a@b.c>\r\nRCPT TO:<b@c.d>\r\n"
    large = b"Subject: large\r\n" + (b"X-Filler: " + b"y" * 900 + b"\r\n") * 40
    held = len(large) - 2  # the last line end waits for what follows
    async with running() as bench, crowd(bench, 2) as clients:
        assert bench.server._roster is not None
        room = bench.server._roster.header_room
        clients[0].send(envelope + b"DATA\r\n" + large)
        clients[1].send(envelope + b"BDAT 10000\r\n" + large[:10000])
        await until(lambda: room.used == held + 10000, "both are held")
        async with bench.session(local_addr=OTHER) as client:
            assert (await client.deliver(large + b"\r\nlate\r\n.\r\n")).startswith("452 4.3.1")
        await served(bench)
        assert room.used == held + 10000
        clients[0].send(b"\r\nbody\r\n.\r\n")
        clients[1].send(b"RSET\r\n")
        await until(lambda: room.used == 0, "all given back")
        assert len(bench.spool.stored) == 2
        clients[0].send(envelope + b"DATA\r\n" + large)
        await until(lambda: room.used == held, "there is room again")
        clients[0].close()
        await until(lambda: room.used == 0, "a client that vanished holds nothing")


async def pour(client: TestClient) -> None:
    """Up to 1 MB, as long as it is taken."""
    with contextlib.suppress(ConnectionError, TimeoutError):
        for _ in range(64):
            client.send(b"x" * 16384)
            await asyncio.wait_for(client.writer.drain(), 0.5)


async def test_recipients_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit each gets 452, logged once; one who never stops is cut off."""
    monkeypatch.setattr("relay.accept.session.OVERSHOOT", 50)
    async with running(listener(limits=limits(recipients=10))) as bench, bench.session() as client:
        await client.ask("MAIL FROM:<a@b.c>")
        client.send(b"".join(b"RCPT TO:<u%d@example.com>\r\n" % n for n in range(61)))
        answers = [(await client.reply())[:3] for _ in range(61)]
        assert answers == ["250"] * 10 + ["452"] * 50 + ["421"]
        assert len(bench.events("rejected")) == 1


async def test_refusals_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that asks for what is refused for ever is cut off, though each refusal is no error."""
    monkeypatch.setattr("relay.accept.session.IDLE_COMMANDS", 20)
    conf = listener(limits=limits(message_size=1000))
    async with running(conf) as bench, bench.session() as client:
        client.send(b"MAIL FROM:<a@b.c> SIZE=2000\r\n" * 21)
        answers = [(await client.reply())[:3] for _ in range(21)]
        assert answers == ["552"] * 20 + ["421"]


async def test_a_probe_is_one_debug_line() -> None:
    """Connect and leave: one line at level debug, nothing else."""
    async with running() as bench:
        async with bench.session():
            pass
        await until(lambda: bench.server.connections == 0, "gone")
        assert [(level, event) for level, event, _ in bench.told] == [("debug", "connection")]
        assert "without a word" in str(bench.told)


async def test_resets_leave_nothing() -> None:
    """Connections reset at every stage leave no task, no connection and no draft."""
    stages = (
        b"",
        b"EHLO x\r\n",
        b"EHLO x\r\nMAIL FROM:<a@b.c>\r\nRCPT TO:<b@c.d>\r\nDATA\r\nSubject: s\r\n\r\nhalf",
    )
    async with running() as bench:
        for stage in stages * 5:
            client = await bench.client()
            await client.reply()
            client.send(stage)
            if stage:
                await client.reply()
            sock = client.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.writer.transport.abort()
        await until(lambda: bench.server.connections == 0, "all gone")
        assert len(asyncio.all_tasks()) == 1
        assert bench.spool.stored == []
        assert bench.events("trouble") == []


async def test_sixty_megabytes_over_a_slow_link() -> None:
    """A big scan that outlasts the idle time many times over is taken, as long as it moves."""
    size = 6 << 20  # a tenth of it, and the idle time a thousandth
    conf = listener(limits=limits(idle=0.3, message_size=60 << 20))
    async with running(conf) as bench, bench.session() as client:
        await client.envelope()
        await client.ask("DATA")
        client.send(b"Subject: scan\r\n\r\n")
        line = b"x" * 76 + b"\r\n"
        for _ in range(24):
            client.send(line * (size // 24 // len(line)))
            await client.writer.drain()
            await asyncio.sleep(0.03)
        client.send(b".\r\n")
        assert (await client.reply()).startswith("250")
        assert len(bench.spool.stored[0].content) > size * 0.99
