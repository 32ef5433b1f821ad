"""Lines over 998 octets on their way out: short ones at the server, the announced size true, memory bounded, all said."""

from __future__ import annotations

import asyncio
import email
import email.policy
import json
import tracemalloc
from collections.abc import AsyncIterator

import pytest

from relay.deliver.fitting import fit
from relay.errors import SpoolError
from relay.message import BytesBody, Content, Result
from relay.spool.records import pack_details, read_claim
from tests.deliver.desk import HEADER, MAILBOX, Desk, make_claim
from tests.fakes.spool import new_message

LONG = b"caf\xc3\xa9 and a report of one line; " * 100
BODY = b"short\r\n" + LONG + b"\r\n"


class Repeated:
    """A body of many equal blocks that never exists as a whole."""

    def __init__(self, block: bytes, count: int) -> None:
        self.block, self.count = block, count
        self.size = len(block) * count

    async def chunks(self, size: int = 65536) -> AsyncIterator[bytes]:
        for _ in range(self.count):
            for start in range(0, len(self.block), size):
                yield self.block[start : start + size]
            await asyncio.sleep(0)


async def test_the_server_sees_short_lines(desk: Desk) -> None:
    """The message arrives encoded, reads the same, SIZE says what comes, and the trace says what was done."""
    connection = await desk.courier.open("M365", MAILBOX)
    report = await connection.submit(
        make_claim(long_lines=True), Content(HEADER, BytesBody(BODY)), desk.begin
    )
    await connection.close()
    assert {one.result for one in report.outcomes.values()} == {Result.SENT}
    (message,) = desk.server.messages
    assert max(map(len, message.data.split(b"\r\n"))) <= 998
    assert f"SIZE={message.size}" in message.mail
    read = email.message_from_bytes(message.data, policy=email.policy.SMTP)
    assert read.get_payload(decode=True) == BODY
    assert read["Content-Type"] == 'text/plain; charset="utf-8"'
    assert "encoded as quoted-printable" in report.details["repairs"]


async def test_a_line_that_had_to_stay_is_named(desk: Desk) -> None:
    """Exchange's complaint about a line in a signed part is explained at once, not retried as a broken dialogue."""
    desk.server.script.answers["BODY"] = [b"500 5.5.2 Syntax error, a line is longer than 998 octets"]
    signed = b"-----BEGIN PGP SIGNED MESSAGE-----\r\n\r\n" + LONG + b"\r\n"
    connection = await desk.courier.open("M365", MAILBOX)
    report = await connection.submit(
        make_claim(long_lines=True), Content(HEADER, BytesBody(b"see below\r\n" + signed)), desk.begin
    )
    await connection.close()
    (outcome,) = report.outcomes.values()
    assert (outcome.result, outcome.code) == (Result.FAILED, "line-too-long")
    assert "quoted-printable" in outcome.remedy


async def test_a_body_that_was_looked_at_is_not_read_again(desk: Desk) -> None:
    """What the listener saw to be short enough goes out untouched, in one reading."""
    body = Repeated(b"line\r\n", 3)
    connection = await desk.courier.open("M365", MAILBOX)
    await connection.submit(make_claim(long_lines=False), Content(HEADER, body), desk.begin)
    await connection.close()
    assert desk.server.messages[0].data.endswith(b"line\r\n" * 3)
    fitted = await fit(HEADER, body)
    assert fitted.body is body
    assert fitted.header is HEADER


@pytest.mark.parametrize(
    "block", [b"x" * 65536, b"\xff" * 65536, b"--b\r\n" * 10_000 + b"y" * 2000 + b"\r\n"]
)
async def test_memory_does_not_grow_with_the_message(block: bytes) -> None:
    """20 MB of one line, of raw octets, of boundaries: a few blocks are held, and others get their turn."""
    header = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    watch = asyncio.create_task(others())
    tracemalloc.start()
    try:
        fitted = await fit(header, Repeated(b"--b\r\nContent-Type: text/plain\r\n\r\n" + block, 40))
        size = 0
        async for piece in fitted.body.chunks():
            assert len(piece) <= 65536
            size += len(piece)
        assert size == fitted.body.size
        assert tracemalloc.get_traced_memory()[1] < 8 * 1024 * 1024
    finally:
        tracemalloc.stop()
        watch.cancel()
    assert turns > 40


async def test_a_disk_fault_is_the_spools() -> None:
    """A body that cannot be read while it is looked at says so as the spool does."""

    class Broken(Repeated):
        async def chunks(self, size: int = 65536) -> AsyncIterator[bytes]:
            yield b"x" * 2000
            raise OSError(5, "Input/output error")

    with pytest.raises(SpoolError, match="cannot be read"):
        await fit(b"Subject: s\r\n\r\n", Broken(b"", 0))


def test_messages_of_an_earlier_release_are_looked_at() -> None:
    """What was stored before lines were counted says nothing, and counts as unknown."""
    details = json.loads(pack_details(new_message()))
    assert details.pop("l") is True
    row = (
        1, "lane", "a@b.c", "127.0.0.1", 0, 10, 0, "<1@x>", "", "s", json.dumps(details), 0, 0, 0, 0, None, "subject", None,
    )  # fmt: skip
    assert read_claim(row, ()).envelope.long_lines is True
