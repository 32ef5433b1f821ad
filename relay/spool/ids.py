"""Message ids: 63-bit numbers in order of arrival, shown as 13 characters.

41 bits of milliseconds since 2024, 10 bits of node (a replica's number; 0 for a spool with one owner),
12 bits of sequence. Shown in Crockford's base 32, so that sorting texts sorts by time.
"""

from __future__ import annotations

from relay.errors import SpoolError

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_VALUES = {letter: value for value, letter in enumerate(_ALPHABET)} | {
    letter.lower(): value for value, letter in enumerate(_ALPHABET)
}
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
_EPOCH_MS = 1_704_067_200_000
"""2024-01-01; 41 bits last until 2093."""


_NODE = 0x3FF << 12


class Ids:
    """Gives out increasing numbers, also when the clock stands still or goes back."""

    def __init__(self, last: int = 0, node: int = 0) -> None:
        self._node = node << 12
        self._last = last

    @property
    def last(self) -> int:
        """The greatest number so far."""
        return self._last

    def next(self, now: float) -> int:
        """A new number for ``now`` (seconds since 1970), greater than every earlier one."""
        number = (max(0, int(now * 1000) - _EPOCH_MS) << 22) | self._node
        if number <= self._last:
            number = self._last + 1
            # the sequence is used up, or belongs to another node: borrow from the next millisecond
            if (number & 0xFFF) == 0 or (number & _NODE) != self._node:
                number = (((self._last >> 22) + 1) << 22) | self._node
        self._last = number
        return number

    def follow(self, number: int) -> bool:
        """Whether a number from elsewhere is greater than every earlier one; then it counts as given out here."""
        later = number > self._last
        self._last = max(self._last, number)
        return later


def node_of(number: int) -> int:
    """The node that gave a number out."""
    return (number & _NODE) >> 12


def begin(at_ms: int) -> int:
    """The least number of a time, in milliseconds since 1970."""
    return max(0, at_ms - _EPOCH_MS) << 22


def show(number: int) -> str:
    """The 13 characters of a number."""
    pairs = [_PAIRS[(number >> shift) & 0x3FF] for shift in range(50, -1, -10)]
    return _ALPHABET[(number >> 60) & 31] + "".join(pairs)


def read(text: str) -> int | None:
    """The number of a shown id; None when the text is no id."""
    if len(text) != 13:
        return None
    number = 0
    for letter in text:
        value = _VALUES.get(letter)
        if value is None:
            return None
        number = number * 32 + value
    return number if number < 1 << 63 else None


def number_of(text: str) -> int:
    """The number of a shown id. Raises SpoolError when the text is no id."""
    number = read(text)
    if number is None:
        raise SpoolError(f"{text!r} is no message id")
    return number
