"""The header block as properties of Graph's ``message``: subject, recipients, importance, receipts, x- fields.

Graph has no envelope (facts 6.3): the three recipient lists are the delivery list, so they hold the recipients of
the attempt and nobody else. Microsoft's schema of the type: resource ``message``, reference of v1.0.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from relay.message import Recipient
from relay.rewrite.addresses import NAME_LIMIT, comparable, name_of
from relay.rewrite.encoding import clean, decode_words, to_text
from relay.rewrite.fields import Field, shown_name, value_of
from relay.rewrite.parser import parse_mailboxes

SUBJECT_LIMIT = 255
"""Characters, counted as Exchange does in UTF-16 units (facts 3.1)."""
HEADERS_LIMIT = 5
"""``internetMessageHeaders`` of one message; a sixth is refused with InvalidInternetMessageHeaderCollection."""
HEADER_VALUE_LIMIT = 1000
"""Characters of one such value."""
NAMED_LIMIT = 12
"""Names listed in one note."""

_MESSAGE_ID = re.compile(rb"<[^<>\s]{1,900}>")
_HIGH, _LOW = frozenset({"high", "urgent", "1", "2"}), frozenset({"low", "non-urgent", "4", "5"})
_CARRIED = frozenset(
    b"from to cc bcc subject reply-to message-id mime-version importance priority x-priority x-msmail-priority"
    b" disposition-notification-to return-receipt-to received return-path".split()
)
"""Fields that Graph's properties express, or that the service writes itself."""
_PRIVATE = (b"x-ms-exchange-organization-", b"x-ms-exchange-forest-", b"x-ms-exchange-crosstenant-")
"""Exchange's own marks, which it takes from nobody else."""
_FIRST = (b"x-auto-response-suppress", b"x-relay-")
"""What keeps robots from answering one another, and what relay knows its own mail by."""


class Properties:
    """Reads the fields once; `message` is the JSON, ``notes`` what it cannot say."""

    def __init__(self, fields: list[Field], mailbox: str, recipients: Sequence[Recipient]) -> None:
        self._fields = fields
        self._mailbox = mailbox
        self._recipients = {comparable(one.address): one.address for one in recipients}
        self.notes: list[str] = []

    def message(self) -> dict[str, Any]:
        """Everything but the body and the files."""
        message: dict[str, Any] = {"subject": self._subject()}
        message |= self._delivery()
        message["from"] = self._from()
        if reply_to := self._mailboxes(b"reply-to"):
            message["replyTo"] = [_recipient(address, name) for name, address in reply_to]
        if (importance := self._importance()) != "normal":
            message["importance"] = importance
        if self._all(b"disposition-notification-to"):
            message["isReadReceiptRequested"] = True
        if self._all(b"return-receipt-to"):
            message["isDeliveryReceiptRequested"] = True
        if identity := _MESSAGE_ID.search(b" ".join(self._all(b"message-id"))):
            message["internetMessageId"] = identity[0].decode("utf-8", "replace")
        if headers := self._headers():
            message["internetMessageHeaders"] = headers
        self._left_out()
        return message

    def _all(self, name: bytes) -> list[bytes]:
        return [value_of(raw) for field, raw in self._fields if field == name]

    def _text(self, name: bytes) -> str:
        """The first such field, decoded, on one line."""
        return clean(decode_words(to_text(next(iter(self._all(name)), b""))))

    def _subject(self) -> str:
        subject = self._text(b"subject")
        units = subject.encode("utf-16-le")
        if len(units) <= 2 * SUBJECT_LIMIT:
            return subject
        self.notes.append(f"subject cut to {SUBJECT_LIMIT} characters")
        return units[: 2 * SUBJECT_LIMIT].decode("utf-16-le", "ignore")

    def _mailboxes(self, name: bytes) -> list[tuple[str, str]]:
        """(display name, address) of every mailbox in these fields."""
        found = (box for value in self._all(name) for box in parse_mailboxes(to_text(value)))
        return [(name_of(box.phrase), box.address) for box in found if box.address]

    def _from(self) -> dict[str, Any]:
        """The rewritten header's From: another address than the mailbox's needs Send As, which Graph judges."""
        return _recipient(next((address for _, address in self._mailboxes(b"from")), self._mailbox), "")

    def _delivery(self) -> dict[str, Any]:
        """Each recipient of the attempt once: in To or Cc where the header shows it there, else in Bcc."""
        left = dict(self._recipients)
        strangers: list[str] = []
        lists: dict[str, list[dict[str, Any]]] = {}
        for field, key in ((b"to", "toRecipients"), (b"cc", "ccRecipients")):
            lists[key] = []
            for name, address in self._mailboxes(field):
                own = left.pop(comparable(address), None)
                if own is not None:
                    lists[key].append(_recipient(own, name))
                elif comparable(address) not in self._recipients:
                    strangers.append(address)
        lists["bccRecipients"] = [_recipient(address, "") for address in left.values()]
        if strangers:
            self.notes.append(
                f"not shown in To or Cc, since they are not recipients here: {_listed(strangers)}"
            )
        return {key: entries for key, entries in lists.items() if entries}

    def _importance(self) -> str:
        for name in (b"importance", b"x-priority", b"priority", b"x-msmail-priority"):
            word = self._text(name).lower().split(" ")[0]
            if word:
                return "high" if word in _HIGH else "low" if word in _LOW else "normal"
        return "normal"

    def _headers(self) -> list[dict[str, str]]:
        """The first x- fields, each name once; those that stop loops and answers before all others."""
        chosen: dict[bytes, dict[str, str]] = {}
        more = []
        for name, raw in sorted(self._fields, key=lambda one: not one[0].startswith(_FIRST)):
            value = clean(decode_words(to_text(value_of(raw)))) if name.startswith(b"x-") else ""
            if not value or name in _CARRIED or name.startswith(_PRIVATE):
                continue
            if name in chosen or len(chosen) >= HEADERS_LIMIT:
                more.append(shown_name(raw))
                continue
            if len(value) > HEADER_VALUE_LIMIT:
                self.notes.append(f"{shown_name(raw)} cut to {HEADER_VALUE_LIMIT} characters")
            chosen[name] = {"name": shown_name(raw), "value": value[:HEADER_VALUE_LIMIT]}
        if more:
            self.notes.append(f"Graph takes {HEADERS_LIMIT} x- fields, each once; left out: {_listed(more)}")
        return list(chosen.values())

    def _left_out(self) -> None:
        """Fields for which Graph's JSON has no place."""
        names = [
            shown_name(raw)
            for name, raw in self._fields
            if name not in _CARRIED and not name.startswith((b"x-", b"content-"))
        ]
        if names:
            self.notes.append(f"header fields Graph does not take in JSON: {_listed(names)}")


def _recipient(address: str, name: str) -> dict[str, Any]:
    named = {"address": address, "name": name[:NAME_LIMIT]} if name else {"address": address}
    return {"emailAddress": named}


def _listed(words: Iterable[str]) -> str:
    """Each once, and not too many of them."""
    distinct = [word[:80] for word in dict.fromkeys(words)]
    more = len(distinct) - NAMED_LIMIT
    return ", ".join(distinct[:NAMED_LIMIT]) + (f" and {more} more" if more > 0 else "")
