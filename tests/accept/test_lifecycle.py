"""Connections: who may have one, how long it may be silent, how the listener starts, reloads and stops."""

from __future__ import annotations

import asyncio
import errno
import socket

import pytest

from relay.accept.listener import ListenerServer, explained
from tests.accept.support import (
    HOST,
    WAIT,
    TestClient,
    all_settings,
    free_port,
    limits,
    listener,
    networks,
    running,
)
from tests.accept.test_journey import MESSAGE, start_data, until


async def test_silence_is_answered_with_421() -> None:
    """S7: a silent client is told 421 4.4.2 before the close; in the greeting, between commands, inside DATA."""
    async with running(listener(limits=limits(idle=0.2))) as bench:
        silent = await bench.client()
        await silent.reply()
        assert (await silent.reply()).startswith("421 4.4.2")
        in_data = await bench.client()
        await in_data.reply()
        await start_data(in_data)
        assert (await in_data.reply()).startswith("421 4.4.2")
        assert await in_data.closed() == b""
        assert bench.spool.open_drafts == {}
        silent.close()
        in_data.close()


async def test_progress_keeps_a_transfer_alive() -> None:
    """S7: a transfer that goes on is not cut off, however much longer than ``idle`` it takes."""
    async with running(listener(limits=limits(idle=0.2))) as bench, bench.session() as client:
        await start_data(client)
        client.send(MESSAGE)
        loop = asyncio.get_running_loop()
        end = loop.time() + 0.9
        while loop.time() < end:
            client.send(b"line\r\n")
            await client.writer.drain()
            await asyncio.sleep(0)
        assert (await client.ask(".")).startswith("250")


async def test_half_a_line_wins_no_time() -> None:
    """Octets without a line end do not keep a connection open."""
    async with running(listener(limits=limits(idle=0.2))) as bench, bench.session() as client:
        replied = asyncio.ensure_future(client.reply())
        while not replied.done():
            client.send(b"x")
            await asyncio.wait([replied], timeout=0.02)
        assert replied.result().startswith("421 4.4.2")
        assert bench.server.accepted == 0


async def test_a_busy_spool_is_not_the_clients_fault() -> None:
    """S7: while we store, the client's time stands still."""
    async with running(listener(limits=limits(idle=0.2))) as bench, bench.session() as client:
        await start_data(client)
        bench.spool.committable.clear()
        client.send(MESSAGE + b".\r\n")
        answer = asyncio.ensure_future(client.reply())
        await asyncio.wait([answer], timeout=0.7)
        assert not answer.done()
        bench.spool.committable.set()
        assert (await answer).startswith("250")


async def test_connection_limits() -> None:
    """S12: connections in all and by client are bounded; room comes back when a client leaves."""
    async with running(listener(limits=limits(connections_per_client=2))) as bench:
        async with bench.session(), bench.session():
            third = await bench.client()
            assert "connections_per_client" in await third.reply()
            assert await third.closed() == b""
            third.close()
        await until(lambda: bench.server.connections == 0)
        async with bench.session() as again:
            assert (await again.ask("NOOP")).startswith("250")
    async with running(listener(limits=limits(connections=1))) as bench, bench.session():
        second = await bench.client()
        assert (await second.reply()).startswith("421 4.7.0")
        assert bench.events("rejected")[0]["phase"] == "connection"


async def test_outside_the_networks() -> None:
    """A client outside ``allow`` is told which setting and closed; one log line."""
    async with running(listener(allow=networks("10.0.0.0/8"))) as bench:
        client = await bench.client()
        answer = await client.reply()
        assert answer.startswith("554 5.7.1")
        assert "allow" in answer
        assert await client.closed() == b""
        assert len(bench.events("rejected")) == 1
        assert bench.server.rejected == 1


async def test_messages_per_minute() -> None:
    """More messages than allowed in a minute: 451 4.7.1 naming the setting."""
    async with running(listener(limits=limits(messages_per_minute_per_client=2))) as bench:
        async with bench.session() as client:
            for _ in range(2):
                assert (await client.deliver(MESSAGE + b".\r\n")).startswith("250")
            await client.ask("EHLO x")
            answer = await client.ask("MAIL FROM:<a@b.c>")
            assert answer.startswith("451 4.7.1")
            assert "messages_per_minute_per_client" in answer
        assert bench.server.accepted == 2


async def test_endless_line() -> None:
    """A line without end is bounded in memory and then closed."""
    async with running() as bench, bench.session() as client:
        client.send(b"x" * 400_000)
        assert (await client.reply()).startswith("500 5.5.2")
        assert bench.server.accepted == 0


async def test_too_many_idle_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Endless NOOPs end; a pooled connection's few do not matter."""
    monkeypatch.setattr("relay.accept.session.IDLE_COMMANDS", 300)
    async with running() as bench, bench.session() as client:
        client.send(b"NOOP\r\n" * 301)
        answers = [await client.reply() for _ in range(301)]
        assert set(answers[:300]) == {"250 2.0.0 Ok"}
        assert answers[300].startswith("421 4.7.0")
        assert bench.events("trouble") == []


