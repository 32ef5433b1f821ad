"""Content-Transfer-Encodings undone block by block, in bounded memory, and forgiving (RFC 2045 section 6).

Each decoder takes a part's octets in pieces of any size; ``flaws`` says in a few words what it met and should not have.
"""

from __future__ import annotations

import binascii
import re
from typing import Protocol

_ALPHABET = bytes(range(0x30, 0x3A)) + bytes(range(0x41, 0x5B)) + bytes(range(0x61, 0x7B)) + b"+/"
_NOT_BASE64 = bytes(set(range(256)) - set(_ALPHABET) - {0x3D})
_BLANKS = b" \t\r\n"
_STRAY_BLANKS = re.compile(rb"(?<![ \t])[ \t]++(?=\r?\n)")
_PADDING = re.compile(rb"[= \t\r\n]*+")
_RUN_ROOM = 80
_RUN = re.compile(rb"[A-Za-z0-9+/]{1,%d}+" % _RUN_ROOM)
LINE_BOUND = 65536
"""Octets of one line held back by the decoders that need whole lines."""


class Decoder(Protocol):
    """One part's content, decoded."""

    flaws: set[str]

    def feed(self, data: bytes) -> bytes:
        """What can be decoded so far."""
        ...

    def close(self) -> bytes:
        """The rest, once all has been fed."""
        ...


class Identity:
    """7bit, 8bit and binary: the octets as they are."""

    def __init__(self, flaw: str = "") -> None:
        self.flaws = {flaw} if flaw else set()

    def feed(self, data: bytes) -> bytes:
        return data

    def close(self) -> bytes:
        return b""


class Base64:
    """Base64 (section 6.8): foreign characters are passed over; after padding only what is base64 again is read on."""

    def __init__(self) -> None:
        self.flaws: set[str] = set()
        self._carry = b""  # fewer than 4 characters of a group
        self._waiting = b""  # what follows padding, until it can be judged
        self._padded = False
        self._ended = False

    def feed(self, data: bytes) -> bytes:
        if not self._padded and b"=" not in data:
            return self._decode(data)
        return self._feed(data, final=False)

    def _feed(self, data: bytes, *, final: bool) -> bytes:
        data, self._waiting = self._waiting + data, b""
        out, at = [], 0
        while at < len(data) and not self._ended:
            if self._padded:
                at = self._after_padding(data, at, final=final)
                if self._padded:
                    break
            place = data.find(b"=", at)
            if place < 0:
                out.append(self._decode(data[at:]))
                break
            out += (self._decode(data[at:place]), self._pad())
            at = place + 1
        return b"".join(out)

    def _after_padding(self, data: bytes, at: int, *, final: bool) -> int:
        """Where base64 goes on: some writers pad every line, but a mailing list's footer is no part of the file."""
        blank = _PADDING.match(data, at)
        at = blank.end() if blank else at
        run = _RUN.match(data, at)
        end = run.end() if run else at
        if end == len(data) and end - at < _RUN_ROOM and not final:
            self._waiting = data[at:]
        elif run and (end - at == _RUN_ROOM or data[end : end + 1] == b"=" or _line_of_base64(data, at, end)):
            self._padded = False
            self.flaws.add("base64 went on after its padding")
        elif at < len(data):
            self._ended = True
            self.flaws.add("text after the end of base64 was left out")
        return at

    def _decode(self, data: bytes) -> bytes:
        text = data.translate(None, _BLANKS)
        clean = text.translate(None, _NOT_BASE64)
        if len(clean) != len(text):
            self.flaws.add("characters that are not base64 were passed over")
        text = self._carry + clean
        whole = len(text) - len(text) % 4
        self._carry = text[whole:]
        return binascii.a2b_base64(text[:whole])

    def _pad(self) -> bytes:
        """The padding, or the end: the octets of an unfinished group."""
        self._padded = True
        carry, self._carry = self._carry, b""
        if len(carry) == 1:
            self.flaws.add("base64 broke off")
        return binascii.a2b_base64(carry + b"=" * (4 - len(carry))) if len(carry) > 1 else b""

    def close(self) -> bytes:
        rest = self._feed(b"", final=True)
        if self._carry:
            self.flaws.add("base64 broke off")
        return rest + self._pad()


class _Lines:
    """What the line-wise decoders share: whole lines are decoded, the begun one waits."""

    def __init__(self) -> None:
        self.flaws: set[str] = set()
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        data = self._rest + data
        end = data.rfind(b"\n") + 1
        if not end and len(data) > LINE_BOUND:
            end = self._break(data)
        self._rest = data[end:]
        return self._decode(data[:end])

    def close(self) -> bytes:
        rest, self._rest = self._rest, b""
        return self._decode(rest)

    def _break(self, data: bytes) -> int:
        """Where an endless line may be cut."""
        return len(data)

    def _decode(self, data: bytes) -> bytes:
        raise NotImplementedError


class QuotedPrintable(_Lines):
    """Quoted-printable (section 6.7); what is no escape stays as it is."""

    def _break(self, data: bytes) -> int:
        place = data.rfind(b"=", len(data) - 3)
        return place if place >= 0 else len(data)

    def _decode(self, data: bytes) -> bytes:
        if b" \r\n" in data or b"\t\r\n" in data:
            data = _STRAY_BLANKS.sub(b"", data)  # added on the way (rule 3)
        return binascii.a2b_qp(data)


class Uuencode(_Lines):
    """The lines between ``begin`` and ``end``, as Unix mail sent files before MIME."""

    def __init__(self) -> None:
        super().__init__()
        self._begun = False
        self._done = False

    def _decode(self, data: bytes) -> bytes:
        out = []
        for line in data.splitlines():
            if not self._begun:
                self._begun = line.startswith(b"begin ")
            elif line.strip() == b"end":
                self._done = True
            elif not self._done and line:
                out.append(self._line(line))
        return b"".join(out)

    def _line(self, line: bytes) -> bytes:
        try:
            return binascii.a2b_uu(line)
        except binascii.Error:
            self.flaws.add("uuencode was broken")
            count = (line[0] - 32) & 63
            return (binascii.a2b_uu(line[: 1 + (count * 4 + 2) // 3]) if _is_uu(line) else b"")[:count]

    def close(self) -> bytes:
        out = super().close()
        if not self._done:
            self.flaws.add("uuencode broke off")
        return out


def _line_of_base64(data: bytes, start: int, end: int) -> bool:
    """Whether whole groups stand alone on their line."""
    return data[end : end + 1] in (b"\r", b"\n", b"") and (end - start) % 4 == 0


def _is_uu(line: bytes) -> bool:
    """Whether every character may stand in a uuencoded line."""
    return 32 <= line[0] <= 96 and all(
        32 <= octet <= 96 for octet in line[: 1 + (((line[0] - 32) & 63) * 4 + 2) // 3]
    )


def decoder_for(encoding: str) -> Decoder:
    """The decoder of a Content-Transfer-Encoding; an unknown one leaves the octets as they are, with a flaw."""
    match encoding:
        case "" | "7bit" | "8bit" | "binary" | "7-bit" | "8-bit":
            return Identity()
        case "base64" | "base-64":
            return Base64()
        case "quoted-printable" | "quotedprintable":
            return QuotedPrintable()
        case "x-uuencode" | "x-uue" | "uuencode":
            return Uuencode()
    return Identity("its transfer encoding is unknown: not decoded")
