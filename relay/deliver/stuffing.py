"""The message as it travels after DATA: dots doubled, line ends CRLF and nothing else (RFC 5321 sections 2.3.8, 4.5.2)."""

from __future__ import annotations

import re

from relay.rewrite.lineends import only_crlf

_DOTTED = re.compile(rb"\n\.")
BARE = re.compile(rb"\r\n|\r|\n")


class Stuffing:
    """Feeds blocks of any cut through unchanged but for dots and bare CR or LF; keeps at most one octet back."""

    __slots__ = ("_held_cr", "_line_start", "repaired")

    def __init__(self) -> None:
        self._line_start = True
        self._held_cr = False
        self.repaired = False
        """Whether a bare CR or LF was made CRLF."""

    def feed(self, block: bytes) -> bytes:
        """The block as it is sent."""
        if self._held_cr:
            block = b"\r" + block
            self._held_cr = False
        if block.endswith(b"\r"):  # its LF may be the first octet of the next block
            block = block[:-1]
            self._held_cr = True
        return self._convert(block) if block else b""

    def _convert(self, block: bytes) -> bytes:
        if not only_crlf(block):
            block = BARE.sub(b"\r\n", block)
            self.repaired = True
        dotted = self._line_start and block.startswith(b".")
        self._line_start = block.endswith(b"\r\n")
        if b"." in block:  # in most blocks of large messages there is not one
            block = _DOTTED.sub(b"\n..", block)
        return b"." + block if dotted else block

    def finish(self) -> bytes:
        """What ends the message: CRLF if its last line has none, and the final dot."""
        if self._held_cr:
            self._held_cr = False
            self.repaired = True
            return b"\r\n.\r\n"
        return b".\r\n" if self._line_start else b"\r\n.\r\n"
