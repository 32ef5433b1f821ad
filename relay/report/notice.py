"""Notices about mail that is late or lost: who gets one, and what it says.

RFC 3464 (delivery status), RFC 6522 (multipart/report), RFC 3461 (NOTIFY, RET, ENVID, ORCPT), RFC 6533 (addresses
that are not ASCII), RFC 3834 (automatic mail). Pure functions of their arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from relay.message import Recipient
from relay.report import parts, words
from relay.report.addresses import is_mailbox, reachable
from relay.report.contract import About, Action, Composed, Fate, Kind, action
from relay.report.fields import Letterhead, head
from relay.report.fields import message_id as valid_message_id
from relay.report.loops import NOTICE_FIELD, hops, is_notice
from relay.report.status import delivery_status, is_global

__all__ = [
    "FULL_LIMIT",
    "NOTICE_FIELD",
    "About",
    "Action",
    "Composed",
    "Fate",
    "Kind",
    "action",
    "answerable",
    "compose",
    "hops",
    "is_notice",
    "reachable",
    "recipient",
    "wanted",
]

FULL_LIMIT = 256 * 1024
"""Octets of an original that RET=FULL gives back whole; of a larger one its header is returned."""


def wanted(kind: Kind, recipient: Recipient, *, given_up: bool = True) -> bool:
    """Whether the sender asked for (or did not forbid) this news of this recipient: RFC 3461 section 4.1.

    ``given_up`` matters for HELD only: False while the message is still kept, which is a delay.
    """
    if recipient.notify is None:
        return kind is not Kind.RELAYED
    late = kind is Kind.DELAY or (kind is Kind.HELD and not given_up)
    wish = "SUCCESS" if kind is Kind.RELAYED else "DELAY" if late else "FAILURE"
    return wish in (one.strip() for one in recipient.notify.upper().split(","))


def answerable(about: About) -> bool:
    """Whether anybody may be told of it at all: not of a message with the null sender, nor of a notice.

    RFC 3464 section 2, RFC 5321 section 6.1: no notice may ever cause another.
    """
    return about.sender not in ("", "<>") and not is_notice(about.header)


def recipient(about: About, *, postmaster: str | None, deliverable: Callable[[str], bool]) -> str | None:
    """Who is told: the envelope sender when ``deliverable`` through us, else the postmaster, else nobody (None).

    Nobody either when the message has the null sender or is a notice itself (RFC 3464 section 2: no notice may
    ever cause another).
    """
    if not answerable(about):
        return None
    if is_mailbox(about.sender) and deliverable(about.sender):
        return about.sender
    return postmaster or None


def compose(
    kind: Kind,
    about: About,
    fates: Sequence[Fate],
    *,
    to: str,
    from_email: str,
    hostname: str,
    now: float,
    message_id: str,
    original: bytes | None = None,
    last_attempt: float | None = None,
    attempted: bool = True,
) -> Composed:
    """One notice about one message, for all recipients in ``fates``; to be sent from the null sender.

    ``original`` is the whole message, given when RET=FULL asks for it and it is small. ``last_attempt`` defaults to
    ``now``, except for HELD or without ``attempted``, where nothing was tried just now: then it is not said.
    Any octets in ``about`` are borne; ValueError when ``fates`` is empty.
    """
    if not fates:
        raise ValueError("a notice needs at least one recipient to speak of")
    letter = Letterhead(to, from_email, hostname, now, message_id)
    done = action(kind, about)
    if last_attempt is None and attempted and kind is not Kind.HELD:
        last_attempt = now
    machine = delivery_status(about, fates, done, hostname=hostname, last_attempt=last_attempt)
    human = words.human(kind, about, fates, to=to, hostname=hostname)
    fields, body = parts.report(
        [parts.text(human), _status_part(machine, wide=is_global(fates)), _returned(about, done, original)]
    )
    subject = words.title(kind, about)
    header = head(
        letter,
        subject,
        notice_for=about.id,
        auto_submitted="auto-replied",
        in_reply_to=valid_message_id(about.message_id),
    )
    return Composed(to, header + fields, body, subject, letter.own_id)


def _status_part(machine: bytes, *, wide: bool) -> bytes:
    kind = b"message/global-delivery-status; charset=utf-8" if wide else b"message/delivery-status"
    return parts.verbatim(kind, machine)


def _returned(about: About, done: Action, original: bytes | None) -> bytes:
    """The third part: the header, or all when RET=FULL, the message failed (RFC 3461, 4.3), and it is fit to be shown."""
    full = about.ret is not None and about.ret.upper() == "FULL" and done is Action.FAILED
    if full and original is not None and len(original) <= FULL_LIMIT and parts.regular(original):
        return parts.verbatim(b"message/rfc822", original)
    return parts.encoded(b"text/rfc822-headers", about.header)
