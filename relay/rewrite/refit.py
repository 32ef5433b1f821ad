"""Makes a body's lines fit into SMTP (998 octets): only the parts that hold a longer line are encoded anew.

Two passes over the stream. `Survey` finds those parts and decides what becomes of them; `Refit` writes the body
with those decisions. What is signed or encrypted is never touched: a signature covers the octets as they are.
"""

from __future__ import annotations

import codecs
import enum
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from relay.rewrite.fields import Field, cut, refold, too_long
from relay.rewrite.longlines import LongLines
from relay.rewrite.parts import PLAIN, Kind, Part, Splitter
from relay.rewrite.recode import Recoder, ToBase64, ToQuoted, Wrap, WrapQuoted

_FRAME_WIDTH = 900
_TOO_WIDE = re.compile(rb"[^\r\n]{900}(?=[^\r\n])")


class Method(enum.Enum):
    """What becomes of a part with a line that is too long."""

    QUOTED = "encoded as quoted-printable"
    BASE64 = "encoded as base64"
    WRAP_BASE64 = "base64 lines made short"
    WRAP_QUOTED = "quoted-printable lines made short"
    SEALED = "left as it is, since it is signed or encrypted"
    LEFT = "left as it is: its encoding cannot be changed"


@dataclass(slots=True)
class Plan:
    """What the survey decided."""

    methods: dict[int, Method] = field(default_factory=dict)
    """By the part's number."""
    charset: str = "us-ascii"
    """Of a message that says nothing about itself."""
    notes: tuple[str, ...] = ()
    """For the trace."""

    @property
    def sealed(self) -> bool:
        """Whether a part that must not be changed has a line that is too long."""
        return Method.SEALED in self.methods.values()

    @property
    def changes(self) -> bool:
        """Whether the body is written anew."""
        return any(one not in (Method.SEALED, Method.LEFT) for one in self.methods.values()) or self.loose

    loose: bool = False
    """There are long lines outside of all content: in parts' headers, or where no reader looks."""


class Survey:
    """Looks at a body once."""

    def __init__(self, header: bytes) -> None:
        self._splitter = Splitter(header)
        self._plan = Plan()
        self._notes: list[str] = []
        self._kind = Kind.CONTENT
        self._part = self._splitter.message
        self._watch = LongLines()
        self._octets = self._odd = 0
        self._utf8: codecs.IncrementalDecoder | None = codecs.getincrementaldecoder("utf-8")()

    def feed(self, block: bytes) -> None:
        """The next octets."""
        for kind, part, data in self._splitter.feed(block):
            self._look(kind, part, data)

    def finish(self) -> Plan:
        """The decisions."""
        for kind, part, data in self._splitter.finish():
            self._look(kind, part, data)
        self._close()
        self._plan.notes = tuple(dict.fromkeys(self._notes))[:10]
        return self._plan

    def _look(self, kind: Kind, part: Part, data: bytes) -> None:
        if (kind, part) != (self._kind, self._part):
            self._close()
            self._kind, self._part = kind, part
        self._watch.feed(data)
        self._octets += len(data)
        if not data.isascii():
            self._odd += len(data.translate(None, _ASCII))
        if part.number == 0 and kind is Kind.CONTENT:
            self._try_utf8(data)

    def _try_utf8(self, data: bytes) -> None:
        try:
            if self._utf8 is not None:
                self._utf8.decode(data)
        except UnicodeDecodeError:
            self._utf8 = None

    def _close(self) -> None:
        """One part's content, header or frame is over."""
        if self._watch.finish():
            if self._kind is Kind.CONTENT:
                self._decide(self._part)
            elif self._part.sealed:
                self._notes.append("lines over 998 octets between signed parts left as they are")
            else:
                self._plan.loose = True
                self._notes.append("lines over 998 octets between the parts broken")
        if self._part.number == 0 and self._kind is Kind.CONTENT and self._odd:
            self._plan.charset = "utf-8" if self._utf8 is not None else "windows-1252"
        self._octets = self._odd = 0

    def _decide(self, part: Part) -> None:
        method = self._method(part)
        self._plan.methods[part.number] = method
        self._notes.append(f"lines over 998 octets: {part.type} {method.value}")

    def _method(self, part: Part) -> Method:
        if part.sealed:
            return Method.SEALED
        if part.encoding == "base64":
            return Method.WRAP_BASE64
        if part.encoding == "quoted-printable":
            return Method.WRAP_QUOTED
        group = part.type.partition("/")[0]
        if part.encoding not in PLAIN or group in ("multipart", "message"):
            return Method.LEFT
        return Method.QUOTED if group == "text" and self._odd * 6 <= self._octets else Method.BASE64


