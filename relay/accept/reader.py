"""Where a message ends: the DATA and BDAT readers, free of I/O, working on blocks rather than lines.

End of data is CRLF.CRLF and nothing else (RFC 5321 section 4.1.1.4); bare LF becomes CRLF here, so no later room
can be made to see another end than this one did. Bare CR is mended later (`relay.accept.incoming`), because what
it becomes depends on whether it stands in the header block.
"""

from __future__ import annotations

import re

from relay.rewrite.lineends import only_crlf

_END = b"\r\n.\r\n"
_TAILS = (b"\r\n.\r", b"\r\n.", b"\n.", b"\r\n", b"\n", b"\r")
"""What the end of a block may be the beginning of; it waits for the next block. Longest first."""

_DOTTED = re.compile(rb"\n\.")
# A dot doubled after a bare LF was doubled by the client (PHP and Python's smtplib do it there too): one goes.
_BARE_LF = re.compile(rb"(?<!\r)\n(?:\.(?=\.))?")


class DotReader:
    """Reads the octets after 354: finds the end, takes the stuffed dots out, makes bare LF CRLF."""

    __slots__ = ("_carry", "_skip", "_tolerant", "bare_lf", "clean", "crlf", "done", "lf_end", "rest")

    def __init__(self, tolerant: bool = False) -> None:
        self._carry = b"\r\n"  # as if a line had just ended: the first line may be the lone dot
        self._skip = 2
        self._tolerant = tolerant
        self.bare_lf = False
        self.clean = False
        """What `feed` gave last holds no bare CR: it need not be looked for again."""
        self.crlf = False
        """A CRLF was seen in this DATA."""
        self.lf_end = False
        """LF.LF was seen and no CRLF: a client that ends lines with LF and may be waiting for us."""
        self.done = False
        self.rest = b""
        """What came after the end: the next commands."""

    def feed(self, block: bytes) -> bytes:
        """Take a block as it came; give the message octets that are certain now."""
        data = self._carry + block
        self._look_for_lf_end(data)
        dot = _DOTTED.search(data) if b"." in data else None  # most blocks of large messages: not one dot
        dotted = dot is not None
        end = data.find(_END, max(0, dot.start() - 1)) if dot is not None else -1
        if end >= 0:
            self.done, self.rest, data = True, data[end + 5 :], data[: end + 2]
            dotted = dot is not None and dot.start() <= end  # else that dot is the end itself
        elif self._tolerant and self.lf_end and data.endswith(b"\n.\n"):
            self.done, data = True, data[:-2]
        else:
            data = self._hold_back(data)
        return self._release(data, dotted)

    def _look_for_lf_end(self, data: bytes) -> None:
        if self.crlf:
            return
        self.crlf = data.find(b"\r\n", self._skip) >= 0
        self.lf_end = not self.crlf and (self.lf_end or b"\n.\n" in data)

    def _hold_back(self, data: bytes) -> bytes:
        for tail in _TAILS:
            if data.endswith(tail):
                self._carry = tail
                return data[: -len(tail)]
        self._carry = b""
        return data

    def _release(self, data: bytes, dotted: bool) -> bytes:
        if not data:
            return data
        self.clean = only_crlf(data)
        if not self.clean and _has_bare_lf(data):
            self.bare_lf = True
            data = _BARE_LF.sub(b"\r\n", data.replace(b"\r\n.", b"\r\n"))
        elif dotted:
            data = _DOTTED.sub(b"\n", data)
        if self._skip:
            data, self._skip = data[2:], 0
        return data


def _has_bare_lf(data: bytes) -> bool:
    return data.count(b"\n") != data.count(b"\r\n")


class LengthReader:
    """Reads the chunks of BDAT (RFC 3030): no dots, the lengths rule; bare LF becomes CRLF."""

    __slots__ = ("_carry", "_line_open", "bare_lf", "clean")

    def __init__(self) -> None:
        self._carry = b""
        self._line_open = False
        self.bare_lf = False
        self.clean = False
        """As in `DotReader`."""

    def feed(self, block: bytes) -> bytes:
        """Take octets of a chunk; give what is certain now."""
        data = self._carry + block
        self._carry = b""
        if data.endswith(b"\r"):
            data, self._carry = data[:-1], b"\r"
        self.clean = only_crlf(data)
        if not self.clean and _has_bare_lf(data):
            self.bare_lf = True
            data = re.sub(rb"(?<!\r)\n", b"\r\n", data)
        if data:
            self._line_open = not data.endswith(b"\n")
        return data

    def finish(self) -> bytes:
        """After the last chunk: what was held back, and the line end that DATA would have had anyway."""
        if self._carry or self._line_open:
            self._carry, self._line_open = b"", False
            return b"\r\n"
        return b""
