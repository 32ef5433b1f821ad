"""Octets to text and back: encoded words (RFC 2047), raw 8-bit header values, text that is safe to show.

Written by hand rather than on the email package: that one is slow, and it does not keep what it does not understand.
"""

from __future__ import annotations

import binascii
import functools
import re
import unicodedata

WORD_LIMIT = 75
"""Longest encoded word, delimiters included (RFC 2047 section 2)."""
_PREFIX_Q, _PREFIX_B, _SUFFIX = "=?utf-8?q?", "=?utf-8?b?", "?="
_LEAD_LIMIT = 40
_ROOM = WORD_LIMIT - len(_PREFIX_Q) - len(_SUFFIX)

_WORD = re.compile(r"=\?([A-Za-z0-9_.:+-]++)(?:\*[A-Za-z0-9-]*+)?\?([bBqQ])\?([^?\r\n]*+)\?=")
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_SAFE_Q = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-/")
"""What the Q encoding may leave as it is inside a phrase (RFC 2047 section 5, rule 3)."""
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")

# Only real character sets: Python also calls things like punycode and unicode_escape codecs, which a
# hostile header could name to burn time or to smuggle line ends.
_CHARSETS = re.compile(
    r"(?:us-)?ascii|utf[-_]?(?:7|8|16(?:[-_]?[bl]e)?)|iso[-_]?8859[-_]\d{1,2}|latin[-_]?\d|windows[-_]\d{3,4}"
    r"|cp\d{3,4}|koi8[-_][rut]|gb2312|gbk|gb18030|big5(?:[-_]?hkscs)?|euc[-_](?:jp|kr)|s(?:hift[-_])?jis"
    r"|iso[-_]2022[-_](?:jp|kr)(?:[-_]\w{1,4})?|ks_c_5601(?:[-_]\d{4})?|tis[-_]620|macintosh|mac[-_]roman",
    re.IGNORECASE,
)


@functools.lru_cache(maxsize=128)
def text_codec(charset: str) -> str | None:
    """Python's name for a MIME character set; None when it is unknown or no character set at all."""
    if _CHARSETS.fullmatch(charset) is None:
        return None
    try:
        "".encode(charset)
    except LookupError:
        return None
    return charset


def to_text(octets: bytes, charset: str = "") -> str:
    """Text of a raw header value: ASCII, UTF-8, the declared ``charset``, else Windows-1252; never fails."""
    if octets.isascii():
        return _escaped_japanese(octets) if b"\x1b" in octets else octets.decode("ascii")
    for codec in ("utf-8", text_codec(charset), "cp1252"):
        if codec:
            try:
                return whole(octets.decode(codec))
            except UnicodeDecodeError:
                continue
    return octets.decode("latin-1")


def _escaped_japanese(octets: bytes) -> str:
    """ISO-2022-JP sits in seven bits, told by its escape sequences; what is not valid stays as it is."""
    try:
        return octets.decode("iso2022_jp")
    except UnicodeDecodeError:
        return octets.decode("ascii")


def whole(text: str) -> str:
    """The text without lone surrogates, which no encoder takes (UTF-7 can produce them)."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def decode_words(text: str) -> str:
    """Encoded words decoded for people; adjacent ones join, even in the middle of a character (common, if wrong)."""
    if "=?" not in text:
        return text
    out: list[str] = []
    charset, octets, last = "", b"", 0
    for match in _WORD.finditer(text):
        data = _word_octets(match[2], match[3])
        if data is None:
            continue
        gap, name = text[last : match.start()], match[1].lower()
        joins = last > 0 and not gap.strip()
        if not (joins and name == charset):
            out += (_decoded(octets, charset), "" if joins else gap)
            octets = b""
        charset, octets, last = name, octets + data, match.end()
    out += (_decoded(octets, charset), text[last:])
    return "".join(out)


def well_formed(text: str) -> bool:
    """Whether everything that looks like an encoded word is one; readers disagree about the others."""
    return "=?" not in text or "=?" not in _WORD.sub(" ", text)


def _word_octets(encoding: str, text: str) -> bytes | None:
    """The octets of one encoded word; None when it cannot be decoded and is better shown as it is."""
    raw = text.encode("utf-8", "replace")
    if encoding in "qQ":
        return binascii.a2b_qp(raw, header=True)
    try:
        raw = raw.rstrip(b"= ")
        return binascii.a2b_base64(raw + b"=" * (-len(raw) % 4))
    except binascii.Error:
        return None


def _decoded(octets: bytes, charset: str) -> str:
    codec = text_codec(charset)
    if not octets or codec is None:
        return to_text(octets)
    return whole(octets.decode(codec, "replace"))


def encode_words(text: str, *, lead: int = 0) -> str:
    """The text as UTF-8 encoded words of at most 75 characters, parted by single blanks (RFC 2047 section 2).

    ``lead`` columns are taken already (the field's name): the first word is that much shorter.
    """
    octets = whole(text).encode("utf-8")
    unsafe = sum(octet not in _SAFE_Q and octet != 0x20 for octet in octets)
    word = _q_word if unsafe * 6 <= len(octets) else _b_word
    words: list[str] = []
    piece, used, columns = b"", 0, _ROOM - min(lead, _LEAD_LIMIT)
    for char in whole(text):
        data = char.encode("utf-8")
        cost = sum(1 if octet in _SAFE_Q or octet == 0x20 else 3 for octet in data)
        cost = cost if word is _q_word else len(data)
        if used + cost > (columns if word is _q_word else columns // 4 * 3):
            words.append(word(piece))
            piece, used, columns = b"", 0, _ROOM
        piece, used = piece + data, used + cost
    return " ".join([*words, word(piece)] if piece else words)


def _q_word(octets: bytes) -> str:
    shown = (chr(o) if o in _SAFE_Q else "_" if o == 0x20 else f"={o:02X}" for o in octets)
    return _PREFIX_Q + "".join(shown) + _SUFFIX


def _b_word(octets: bytes) -> str:
    return _PREFIX_B + binascii.b2a_base64(octets, newline=False).decode("ascii") + _SUFFIX


def encode_unstructured(text: str, *, lead: int = 0, longest: int = 900) -> str:
    """Free text in ASCII: the stretch from the first to the last word that needs it becomes encoded words."""
    words = clean(text).split(" ")
    odd = [index for index, word in enumerate(words) if not word.isascii() or len(word) > longest]
    if not odd:
        return " ".join(words)
    first, last = odd[0], odd[-1] + 1
    while first > 0 and words[first - 1].startswith("=?") and words[first - 1].endswith("?="):
        first -= 1  # blanks between encoded words are not shown: an older neighbour joins in
    while last < len(words) and words[last].startswith("=?") and words[last].endswith("?="):
        last += 1
    shown = clean(decode_words(" ".join(words[first:last])))
    middle = encode_words(shown, lead=0 if first else lead)
    return " ".join([*words[:first], middle, *words[last:]])


def clean(text: str) -> str:
    """One line: every run of control characters (line ends among them) becomes one blank."""
    return _CONTROLS.sub(" ", whole(text)).strip()


def visible(text: str, limit: int = 250) -> str:
    """For people: at most ``limit`` characters, and nothing that could forge or turn a line."""
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    if text.isprintable():
        return text
    return "".join(map(_visible_char, text))[:limit]


def _visible_char(char: str) -> str:
    if char.isprintable():
        return char
    if char == "\t":
        return " "
    if char < " ":
        return chr(0x2400 + ord(char))
    if char == "\x7f":
        return "␡"
    hidden = char in _BIDI or unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"}
    return "\ufffd" if hidden else char
