"""The end of a message's arrival: what is stored, what is answered, and what happens when something breaks."""

from __future__ import annotations

import asyncio
import re

import pytest

from relay.errors import SpoolError, SpoolFull
from relay.message import Reply
from relay.rewrite.contract import Refused
from tests.accept.support import WAIT, Bench, TestClient, limits, listener, running

MESSAGE = b"From: Bob <bob@scanners.local>\r\nSubject: Scan\r\nMessage-ID: <1@x>\r\n\r\nhello\r\n"


async def until(done: object, *, what: str = "condition") -> None:
    """Wait for a condition, without sleeping."""

    async def look() -> None:
        while not done():  # type: ignore[operator]
            await asyncio.sleep(0)

    await asyncio.wait_for(look(), WAIT)


async def start_data(client: TestClient) -> None:
    await client.envelope()
    assert (await client.ask("DATA")).startswith("354")


async def test_what_is_stored() -> None:
    """Exactly what came, after one Received field; envelope, client, route and header facts with it."""
    async with running() as bench, bench.session() as client:
        bench.router.mailboxes = ("one@contoso.com", "two@contoso.com")
        answer = await client.deliver(MESSAGE + b"b\xe4r\r\n.\r\n")
        stored = bench.spool.stored[0]
        assert answer == f"250 2.0.0 Ok: queued as {stored.id}"
        assert re.fullmatch(
            rb"Received: from client \(\[127\.0\.0\.1\]\)\r\n\tby relay\.test with ESMTP id M000000000001;\r\n"
            rb"\t\w{3}, \d{1,2} \w{3} \d{4} \d\d:\d\d:\d\d \+0000\r\n",
            stored.message.header.partition(b"From:")[0],
        )
        assert stored.content.endswith(MESSAGE + b"b\xe4r\r\n")
        message = stored.message
        assert message.lane == "Microsoft 365/one@contoso.com"
        assert message.pool == ("Microsoft 365/one@contoso.com", "Microsoft 365/two@contoso.com")
        assert message.source == "127.0.0.1 bob@scanners.local"
        assert (message.header_from, message.message_id, message.subject) == (
            ("bob@scanners.local",), "<1@x>", "Scan",
        )  # fmt: skip
        assert message.envelope.eight_bit
        assert (message.client.helo, message.client.listener) == ("client", "127.0.0.1:0")
        assert bench.router.asked[0][:2] == ("a@scanners.local", ("bob@scanners.local",))
        accepted = bench.events("accepted")[0]
        assert (accepted["id"], accepted["recipients"]) == (stored.id, 1)
        assert (bench.server.accepted, bench.server.rejected) == (1, 0)


async def test_received_field_cannot_be_forged() -> None:
    """S20: a strange HELO name reaches the Received field only as harmless characters."""
    async with running() as bench, bench.session() as client:
        await client.ask("EHLO evil) by x; (\xe9")
        await client.ask("MAIL FROM:<a@b.c>")
        await client.ask("RCPT TO:<b@example.com>")
        await client.ask("DATA")
        assert (await client.ask(".")).startswith("250")
        first = bench.spool.stored[0].message.header.split(b"\r\n")[0]
        assert first == b"Received: from evil??by?x???????? ([127.0.0.1])" or re.fullmatch(
            rb"Received: from [A-Za-z0-9._:\[\]?-]+ \(\[127\.0\.0\.1\]\)", first
        )


@pytest.mark.parametrize(
    ("where", "error", "code"),
    [
        ("commit", SpoolFull("no space left at /secret/path"), "452 4.3.1"),
        ("write", SpoolFull("no space left at /secret/path"), "452 4.3.1"),
        ("commit", SpoolError("locked"), "451 4.3.0"),
        ("write", SpoolError("locked"), "451 4.3.0"),
        ("commit", OSError(28, "No space left on device", "/secret/path"), "451 4.3.0"),
        ("write", RuntimeError("/secret/path"), "451 4.3.0"),
    ],
)
async def test_spool_faults(where: str, error: Exception, code: str) -> None:
    """S9: whatever breaks in the spool is a temporary refusal without internals; nothing stays; the session goes on,
    and no octet of the message is run as a command."""
    async with running() as bench, bench.session() as client:
        bench.spool.faults[where] = error
        answer = await client.deliver(MESSAGE + b"QUIT\r\n" * 50_000 + b".\r\n")
        assert answer.startswith(code)
        assert "/secret" not in answer
        assert bench.spool.open_drafts == {}
        assert bench.events("trouble")
        bench.spool.faults.clear()
        assert (await client.deliver(MESSAGE + b".\r\n")).startswith("250")


async def test_unexpected_fault_in_the_rules() -> None:
    """An error of ours in routing: 451 4.3.0, the trace in the log, never a 5xx."""
    async with running() as bench, bench.session() as client:
        bench.router.error = KeyError("upstream")
        assert (
            await client.deliver(MESSAGE + b".\r\n") == "451 4.3.0 Something went wrong here; try again later"
        )
        assert "KeyError" in str(bench.events("trouble")[0]["trace"])
        assert bench.spool.open_drafts == {}


async def test_refused_by_the_sender_rules() -> None:
    """Refused: the rules' own reply is what the client is told, after DATA."""
    async with running() as bench, bench.session() as client:
        bench.router.refuse = Refused(Reply(550, "5.7.1", "No rule takes\r\n250 you"))
        assert await client.deliver(MESSAGE + b".\r\n") == "550 5.7.1 No rule takes??250 you"
        assert bench.server.rejected == 1
        assert bench.spool.open_drafts == {}


