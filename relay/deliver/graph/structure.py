"""A stored message cut into its parts while it streams by: memory stays bounded, decoded content goes to one file.

The file has no name (POSIX) or is deleted on close, is readable by us alone, and goes with its `Store` whatever
happens to the process. Forgiving as mail readers are: RFC 2046 section 5.1 for the syntax of multiparts, and
beyond it boundaries that are missing, repeated or never closed, and parts without headers.
"""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass, field
from types import TracebackType
from typing import IO

from relay.deliver.graph.decoders import Decoder, Identity, decoder_for
from relay.deliver.graph.parameters import Value, media_type, read_value
from relay.rewrite.fields import Field, cut, regular, value_of

DEPTH_LIMIT = 30
"""Multiparts within multiparts; what is nested deeper stays one undivided attachment (facts 3.1: 30)."""
PARTS_LIMIT = 1000
"""Parts of one message; Exchange takes 250 (facts 3.1)."""
DELIMITERS_LIMIT = 10_000
HEADER_LIMIT = 65536
"""Octets of one part's header; what follows counts as content."""
BOUNDARY_LIMIT = 200
"""Octets of a boundary; RFC 2046 allows 70."""
_HOLD = 512
"""Octets in which a begun delimiter line is looked for: more than the longest one has."""
_HEADER_END = re.compile(rb"\r?\n\r?\n|\A\r?\n")


class TooManyParts(Exception):
    """The message has more parts than anybody would take."""


class NoRoom(Exception):
    """The temporary file cannot be written; the text says why."""


class Store:
    """Decoded content, one part after the other, in an unnamed temporary file. Raises NoRoom."""

    def __init__(self) -> None:
        try:
            self._file: IO[bytes] = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed by __exit__
        except OSError as error:
            raise NoRoom(str(error)) from error
        self.end = 0

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, data: bytes) -> None:
        """Append."""
        view = memoryview(data)
        try:
            self._file.seek(self.end)
            while view:
                written = self._file.write(view)
                self.end += written
                view = view[written:]
        except OSError as error:
            raise NoRoom(str(error)) from error

    def drop(self, start: int) -> None:
        """Forget everything from ``start`` on."""
        self.end = start

    def read(self, start: int, size: int) -> bytes:
        """That stretch, shorter at the end of the file."""
        self._file.seek(start)
        pieces = []
        while size > 0 and (piece := self._file.read(size)):
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)


@dataclass(slots=True, eq=False)
class Part:
    """One node of the message's tree. A leaf's decoded octets are ``size`` from ``start`` in the store."""

    media: Value
    disposition: Value = field(default_factory=Value)
    content_id: str = ""
    """Without angle brackets."""
    location: str = ""
    encoding: str = ""
    children: list[Part] = field(default_factory=list)
    start: int = 0
    size: int = 0
    too_deep: bool = False
    """A multipart that was not divided, since it is nested too deep."""
    flaws: list[str] = field(default_factory=list)

    @property
    def kind(self) -> str:
        """``text/html``."""
        return self.media.text

    def leaves(self) -> list[Part]:
        """The part itself, or everything below it, in order."""
        if not self.children:
            return [self]
        return [leaf for child in self.children for leaf in child.leaves()]


def make_part(fields: list[Field], default: str) -> Part:
    """A part as its header describes it; of a repeated field the first counts."""
    values: dict[bytes, bytes] = {}
    for name, raw in fields:
        if name.startswith(b"content-"):
            values.setdefault(name, value_of(raw))
    media = media_type(values.get(b"content-type", b""), default)
    return Part(
        media,
        read_value(values.get(b"content-disposition", b"")),
        _plain(values.get(b"content-id", b"")).strip("<> \t"),
        _plain(values.get(b"content-location", b"")),
        read_value(values.get(b"content-transfer-encoding", b"")).text.split(" ")[0],
    )


def _plain(octets: bytes) -> str:
    return "".join(char for char in octets.decode("utf-8", "replace") if char.isprintable())[:900].strip()


@dataclass(slots=True)
class _Level:
    """A multipart that is being read."""

    part: Part
    boundary: bytes
    closed: bool = False


