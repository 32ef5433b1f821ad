"""ENVID and ORCPT as their senders meant them: xtext (RFC 3461 section 4) and utf-8 addresses (RFC 6533 section 3)."""

from __future__ import annotations

import re

_HEX = re.compile(r"\+([0-9A-F]{2})")
_POINT = re.compile(r"\\x\{([0-9A-Fa-f]{1,6})\}")
_PRINTABLE = re.compile(r"[ -~]+")
_TYPE = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+")


def decode(text: str) -> str:
    """xtext decoded; left as it is when what it hides is not printable ASCII, which the RFC demands it to be."""
    plain = _HEX.sub(lambda found: chr(int(found[1], 16)), text)
    return plain if _PRINTABLE.fullmatch(plain) else text


def original_recipient(orcpt: str) -> tuple[str, str] | None:
    """Address type (lower case) and decoded address of an ORCPT value; None when it is not one."""
    kind, semicolon, address = orcpt.partition(";")
    if not semicolon or not address.strip() or not _TYPE.fullmatch(kind):
        return None
    kind = kind.lower()
    return kind, _decode_utf8(address) if kind == "utf-8" else decode(address)


def _decode_utf8(address: str) -> str:
    return _POINT.sub(lambda found: _char(found[1]) or found[0], address)


def _char(digits: str) -> str:
    """The character of that number; empty when it has no business in an address."""
    point = int(digits, 16)
    if point > 0x10FFFF or not (char := chr(point)).isprintable():
        return ""
    return char


def encode_utf8(address: str) -> str:
    """A utf-8 address in ASCII: the form ``utf-8-addr-xtext`` of RFC 6533 section 3."""
    return "".join(
        char if "!" <= char <= "~" and char not in "+\\=" else f"\\x{{{ord(char):X}}}" for char in address
    )
