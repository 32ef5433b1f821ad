"""sendMail in its MIME form: the whole message in base64, streamed from the spool (facts 6.1)."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from urllib.parse import quote

from relay.deliver.graph.contract import Answer, Http, WriteDown
from relay.errors import SpoolError
from relay.message import Body

BLOCK = 48 * 1024
"""Octets encoded at once."""


def encoded_size(octets: int) -> int:
    """Length of base64 without line breaks (RFC 4648 section 4)."""
    return (octets + 2) // 3 * 4


async def send_mime(http: Http, mailbox: str, header: bytes, body: Body, begun: WriteDown) -> Answer:
    """One sendMail. ``begun`` is awaited before the last piece leaves; a 401 is tried once more, with a fresh token.

    Raises Lost, TokenError, and SpoolError when the message cannot be read or the attempt not be written down.
    """
    answer = await _once(http, mailbox, header, body, begun)
    return await _once(http, mailbox, header, body, begun) if answer.status == 401 else answer


async def _once(http: Http, mailbox: str, header: bytes, body: Body, begun: WriteDown) -> Answer:
    size = len(header) + body.size
    return await http.call(
        "POST",
        f"/users/{quote(mailbox, safe='@')}/sendMail",
        body=_held_back(_encoded(header, body), begun, size),
        length=encoded_size(size),
        content_type="text/plain",
    )


async def _encoded(header: bytes, body: Body) -> AsyncIterator[bytes]:
    pending = header
    async for piece in body.chunks(BLOCK):
        pending += piece
        if len(pending) >= BLOCK:
            cut = len(pending) // 3 * 3
            yield base64.b64encode(pending[:cut])
            pending = pending[cut:]
    if pending:
        yield base64.b64encode(pending)


async def _held_back(pieces: AsyncIterator[bytes], begun: WriteDown, size: int) -> AsyncIterator[bytes]:
    """The pieces, the last one only when the attempt is written down."""
    last, total = b"", 0
    async for piece in pieces:
        if last:
            yield last
        last, total = piece, total + len(piece)
    if total != encoded_size(size):
        raise SpoolError("The stored message has another size than it should have.")
    await begun()
    yield last