class Parser:
    """Takes the body's octets in pieces of any size (`feed`, then `close`) and builds the tree below ``root``."""

    def __init__(self, fields: list[Field], store: Store) -> None:
        self.root = make_part(fields, "text/plain")
        self.unclosed = False
        """The end came before the last boundary."""
        self._store = store
        self._levels: list[_Level] = []
        self._leaf: Part | None = None
        self._decoder: Decoder = Identity()
        self._in_header = False
        self._buffer = b""
        self._at = 0  # what is before is done with
        self._line_start = True
        self._parts = self._delimiters = 0
        self._first = self._next = re.compile(b"(?!)")
        self._enter(self.root)

    def feed(self, data: bytes) -> None:
        """The next octets. Raises TooManyParts and NoRoom."""
        self._buffer = self._buffer[self._at :] + data
        self._at = 0
        while self._step(final=False):
            pass

    def close(self) -> Part:
        """All has been fed: the finished tree."""
        while self._step(final=True):
            pass
        self._leave()
        self.unclosed = any(not level.closed and level.part.children for level in self._levels)
        self._pop(0)
        return self.root

    def _step(self, *, final: bool) -> bool:
        """One header or one stretch of content; False when more octets are needed."""
        if self._in_header:
            return self._read_header(final=final)
        match = self._delimiter(final=final)
        if match is None:
            self._emit(len(self._buffer) if final else self._held())
            return False
        self._emit(self._content_end(match.start()))
        self._at, self._line_start = match.end(), True
        self._cross(match[1], closing=match[2] is not None)
        return True

    def _delimiter(self, *, final: bool) -> re.Match[bytes] | None:
        """The next delimiter line that is there as a whole."""
        match = self._first.match(self._buffer, self._at) if self._line_start else None
        match = match or self._next.search(self._buffer, self._at)
        return match if match and (match[3] or final) else None

    def _content_end(self, start: int) -> int:
        """The line end before a delimiter belongs to the delimiter, its CR as well as its LF."""
        return start - 1 if start > self._at and self._buffer[start - 1 : start + 1] == b"\r\n" else start

    def _held(self) -> int:
        """Up to where the buffer is content for certain: a delimiter line may have begun behind it."""
        size = len(self._buffer)
        place = self._buffer.rfind(b"\n", max(self._at, size - _HOLD))
        if place >= 0:
            return self._content_end(place)
        if self._line_start and size - self._at < _HOLD:
            return self._at
        return size - 1 if self._buffer.endswith(b"\r") and size > self._at else size

    def _emit(self, end: int) -> None:
        """The octets up to ``end`` are content."""
        if end <= self._at:
            return
        data, self._at, self._line_start = self._buffer[self._at : end], end, False
        if self._leaf is not None:
            self._store.write(self._decoder.feed(data))

    def _read_header(self, *, final: bool) -> bool:
        """The header of a part: up to an empty line, a delimiter, or something that is no field."""
        block = self._buffer[self._at : self._at + HEADER_LIMIT]
        end = _HEADER_END.search(block)
        delimiter = self._delimiter(final=final)
        if delimiter and (end is None or delimiter.start() - self._at <= end.start()):
            stop = self._content_end(delimiter.start()) - self._at
            self._start_part(block[:stop])
            self._at, self._line_start = self._at + stop, stop == 0
        elif end is None and len(block) < HEADER_LIMIT and not final:
            return False
        else:
            stop = end.end() if end else len(block)
            self._at, self._line_start = self._at + stop, end is not None
            self._start_part(block[:stop])
        return True

    def _start_part(self, block: bytes) -> None:
        fields, rest, _ = cut(regular(block))
        parent = self._levels[-1].part
        part = make_part(fields, "message/rfc822" if parent.kind == "multipart/digest" else "text/plain")
        parent.children.append(part)
        self._in_header = False
        self._enter(part)
        if not block.endswith(b"\n"):
            rest = rest.removesuffix(b"\r\n")  # which `cut` has added
        if rest and self._leaf is not None:
            self._store.write(self._decoder.feed(rest))

    def _enter(self, part: Part) -> None:
        """Content of this part follows. A multipart's is its preamble, kept until there is a first part."""
        part.start = self._store.end
        self._leaf = part
        boundary = part.media.parameters.get("boundary", "").rstrip().encode("utf-8", "replace")
        if part.kind.startswith("multipart/") and 0 < len(boundary) <= BOUNDARY_LIMIT:
            part.too_deep = len(self._levels) >= DEPTH_LIMIT
            if not part.too_deep:
                self._levels.append(_Level(part, boundary))
                self._watch()
        self._decoder = Identity() if part.kind.startswith("multipart/") else decoder_for(part.encoding)

    def _leave(self) -> None:
        """The content that was being read is complete."""
        part, self._leaf = self._leaf, None
        if part is not None:
            self._store.write(self._decoder.close())
            part.size = self._store.end - part.start
            part.flaws += sorted(self._decoder.flaws)

    def _cross(self, boundary: bytes, *, closing: bool) -> None:
        """A delimiter line: of the innermost open multipart with that boundary, else of the innermost closed one."""
        self._delimiters += 1
        if self._delimiters > DELIMITERS_LIMIT:
            raise TooManyParts
        self._leave()
        found = [number for number, level in enumerate(self._levels) if level.boundary == boundary]
        still_open = [number for number in found if not self._levels[number].closed]
        number = (still_open or found)[-1]
        self._pop(number + 1)
        level = self._levels[number]
        level.closed = closing
        if closing:
            return
        if not level.part.children:
            self._store.drop(level.part.start)  # the preamble
        self._parts += 1
        if self._parts > PARTS_LIMIT:
            raise TooManyParts
        self._in_header = True

    def _pop(self, depth: int) -> None:
        """The multiparts from this depth on have ended."""
        if len(self._levels) > depth:
            del self._levels[depth:]
            self._watch()

    def _watch(self) -> None:
        """Look for the boundaries of all levels; the longest first, one may begin like another."""
        known = sorted({level.boundary for level in self._levels}, key=len, reverse=True)
        names = b"|".join(map(re.escape, known)) if known else b"(?!)"
        line = rb"--(" + names + rb")(--)?+[ \t]{0,60}+(\r?\n|\Z)"
        self._first, self._next = re.compile(line), re.compile(rb"\n" + line)
