"""Reads address lists the way they really occur: RFC 5322 section 3.4 with its obsolete forms (section 4.4), and broken ones.

Never fails and takes time in proportion to the text. What cannot be read as an address may still be a name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from relay.rewrite.addresses import Mailbox, encode_name, is_address, name_of, unquote
from relay.rewrite.encoding import clean, decode_words

MAILBOXES_LIMIT = 1000
"""Addresses read from one field; more than any real From or Reply-To has."""

Token = tuple[str, str]
"""(kind, text): w blanks, q quoted string, l domain literal, c inside of a comment, s special, a other text.

An encoded word is one piece of text, whatever specials a careless writer left in it.
"""

_TOKEN = re.compile(
    r"(=\?[A-Za-z0-9_.:+*-]++\?[bBqQ]\?[^? \t\r\n<>]*+\?=)"
    r'|([ \t\r\n]++)|("(?>(?:[^"\\]|\\.)*)")|(\[(?>(?:[^\[\]\\]|\\.)*)\])|([<>,:;@])'
    r'|([^ \t\r\n"()<>\[\],:;@\\]++)|(\\.)|(.)',
    re.DOTALL,
)
_KINDS = "awqlsaax"
_PARENTHESIS = re.compile(r"\\.|[()]", re.DOTALL)
_GAPS = re.compile(r"[\s<>(),;:\"]+")
_NAME_OCTETS = 4000
"""How much of a name is looked at; far more than is ever kept."""


def tokens(text: str) -> Iterator[Token]:
    """The text cut into tokens; joined again, with parentheses around comments, it is the text."""
    position = 0
    while match := _TOKEN.match(text, position):
        kind, piece, position = _KINDS[(match.lastindex or 1) - 1], match[0], match.end()
        if piece == "(":
            end, position = _comment(text, position)
            kind, piece = "c", text[match.end() : end]
        yield kind, piece


def _comment(text: str, start: int) -> tuple[int, int]:
    """Where a comment's inside ends, and where reading goes on; comments nest, and may lack their end."""
    depth = 1
    for match in _PARENTHESIS.finditer(text, start):
        depth += {"(": 1, ")": -1}.get(match[0], 0)
        if depth == 0:
            return match.start(), match.end()
    return len(text), len(text)


class _Reader:
    """Collects the tokens of one list element, and makes a mailbox of them."""

    def __init__(self) -> None:
        self.found: list[Mailbox] = []
        self.loose = ""
        """Text without an address so far: the ``Doe`` of ``Doe, John <j@x>``, or all there is."""
        self.group = ""
        self._start_element()

    def _start_element(self) -> None:
        self.words: list[Token] = []
        self.has_at = False
        self.angle: list[Token] | None = None
        self.after: list[Token] = []
        self.inside = False
        self.comments: list[str] = []

    def read(self, text: str) -> None:
        for kind, piece in tokens(text):
            if kind == "c":
                self.comments.append(piece)
                (self.words if self.angle is None else self.angle).append(("w", " "))
            elif kind == "x":
                continue  # a stray quote, bracket or parenthesis
            elif self.inside:
                self._inside(kind, piece)
            else:
                self._outside(kind, piece)
            if len(self.found) >= MAILBOXES_LIMIT:
                return
        self._finish_element()

    def _inside(self, kind: str, piece: str) -> None:
        if piece == ">":
            self.inside = False
        elif piece == "<" and self.angle:
            self._finish_element()
            self.angle, self.inside = [], True
        elif piece != "<" and self.angle is not None:
            self.angle.append((kind, piece))

    def _outside(self, kind: str, piece: str) -> None:
        if kind != "s" or piece == "@":
            (self.words if self.angle is None else self.after).append((kind, piece))
            self.has_at = self.has_at or piece == "@"
        elif piece == "<":
            self._start_angle()
        elif piece in ",;":
            self._finish_element()
        elif piece == ":" and self.angle is None and not self.has_at:
            self.loose, self.group = "", _phrase(self.words)
            self._start_element()

    def _start_angle(self) -> None:
        """A second address in one element: the comma is missing, and what follows the first ``>`` is the next name."""
        if self.angle is not None:
            after, self.after = self.after, []
            self._finish_element()
            self.words = after
        self.angle, self.inside = [], True

    def _finish_element(self) -> None:
        words = self.words
        addresses = _angle_addresses(self.angle) if self.angle else []
        if addresses:
            name = ", ".join(filter(None, (self.loose, _phrase(words)))) or _phrase(self.after)
        else:
            address, rest = _bare_address(words + self.after)
            addresses, name = [address] if address else [], _phrase(rest)
        if addresses:
            self.loose = ""
            self._add(addresses, name)
        elif (name or self.comments) and len(self.loose) < _NAME_OCTETS:
            self.loose = ", ".join(filter(None, (self.loose, _nameless(name, self.comments))))
        self._start_element()

    def _add(self, addresses: list[str], name: str) -> None:
        name = name or _comment_phrase(self.comments)
        self.found.append(Mailbox(name, addresses[0]))
        self.found += [Mailbox("", address) for address in addresses[1:]]


