"""A message's body cut into its MIME parts while it streams by (RFC 2046 section 5.1): octets in, labelled pieces out.

Nothing is lost and nothing added: the pieces joined are the body. Memory holds one line, or one part's header.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from relay.rewrite.fields import Field, cut, value_of

DEEPEST = 50
"""Multiparts inside multiparts; deeper ones are taken for content (Exchange takes 30 nested messages)."""
HEADER_MOST = 65536
"""Octets of a part's header; what is longer is taken for content."""
PARTS_MOST = 1000
"""Parts of one message; what follows is taken for content that cannot be changed (Exchange takes 250)."""
_BOUNDARY_MOST = 250
"""RFC 2046 allows 70; writers exist that use more."""
_LINE_MOST = 1000

SEALING = frozenset({"multipart/signed", "multipart/encrypted"})
"""Everything inside is covered by a signature, octet for octet."""
SEALED = frozenset({"application/pkcs7-mime", "application/x-pkcs7-mime"})
MESSAGES = frozenset({"message/rfc822", "message/global"})
PLAIN = frozenset({"", "7bit", "8bit", "binary"})
"""Content-Transfer-Encodings that encode nothing."""

_PGP = b"-----BEGIN PGP "
_TYPE = re.compile(rb"[ \t]*([A-Za-z0-9!#$&^_.+-]{1,100})/([A-Za-z0-9!#$&^_.+-]{1,100})")
_BOUNDARY = re.compile(rb';[ \t]*boundary[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))', re.IGNORECASE)


class Kind(enum.Enum):
    """What a piece of a body is."""

    HEADER = enum.auto()
    """A part's header block, closing empty line included."""
    CONTENT = enum.auto()
    """Of a part that has no parts; without the line end that belongs to the boundary behind it."""
    FRAME = enum.auto()
    """Boundaries, and what stands before the first and behind the last."""


@dataclass(slots=True)
class Part:
    """One part: the message itself (number 0), or one inside of it."""

    number: int
    type: str
    """``text/plain``, in lower case; also where nothing was said."""
    encoding: str
    """Content-Transfer-Encoding in lower case; empty when not given."""
    sealed: bool
    """Signed or encrypted, or inside of something that is: never changed."""


Piece = tuple[Kind, Part, bytes]


