"""What would leave for Exchange: a stored message through today's rewrite, the fitting of lines and the dot-stuffing."""

from __future__ import annotations

import re
from typing import Any

from relay.deliver.fitting import fit
from relay.deliver.stuffing import Stuffing
from relay.message import BytesBody
from relay.rewrite.contract import Route
from relay.rewrite.fields import cut
from relay.rewrite.pipeline import rewrite

MAILBOX = "notifications@contoso.com"
ROUTE = Route("Microsoft 365", (MAILBOX,), MAILBOX, "keep", "original")
ONCE = {b"from", b"date", b"sender", b"reply-to", b"to", b"cc", b"message-id", b"in-reply-to", b"references",
        b"subject", b"mime-version", b"content-type", b"content-transfer-encoding"}  # fmt: skip


class Submitted:
    """One message as it leaves, the final dot included."""

    def __init__(self, octets: bytes, header: bytes, notes: tuple[str, ...], sealed: bool) -> None:
        self.octets = octets
        self.header = header
        self.notes = notes
        self.sealed = sealed

    def faults(self) -> list[str]:
        """What Exchange would refuse, or must never see."""
        fields, _, _ = cut(self.header)
        names = [name for name, _ in fields]
        lines = self.octets.split(b"\r\n")
        found = {
            "bare CR or LF": b"\r" in b"".join(lines) or b"\n" in b"".join(lines),
            "a line over 998 octets": not self.sealed and max(map(len, lines)) > 999,
            "a field twice": any(names.count(one) > 1 for one in ONCE),
            "no single From": names.count(b"from") != 1 or f"{MAILBOX}".encode() not in self.header,
            "a field is missing": not {b"date", b"message-id", b"to"} <= set(names),
            "Bcc": bool({b"bcc", b"resent-bcc"} & set(names)),
            "a header over 256 kB": len(self.header) > 256 * 1024,
            "8-bit header": not self.header.isascii(),
            "an end of data inside": re.search(rb"\r\n\.\r\n", self.octets[:-5] + b"..") is not None,
            "no end of data": not self.octets.endswith(b"\r\n.\r\n"),
        }
        return [what for what, wrong in found.items() if wrong]


async def submitted(stored: Any) -> Submitted:
    """Made from what the fake spool keeps."""
    header = stored.message.header
    made = rewrite(
        header,
        ROUTE,
        MAILBOX,
        sender=stored.message.envelope.sender,
        message_id="0123456789abc",
        received=1.7e9,
    )
    body = stored.content[len(header) :]
    fitted = await fit(made.header, BytesBody(body))
    assert stored.message.envelope.long_lines or fitted.body.size == len(body)
    stuffing = Stuffing()
    octets = stuffing.feed(fitted.header)
    async for block in fitted.body.chunks(1000):
        octets += stuffing.feed(block)
    sealed = any("left as " in note for note in fitted.notes)
    return Submitted(octets + stuffing.finish(), fitted.header, made.notes + fitted.notes, sealed)