async def test_a_client_that_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replies nobody reads stay bounded in memory; once they are read, every command was answered."""
    monkeypatch.setattr("relay.accept.session.IDLE_COMMANDS", 1 << 30)
    async with running() as bench, bench.session(limit=65536) as client:
        client.send(b"EHLO x\r\n" * 60_000)
        (channel,) = bench.server._roster.channels  # type: ignore[union-attr]
        await until(lambda: channel._choked and channel._held)
        assert len(channel._buffer) < 500_000
        assert sum(map(len, channel._out)) + channel._wire.get_write_buffer_size() < 500_000
        answered = 0
        while answered < 60_000:
            octets = await asyncio.wait_for(client.reader.read(1 << 20), WAIT)
            assert octets
            answered += octets.count(b"S\r\n")  # each answer ends with ENHANCEDSTATUSCODES
        assert answered == 60_000


async def test_drain_idle_and_busy() -> None:
    """S10: stopping: idle clients get 421 4.3.2, a message under way is finished and answered, then 421."""
    async with running() as bench:
        idle, busy = await bench.client(), await bench.client()
        await idle.reply()
        await busy.reply()
        await start_data(busy)
        draining = asyncio.ensure_future(bench.server.drain(WAIT))
        assert (await idle.reply()).startswith("421 4.3.2")
        assert await idle.closed() == b""
        idle.close()
        busy.send(MESSAGE + b".\r\n")
        assert (await busy.reply()).startswith("250 2.0.0 Ok: queued")
        assert (await busy.reply()).startswith("421 4.3.2")
        busy.close()
        await asyncio.wait_for(draining, WAIT)
        assert len(bench.spool.stored) == 1
        with pytest.raises(OSError, match=r".*"):
            await TestClient.open(bench.server.address)


async def test_drain_deadline() -> None:
    """At the deadline a client inside a message gets 421 4.3.2, and its half message is gone."""
    async with running() as bench:
        client = await bench.client()
        await client.reply()
        await start_data(client)
        await asyncio.wait_for(bench.server.drain(0.05), WAIT)
        assert (await client.reply()).startswith("421 4.3.2")
        await until(lambda: not bench.spool.open_drafts)
        assert bench.spool.stored == []
        client.close()


async def test_drain_before_start() -> None:
    """Draining what never started does nothing."""
    async with running() as bench:
        other = ListenerServer(listener(), bench.intake, hostname=HOST)
        await other.drain(0.0)
        assert (other.connections, other.accepted, other.rejected) == (0, 0, 0)


async def test_update_is_for_new_connections() -> None:
    """A reload: new connections follow the new settings, open ones keep theirs."""
    async with running() as bench, bench.session() as old:
        bench.server.update(listener(limits=limits(message_size=777)), bench.intake)
        async with bench.session() as new:
            assert "SIZE 777" in await new.ask("EHLO x")
        assert "SIZE 777" not in await old.ask("EHLO x")


async def test_port_in_use_is_explained() -> None:
    """A port in use says so, with the remedy."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        async with running() as bench:
            conf = listener(port=port, bind=f"127.0.0.1:{port}")
            server = ListenerServer(conf, bench.intake, hostname=HOST)
            with pytest.raises(OSError, match=f"127.0.0.1:{port}.*another program") as caught:
                await server.start()
            assert caught.value.errno == errno.EADDRINUSE


def test_other_faults_are_explained() -> None:
    """No right to a low port, and an address this machine has not."""
    assert "CAP_NET_BIND_SERVICE" in str(explained(OSError(errno.EACCES, "Permission denied"), listener()))
    assert "no such address" in str(explained(OSError(errno.EADDRNOTAVAIL, "x"), listener()))


async def test_socket_handed_in() -> None:
    """A socket that is bound already is used as it is."""
    port = free_port()
    sock = socket.create_server(("127.0.0.1", port))
    async with running() as bench:
        server = ListenerServer(listener(), bench.intake, hostname=HOST, sock=sock)
        await server.start()
        assert server.address == ("127.0.0.1", port)
        client = await TestClient.open(server.address)
        assert await client.reply() == "220 relay.test ESMTP"
        client.close()
        await server.drain(0.0)


async def test_without_postmaster() -> None:
    """A postmaster is not required: without one, RCPT TO:<postmaster> is 550."""
    async with running(config=all_settings(postmaster=None)) as bench, bench.session() as client:
        await client.ask("MAIL FROM:<a@b.c>")
        assert (await client.ask("RCPT TO:<postmaster>")).startswith("550 5.1.1")


@pytest.mark.parametrize("turns", range(5))
async def test_a_client_accepted_just_as_the_port_is_handed_over_is_greeted(turns: int) -> None:
    """Whatever the event loop has done for it by then: nobody is left without a word."""
    async with running() as bench:
        with socket.create_connection(bench.server.address, 5) as client:
            for _ in range(turns):
                await asyncio.sleep(0)
            await ListenerServer.pause_all([bench.server])
            assert bench.server.paused
            await bench.server.resume()
            assert (await asyncio.to_thread(client.recv, 3)) == b"220"
            assert bench.server.connections == 1