class Splitter:
    """Cuts one body. ``header`` is the message's own header block."""

    def __init__(self, header: bytes) -> None:
        self._open: list[tuple[bytes, Part]] = []
        self._known: set[bytes] = set()
        """All boundaries there ever were: most lines that look like one are none."""
        self._data = b""
        self._seen = 0
        self._lent = False
        """The first two octets of ``_data`` are a CRLF of ours: a boundary may stand at the very start."""
        self._mode = Kind.CONTENT
        self._numbers = 0
        self.message = self._part = self._enter(header, sealed=False)
        self._begin(b"")

    def feed(self, block: bytes) -> list[Piece]:
        """The pieces that are certain after this block."""
        self._data += block
        out: list[Piece] = []
        while self._header(out) if self._mode is Kind.HEADER else self._content(out):
            pass
        return out

    def finish(self) -> list[Piece]:
        """The rest; a closing boundary may lack its line end."""
        out: list[Piece] = []
        data = self._data
        if self._mode is Kind.HEADER:
            if data:
                out.append((Kind.HEADER, self._enter(data, self._part.sealed), data))
            return out
        last = data.rfind(b"\r\n--")
        place = self._match(data[last + 2 :]) if last >= 0 else None
        self._pass(out, len(data) if place is None else last)
        if place is not None:
            out.append((Kind.FRAME, self._open[place][1], self._data[2:] if self._lent else self._data))
        return out

    def _begin(self, data: bytes) -> None:
        """What follows is in another mode: a header, or lines of which the first may be a boundary."""
        self._seen = 0
        self._lent = self._mode is not Kind.HEADER
        self._data = b"\r\n" + data if self._lent else data

    # headers of parts

    def _header(self, out: list[Piece]) -> bool:
        """Read a part's header; whether there is more to do."""
        data, at = self._data, self._seen
        while (end := data.find(b"\r\n", at)) >= 0:
            if end == at or (data.startswith(b"--", at) and self._match(data[at:end]) is not None):
                end = end + 2 if end == at else at  # a part may be nothing but fields
                self._part = self._enter(data[:end], self._part.sealed)
                out.append((Kind.HEADER, self._part, data[:end]))
                self._begin(data[end:])
                return True
            at = end + 2
        self._seen = at
        if len(data) <= HEADER_MOST:
            return False
        self._part = self._new("application/octet-stream", "unknown", self._part.sealed)
        self._mode = Kind.CONTENT
        self._begin(data)
        return True

    def _enter(self, header: bytes, sealed: bool) -> Part:
        """A part begins: what follows its header depends on what it is."""
        fields, broken, _ = cut(header)
        kind = _type(fields)
        encoding = "unknown" if broken else field_value(fields, b"content-transfer-encoding").lower()
        part = self._new(kind, encoding, sealed)
        boundary = _boundary(fields) if kind.startswith("multipart/") else b""
        walked = part.encoding in PLAIN and len(self._open) < DEEPEST and self._numbers < PARTS_MOST
        self._mode = Kind.CONTENT
        if walked and boundary:
            part.sealed = sealed or kind in SEALING
            self._open.append((b"--" + boundary, part))
            self._known.add(b"--" + boundary)
            self._mode = Kind.FRAME
        elif walked and kind in MESSAGES:
            self._mode = Kind.HEADER
        return part

    def _new(self, kind: str, encoding: str, sealed: bool) -> Part:
        self._numbers += 1
        if self._numbers > PARTS_MOST:
            encoding = "unknown"
            self._open.clear()
        return Part(self._numbers - 1, kind, encoding, sealed or kind in SEALED)

    # content

    def _content(self, out: list[Piece]) -> bool:
        """Pass content on up to the next boundary; whether there is more to do behind it."""
        data, at = self._data, 0
        while (found := data.find(b"\r\n--", at)) >= 0:
            end = data.find(b"\r\n", found + 4)
            if end < 0 and len(data) - found < _LINE_MOST:
                self._pass(out, found)
                return False
            if data.startswith(_PGP, found + 2):
                self._part.sealed = True
            place = self._match(data[found + 2 : end]) if end >= 0 else None
            if place is not None:
                self._pass(out, found)
                self._cross(out, end + 2 - found, place)
                return True
            at = found + 2
        self._pass(out, len(data) - _open_end(data))
        return False

    def _pass(self, out: list[Piece], end: int) -> None:
        """Give so many octets away as what they are."""
        if end:
            piece = self._data[2 if self._lent else 0 : end]
            self._data = self._data[end:]
            self._lent = False
            if piece:
                out.append((self._mode, self._part, piece))

    def _cross(self, out: list[Piece], size: int, place: int) -> None:
        """A boundary of ``size`` octets: what it closes is closed, and a part or an epilogue begins."""
        line = self._data[2 if self._lent else 0 : size]
        boundary, owner = self._open[place]
        closing = line.strip() != boundary
        del self._open[place + (not closing) :]
        out.append((Kind.FRAME, owner, line))
        self._mode = Kind.FRAME if closing else Kind.HEADER
        self._part = owner
        self._begin(self._data[size:])

    def _match(self, line: bytes) -> int | None:
        """Which open multipart's boundary this line is, the innermost first."""
        line = line.rstrip(b" \t\r\n")
        if not self._open or (line not in self._known and line.removesuffix(b"--") not in self._known):
            return None
        for place in range(len(self._open) - 1, -1, -1):
            boundary = self._open[place][0]
            if line.startswith(boundary) and line[len(boundary) :] in (b"", b"--"):
                return place
        return None


def field_value(fields: list[Field], name: bytes) -> str:
    """The first field of that name, one word; empty when there is none. Comments and stray punctuation are left out."""
    for one, raw in fields:
        if one == name:
            return value_of(raw).partition(b" ")[0].partition(b"(")[0].decode("latin-1").strip('"; \t')
    return ""


def _type(fields: list[Field]) -> str:
    for name, raw in fields:
        if name == b"content-type":
            found = _TYPE.match(value_of(raw))
            return found[0].strip().decode("ascii").lower() if found else "application/octet-stream"
    return "text/plain"


def _boundary(fields: list[Field]) -> bytes:
    for name, raw in fields:
        if name == b"content-type":
            found = _BOUNDARY.search(value_of(raw))
            if found:
                quoted, plain = found.groups()
                boundary = re.sub(rb"\\(.)", rb"\1", quoted) if quoted is not None else plain
                return boundary.rstrip(b" \t") if len(boundary) <= _BOUNDARY_MOST else b""
            return b""
    return b""


def _open_end(data: bytes) -> int:
    """Octets at the end that may be the beginning of a boundary's line."""
    for tail in (b"\r\n-", b"\r\n", b"\r"):
        if data.endswith(tail):
            return len(tail)
    return 0
