"""What Graph makes of a message: who receives it, what its header becomes, and the MIME text of a JSON message.

Graph has no envelope: To, Cc and Bcc are the delivery list. It puts the directory's name into From, and drops
from MIME every field that is not one of the usual ones, unless the mailbox has stored that X- name before.
"""

from __future__ import annotations

import base64
import email.utils
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.header import Header as EncodedHeader
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path
from typing import Any

from relay.simulator import graph_errors as refusal
from relay.simulator.addresses import valid_address
from relay.simulator.body import Header
from relay.simulator.graph_recipients import distinct, header_recipients
from relay.simulator.state import made_up_name

KEPT_FIELDS = frozenset(
    [
        "to",
        "cc",
        "subject",
        "date",
        "message-id",
        "in-reply-to",
        "references",
        "reply-to",
        "mime-version",
        "importance",
        "sensitivity",
        "thread-topic",
        "thread-index",
        "disposition-notification-to",
        "return-receipt-to",
        "sender",
    ]
)
_PIECE = 57 * 1024  # octets of a file encoded at once: a multiple of 57, the octets of one base64 line
NESTED = "message/rfc822"
Names = Callable[[str], str]  # an address -> the directory's name for it
_FIELD_START = re.compile(rb"(?m)^(?=[!-9;-~]+[ \t]*:)")


@dataclass
class Attachment:
    """A file of a draft, on disk."""

    id: str
    name: str
    content_type: str
    path: Path
    size: int
    inline: bool = False
    content_id: str = ""

    def to_json(self) -> dict[str, Any]:
        """The resource as Graph returns it, without the octets."""
        kind = "itemAttachment" if self.content_type == NESTED else "fileAttachment"
        shown: dict[str, Any] = {
            "@odata.type": f"#microsoft.graph.{kind}",
            "id": self.id,
            "name": self.name,
            "contentType": self.content_type,
            "size": self.size,
            "isInline": self.inline,
        }
        return shown if kind == "itemAttachment" else {**shown, "contentId": self.content_id or None}


@dataclass
class Mail:
    """A message ready to be submitted: its text in pieces, its recipients, and what the index shows."""

    recipients: list[str]
    senders: list[str]  # every address of From and Sender; none means the mailbox
    subject: str
    message_id: str
    has_bcc: bool
    head: bytes
    rest: bytes = b""
    attachments: list[Attachment] = field(default_factory=list)
    boundary: str = ""
    author: str = ""  # the address shown in From

    def pieces(self) -> Iterator[bytes]:
        """The message as it is stored, never whole in memory."""
        yield self.head
        yield self.rest
        for attachment in self.attachments:
            yield from _attachment_part(attachment, self.boundary)
        if self.boundary:
            yield f"--{self.boundary}--\r\n".encode()


def from_mime(
    encoded: bytes,
    mailbox: str,
    display_name: str,
    known_headers: set[str],
    names: Names = made_up_name,
) -> Mail:
    """Read a base64 MIME message; ``names`` is asked for another author than the mailbox.

    Raises GraphError for base64, a header block or a recipient that cannot be read.
    """
    try:
        raw = base64.b64decode(re.sub(rb"\s", b"", encoded), validate=True)
    except ValueError as error:
        raise refusal.bad_base64() from error
    end = re.search(rb"\r?\n\r?\n", raw)
    block, body = (raw[: end.start()] + b"\r\n", raw[end.end() :]) if end else (raw, b"")
    header = Header(block)
    if not header.fields:
        raise refusal.bad_mime()
    senders = [address for name in ("from", "sender") for address in header.addresses(name)]
    author = _author(header.addresses("from"), mailbox)
    name = display_name if author == mailbox else names(author)
    return Mail(
        recipients=distinct(
            [address for name in ("to", "cc", "bcc") for address in header_recipients(header.all(name))]
        ),
        senders=senders,
        subject=header.text("subject"),
        message_id=header.text("message-id"),
        has_bcc=bool(header.all("bcc")),
        head=_rewritten(block, author, name, known_headers) + b"\r\n",
        rest=body,
        author=author,
    )


def _author(stated: list[str], mailbox: str) -> str:
    """Whose address From shows: the one stated when it is another's (whether that is allowed is judged later)."""
    return stated[0] if stated and stated[0] and stated[0].lower() != mailbox else mailbox


def _rewritten(block: bytes, author: str, name: str, known_headers: set[str]) -> bytes:
    """The header block with Graph's From, a Return-Path of its own, and without what Graph drops (Bcc too)."""
    kept = [_line("From", _formatted(name, author))]
    for text in filter(None, _FIELD_START.split(block)):
        field_name = text.split(b":", 1)[0].strip().lower().decode("ascii", "replace")
        if field_name == "return-path":
            kept.append(_line("Return-Path", author))
        elif field_name in KEPT_FIELDS or field_name.startswith("content-") or field_name in known_headers:
            kept.append(re.sub(rb"\r?\n", b"\r\n", text))
    return b"".join(kept)


