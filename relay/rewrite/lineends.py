"""Are all line ends CRLF? Asked of every octet that comes and goes, so it is asked without searching for two octets.

Python searches for one octet, copies and compares at the memory's speed, but looks for CRLF ten to forty times as slowly.
"""

from __future__ import annotations

_CR = bytes(octet == 13 for octet in range(256))
_LF = bytes(octet == 10 for octet in range(256))

SMALL = 64 * 1024
"""Octets of a block up to which its line ends are taken out and put in again, to see whether that changes it ..."""
LINE = 20
"""... provided that its lines have so many octets on average: that costs by the line, the other ways by the octet."""


def only_crlf(block: bytes) -> bool:
    """Whether every CR and every LF of the block belongs to a CRLF inside of it: bare ones, and halves at its ends, do not."""
    if block.startswith(b"\n") or block.endswith(b"\r"):
        return False
    if len(block) < SMALL and LINE * block.count(b"\n") < len(block):
        return block.replace(b"\r", b"").replace(b"\n", b"\r\n") == block
    return _even(block) or block.translate(_CR)[:-1] == block.translate(_LF)[1:]


def _even(block: bytes) -> bool:
    """The same for lines of one length, as base64 and so most of a large message has them; False: not known.

    The line ends are taken where they are expected, and must leave no CR or LF elsewhere.
    """
    first = block.find(b"\n")
    length = block.find(b"\n", first + 1) - first
    if first < 1 or length < 2 or len(block) < 4 * length:
        return False
    crs, lfs = block[first - 1 :: length], block[first::length]
    if not len(crs) == len(lfs) == crs.count(b"\r") == lfs.count(b"\n"):
        return False
    rest = bytearray(block)
    rest[first - 1 :: length] = rest[first::length] = bytes(len(lfs))
    return b"\r" not in rest and b"\n" not in rest
