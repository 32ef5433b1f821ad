"""Header fields written so that no value can become a second field, and any parser reads what was meant.

RFC 5322 sections 2.1.1 and 2.2.3 (lines, folding), RFC 2047 (encoded words).
"""

from __future__ import annotations

import base64
import datetime
import email.utils
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from relay.report.addresses import host, is_mailbox
from relay.report.loops import NOTICE_FIELD

LINE_WISH = 78
LINE_LIMIT = 998
"""Octets of a line without its CRLF: should and must."""
_WORD_CHARS = 225
"""Characters of a word that is cut because no line could take it: at most 900 octets."""
_ENCODED_OCTETS = 39
"""Octets in one encoded word: 64 columns, so that it fits behind ``Subject: ``."""
_LATEST = 253402300799.0  # the last second of year 9999

_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]+"
)
"""Controls, line ends, marks that turn text round, lone surrogates."""
_ATOMS = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
_MESSAGE_ID = re.compile(rf"<{_ATOMS}@(?:{_ATOMS}|\[[A-Za-z0-9:.]+\])>")


def clean(text: str, limit: int = 900) -> str:
    """One line for people: unseen characters and runs of blanks become one blank; at most ``limit`` characters."""
    text = " ".join(_UNSEEN.sub(" ", text[: limit * 4]).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def moment(seconds: float) -> datetime.datetime:
    """UTC; times outside of the calendar become its ends, and no number 1970."""
    seconds = seconds if seconds == seconds else 0.0
    return datetime.datetime.fromtimestamp(int(min(max(seconds, 0.0), _LATEST)), datetime.UTC)


def date(seconds: float) -> str:
    """RFC 5322 section 3.3, in UTC."""
    return email.utils.format_datetime(moment(seconds))


def message_id(text: str) -> str | None:
    """A valid ``Message-ID`` in its angle brackets, or None (RFC 5322 section 3.6.4)."""
    text = text.strip()
    text = text if text.startswith("<") else f"<{text}>"
    return text if len(text) <= 500 and _MESSAGE_ID.fullmatch(text) else None


def seen(text: str) -> str:
    """The text without unseen characters; its blanks stay as they are."""
    return _UNSEEN.sub(" ", text).strip(" ")


def folded(name: str, value: str) -> bytes:
    """A field in UTF-8, folded at blanks, no line over 998 octets; line ends in the value are blanks."""
    lines, line, empty = [], f"{name}:".encode(), True
    for word in _words(seen(value)):
        if word and not empty and len(line) + 1 + len(word) > LINE_WISH:
            lines.append(line)
            line = b""
        line, empty = line + b" " + word, False
    return b"\r\n".join([*lines, line]) + b"\r\n"


def _words(value: str) -> Iterator[bytes]:
    for word in value.split(" "):
        octets = word.encode()
        if len(octets) <= 4 * _WORD_CHARS:
            yield octets
        else:
            yield from (
                word[start : start + _WORD_CHARS].encode() for start in range(0, len(word), _WORD_CHARS)
            )


def unstructured(name: str, text: str) -> bytes:
    """Free text in ASCII: as it is, or as encoded words."""
    text = clean(text)
    if not text.isascii() or "=?" in text:
        text = " ".join(_encoded(text))
    return folded(name, text)


def _encoded(text: str) -> Iterator[str]:
    piece = b""
    for char in text:
        octets = char.encode()
        if len(piece) + len(octets) > _ENCODED_OCTETS:
            yield _encoded_word(piece)
            piece = b""
        piece += octets
    yield _encoded_word(piece)


def _encoded_word(octets: bytes) -> str:
    return f"=?utf-8?b?{base64.b64encode(octets).decode()}?="


def to_field(address: str) -> bytes:
    """``To``, never more than one; an address that is none is not shown (RFC 5322 section 3.6.3)."""
    shown = address if is_mailbox(address) else "undisclosed-recipients:;"
    return f"To: {shown}\r\n".encode()


def from_field(address: str, hostname: str) -> bytes:
    """``From``, named after the relay."""
    name = host(hostname)
    shown = address if is_mailbox(address) else f"postmaster@{name}"
    return folded("From", f'"Mail relay at {name}" <{shown}>')


@dataclass(frozen=True, slots=True)
class Letterhead:
    """What every mail of this room is given by its caller."""

    to: str
    from_email: str
    hostname: str
    now: float
    message_id: str

    @property
    def own_id(self) -> str:
        """The id we were given; made of its hash when it is not valid."""
        digest = hashlib.sha256(self.message_id.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        return message_id(self.message_id) or f"<notice.{digest}@{host(self.hostname)}>"


def head(
    letter: Letterhead, subject: str, *, notice_for: str, auto_submitted: str, in_reply_to: str | None
) -> bytes:
    """All fields of a notice but those of its content; ``in_reply_to`` is valid, or None.

    ``Auto-Submitted``: RFC 3834 section 5. ``X-Auto-Response-Suppress``: Exchange then sends no out-of-office answer,
    which Graph, having no null sender, would otherwise provoke ([MS-OXCMAIL], section 2.2.3.2.14).
    """
    out = [
        from_field(letter.from_email, letter.hostname),
        to_field(letter.to),
        unstructured("Subject", subject),
        folded("Date", date(letter.now)),
        folded("Message-ID", letter.own_id),
        folded("Auto-Submitted", auto_submitted),
        folded("X-Auto-Response-Suppress", "DR, OOF, AutoReply, RN, NRN"),
        unstructured(NOTICE_FIELD, clean(notice_for, 200) or "unknown"),
    ]
    if in_reply_to:
        out += [folded("In-Reply-To", in_reply_to), folded("References", in_reply_to)]
    return b"".join([*out, b"MIME-Version: 1.0\r\n"])