class Refit:
    """Writes the body by a plan. ``header`` is given first, as `Survey` had it; `header` is what it becomes."""

    def __init__(self, header: bytes, plan: Plan) -> None:
        self._splitter = Splitter(header)
        self._plan = plan
        self._at: tuple[Kind, int] = (Kind.CONTENT, 0)
        self._recoder: Recoder | None = self._made(Kind.CONTENT, self._splitter.message)
        self._ends_open = False
        self.header = self._relabelled(header, self._splitter.message, plan.charset)

    def feed(self, block: bytes) -> bytes:
        """What is certain after this block."""
        return b"".join([self._write(*piece) for piece in self._splitter.feed(block)])

    def finish(self) -> bytes:
        """The rest; the last line is complete."""
        out = b"".join([self._write(*piece) for piece in self._splitter.finish()]) + self._flush()
        self._note_end(out)
        return out + b"\r\n" if self._ends_open else out

    def _write(self, kind: Kind, part: Part, data: bytes) -> bytes:
        out = b""
        if (kind, part.number) != self._at:
            out = self._flush()
            self._at = (kind, part.number)
            self._recoder = self._made(kind, part)
        if kind is Kind.HEADER and not part.sealed:
            data = self._relabelled(data, part)
        out += self._recoder.feed(data) if self._recoder is not None else data
        self._note_end(out)
        return out

    def _note_end(self, out: bytes) -> None:
        if out:
            self._ends_open = not out.endswith(b"\n")

    def _flush(self) -> bytes:
        recoder, self._recoder = self._recoder, None
        return recoder.finish() if recoder is not None else b""

    def _made(self, kind: Kind, part: Part) -> Recoder | None:
        if kind is Kind.FRAME:
            return None if part.sealed else Wrap(_FRAME_WIDTH)
        if kind is Kind.HEADER:
            return None
        make = _RECODERS.get(self._plan.methods.get(part.number, Method.LEFT))
        return make() if make else None

    def _relabelled(self, header: bytes, part: Part, charset: str = "") -> bytes:
        """The header that fits what becomes of the content; its own long lines folded."""
        name = _NAMES.get(self._plan.methods.get(part.number, Method.LEFT))
        if name is None and not too_long(header):
            return header
        fields, rest, _ = cut(header)
        closed = header.endswith(b"\r\n\r\n") or header == b"\r\n"
        fields = [
            (one, _short(refold(raw), b"\r\n ") if too_long(raw) else raw)
            for one, raw in fields
            if len(one) < _FRAME_WIDTH  # a name that long is nobody's, and cannot be broken
        ]
        rest = _short(rest, b"\r\n")
        if name is not None:
            fields = _labelled(fields, name, charset)
        return b"".join([raw for _, raw in fields]) + (b"\r\n" if closed else b"") + rest


def _short(octets: bytes, break_: bytes) -> bytes:
    """What could not be folded at a blank, or is no field at all, cut where it must be."""
    return _TOO_WIDE.sub(rb"\g<0>" + break_, octets) if too_long(octets) else octets


def _labelled(fields: list[Field], encoding: bytes, charset: str) -> list[Field]:
    """With that Content-Transfer-Encoding. ``charset`` is given for the message itself, which may need more fields."""
    key = b"content-transfer-encoding"
    new = (key, b"Content-Transfer-Encoding: " + encoding + b"\r\n")
    there = [one for one, _ in fields]
    out = [new if one == key and index == there.index(key) else (one, raw)
           for index, (one, raw) in enumerate(fields) if one != key or index == there.index(key)]  # fmt: skip
    if key not in there:
        out.append(new)
    if charset and b"content-type" not in there:
        out.append((b"content-type", f"Content-Type: text/plain; charset={charset}\r\n".encode()))
    if charset and b"mime-version" not in there:
        out.append((b"mime-version", b"MIME-Version: 1.0\r\n"))
    return out


_RECODERS: dict[Method, Callable[[], Recoder]] = {
    Method.QUOTED: ToQuoted,
    Method.BASE64: ToBase64,
    Method.WRAP_BASE64: Wrap,
    Method.WRAP_QUOTED: WrapQuoted,
}
_NAMES = {Method.QUOTED: b"quoted-printable", Method.BASE64: b"base64"}
_ASCII = bytes(range(128))