async def test_room_is_asked_at_mail() -> None:
    """A full spool says so at MAIL, with the size the client announced; trouble asking is 451."""
    async with running() as bench, bench.session() as client:
        bench.spool.room = False
        await client.ask("EHLO x")
        assert (await client.ask("MAIL FROM:<a@b.c> SIZE=12345")).startswith("452 4.3.1")
        assert bench.spool.asked == [12345]
        bench.spool.faults["has_room"] = SpoolError("gone")
        assert (await client.ask("MAIL FROM:<a@b.c>")).startswith("451 4.3.0")
        bench.spool.faults["has_room"] = ValueError("bug")
        assert (await client.ask("MAIL FROM:<a@b.c>")).startswith("451 4.3.0")
        bench.spool.faults.clear()
        bench.spool.room = True
        assert (await client.ask("MAIL FROM:<a@b.c>")).startswith("250")


async def test_commit_survives_the_client() -> None:
    """S8: a client that is gone after its final dot does not undo the commit."""
    async with running() as bench:
        client = await bench.client()
        await client.reply()
        await start_data(client)
        bench.spool.committable.clear()
        client.send(MESSAGE + b".\r\n")
        await asyncio.wait_for(bench.spool.committing.wait(), WAIT)
        client.writer.transport.abort()
        await until(lambda: all(one._eof for one in bench.server._roster.channels))  # type: ignore[union-attr]
        bench.spool.committable.set()
        await asyncio.wait_for(bench.spool.committed.wait(), WAIT)
        await until(lambda: bench.server.connections == 0)
        assert len(bench.spool.stored) == 1


async def test_half_a_message_is_none() -> None:
    """A client that leaves inside DATA or BDAT leaves nothing behind."""
    for verb in (b"DATA\r\n" + MESSAGE, b"BDAT 500\r\n" + MESSAGE, b"BDAT 6\r\nX: y\r\n"):
        async with running() as bench:
            client = await bench.client()
            await client.reply()
            await client.envelope()
            client.send(verb)
            await until(lambda bench=bench: bench.spool.open_drafts)  # type: ignore[misc]
            client.close()
            await asyncio.wait_for(bench.spool.discarded.wait(), WAIT)
            await until(lambda bench=bench: bench.server.connections == 0)  # type: ignore[misc]
            assert bench.spool.stored == []


async def test_a_slow_spool_slows_the_client() -> None:
    """A spool that does not write makes the listener stop reading: memory stays bounded."""
    async with running() as bench:
        client = await bench.client()
        await client.reply()
        await start_data(client)
        bench.spool.writable.clear()
        client.send(MESSAGE)
        piece, sent = b"y" * 76 + b"\r\n", 0
        while sent < 30_000_000:
            client.send(piece * 10_000)
            sent += 780_000
        (channel,) = bench.server._roster.channels  # type: ignore[union-attr]
        await until(lambda: channel._held)
        assert len(channel._buffer) < 1_000_000
        bench.spool.writable.set()
        client.send(b".\r\n")
        assert (await client.reply()).startswith("250")
        assert len(bench.spool.stored[0].body) == sent + 7


async def test_too_much_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """S6: beyond limit and slack, even without any line end, the client is told and cut off."""
    monkeypatch.setattr("relay.accept.transfer.SLACK", 100_000)
    async with running(listener(limits=limits(message_size=1000))) as bench:
        client = await bench.client()
        await client.reply()
        await start_data(client)
        client.send(b"x" * 400_000)
        assert (await client.reply()).startswith("552 5.3.4")
        client.close()
        await until(lambda: bench.server.connections == 0)
        assert bench.spool.open_drafts == {}


async def test_bdat_size_beyond_everything() -> None:
    """A BDAT size that will never be taken closes at once."""
    async with running() as bench, bench.session() as client:
        await client.envelope()
        assert (await client.ask(f"BDAT {10**12} LAST")).startswith("552 5.3.4")
        assert await client.closed() == b""


async def test_logs_cannot_be_forged() -> None:
    """S20: what a client says reaches the log with its control characters visible."""
    async with running() as bench, bench.session() as client:
        await client.ask("EHLO x")
        await client.envelope()
        answer = await client.ask('RCPT TO:<"\u202eb"@example.com>')
        assert answer.startswith("501 5.1.3")
        for fields in (fields for _, _, fields in bench.told):
            assert "\n" not in str(fields)


async def test_pipelined_answers_share_a_packet() -> None:
    """Commands sent together are answered together (RFC 2920)."""
    async with running() as bench, bench.session() as client:
        client.send(b"EHLO x\r\nMAIL FROM:<a@b.c>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n")
        first = await asyncio.wait_for(client.reader.read(65536), WAIT)
        assert first.endswith(b"354 End data with <CR><LF>.<CR><LF>\r\n")


async def test_ehlo_answer() -> None:
    """All we do is advertised (S26), with the listener's own size; one client's EHLO changes nothing for another (S13)."""
    async with running(listener(limits=limits(message_size=12345))) as bench:
        seen = []
        for _ in range(2):
            async with bench.session() as client:
                seen.append(await client.ask("EHLO x"))
        words = {line[4:] for line in seen[0].split("\n")[1:]}
        assert words == {
            "SIZE 12345",
            "8BITMIME",
            "SMTPUTF8",
            "PIPELINING",
            "DSN",
            "CHUNKING",
            "ENHANCEDSTATUSCODES",
        }
        assert seen[0] == seen[1]


async def test_any_bench_is_empty_at_the_end() -> None:
    """QUIT ends the connection and nothing of it is kept."""
    async with running() as bench:
        for _ in range(3):
            await one_visit(bench)
        await until(lambda: bench.server.connections == 0)
        assert bench.server._roster.gate.open == 0  # type: ignore[union-attr]


async def one_visit(bench: Bench) -> None:
    async with bench.session() as client:
        assert (await client.ask("QUIT")).startswith("221")
        assert await client.closed() == b""
