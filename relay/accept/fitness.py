"""Can this header block be made what Exchange takes? Asked at acceptance, while the device's owner can still be told."""

from __future__ import annotations

import asyncio

from relay.accept.incoming import HEADER_LIMIT
from relay.message import Reply
from relay.rewrite.contract import Route
from relay.rewrite.fields import cut, shown_name, too_long
from relay.rewrite.longlines import LongLines
from relay.rewrite.pipeline import rewrite

SURELY = 48 * 1024
"""Octets of a header block that stays below the limit whatever the rewrite does to it."""


async def header_refusal(header: bytes, route: Route, sender: str, now: float) -> Reply | None:
    """Why the header block cannot be submitted by any means; None when it can.

    Costs nothing for ordinary ones; the others are tried in a thread, since a hostile one takes its time.
    """
    if len(header) <= SURELY and not _has_long_lines(header):
        return None
    return await asyncio.to_thread(_refusal, header, route, sender, now)


def _refusal(header: bytes, route: Route, sender: str, now: float) -> Reply | None:
    made = rewrite(header, route, route.mailboxes[0], sender=sender, message_id="trial", received=now).header
    if len(made) > HEADER_LIMIT:
        return Reply(552, "5.3.4", "The header block is larger than 256 kB")
    fields, _, _ = cut(made)
    for _, raw in fields:
        if too_long(raw):
            name = shown_name(raw)[:60]
            return Reply(
                550, "5.6.0", f"A line of the header field {name} is over 998 octets and cannot be folded"
            )
    return None


def _has_long_lines(header: bytes) -> bool:
    watch = LongLines()
    watch.feed(header)
    return watch.finish()
