"""Content encodings in a stream (RFC 2045 section 6): octets of any length in, short lines out, little kept back."""

from __future__ import annotations

import binascii
import re
from typing import Protocol

_LINE = 76
"""Octets of an encoded line at most (RFC 2045 sections 6.7 and 6.8)."""
_TRIPLES = _LINE // 4 * 3
_FULL = re.compile(rb".{76}", re.DOTALL)
# A blank that ends a line would be lost on the way; a CR or LF that is no line end is content.
_UNSAFE = re.compile(rb"[^\t\r\n -<>-~]|[ \t](?=\r\n|\Z)|\r(?!\n)|(?<!\r)\n")


class Recoder(Protocol):
    """Takes one part's content piece by piece."""

    def feed(self, data: bytes) -> bytes:
        """What is certain after this piece."""
        ...

    def finish(self) -> bytes:
        """What was kept back."""
        ...


class ToBase64:
    """Any octets as base64."""

    __slots__ = ("_carry",)

    def __init__(self) -> None:
        self._carry = b""

    def feed(self, data: bytes) -> bytes:
        """Whole lines."""
        data = self._carry + data
        cut = len(data) // _TRIPLES * _TRIPLES
        self._carry = data[cut:]
        return _FULL.sub(rb"\g<0>\r\n", binascii.b2a_base64(data[:cut], newline=False))

    def finish(self) -> bytes:
        """The last line, without a line end."""
        carry, self._carry = self._carry, b""
        return binascii.b2a_base64(carry, newline=False)


class WrapQuoted:
    """Quoted-printable text whose lines may be too long: soft line breaks are put in."""

    __slots__ = ("_carry",)

    def __init__(self) -> None:
        self._carry = b""

    def feed(self, data: bytes) -> bytes:
        """Lines as they get complete; of an endless one, what is certain."""
        *lines, last = (self._carry + data).split(b"\r\n")
        out = [_soft(line) + b"\r\n" for line in lines]
        if len(last) > 2 * _LINE:
            head, self._carry = _head(last)
            out.append(head)
        else:
            self._carry = last
        return b"".join(out)

    def finish(self) -> bytes:
        """The last line."""
        carry, self._carry = self._carry, b""
        return _soft(carry)


class ToQuoted:
    """Text as quoted-printable."""

    __slots__ = ("_held", "_wrap")

    def __init__(self) -> None:
        self._held = b""
        self._wrap = WrapQuoted()

    def feed(self, data: bytes) -> bytes:
        """Lines as they get complete."""
        data = self._held + data
        self._held = b"\r" if data.endswith(b"\r") else b""
        return self._wrap.feed(_UNSAFE.sub(_escape, data.removesuffix(self._held) if self._held else data))

    def finish(self) -> bytes:
        """The last line."""
        held, self._held = self._held, b""
        return self._wrap.feed(b"=0D" if held else b"") + self._wrap.finish()


class Wrap:
    """Lines over ``width`` octets cut there: for base64, where line ends mean nothing, and text that nobody reads."""

    __slots__ = ("_carry", "_long")

    def __init__(self, width: int = _LINE) -> None:
        self._carry = b""
        self._long = re.compile(rb"[^\r\n]{%d}(?=[^\r\n])" % width)

    def feed(self, data: bytes) -> bytes:
        """All but the last line, which may go on."""
        data = self._long.sub(rb"\g<0>\r\n", self._carry + data)
        cut = data.rfind(b"\n") + 1
        self._carry = data[cut:]
        return data[:cut]

    def finish(self) -> bytes:
        """The last line."""
        carry, self._carry = self._carry, b""
        return carry


def _escape(match: re.Match[bytes]) -> bytes:
    return b"=%02X" % match[0][0]


def _place(line: bytes, start: int) -> int:
    """Where a line that begins at ``start`` may be broken: never inside of ``=XX``."""
    cut = start + _LINE - 1
    inside = line.rfind(b"=", cut - 2, cut)
    return inside if inside >= 0 else cut


def _soft(line: bytes) -> bytes:
    """One line as several, joined by soft line breaks."""
    if len(line) <= _LINE:
        return line
    pieces, start = [], 0
    while len(line) - start > _LINE:
        end = _place(line, start)
        pieces.append(line[start:end])
        start = end
    return b"=\r\n".join([*pieces, line[start:]])


def _head(line: bytes) -> tuple[bytes, bytes]:
    """The broken beginning of a line that goes on, soft line break included, and its rest."""
    pieces, start = [], 0
    while len(line) - start > 2 * _LINE:
        end = _place(line, start)
        pieces.append(line[start:end] + b"=\r\n")
        start = end
    return b"".join(pieces), line[start:]
