"""Reading a message body: where it ends, what its line ends look like, and its header block.

End of data is CRLF.CRLF and nothing else (RFC 5321 section 4.1.1.4); leading dots are taken off (4.5.2). Bare
CR or LF and overlong lines do not stop the reading, they are noted and judged at the end, as Exchange does.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from email.header import decode_header, make_header
from email.utils import getaddresses

from relay.simulator.channel import Channel
from relay.simulator.store import Incoming

LINE_LENGTH = 998  # octets without CRLF; RFC 5321 section 4.5.3.1.6
_END = b"\r\n.\r\n"
_FIELD = re.compile(r"([!-9;-~]+)[ \t]*:[ \t]*(.*)", re.S)


class Body:
    """A message being received; every octet goes to ``incoming`` until ``size_bound`` is passed."""

    def __init__(self, incoming: Incoming, header_bound: int, size_bound: int) -> None:
        self.incoming = incoming
        self.size = 0
        self.bare_newline = False
        self.long_line = False
        self.header_too_large = False
        self.too_large = False
        self._header = bytearray()
        self._header_done = False
        self._header_bound = header_bound
        self._size_bound = size_bound
        self._line = 0  # octets of the line that is not ended yet
        self._cr = False  # the piece before ended in CR

    def add(self, data: bytes) -> None:
        """Take a piece of the message, dots already taken off."""
        if not data:
            return
        self.size += len(data)
        self._check_lines(data)
        if not self._header_done:
            self._collect_header(data)
        if self._size_bound and self.size > self._size_bound:
            self.too_large = True
            self.incoming.discard()
        else:
            self.incoming.write(data)

    def _check_lines(self, data: bytes) -> None:
        if self._cr:
            data = b"\r" + data
            self._line -= 1
        self._cr = data.endswith(b"\r")
        pairs = data.count(b"\r\n")
        if data.count(b"\n") != pairs or data.count(b"\r") - self._cr != pairs:
            self.bare_newline = True
        lines = data.split(b"\r\n")
        first = self._line + len(lines[0])
        if len(lines) == 1:
            self._line = first
        else:
            self._line = len(lines[-1])
            first = max(first, max(map(len, lines[1:])))
        if first > LINE_LENGTH + self._cr:
            self.long_line = True

    def _collect_header(self, data: bytes) -> None:
        """Keep everything up to the empty line, within the bound."""
        start = max(0, len(self._header) - 3)
        self._header += data
        end = 0 if self._header.startswith(b"\r\n") else self._header.find(b"\r\n\r\n", start)
        if end >= 0:
            del self._header[end + 2 if end else 0 :]
            self._header_done = True
        if len(self._header) > self._header_bound > 0:
            self.header_too_large = self._header_done = True

    def finish(self) -> None:
        """The end has been seen: a CR that still waits for its LF is a bare one."""
        if self._cr:
            self.bare_newline = True

    def header(self) -> Header:
        """The header block as far as it was kept."""
        return Header(bytes(self._header))


class Header:
    """The fields of a header block, unfolded, in their order."""

    def __init__(self, block: bytes) -> None:
        text = block.decode("utf-8", "surrogateescape")
        unfolded = re.sub(r"\r?\n(?=[ \t])", "", text)
        matches = (_FIELD.fullmatch(line) for line in re.split(r"\r?\n", unfolded) if line)
        self._addresses: dict[str, list[str]] = {}
        self.fields = [(match[1].lower(), match[2]) for match in matches if match]

    def all(self, name: str) -> list[str]:
        """Every value of a field, by its name in lower case."""
        return [value for field, value in self.fields if field == name]

    def text(self, name: str) -> str:
        """The first value with encoded words decoded (RFC 2047), or nothing."""
        value = next(iter(self.all(name)), "").strip().encode("utf-8", "replace").decode()
        if "=?" not in value:
            return value
        try:
            return str(make_header(decode_header(value)))
        except (ValueError, LookupError):
            return value

    def addresses(self, name: str) -> list[str]:
        """The addresses of all fields of this name; an unreadable one gives an empty text."""
        if name not in self._addresses:
            self._addresses[name] = [address for _, address in getaddresses(self.all(name))]
        return self._addresses[name]


async def read_data(channel: Channel, body: Body, begun: Callable[[], Awaitable[None]]) -> None:
    """Read what follows 354, up to CRLF.CRLF; ``begun`` is called after the first piece.

    Raises Ended and TimeoutError from the channel. What follows the end stays in the channel.
    """
    pending = b"\r\n"  # as if a line had ended just before: a dot may come first
    skip = 2  # octets of that invention that must not be stored
    first = True
    while True:
        data = pending + await channel.chunk()
        if first:
            await begun()
            first = False
        end = data.find(_END)
        if end >= 0:
            body.add(data[: end + 2].replace(b"\r\n.", b"\r\n")[skip:])
            channel.unread(data[end + len(_END) :])
            body.finish()
            return
        cut = _cut(data)
        if cut:
            body.add(data[:cut].replace(b"\r\n.", b"\r\n")[skip:])
            skip = 0
        pending = data[cut:]


def _cut(data: bytes) -> int:
    """Where a piece may be cut: before its last CRLF, so that what follows keeps its beginning of line."""
    cut = data.rfind(b"\r\n")
    if len(data) - cut < 64 * 1024 and cut >= 0:
        return cut
    return len(data) - data.endswith(b"\r")


async def read_chunk(channel: Channel, body: Body | None, size: int) -> None:
    """Read the octets of one BDAT (RFC 3030 section 2); without a body they are thrown away."""
    while size:
        data = await channel.chunk()
        if len(data) > size:
            channel.unread(data[size:])
            data = data[:size]
        size -= len(data)
        if body is not None:
            body.add(data)
