"""The rewrite: from the header block as stored to the one that Exchange accepts. Made at each attempt, never stored.

Pure and idempotent. The order of the steps matters in one place only: Reply-To is decided from the original
From, so all steps read `Originators`, which were taken before anything changed.
"""

from __future__ import annotations

import hashlib
import re
import time

from relay.message import Client
from relay.rewrite.contract import Rewritten, Route
from relay.rewrite.fields import cut, regular
from relay.rewrite.headers import read_originators
from relay.rewrite.originator import decide, set_from, set_reply_to, set_sender, shown
from relay.rewrite.repairs import Work, encode_eight_bit, fold_long, tidy

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_ID_LEFT = re.compile(r"[^A-Za-z0-9._-]+")
_FULL_ID = re.compile(r"<[!-;=?-~]{1,480}@[!-;=?-~]{1,480}>")


def rewrite(
    header: bytes,
    route: Route,
    mailbox: str,
    *,
    sender: str,
    client: Client | None = None,
    message_id: str,
    received: float,
    smtputf8: bool = False,
) -> Rewritten:
    """The header block to submit for ``mailbox``.

    ``sender`` is the envelope sender (empty: null); ``message_id`` the spool's id, the same at each attempt so
    that a Message-ID we add never changes (when empty, the stored header decides); ``received`` the time of
    arrival in seconds since 1970; ``smtputf8`` whether the client asked for SMTPUTF8, so that raw UTF-8 may stay
    in headers. ``client`` decides nothing today. Never fails.
    """
    whole = regular(header)
    fields, rest, mbox = cut(whole)
    work = Work(fields, smtputf8, ["mbox From line removed"] if mbox else [])
    if whole is not header:
        work.notes.append("bare CR or LF in the header mended")
    originators = read_originators(fields)
    tidy(work)
    if not whole.isascii():
        encode_eight_bit(work)
    new = decide(originators, route, mailbox, sender, smtputf8)
    set_from(work, new)
    set_reply_to(work, new, originators, route.reply_to, sender)
    set_sender(work, new, route, mailbox)
    fold_long(work)
    _add_missing(work, mailbox, message_id or header, received)
    block = b"".join([raw for _, raw in work.fields])
    return Rewritten(block + b"\r\n" + rest, shown(originators.text), shown(new.value), tuple(work.notes))


def _add_missing(work: Work, mailbox: str, unique: str | bytes, received: float) -> None:
    """Date, Message-ID and To, when the client sent none (printers and scanners often do not).

    ``unique`` is the spool's id, or the stored header (our Received field in it is no other message's).
    """
    names = {name for name, _ in work.fields}
    if b"date" not in names:
        work.add("Date", date_text(received))
        work.notes.append("Date added")
    if b"message-id" not in names:
        given = unique if isinstance(unique, str) else _fingerprint(unique, received)
        work.add("Message-ID", _new_id(given, mailbox))
        work.notes.append("Message-ID added")
    if b"to" not in names:
        work.add("To", "undisclosed-recipients:;")
        work.notes.append("To added")


def _fingerprint(header: bytes, received: float) -> str:
    """The same for one stored message at each attempt, and another for any other."""
    return hashlib.sha256(header + repr(received).encode("ascii")).hexdigest()[:32]


def _new_id(message_id: str, mailbox: str) -> str:
    """``<spool id@domain of the mailbox>``; a whole Message-ID is taken as it is."""
    if _FULL_ID.fullmatch(message_id):
        return message_id
    left = _ID_LEFT.sub("-", message_id).strip("-.")[:200]
    if left != message_id:  # not one of our ids: keep different ones different
        left += hashlib.sha256(message_id.encode("utf-8", "replace")).hexdigest()[:16]
    domain = mailbox.rpartition("@")[2]
    return f"<{left}@{domain if domain.isascii() and domain else 'localhost'}>"


def date_text(when: float) -> str:
    """RFC 5322 section 3.3 date, in UTC."""
    at = time.gmtime(when)
    day = f"{_DAYS[at.tm_wday]}, {at.tm_mday} {_MONTHS[at.tm_mon - 1]} {at.tm_year:04d}"
    return f"{day} {at.tm_hour:02d}:{at.tm_min:02d}:{at.tm_sec:02d} +0000"
