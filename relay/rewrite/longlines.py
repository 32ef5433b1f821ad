"""Are there lines longer than SMTP allows? RFC 5321 section 4.5.3.1.6: 998 octets and CRLF.

Looks only once in about a thousand octets, so that asking costs next to nothing, whatever the message's size.
"""

from __future__ import annotations

from relay.rewrite.fields import LINE_LIMIT

_WHOLE = LINE_LIMIT + 2
"""Octets of the longest line with its CRLF."""


class LongLines:
    """Watches octets go by, in blocks of any cut; line ends are CRLF."""

    __slots__ = ("_open", "found")

    def __init__(self) -> None:
        self._open = 0
        self.found = False
        """Whether a line was too long."""

    def feed(self, block: bytes) -> None:
        """The next octets."""
        if self.found or not block:
            return
        rfind, start, size = block.rfind, -self._open, len(block)
        latest = size - _WHOLE
        while start <= latest:
            end = rfind(b"\n", start if start > 0 else 0, start + _WHOLE)
            if end < 0:
                self.found = True
                return
            start = end + 1
        last = rfind(b"\n", max(start, 0))
        self._open = size - (last + 1 if last >= 0 else start)

    def finish(self) -> bool:
        """The end: the last line may lack its CRLF. Whether any line was too long; the watch starts anew."""
        found = self.found or self._open > LINE_LIMIT
        self._open, self.found = 0, False
        return found
