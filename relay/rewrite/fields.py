"""The header block as octets: cut into fields, folded, put together. Fields nobody touches stay byte for byte.

RFC 5322 sections 2.2 and 3.6.8 (fields), 2.2.3 (folding), 2.1.1 (line lengths).
"""

from __future__ import annotations

import re

Field = tuple[bytes, bytes]
"""(name in lower case, the whole field as it stands: name, colon, value, every line end)."""

LINE_WISH = 78
LINE_LIMIT = 998
"""Octets of a line without its CRLF: should and must (RFC 5322 section 2.1.1)."""

_BLOCK = re.compile(rb"(?>(?:[!-9;-~]++[ \t]*+:[^\n]*+\n(?>(?:[ \t][^\n]*+\n)*))*)")
_FIELD = re.compile(rb"(([!-9;-~]++)[ \t]*+:[^\n]*+\n(?>(?:[ \t][^\n]*+\n)*))")
_RECEIVED = re.compile(
    rb"(?>(?:(?:received|return-path)[ \t]*+:[^\n]*+\n(?>(?:[ \t][^\n]*+\n)*))*)", re.IGNORECASE
)
_MBOX_LINE = re.compile(rb">?From [^\n]*+\n")
_LINE_END = re.compile(rb"\r\n?|\n")
_WORD = re.compile(r"[ \t]*[^ \t]+")
_PIECE = re.compile(r'[ \t]*(?:"(?>(?:[^"\\]|\\.)*)"|[^ \t"]|"[^ \t]*)+')


def regular(octets: bytes) -> bytes:
    """The octets with CRLF line ends only: a bare LF becomes one, a bare CR a blank (it must not make a field)."""
    ends = octets.count(b"\r\n")
    if octets.count(b"\n") == ends and octets.count(b"\r") == ends:
        return octets
    return _LINE_END.sub(lambda match: b" " if match[0] == b"\r" else b"\r\n", octets)


def block_end(octets: bytes) -> tuple[int, int, int]:
    """Where fields end, and the part between (start, end) that is an mbox ``From `` line (both 0: there is none).

    The line is tolerated first in the message, or right after the ``Received`` fields that were put above it.
    """
    end = _end(_BLOCK, octets, 0)
    mbox = _MBOX_LINE.match(octets, end)
    if mbox and end == _end(_RECEIVED, octets, 0):
        return _end(_BLOCK, octets, mbox.end()), end, mbox.end()
    return end, 0, 0


def _end(pattern: re.Pattern[bytes], octets: bytes, start: int) -> int:
    match = pattern.match(octets, start)
    return match.end() if match else start


def cut(header: bytes) -> tuple[list[Field], bytes, bool]:
    """The fields, whatever follows the header block (usually nothing), and whether an mbox line was dropped.

    ``header`` must be `regular`. A line that is no field ends the block, as the empty line does.
    """
    if header and not header.endswith(b"\n"):
        header += b"\r\n"
    end, mbox_start, mbox_end = block_end(header)
    block = header[:mbox_start] + header[mbox_end:end] if mbox_end else header[:end]
    rest = header[end:]
    found = [(name.lower(), raw) for raw, name in _FIELD.findall(block)]
    return found, rest.removeprefix(b"\r\n"), mbox_end > 0


def value_of(raw: bytes) -> bytes:
    """A field's value on one line, without the blanks around it."""
    value = raw[raw.index(b":") + 1 :]
    return (value.replace(b"\r\n", b"") if value.count(b"\n") > 1 else value).strip(b" \t\r\n")


def shown_name(raw: bytes) -> str:
    """A field's name as it was written."""
    return raw[: raw.index(b":")].rstrip(b" \t").decode("ascii")


def build(name: str, value: str, *, structured: bool = True) -> bytes:
    """A field, folded at its blanks (outside quoted strings when ``structured``) into lines of 78 octets where possible.

    Line ends inside the value are taken out: one value can never become two fields.
    """
    value = value.replace("\r", "").replace("\n", "").strip(" \t")
    text = f"{name}: {value}"
    if len(text) <= LINE_WISH and text.isascii():
        return text.encode("ascii") + b"\r\n"
    lines, line = [], f"{name}:"
    for piece in (_PIECE if structured else _WORD).findall(" " + value):
        if line != f"{name}:" and len((line + piece).encode("utf-8")) > LINE_WISH:
            lines.append(line)
            line = piece
        else:
            line += piece
    return "\r\n".join([*lines, line]).encode("utf-8") + b"\r\n"


def refold(raw: bytes) -> bytes:
    """The field with lines over 998 octets broken before a blank, where there is one; unfolded it is the same."""
    lines = []
    for line in raw[:-2].split(b"\r\n"):
        while len(line) > LINE_LIMIT:
            place = max(line.rfind(b" ", 1, LINE_LIMIT), line.rfind(b"\t", 1, LINE_LIMIT))
            if place < 1 or not line[:place].strip(b" \t"):
                break
            lines.append(line[:place])
            line = line[place:]
        lines.append(line)
    return b"\r\n".join(lines) + b"\r\n"


def too_long(raw: bytes) -> bool:
    """Whether a line of the field is longer than SMTP allows."""
    return len(raw) > LINE_LIMIT and any(len(line) > LINE_LIMIT for line in raw.split(b"\r\n"))
