"""Values with parameters (Content-Type, Content-Disposition) as they really occur, and the file names in them.

RFC 2045 section 5.1 and RFC 2183 for the syntax, RFC 2231 for continuations and character sets; encoded words
(RFC 2047) and raw 8-bit are against the rules and common. Nothing here fails.
"""

from __future__ import annotations

import re
import unicodedata
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field

from relay.rewrite.encoding import clean, decode_words, text_codec, to_text

NAME_OCTETS = 200
"""Longest file name, in UTF-8: below the 255 octets of every file system, with room for `` (2)``."""
PARAMETERS_LIMIT = 100
"""Parameters read from one field."""

_PARAMETER = re.compile(r';\s*+([^\s=;"]++)\s*+=\s*+("(?>(?:[^"\\]|\\.)*)"|"[^;]*+|[^;]*+)', re.DOTALL)
_SECTION = re.compile(r"(.+?)\*(\d{1,3})?(\*)?", re.DOTALL)
_MEDIA = re.compile(r"[!#$&^_.+a-z0-9-]{1,100}/[!#$&^_.+a-z0-9-]{1,100}")
_ESCAPE = re.compile(r'\\(["\\])')
_JOINERS = "\u200c\u200d"
"""Unseen, and part of how Persian names and some emoji are written; every other format character goes."""


@dataclass(frozen=True, slots=True)
class Value:
    """``text/plain; charset=utf-8`` taken apart: ``text`` and the parameters' names are in lower case."""

    text: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)


def read_value(octets: bytes, default: str = "") -> Value:
    """Take a field's value apart; ``default`` where the main word is missing."""
    text = to_text(octets)
    word, semicolon, rest = text.partition(";")
    return Value(clean(word).lower().strip() or default, _parameters(semicolon + rest))


def media_type(octets: bytes, default: str) -> Value:
    """A Content-Type; what is no media type at all is ``default`` (RFC 2045 section 5.2)."""
    value = read_value(octets, default)
    word = value.text.split(" ")[0]
    if word == "text":
        word = "text/plain"
    return Value(word if _MEDIA.fullmatch(word) else default, value.parameters)


def _parameters(text: str) -> dict[str, str]:
    """Name -> value; of a name that comes twice the first counts, and RFC 2231's form counts most."""
    plain: dict[str, str] = {}
    extended: dict[str, dict[int, tuple[str, bool]]] = {}
    for count, match in enumerate(_PARAMETER.finditer(text)):
        if count >= PARAMETERS_LIMIT:
            break
        name, value = match[1].lower(), _unquoted(match[2])
        section = _SECTION.fullmatch(name) if "*" in name else None
        if section is None:
            plain.setdefault(name, value)
        else:
            encoded = section[3] is not None or section[2] is None
            extended.setdefault(section[1], {}).setdefault(int(section[2] or 0), (value, encoded))
    return plain | {name: _joined(pieces) for name, pieces in extended.items()}


def _unquoted(value: str) -> str:
    """Without its quotes. Only quotes and backslashes are taken for escaped: ``C:\\new`` is a path that was not."""
    value = value.strip()
    if value.startswith('"'):
        value = value[1:-1] if len(value) > 1 and value.endswith('"') else value[1:]
        return _ESCAPE.sub(r"\1", value)
    return value


def _joined(pieces: Mapping[int, tuple[str, bool]]) -> str:
    """The pieces of an RFC 2231 value in their order; the first names the character set of those that are encoded."""
    octets, charset = b"", ""
    for number, (text, encoded) in sorted(pieces.items()):
        if not encoded:
            octets += text.encode("utf-8", "replace")
            continue
        if number == 0 and text.count("'") >= 2:
            charset, _, text = text.split("'", 2)
        octets += urllib.parse.unquote_to_bytes(text)
    codec = text_codec(charset)
    if codec:
        try:
            return octets.decode(codec)
        except UnicodeDecodeError:
            pass
    return to_text(octets)


def file_name(disposition: Value, media: Value) -> str:
    """The name a part asks for: Content-Disposition's, else Content-Type's; empty when neither gives one."""
    name = disposition.parameters.get("filename", "").strip() or media.parameters.get("name", "").strip()
    return decode_words(name)


def safe_name(name: str) -> str:
    """A name that is only a name: no path, no control or direction marks, not too long; empty when nothing is left."""
    # a mark that turns the direction of writing lets ``gpj.exe`` read as ``exe.jpg``
    name = "".join(char for char in name if char in _JOINERS or unicodedata.category(char) != "Cf")
    name = re.split(r"[/\\]", clean(name))[-1]
    name = "".join(" " if char.isspace() else char for char in name)
    return _shortened(name.lstrip(" ").rstrip(" ."))


def _shortened(name: str) -> str:
    """At most `NAME_OCTETS` octets, the extension kept."""
    if len(name.encode()) <= NAME_OCTETS:
        return name
    stem, dot, extension = name.rpartition(".")
    if not dot or not stem or len(extension.encode()) > 20:
        stem, dot, extension = name, "", ""
    room = NAME_OCTETS - len((dot + extension).encode())
    return stem.encode()[:room].decode("utf-8", "ignore").rstrip(" .") + dot + extension