def parse_mailboxes(text: str) -> list[Mailbox]:
    """Every mailbox of an address list, in order; one nameless-address entry when there is only a name; else none."""
    reader = _Reader()
    reader.read(text)
    if reader.found:
        return reader.found
    if "=?" in text:  # the whole value was encoded, address and all: against RFC 2047, and common
        again = _Reader()
        again.read(clean(decode_words(text)))
        if again.found:
            return again.found
    name = reader.loose or reader.group
    return [Mailbox(name, "")] if any(map(str.isalnum, name)) else []


def _phrase(words: list[Token]) -> str:
    """The words as written, each run of blanks made one blank."""
    parts: list[str] = []
    for kind, piece in words:
        if kind != "w":
            parts.append(piece)
        elif parts and parts[-1] != " ":
            parts.append(" ")
    return "".join(parts).strip(" ")[:_NAME_OCTETS]


def _comment_phrase(comments: list[str]) -> str:
    """The first comment with something in it, as a display name: ``addr (Name)`` is the oldest way to give one."""
    for comment in comments:
        text = clean(unquote(comment)[:_NAME_OCTETS])
        if text:
            return text if "=?" in text or not text.isascii() else encode_name(text)
    return ""


def _nameless(name: str, comments: list[str]) -> str:
    """What stands for a name where there is no address: ``root (Cron Daemon)`` is shown as it is."""
    comment = _comment_phrase(comments)
    return f"{name} ({name_of(comment)})" if name and comment else name or comment


def _angle_addresses(inside: list[Token]) -> list[str]:
    """What is between < and >: an address, perhaps after a route (``@a,@b:``) or ``mailto:``, perhaps several."""
    specials = [index for index, piece in enumerate(inside) if piece == ("s", ":")]
    inside = inside[specials[-1] + 1 :] if specials else inside
    pieces: list[list[Token]] = [[]]
    for piece in inside:
        if piece in (("s", ","), ("s", ";")):
            pieces.append([])
        else:
            pieces[-1].append(piece)
    return [text for piece in pieces if is_address(text := _joined(piece))]


def _joined(words: list[Token]) -> str:
    """An address without the blanks that may stand beside its @ and dots; other blanks stay, and spoil it."""
    text = _phrase(words)
    return re.sub(r" *([@.]) *", r"\1", text) if " " in text and '"' not in text else text


def _bare_address(words: list[Token]) -> tuple[str, list[Token]]:
    """The address among words without angle brackets, and the words that are left for a name."""
    for index, word in enumerate(words):
        if word == ("s", "@"):
            start, end = _left(words, index), _right(words, index)
            address = _joined(words[start:end]).strip("'")
            if is_address(address) and ("s", "@") not in (*words[start - 1 : start], *words[end : end + 1]):
                return address, [*words[:start], ("w", " "), *words[end:]]
    for index, (kind, piece) in enumerate(words):
        if kind == "q":
            for part in _GAPS.split(name_of(piece)[:_NAME_OCTETS]):
                if is_address(part.strip("'")):
                    return part.strip("'"), words[:index] + words[index + 1 :]
    return "", words


def _left(words: list[Token], at: int) -> int:
    """Start of the local part before the @ at index ``at``."""
    start = at - 1 if at and words[at - 1][0] == "w" else at
    while start > 0 and (
        words[start - 1][0] in "aq" or (words[start - 1][0] == "w" and _dotted(words[start]))
    ):
        start -= 1
    return start


def _right(words: list[Token], at: int) -> int:
    """End of the domain after the @ at index ``at``; blanks may stand beside its dots (RFC 5322 section 4.4)."""
    end = at + 1
    if end < len(words) and words[end][0] == "w":
        end += 1
    if end < len(words) and words[end][0] in "al":
        end += 1
        while end + 1 < len(words) and words[end][0] == "w" and _dotted(words[end + 1]):
            end += 2
            if words[end - 1][1] == "." and end + 1 < len(words) and words[end + 1][0] == "a":
                end += 2
    return end


def _dotted(word: Token) -> bool:
    return word[0] == "a" and word[1].startswith(".")
