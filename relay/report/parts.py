"""MIME parts that carry any octets unharmed through a relay that mends line ends (RFC 2045, RFC 2046, RFC 6522)."""

from __future__ import annotations

import binascii
import hashlib
from collections.abc import Sequence

from relay.report.fields import LINE_LIMIT


def regular(octets: bytes) -> bool:
    """Whether nothing on the way would touch them: CRLF line ends only, no NUL, no line over 998 octets."""
    ends = octets.count(b"\r\n")
    if octets.count(b"\n") != ends or octets.count(b"\r") != ends or b"\0" in octets:
        return False
    return all(len(line) <= LINE_LIMIT for line in octets.split(b"\r\n"))


def quoted_printable(octets: bytes) -> bytes:
    """RFC 2045 section 6.7; CRLF stays a line end, everything else that is not plain text is written in hex."""
    lines = (binascii.b2a_qp(line, istext=False) for line in octets.split(b"\r\n"))
    return b"\r\n".join(line.replace(b"=\n", b"=\r\n") for line in lines)


def encoded(content_type: bytes, octets: bytes) -> bytes:
    """A part of text or of header fields: as it is when seven bits are enough, else quoted-printable (RFC 6522, 4)."""
    plain = octets.isascii() and regular(octets)
    transfer = b"7bit" if plain else b"quoted-printable"
    return _part(content_type, transfer, octets if plain else quoted_printable(octets))


def verbatim(content_type: bytes, octets: bytes) -> bytes:
    """A part of type ``message``, which may not be encoded (RFC 2046 section 5.2.1); ``octets`` must be `regular`."""
    return _part(content_type, b"7bit" if octets.isascii() else b"8bit", octets)


def text(words: str) -> bytes:
    """A part of plain text; line ends in ``words`` are LF."""
    return encoded(b"text/plain; charset=utf-8", words.replace("\n", "\r\n").encode())


def _part(content_type: bytes, transfer: bytes, octets: bytes) -> bytes:
    return b"Content-Type: %b\r\nContent-Transfer-Encoding: %b\r\n\r\n%b" % (content_type, transfer, octets)


def report(parts: Sequence[bytes]) -> tuple[bytes, bytes]:
    """The content fields with the closing empty line, and the body, of a ``multipart/report`` (RFC 6522)."""
    mark = _boundary(parts)
    transfer = b"7bit" if all(part.isascii() for part in parts) else b"8bit"
    fields = (
        b"Content-Type: multipart/report; report-type=delivery-status;\r\n"
        b' boundary="%b"\r\nContent-Transfer-Encoding: %b\r\n\r\n' % (mark, transfer)
    )
    body = b"".join(b"--%b\r\n%b\r\n" % (mark, part) for part in parts)
    return fields, body + b"--%b--\r\n" % mark


def _boundary(parts: Sequence[bytes]) -> bytes:
    """A mark that no part holds; the same parts get the same one, so a retried notice is the same notice."""
    digest = hashlib.sha256(b"\0".join(parts))
    while True:
        mark = b"=_relay_" + digest.hexdigest()[:32].encode()
        if not any(mark in part for part in parts):
            return mark
        digest.update(b"again")
