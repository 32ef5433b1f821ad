"""Octets of a text part to text: by the declared character set, and by sense where the label is wrong or missing."""

from __future__ import annotations

import re
from dataclasses import dataclass

from relay.rewrite.encoding import text_codec, whole

_WIDER = {
    "us-ascii": "cp1252",
    "ascii": "cp1252",
    "iso-8859-1": "cp1252",
    "latin1": "cp1252",
    "latin-1": "cp1252",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "euc-kr": "cp949",
    "ks_c_5601-1987": "cp949",
    "shift_jis": "cp932",
    "shift-jis": "cp932",
    "sjis": "cp932",
    "iso-2022-jp": "iso2022_jp_ext",
    "big5": "big5hkscs",
}
"""What senders really use under these labels; asked where the label's own set does not fit."""
_META = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?([A-Za-z0-9_.:+-]{2,40})""", re.IGNORECASE)
_META_ROOM = 2048
_C1 = re.compile(rb"[\x80-\x9f]")
_SPOILING = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f\ufffe\uffff]")
"""Control characters no reader shows, and some stores refuse (they are not allowed in XML)."""


@dataclass(frozen=True, slots=True)
class Text:
    """A decoded text; ``note`` says what could not be kept, empty when all was."""

    content: str
    note: str = ""


def decode_text(octets: bytes, charset: str, *, html: bool = False) -> Text:
    """The text, whatever the label says. ``charset`` is the declared one, empty when there was none."""
    label = charset.strip().strip("'\"").lower()
    if not label and html and (meta := _META.search(octets[:_META_ROOM])):
        label = meta[1].decode("ascii").lower()
    content, note = _decoded(octets, label)
    content = whole(content.removeprefix("\ufeff"))
    if _SPOILING.search(content):
        content = _SPOILING.sub("", content)
        note = "; ".join(filter(None, (note, "control characters were taken out")))
    return Text(content, note)


def _decoded(octets: bytes, label: str) -> tuple[str, str]:
    codec = text_codec(label) if label else None
    if (
        octets.isascii()
        and (codec is None or label in ("us-ascii", "ascii", "utf-8"))
        and b"\x1b" not in octets
    ):
        return octets.decode("ascii"), ""
    if codec is None:
        return _guessed(octets, label)
    if not (_WIDER.get(label) == "cp1252" and _C1.search(octets)):
        try:
            return octets.decode(codec), ""
        except UnicodeDecodeError:
            pass
    if wider := _WIDER.get(label):
        try:
            return _guessed(octets, label) if wider == "cp1252" else (octets.decode(wider), "")
        except UnicodeDecodeError:
            pass
    return _damaged(octets, label, codec)


def _guessed(octets: bytes, label: str) -> tuple[str, str]:
    """Without a usable label: UTF-8 where it fits, else the Windows set of western Europe."""
    told = f"the character set {label[:40]} does not fit" if label else "no character set was given"
    try:
        return octets.decode("utf-8"), f"{told}: read as UTF-8"
    except UnicodeDecodeError:
        pass
    if label == "" and b"\x1b$" in octets:
        return octets.decode("iso2022_jp_ext", "replace"), f"{told}: read as ISO-2022-JP"
    usual = _WIDER.get(label) == "cp1252" and "ascii" not in label
    try:
        return octets.decode("cp1252"), "" if usual else f"{told}: read as Windows-1252"
    except UnicodeDecodeError:
        return octets.decode("latin-1"), f"{told}: read as ISO-8859-1"


def _damaged(octets: bytes, label: str, codec: str) -> tuple[str, str]:
    """Text that breaks its own character set: mislabelled as a whole, or damaged here and there."""
    if label in ("utf-8", "utf8") and octets.decode("utf-8", "ignore").isascii():
        return _guessed(octets, label)
    text = octets.decode(codec, "replace")
    count = text.count("\ufffd")
    return text, f"{count} places that are not valid {label[:40]} were replaced"
