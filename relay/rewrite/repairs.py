"""Mends what Exchange would refuse, and takes out what must not travel. Each mend is noted for the trace.

Sources: RFC 5322 section 3.6 (each field at most once), RFC 6532 and RFC 2047 (raw 8-bit header text is only
for SMTPUTF8), RFC 2231 (file names), RFC 5321 section 4.5.3.1.6 (lines of at most 998 octets).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import quote

from relay.rewrite.addresses import Mailbox, write_address, write_mailbox, write_phrase
from relay.rewrite.encoding import encode_unstructured, to_text
from relay.rewrite.fields import LINE_LIMIT, Field, build, refold, shown_name, too_long, value_of
from relay.rewrite.headers import declared_charset
from relay.rewrite.parser import parse_mailboxes, tokens

HIDDEN = frozenset({b"bcc", b"resent-bcc", b"return-path"})
"""Never leave the relay: Bcc tells secrets, Return-Path belongs to the last hop (RFC 5321 section 4.4)."""
LISTS = frozenset({b"to", b"cc"})
UNIQUE = LISTS | {
    b"date", b"sender", b"reply-to", b"message-id", b"in-reply-to", b"references", b"subject",
    b"mime-version", b"content-type", b"content-transfer-encoding",
}  # fmt: skip
"""At most one of each (the last three: RFC 2045); From is not here because its step reads all of them."""
NEVER_EMPTY = frozenset(
    {b"to", b"cc", b"date", b"sender", b"reply-to", b"message-id", b"in-reply-to", b"references"}
)
"""Without a value these are invalid, and count as missing."""
_MAY_BE_LISTED = UNIQUE | HIDDEN
_ADDRESSES = LISTS | {
    b"sender", b"reply-to", b"resent-from", b"resent-sender", b"resent-to", b"resent-cc", b"resent-reply-to",
    b"disposition-notification-to", b"return-receipt-to", b"errors-to",
}  # fmt: skip
_PARAMETERS = frozenset({b"content-type", b"content-disposition"})
_STRUCTURED = frozenset({
    b"received", b"date", b"message-id", b"in-reply-to", b"references", b"resent-date", b"resent-message-id",
    b"mime-version", b"content-transfer-encoding", b"content-id", b"dkim-signature", b"auto-submitted",
    b"authentication-results", b"list-id", b"list-unsubscribe", b"list-unsubscribe-post", b"precedence",
})  # fmt: skip
"""Where encoded words may not stand; octets beyond ASCII become question marks there."""
_OPTIONAL = _STRUCTURED - {b"mime-version", b"content-transfer-encoding", b"content-id"}
"""A message can do without these rather than be refused for a line of theirs that cannot be folded."""
_PARAMETER = re.compile(r';\s*(name|filename)\s*=\s*(?:"((?>(?:[^"\\]|\\.)*))"|([^\s;"]+))', re.IGNORECASE)


@dataclass(slots=True)
class Work:
    """One header block being rewritten: its fields, what was done to them, whether raw UTF-8 may stay."""

    fields: list[Field]
    smtputf8: bool = False
    notes: list[str] = field(default_factory=list)

    def has(self, name: bytes) -> bool:
        """Whether there is such a field."""
        return any(one == name for one, _ in self.fields)

    def drop(self, name: bytes) -> int:
        """Take out every field of that name; how many there were."""
        before = len(self.fields)
        self.fields = [one for one in self.fields if one[0] != name]
        return before - len(self.fields)

    def add(self, name: str, value: str) -> None:
        """Append a field."""
        self.fields.append((name.lower().encode("ascii"), build(name, value)))

    def put(self, name: str, value: str) -> None:
        """One field of that name: where the first one stood, or at the end."""
        key = name.lower().encode("ascii")
        place = next((index for index, one in enumerate(self.fields) if one[0] == key), len(self.fields))
        self.fields[place : place + 1] = [(key, build(name, value))]
        if any(one[0] == key for one in self.fields[place + 1 :]):
            self.fields[place + 1 :] = [one for one in self.fields[place + 1 :] if one[0] != key]


def tidy(work: Work) -> None:
    """Hidden, empty and repeated fields: one look at all names decides whether anything needs doing."""
    seen: set[bytes] = set()
    wanted = False
    for name, raw in work.fields:
        if name in _MAY_BE_LISTED:
            wanted = wanted or name in seen or name in HIDDEN or raw.rstrip().endswith(b":")
            seen.add(name)
    if wanted:
        _drop_hidden(work)
        _drop_empty(work)
        _merge_repeated(work)


def _drop_hidden(work: Work) -> None:
    for name in sorted(HIDDEN):
        if work.drop(name):
            work.notes.append(f"{name.decode('ascii').title()} removed")


def _drop_empty(work: Work) -> None:
    kept = [(name, raw) for name, raw in work.fields if name not in NEVER_EMPTY or value_of(raw)]
    if len(kept) < len(work.fields):
        work.fields = kept
        work.notes.append("empty fields removed")


def _merge_repeated(work: Work) -> None:
    first: dict[bytes, int] = {}
    kept: list[Field] = []
    for name, raw in work.fields:
        if name not in UNIQUE or name not in first:
            first.setdefault(name, len(kept))
            kept.append((name, raw))
            continue
        if name in LISTS:
            kept[first[name]] = (name, _joined(kept[first[name]][1], raw))
            work.notes.append(f"several {shown_name(raw)} fields joined")
        else:
            work.notes.append(f"repeated {shown_name(raw)} removed")
    work.fields = kept


def _joined(one: bytes, other: bytes) -> bytes:
    """Two address lists as one field; both keep their octets."""
    head = one.rstrip(b" \t\r\n,")
    return head + b",\r\n " + value_of(other).strip(b" \t,") + b"\r\n"


def encode_eight_bit(work: Work) -> None:
    """Raw 8-bit header text (old ERPs, scripts) in a form that needs no SMTPUTF8. From has its own step."""
    charset = declared_charset(work.fields)
    fields: list[Field] = []
    for name, raw in work.fields:
        if raw.isascii() or name == b"from" or (work.smtputf8 and _is_utf8(raw)):
            fields.append((name, raw))
            continue
        title = shown_name(raw)
        text = to_text(value_of(raw), charset)
        if name in _ADDRESSES and _is_utf8(raw) and not _writable(text):
            fields.append((name, raw))
            work.notes.append(f"{title}: an address needs SMTPUTF8")
            continue
        mended = _ascii_field(name, title, text)
        if mended:
            fields.append((name, mended))
        work.notes.append(f"{title}: raw 8-bit text {'encoded' if mended else 'removed'}")
    work.fields = fields


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _writable(text: str) -> bool:
    """Whether every address of the list has an ASCII form."""
    return all(write_address(one.address) for one in parse_mailboxes(text) if one.address)


def _ascii_field(name: bytes, title: str, text: str) -> bytes | None:
    """The field in ASCII; None when nothing of it can be kept."""
    if name in _ADDRESSES:
        value = write_list(parse_mailboxes(text))
        return build(title, value) if value else None
    if name in _PARAMETERS:
        return build(title, _question_marks(_PARAMETER.sub(_parameter, text)))
    if name in _STRUCTURED:
        return build(title, _question_marks(text))
    return build(title, encode_unstructured(text, lead=len(title) + 2), structured=False)


def write_list(mailboxes: list[Mailbox], *, smtputf8: bool = False) -> str:
    """An address list in strict syntax; what has no address, or one that cannot be written, is left out."""
    written = []
    for one in mailboxes:
        address = write_address(one.address, smtputf8=smtputf8)
        if address:
            written.append(write_mailbox(write_phrase(one.phrase, smtputf8=smtputf8), address))
    return ", ".join(written)


def _question_marks(text: str) -> str:
    return text.encode("ascii", "replace").decode("ascii")


def _parameter(match: re.Match[str]) -> str:
    """A file name beyond ASCII by RFC 2231."""
    value = match[2] if match[2] is not None else match[3]
    return match[0] if value.isascii() else f"; {match[1]}*=utf-8''{quote(value, safe='')}"


def fold_long(work: Work) -> None:
    """Lines over 998 octets are broken where that does not change the field's meaning."""
    kept: list[Field] = []
    for name, raw in work.fields:
        if len(raw) <= LINE_LIMIT or not too_long(raw):
            kept.append((name, raw))
            continue
        folded = refold(_with_places(name, raw))
        if too_long(folded) and name not in (_ADDRESSES | _PARAMETERS | _STRUCTURED) and raw.isascii():
            title = shown_name(raw)
            text = encode_unstructured(value_of(raw).decode("ascii"), lead=len(title) + 2)
            folded = build(title, text, structured=False)
        done = "folded"
        if too_long(folded):
            done = "removed" if name in _OPTIONAL else "left too long"
        if done != "removed":
            kept.append((name, folded))
        work.notes.append(f"{shown_name(raw)}: line over 998 octets {done}")
    work.fields = kept


def _with_places(name: bytes, raw: bytes) -> bytes:
    """Blanks where a line may be broken and has none: after the commas of an address list, between message ids."""
    if name in (b"references", b"in-reply-to"):
        return raw.replace(b"><", b"> <")
    if name not in _ADDRESSES:
        return raw
    head, colon, value = raw.partition(b":")
    pieces: list[str] = []
    open_ended = False
    for kind, piece in tokens(value.decode("latin-1")):
        if open_ended and kind != "w":
            pieces.append(" ")
        open_ended = kind == "s" and piece in ",;"
        pieces.append(f"({piece})" if kind == "c" else piece)
    text = "".join(pieces)
    return head + colon + text.encode("latin-1") if text.endswith("\r\n") else raw
