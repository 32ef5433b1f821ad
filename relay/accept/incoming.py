"""A message while it arrives: header block in memory (bounded), body handed on, what is wrong noted.

Bare CR becomes a blank in the header block (it must not make a new field) and CRLF in the body.
"""

from __future__ import annotations

import re

from relay.accept import replies
from relay.rewrite.lineends import only_crlf
from relay.rewrite.longlines import LongLines
from relay.rewrite.refit import Survey

HEADER_LIMIT = 256 * 1024
"""Octets of a header block; mail in the wild stays far below 100 kB."""

_FIELDS = re.compile(rb"(?>(?:[!-9;-~]++[ \t]*+:[^\n]*+\n(?>(?:[ \t][^\n]*+\n)*))*)")
_MORE = re.compile(rb"(?>(?:[ \t][^\n]*+\n)*)")
_EMPTY = re.compile(rb"\r{1,998}+\n")
# A line that has begun like a field; names are bounded, so that looking again at each block stays cheap.
_BEGUN = re.compile(rb"[ \t]|[!-9;-~]{1,250}[ \t]{0,250}(?::|\Z)|\r{0,998}\Z")
# A message that is signed or encrypted as a whole says so here; its octets cannot be mended later.
_SIGNED = re.compile(rb"^content-type[ \t]*:\s*(?:multipart/(?:signed|encrypted)|application/(?:x-)?pkcs7-mime)",
                     re.IGNORECASE | re.MULTILINE)  # fmt: skip
_PGP = b"-----BEGIN PGP "
_BARE_CR = re.compile(rb"\r(?!\n)")
_MBOX = (b"From ", b">From ")


class Incoming:
    """Takes octets whose LFs all belong to CRLFs (see `relay.accept.reader`), never ending inside a CRLF."""

    __slots__ = ("_head", "_limit", "_lines", "_matched", "_open", "_seen", "_survey", "bare_cr", "eight_bit", "header",
                 "long_lines", "mbox", "refusal", "size")  # fmt: skip

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lines = LongLines()
        self._survey: Survey | None = None
        self._head = bytearray()
        self._matched = 0
        self._seen = 0
        self._open = True
        self.header = b""
        """The header block, once it is complete; with its closing empty line if there was one."""
        self.size = 0
        self.eight_bit = False
        self.bare_cr = False
        self.long_lines = False
        """The body holds lines over 998 octets; known after `finish`."""
        self.mbox = False
        """An mbox ``From`` line came first and was dropped: with it, all fields would read as body."""
        self.refusal: bytes | None = None
        """The reply this message has earned; octets that follow are dropped."""

    def feed(self, data: bytes, *, clean: bool = False) -> bytes:
        """Take octets; give those that belong to the body. ``clean``: the reader saw that they hold no bare CR."""
        if self.refusal is not None or not data:
            return b""
        self.size += len(data)
        if not data.isascii():
            self.eight_bit = True
        if self.size > self._limit:
            return self.refuse(replies.TOO_BIG)
        if b"\0" in data:
            return self.refuse(replies.HAS_NUL)
        if self._open:
            body = self._split(data)
            # what is clean is this block; of blocks before it, which a late decision adds, nobody knows
            data = body if clean and len(body) <= len(data) else self._mend_body(body)
            if not self._open and (_SIGNED.search(self.header) or data.startswith(_PGP)):
                self._survey = Survey(self.header)
        elif not clean:
            data = self._mend_body(data)
        self._lines.feed(data)
        if self._survey is not None:
            self._survey.feed(data)
        return data

    def finish(self) -> None:
        """The end: a header block that is still open is all there was."""
        if self._open and self.refusal is None:
            self._close_header(len(self._head))
        self.long_lines = self._lines.finish()
        if self.long_lines and self._survey is not None and self._survey.finish().sealed:
            self.refuse(replies.SIGNED_TOO_LONG)

    @property
    def held(self) -> int:
        """Octets of the header block, which stay in memory until the message is settled."""
        return len(self._head) + len(self.header)

    def refuse(self, reply: bytes) -> bytes:
        """Give the message up; the first reason stays."""
        self.refusal = self.refusal or reply
        self._head.clear()
        self.header = b""
        return b""

    def notes(self, bare_lf: bool) -> tuple[str, ...]:
        """What was repaired, for the trace."""
        found = (
            (bare_lf, "bare LF made CRLF"),
            (self.bare_cr, "bare CR made CRLF (a blank in the header)"),
            (self.mbox, "mbox From line dropped"),
        )
        return tuple(text for happened, text in found if happened)

    def _split(self, data: bytes) -> bytes:
        """Add to the header block; what lies behind its end is returned."""
        head = self._head
        head += data
        if head.find(b"\n", self._seen) >= 0:
            self._match_fields()
        self._seen = len(head)
        end = self._end_of_header()
        if end is None:
            return self.refuse(replies.HEADER_TOO_BIG) if len(head) > HEADER_LIMIT else b""
        if end > HEADER_LIMIT:
            return self.refuse(replies.HEADER_TOO_BIG)
        return self._close_header(end)

    def _match_fields(self) -> None:
        """Advance over complete fields; work is linear in what arrives, however small the blocks."""
        if not self._matched and self._head.startswith(_MBOX):
            del self._head[: self._head.index(b"\n") + 1]
            self.mbox = True
        if self._matched:
            more = _MORE.match(self._head, self._matched)
            self._matched = more.end() if more else self._matched
        fields = _FIELDS.match(self._head, self._matched)
        self._matched = fields.end() if fields else self._matched

    def _end_of_header(self) -> int | None:
        """Where the block ends: after an empty line, or before a line that is no field; None: not known yet."""
        head, at = self._head, self._matched
        empty = _EMPTY.match(head, at)
        if empty:
            head[at : empty.end()] = b"\r\n"
            return at + 2
        if head.find(b"\n", at) >= 0:
            return at
        if not at and any(one.startswith(head[:6]) or head.startswith(one) for one in _MBOX):
            return None
        return None if _BEGUN.match(head, at) else at

    def _close_header(self, end: int) -> bytes:
        header, rest = bytes(self._head[:end]), bytes(self._head[end:])
        self._head = bytearray()
        self._open = False
        if header.count(b"\r") != header.count(b"\n"):
            self.bare_cr = True
            header = _BARE_CR.sub(b" ", header)
        self.header = header
        return rest

    def _mend_body(self, data: bytes) -> bytes:
        if only_crlf(data):
            return data
        self.bare_cr = True
        return _BARE_CR.sub(b"\r\n", data)
