"""What the journey reads in a header block: the From addresses, the Message-ID, the Subject, the hops."""

from __future__ import annotations

import re
from dataclasses import dataclass

from relay.rewrite.addresses import Mailbox
from relay.rewrite.contract import HeaderFacts
from relay.rewrite.encoding import decode_words, to_text, visible
from relay.rewrite.fields import Field, block_end, cut, regular, value_of
from relay.rewrite.parser import parse_mailboxes

_ATOM = rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,200}+"
_NAME_WORD = rb"(?:" + _ATOM + rb'|"[^"\\\x00-\x1f\x7f-\xff]{0,200}+")'
_ADDRESS = (
    rb"((?:[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}+)@(?:[A-Za-z0-9_-]{1,63}+)(?>(?:\.[A-Za-z0-9_-]{1,63}+)*))"
)
_SIMPLE_FROM = re.compile(
    rb"(?:(" + _NAME_WORD + rb"(?>(?: " + _NAME_WORD + rb"){0,9}))? ?<" + _ADDRESS + rb">|" + _ADDRESS + rb")"
)
_MESSAGE_ID = re.compile(r"<[^<> \t]{1,990}>")
_CHARSET = re.compile(rb"""charset[ \t]*=[ \t]*"?([A-Za-z0-9_.:-]{1,40})""", re.IGNORECASE)
_SUBJECT_OCTETS = 6000
"""How much of a Subject is decoded: 250 characters, however they are encoded."""
_ID_LIMIT = 998


@dataclass(frozen=True, slots=True)
class Originators:
    """Who the header says the message is from."""

    mailboxes: tuple[Mailbox, ...]
    """In order, over all From fields; a single one without address when only a name can be read."""
    text: str
    """The values as they came, on one line, not decoded; empty when there is no From field."""
    simple: bool
    """Exactly one field in an unambiguous plain form: it may stay as it is."""

    @property
    def addresses(self) -> tuple[str, ...]:
        """Those that can be read."""
        return tuple(one.address for one in self.mailboxes if one.address)


def read_header(header: bytes) -> HeaderFacts:
    """What admission, routing and the spool need to know; never fails, whatever the octets are."""
    fields, _, _ = cut(regular(header))
    message_id = subject = ""
    senders: list[str] = []
    received = 0
    for name, raw in fields:
        if name == b"received":
            received += 1
        elif name == b"message-id" and not message_id:
            message_id = _read_message_id(raw)
        elif name == b"subject" and not subject:
            subject = _read_subject(raw, fields)
        elif name == b"sender":
            senders += [one.address for one in parse_mailboxes(to_text(value_of(raw))) if one.address]
    return HeaderFacts(
        from_addresses=read_originators(fields).addresses,
        message_id=message_id,
        subject=subject,
        received_count=received,
        fields=len(fields),
        sender_addresses=tuple(senders),
    )


def split_header(message_start: bytes, *, complete: bool = False) -> int | None:
    """How many octets belong to the header block, its closing empty line included.

    The block ends after the first empty line, or before the first line that is neither a field nor a
    continuation (as other mail servers see it); an mbox ``From `` line on top belongs to it. None while more
    octets are needed to tell; with ``complete`` there are no more.
    """
    lines = len(message_start) if complete else message_start.rfind(b"\n") + 1
    octets = message_start[:lines]
    if complete and not octets.endswith(b"\n"):
        octets += b"\n"
    end, _, _ = block_end(octets)
    if end >= len(octets):
        return min(end, lines) if complete else None
    for empty in (b"\r\n", b"\n"):
        if octets.startswith(empty, end):
            return min(end + len(empty), lines)
    return end


def read_originators(fields: list[Field]) -> Originators:
    """The mailboxes of all From fields: plain forms at once, the rest by the careful parser."""
    raws = [raw for name, raw in fields if name == b"from"]
    if len(raws) == 1:
        value = value_of(raws[0])
        match = _SIMPLE_FROM.fullmatch(value)
        if match:
            phrase, angle, bare = match.groups()
            address = (angle or bare).decode("ascii")
            mailbox = Mailbox(phrase.decode("ascii") if phrase else "", address)
            return Originators((mailbox,), value.decode("ascii"), simple=True)
    charset = declared_charset(fields) if raws else ""
    texts = [to_text(value_of(raw), charset) for raw in raws]
    found = [mailbox for text in texts for mailbox in parse_mailboxes(text)]
    mailboxes = [one for one in found if one.address] or found[:1]
    return Originators(tuple(mailboxes), " | ".join(filter(None, texts)), simple=False)


def declared_charset(fields: list[Field]) -> str:
    """The character set that Content-Type names: the best guess for raw 8-bit header text."""
    for name, raw in fields:
        if name == b"content-type":
            match = _CHARSET.search(raw)
            return match[1].decode("ascii") if match else ""
    return ""


def _read_message_id(raw: bytes) -> str:
    text = to_text(value_of(raw))
    match = _MESSAGE_ID.search(text)
    return visible(match[0] if match else text, _ID_LIMIT)


def _read_subject(raw: bytes, fields: list[Field]) -> str:
    value = value_of(raw[:_SUBJECT_OCTETS])
    if value.isascii() and b"=?" not in value and b"\x1b" not in value:
        return visible(value.decode("ascii"))
    return visible(decode_words(to_text(value, declared_charset(fields))).strip())