def from_json(message: dict[str, Any], mailbox: str, names: Names, attachments: list[Attachment]) -> Mail:
    """Build the MIME text of a JSON message that has passed the schema. Raises GraphError for a bad recipient."""
    lists = {name: _recipients(message, name) for name in ("toRecipients", "ccRecipients", "bccRecipients")}
    senders = [_address(message[name]) for name in ("from", "sender") if message.get(name)]
    author = _author(senders, mailbox)
    text = _text_part(message.get("body") or {})
    message_id = message["internetMessageId"]
    head = _head(message, _formatted(names(author), author), lists, message_id)
    boundary = ""
    if attachments:
        boundary = f"_004_{email.utils.make_msgid(domain='b')[1:-3].replace('.', '')}_"
        subtype = "related" if all(attachment.inline for attachment in attachments) else "mixed"
        kind = f'multipart/{subtype}; boundary="{boundary}"'
        head += _line("MIME-Version", "1.0") + _line("Content-Type", kind)
        text = f"\r\n--{boundary}\r\n".encode() + text + b"\r\n"
    return Mail(
        recipients=distinct(_checked([address for entries in lists.values() for _, address in entries])),
        senders=senders,
        subject=message.get("subject") or "",
        message_id=message_id,
        has_bcc=bool(lists["bccRecipients"]),
        head=head,
        rest=text,
        attachments=attachments,
        boundary=boundary,
        author=author,
    )


def new_message_id() -> str:
    """A Message-ID as Exchange gives one to a message without."""
    return email.utils.make_msgid(domain="simulator.outlook.com")


def nested(item: dict[str, Any]) -> bytes:
    """The text of an itemAttachment's message: as given, nobody is put into its From."""
    lists = {name: _recipients(item, name) for name in ("toRecipients", "ccRecipients", "bccRecipients")}
    author = item.get("from") or item.get("sender")
    entry = (str(author["emailAddress"].get("name") or ""), _address(author)) if author else ("", "")
    message_id = item.get("internetMessageId") or new_message_id()
    return _head(item, _formatted(*entry), lists, message_id) + _text_part(item.get("body") or {})


def _head(
    message: dict[str, Any],
    author: str,
    lists: dict[str, list[tuple[str, str]]],
    message_id: str,
) -> bytes:
    lines = [_line("From", author)]
    for name, key in (("To", "toRecipients"), ("Cc", "ccRecipients")):
        if lists[key]:
            lines.append(_line(name, ",\r\n ".join(_formatted(*entry) for entry in lists[key])))
    if reply_to := _recipients(message, "replyTo"):
        lines.append(_line("Reply-To", ",\r\n ".join(_formatted(*entry) for entry in reply_to)))
    lines.append(_line("Subject", _encoded(message.get("subject") or "")))
    lines.append(_line("Date", email.utils.format_datetime(email.utils.localtime())))
    lines.append(_line("Message-ID", message_id))
    if (importance := str(message.get("importance") or "normal").lower()) != "normal":
        lines.append(_line("Importance", importance))
    if message.get("isReadReceiptRequested"):
        lines.append(_line("Disposition-Notification-To", author))
    if message.get("isDeliveryReceiptRequested"):
        lines.append(_line("Return-Receipt-To", author))
    custom = message.get("internetMessageHeaders", [])
    return b"".join(lines + [_line(header["name"], _encoded(header["value"])) for header in custom])


def _line(name: str, value: str) -> bytes:
    return f"{name}: {value}\r\n".encode()


def _encoded(text: str) -> str:
    flat = " ".join(text.split("\r\n")).replace("\r", " ").replace("\n", " ")
    return flat if flat.isascii() else EncodedHeader(flat, "utf-8", maxlinelen=200).encode(linesep="\r\n")


def _formatted(name: str, address: str) -> str:
    name = " ".join(name.split())  # no line ends: they would begin a field of their own
    if address.isascii():
        return email.utils.formataddr((name, address))
    return f"{_encoded(name)} <{address}>"


def _address(recipient: dict[str, Any]) -> str:
    return str((recipient.get("emailAddress") or {}).get("address") or "")


def _recipients(message: dict[str, Any], name: str) -> list[tuple[str, str]]:
    return [(str(item["emailAddress"].get("name") or ""), _address(item)) for item in message.get(name) or []]


def _checked(addresses: list[str]) -> list[str]:
    """The same addresses. Raises GraphError for one that is none, or an entry without any."""
    if not all(map(valid_address, addresses)):
        raise refusal.invalid_recipients()
    return addresses


def _text_part(body: dict[str, Any]) -> bytes:
    part = EmailMessage(policy=SMTP)
    subtype = "html" if str(body.get("contentType", "text")).lower() == "html" else "plain"
    part.set_content(str(body.get("content") or ""), subtype=subtype)
    return part.as_bytes()


def _attachment_part(attachment: Attachment, boundary: str) -> Iterator[bytes]:
    """One file as a MIME part, encoded piece by piece; a message goes in as it is (RFC 2046 section 5.2.1)."""
    name = email.utils.encode_rfc2231(attachment.name, "utf-8")
    disposition = "inline" if attachment.inline else "attachment"
    plain = attachment.content_type.lower() == NESTED
    lines = [
        f"--{boundary}",
        f"Content-Type: {attachment.content_type or 'application/octet-stream'}",
        f"Content-Disposition: {disposition}; filename*={name}",
        f"Content-Transfer-Encoding: {'8bit' if plain else 'base64'}",
    ]
    if attachment.content_id:
        lines.append(f"Content-ID: <{attachment.content_id.strip('<>')}>")
    yield "\r\n".join([*lines, "", ""]).encode()
    with attachment.path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece if plain else base64.encodebytes(piece).replace(b"\n", b"\r\n")
    if plain:
        yield b"\r\n"
