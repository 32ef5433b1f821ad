"""Who receives a MIME message: the addresses of its To, Cc and Bcc fields, read by RFC 5322 section 3.4.

Strict where it decides who gets mail: a display name, a comment or the name of a group never yields an address.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from relay.simulator import graph_errors as refusal
from relay.simulator.addresses import valid_address

_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"', re.S)
_LITERAL = re.compile(r"\[[^\]]*\]")
_ATOM = re.compile(r'[^\s"()<>\[\]:;@,.]+')
_DOT_ATOM = re.compile(r"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~.]+")
_BLANK = " "


def header_recipients(values: Iterable[str]) -> list[str]:
    """The addresses of fields of one name, in their order. Raises GraphError for one that is none."""
    return [address for value in values for address in _addresses(value)]


def distinct(addresses: Iterable[str]) -> list[str]:
    """Each address once, in the spelling seen first; case and needless quotes make no difference."""
    found: dict[str, str] = {}
    for address in addresses:
        found.setdefault(_compared(address), address)
    return list(found.values())


def _compared(address: str) -> str:
    local, _, domain = address.rpartition("@")
    if local.startswith('"') and _DOT_ATOM.fullmatch(local[1:-1]):
        local = local[1:-1]
    return f"{local}@{domain}".lower()


def _addresses(value: str) -> Iterator[str]:
    for tokens in _mailboxes(list(_tokens(value))):
        if "".join(tokens).strip():
            yield _address(tokens)


def _tokens(value: str) -> Iterator[str]:
    """Quoted strings, domain literals, atoms and single specials; comments and white space become a blank."""
    position = 0
    while position < len(value):
        character = value[position]
        if character == "(":
            position = _comment_end(value, position)
            yield _BLANK
            continue
        pattern = {'"': _QUOTED, "[": _LITERAL}.get(character, _ATOM)
        match = pattern.match(value, position)
        text = match[0] if match else character
        yield _BLANK if text.isspace() else text
        position += len(text)


def _comment_end(value: str, position: int) -> int:
    """Where the comment that begins here ends; comments nest and hold quoted pairs."""
    depth = 0
    while position < len(value):
        character = value[position]
        position += 2 if character == "\\" else 1
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth == 0:
            break
    return position


def _mailboxes(tokens: list[str]) -> Iterator[list[str]]:
    """The tokens of each list element; what stands before a group's colon is its name and is dropped."""
    current: list[str] = []
    angle = False
    for piece in tokens:
        angle = piece == "<" or (angle and piece != ">")
        if not angle and piece in (",", ";"):
            yield current
            current = []
        elif not angle and piece == ":":
            current = []
        else:
            current.append(piece)
    yield current


def _address(tokens: list[str]) -> str:
    """The addr-spec of one mailbox: what is in angle brackets, else all of it."""
    inner = tokens
    if "<" in tokens:
        rest = tokens[tokens.index("<") + 1 :]
        inner = rest[: rest.index(">")] if ">" in rest else []
        if ":" in inner:  # an obsolete route, RFC 5322 section 4.4
            inner = inner[inner.index(":") + 1 :]
    address = _joined(inner)
    if not valid_address(address):
        raise refusal.invalid_recipients()
    return address


def _joined(tokens: list[str]) -> str:
    """The tokens as one word; empty when blanks stand where only a dot or an at-sign may."""
    text, blank = "", False
    for piece in tokens:
        if piece == _BLANK:
            blank = True
            continue
        if blank and text and text[-1] not in ".@" and piece not in (".", "@"):
            return ""
        text, blank = text + piece, False
    return text
