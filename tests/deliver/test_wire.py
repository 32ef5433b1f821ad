"""Replies of one line are read at once, and mean what aiosmtplib's own parser makes of them."""

from __future__ import annotations

import asyncio

import pytest
from aiosmtplib import SMTPResponseException
from aiosmtplib.protocol import SMTPProtocol

from relay.deliver.wire import Wire

REPLIES = [
    b"250 2.1.0 Sender OK\r\n", b"354 Start mail input; end with <CRLF>.<CRLF>\r\n", b"250  blanks \t \r\n", b"250 \r\n",
    b"250 bare line end\n", b"550 5.1.1 caf\xc3\xa9 \xff\r\n", b"250\r\n", b"250-one\r\n250 two\r\n", b"421 4.3.2 \r\r\n",
    b" 25 odd\r\n", b"+25 odd\r\n", b"no reply\r\n", b"\r\n", b"250 half", b"25\r\n", b"250 " + b"x" * 9000 + b"\r\n",
]  # fmt: skip


def heard(parse, buffer: bytearray) -> object:
    try:
        return parse(), bytes(buffer)
    except SMTPResponseException as error:
        return type(error), error.code


@pytest.mark.parametrize("octets", REPLIES)
async def test_a_reply_means_what_aiosmtplib_reads(octets):
    theirs = SMTPProtocol(asyncio.get_running_loop())
    theirs._buffer.extend(octets + b"250 next\r\n" * octets.endswith(b"\n"))
    ours = Wire()
    ours._buffer.extend(theirs._buffer)
    wanted = heard(theirs._read_response_from_buffer, theirs._buffer)
    assert heard(lambda: ours._one_line() or ours._read_response_from_buffer(), ours._buffer) == wanted


async def test_the_usual_reply_takes_the_short_way():
    wire = Wire()
    wire._buffer.extend(REPLIES[0] + b"250-more\r\n250 end\r\n")
    assert wire._one_line() == (250, "2.1.0 Sender OK")
    assert wire._one_line() is None
