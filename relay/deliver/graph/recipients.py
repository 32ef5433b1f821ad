"""The envelope decides: a header block whose To, Cc and Bcc name exactly the recipients of one request.

Graph has no envelope (facts 6.3): the header fields are the delivery list. An address outside the envelope stays
readable as the name of an empty group (RFC 5322 section 3.4), ``"Bob (bob at other.example)":;``, which delivers to
nobody. No ``@`` is left anywhere in the fields but in the addresses that do receive, so that no reader of headers,
however lenient, finds another one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from relay.message import Recipient
from relay.rewrite.addresses import Mailbox, comparable, encode_name, name_of, write_address
from relay.rewrite.encoding import decode_words, encode_words, to_text
from relay.rewrite.fields import LINE_LIMIT, LINE_WISH, cut, regular, shown_name, value_of
from relay.rewrite.parser import parse_mailboxes

LISTS = (b"to", b"cc")
REMOVED = frozenset({b"bcc", b"return-path", b"delivered-to", b"apparently-to", b"x-envelope-to"})
"""Fields that would add recipients, or that belong to another delivery (facts 6.3)."""
LONGEST_QUOTED = 70
"""Characters of a name within quotes; a longer one becomes encoded words, which can be folded."""
LONGEST_SHOWN = 200
"""Characters of an address or name that are kept for people when it receives nothing."""

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_ADDRESS = rf"(?:{_ATOM}(?:\.{_ATOM})*@[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?)"
_WORD = rf'(?:{_ATOM}\.?|"[^"\\@<>\r\n]*")'
_ELEMENT = re.compile(rf"[ \t]*+(?:(?:{_WORD}(?:[ \t]+{_WORD})*[ \t]*)?<({_ADDRESS})>|({_ADDRESS}))[ \t]*+")
_EMPTY_GROUP = re.compile(r"[A-Za-z0-9 -]+:[ \t]*;")
_WHOLE = re.compile(r'(?:"(?:[^"\\]|\\.)*"|[^ ])+')
"""What stays on one line: a word, with the quoted strings in it."""
_ATS = re.compile("[@\uff20\ufe6b]")
"""The sign, and the two that compatibility forms turn into it."""


def addressed(header: bytes, recipients: Sequence[Recipient]) -> bytes:
    """The header block for these recipients. Pure; never fails; the block ends as it did.

    Those named in To or Cc stay there; the others are named in one Bcc field, which Exchange does not show.
    """
    fields, rest, _ = cut(regular(header))
    wanted = {comparable(one.address): one.address for one in recipients}
    found: set[str] = set()
    done: set[bytes] = set()
    kept: list[bytes] = []
    for name, raw in fields:
        if name in REMOVED or name.startswith(b"resent-"):
            continue
        if name not in LISTS:
            kept.append(raw)
        elif name not in done:  # several fields of a name become one
            done.add(name)
            kept.append(_list_field(name, [one for key, one in fields if key == name], wanted, found))
    hidden = [address for key, address in wanted.items() if key not in found]
    if hidden:
        kept.append(_folded("Bcc", [_written(address) for address in hidden]))
    return b"".join(kept) + b"\r\n" + rest


def _list_field(name: bytes, raws: list[bytes], wanted: dict[str, str], found: set[str]) -> bytes:
    """One To or Cc for all there were; ``found`` learns which recipients it names."""
    seen = _fit_as_it_is(raws[0], wanted) if len(raws) == 1 else None
    if seen is not None and not seen & found:
        found |= seen
        return raws[0]
    values = [to_text(value_of(raw)) for raw in raws]
    pieces = [piece for value in values for piece in _elements(value, wanted, found)]
    title = shown_name(raws[0])
    if pieces:
        return _folded(title, pieces)
    return b"" if name == b"cc" else f"{title}: undisclosed-recipients:;\r\n".encode()


def _fit_as_it_is(raw: bytes, wanted: dict[str, str]) -> set[str] | None:
    """The recipients of a field that nobody can misread and that names no others; None when it must be written anew."""
    blank_before_colon = raw[2:3] != b":"  # RFC 5322 section 4.5.3; not every reader knows that form
    if blank_before_colon or not raw.isascii() or max(map(len, raw.split(b"\r\n"))) > LINE_LIMIT:
        return None
    text = value_of(raw).decode("ascii")
    if _EMPTY_GROUP.fullmatch(text):
        return set()
    addresses = list(_plain_addresses(text))
    if not addresses or _at_signs(text) != len(addresses):
        return None
    keys = [comparable(one) for one in addresses]
    known = all(wanted.get(key, "").lower() == one.lower() for key, one in zip(keys, addresses, strict=True))
    return set(keys) if known and len(set(keys)) == len(keys) else None


def _plain_addresses(text: str) -> Iterator[str]:
    """The addresses of a list in plain syntax; nothing once it is not plain."""
    found, position = [], 0
    while True:
        match = _ELEMENT.match(text, position)
        if match is None:
            return
        found.append(match[1] or match[2])
        if match.end() == len(text):
            break
        if text[match.end()] != ",":
            return
        position = match.end() + 1
    yield from found


def _at_signs(text: str) -> int:
    """How many a reader could see, encoded words decoded."""
    return len(_ATS.findall(decode_words(text)))


def _elements(value: str, wanted: dict[str, str], found: set[str]) -> Iterator[str]:
    """The list's elements as they are to be written."""
    for one in parse_mailboxes(value):
        key = comparable(one.address) if one.address else ""
        if key in wanted and key not in found:
            found.add(key)
            name = _name(one)
            yield f"{name} <{_written(wanted[key])}>" if name else _written(wanted[key])
        elif key not in found:
            yield _nobody(one)


