"""A stored message as Graph's JSON: the ``message`` without its files, and the files, ready to be read in pieces.

The body streams through the parser once; what it decodes lies in a temporary file while the conversion is open.
Memory is bounded by the size of a piece and of the text that becomes the body, whatever the message weighs.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from relay.deliver.graph.content import Attachment, Content, choose_content
from relay.deliver.graph.packing import pack
from relay.deliver.graph.properties import Properties
from relay.deliver.graph.structure import Parser, Store
from relay.deliver.parcel import Parcel
from relay.message import Body, Recipient
from relay.rewrite.fields import Field, cut, regular

PIECE = 262144
"""Octets of the body that are parsed at once, in a thread: about a millisecond's work."""

NOTES_LIMIT = 25
"""Notes of one message; they go into its trace."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Converted:
    """The message as Graph takes it. Valid while the conversion is open."""

    message: dict[str, Any]
    """Graph's ``message`` (a draft's JSON), without ``attachments``."""
    attachments: tuple[Attachment, ...]
    notes: tuple[str, ...]
    """What is not exactly as it was, for the trace."""
    store: Store

    async def read(self, attachment: Attachment, offset: int, size: int) -> bytes:
        """Octets of a file, from ``offset`` on; fewer at its end."""
        size = min(size, attachment.size - offset)
        return await in_thread(lambda: self.store.read(attachment.start + offset, size))


@contextlib.asynccontextmanager
async def convert(parcel: Parcel, mailbox: str, recipients: Sequence[Recipient]) -> AsyncIterator[Converted]:
    """Read the message and sort it into JSON and files; the temporary file is gone when the block is left.

    Raises TooManyParts, NoRoom, and what reading the stored body raises.
    """
    with Store() as store:
        fields, rest, _ = cut(regular(parcel.header))
        parser = Parser(fields, store)
        await _parse(parser, rest, parcel.body)
        content = await in_thread(lambda: pack(choose_content(parser.root, store), store))
        yield _converted(fields, mailbox, recipients, parser, content, store)


async def _parse(parser: Parser, rest: bytes, body: Body) -> None:
    if rest:
        await in_thread(lambda: parser.feed(rest))
    async for piece in body.chunks(PIECE):
        await in_thread(_feeding(parser, piece))
    await in_thread(parser.close)


def _feeding(parser: Parser, piece: bytes) -> Callable[[], None]:
    return lambda: parser.feed(piece)


def _converted(
    fields: list[Field],
    mailbox: str,
    recipients: Sequence[Recipient],
    parser: Parser,
    content: Content,
    store: Store,
) -> Converted:
    properties = Properties(fields, mailbox, recipients)
    message = properties.message()
    message["body"] = {"contentType": "html" if content.html else "text", "content": content.text}
    notes = [*properties.notes, *content.notes]
    if parser.unclosed:
        notes.append("the message ends before its last boundary: it may be cut off")
    if len(notes) > NOTES_LIMIT:
        notes[NOTES_LIMIT:] = [f"and {len(notes) - NOTES_LIMIT} more"]
    return Converted(message, content.attachments, tuple(notes), store)


async def in_thread(work: Callable[[], T]) -> T:
    """Do a short piece of work off the event loop. Cancelled, it is waited for: the file must not close under it."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def to_json(value: Mapping[str, Any]) -> bytes:
    """JSON as it is sent: UTF-8, no blanks, so that a text costs little more than its own octets."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