def _name(one: Mailbox) -> str:
    """The display name without any sign that could make an address of it."""
    shown = _without_at(name_of(one.phrase))
    if comparable(shown) == comparable(_without_at(one.address)):
        return ""
    name = encode_name(shown)
    return encode_words(shown, lead=4) if name[:1] == '"' and len(name) > LONGEST_QUOTED else name


def _nobody(one: Mailbox) -> str:
    """An empty group that only tells: ``"Bob (bob at other.example)":;``."""
    name, address = _without_at(name_of(one.phrase)), _without_at(one.address)
    if name == address:
        name = ""
    shown = f"{name} ({address})" if name and address else name or address or "unknown"
    quoted = '"' + shown.replace("\\", "\\\\").replace('"', '\\"') + '"'
    plain = shown.isascii() and "=?" not in shown and len(quoted) <= LONGEST_QUOTED
    return f"{quoted if plain else encode_words(shown, lead=4)}:;"


def _without_at(text: str) -> str:
    text = " ".join(_ATS.sub(" at ", decode_words(text)).split())
    return text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 3].rstrip() + "..."


def _written(address: str) -> str:
    """The envelope's address in header syntax; one with letters beyond ASCII stays as it is (RFC 6532)."""
    return write_address(address) or write_address(address, smtputf8=True) or address


def _folded(name: str, pieces: Sequence[str]) -> bytes:
    """A field of list elements, a line for as many as fit into 78 columns; long elements are broken at blanks.

    Quoted strings are not: Python's `email.utils.getaddresses`, for one, loses an address after a fold within one.
    """
    lines, line = [], f"{name}:"
    for number, piece in enumerate(pieces, 1):
        text = piece if number == len(pieces) else piece + ","
        for word in _WHOLE.findall(text) if len(text) >= LINE_WISH else [text]:
            if len(line) + 1 + len(word) > LINE_WISH and line != f"{name}:":
                lines.append(line)
                line = ""
            line += " " + word
    return "\r\n".join([*lines, line]).encode("utf-8") + b"\r\n"
