"""Mail of the relay that is not about one message: the summary of many notices, and news for the postmaster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from relay.report.addresses import host
from relay.report.contract import About, Action, Composed, Fate, Kind, action
from relay.report.fields import Letterhead, clean, head
from relay.report.fields import message_id as valid_message_id
from relay.report.parts import text
from relay.report.words import labelled, paragraph, when
from relay.spool.contract import Hold


@dataclass(frozen=True, slots=True)
class Matter:
    """Something an administrator should know of: a hold, a full spool, a backlog."""

    title: str
    """Short, without a full stop: ``mail of scans@contoso.com is held``."""
    reason: str
    evidence: str
    """The server's own words; empty when there are none."""
    remedy: str
    since: float
    code: str = ""
    """The stable slug, such as ``send-as-denied``."""
    note: str = ""
    """What this means for mail in the meantime; a sentence or two."""


_WORDS = {Action.FAILED: "not delivered", Action.DELAYED: "delayed", Action.RELAYED: "relayed"}
HOLD_NOTE = (
    "Nothing is lost: mail is still accepted and kept. The relay tries again by itself, ever more seldom; after"
    " mending, `relay queue release` makes it try at once."
)


def matter_of(hold: Hold) -> Matter:
    """A hold as a matter for the postmaster."""
    lane, _, sender = hold.key.partition("|")
    what = {
        "upstream": f"all mail through {hold.key} is held",
        "sender": f"mail from {sender} through {lane} is held",
    }.get(hold.scope, f"mail through {hold.key} is held")
    return Matter(what, hold.reason, hold.evidence, hold.remedy, hold.since, hold.code, HOLD_NOTE)


def line(kind: Kind, about: About, fates: Sequence[Fate]) -> str:
    """A notice that is kept back, in one line for the summary."""
    word = _WORDS[action(kind, about)]
    first = fates[0].recipient.address if fates else "unknown"
    more = f" and {len(fates) - 1} more" if len(fates) > 1 else ""
    why = clean(fates[0].reason, 200) if fates else ""
    subject = clean(about.subject, 80) or "(no subject)"
    return clean(f"{about.id}: {word}, “{subject}” to {clean(first, 320)}{more}. {why}", 700)


def summary(
    to: str,
    count: int,
    samples: Sequence[str],
    *,
    from_email: str,
    hostname: str,
    since: float,
    now: float,
    message_id: str,
) -> Composed:
    """What stands for ``count`` notices that were kept back since ``since``; ``samples`` are lines of some of them."""
    plural = "notice" if count == 1 else "notices"
    left = count - len(samples)
    blocks = [
        paragraph(
            f"This is the mail relay on {host(hostname)}. {count} more {plural} about mail that is late, was not"
            f" delivered, or was relayed would have gone to you between {when(since)} and {when(now)}. To spare you"
            " so many, this summary stands for them."
        ),
        "\n".join(paragraph(clean(one, 800), "  ", "    ") for one in samples),
        paragraph(f"and {left} more.", "  ") if samples and left > 0 else "",
        paragraph(
            "The administrator sees what happened to each with `relay trace`, by id, sender or recipient."
        ),
    ]
    subject = f"Summary: {count} more {plural} about mail"
    letter = Letterhead(to, from_email, hostname, now, message_id)
    return _plain(letter, subject, blocks, notice_for="summary")


def admin_notice(
    matter: Matter,
    *,
    began: bool,
    to: str,
    from_email: str,
    hostname: str,
    now: float,
    message_id: str,
    waiting: int | None = None,
    in_reply_to: str = "",
) -> Composed:
    """Tells the postmaster that something began (what, evidence, remedy) or is over.

    ``waiting`` is the number of messages that wait for it; ``in_reply_to`` the id of the notice that it began.
    """
    title = clean(matter.title, 200) or "the mail relay"
    blocks = _began(matter, hostname, waiting) if began else _over(matter, hostname, now, waiting)
    subject = f"Needs attention: {title}" if began else f"Over: {title}"
    letter = Letterhead(to, from_email, hostname, now, message_id)
    reply = valid_message_id(in_reply_to)
    return _plain(letter, subject, blocks, notice_for="administration", in_reply_to=reply)


def _began(matter: Matter, hostname: str, waiting: int | None) -> list[str]:
    return [
        paragraph(f"This is the mail relay on {host(hostname)}. Since {when(matter.since)}: {matter.title}."),
        labelled(
            [
                ("Why", clean(matter.reason)),
                ("Evidence", clean(matter.evidence)),
                ("What to do", clean(matter.remedy, 2000)),
                ("Cause", clean(matter.code, 100)),
                ("Messages waiting", "" if waiting is None else str(waiting)),
            ]
        ),
        paragraph(matter.note),
    ]


def _over(matter: Matter, hostname: str, now: float, waiting: int | None) -> list[str]:
    rest = "" if not waiting else f" Messages that waited for it and go out now: {waiting}."
    return [
        paragraph(
            f"This is the mail relay on {host(hostname)}. This is over, since {when(now)}: {matter.title}.{rest}"
        ),
        labelled([("It began", when(matter.since)), ("Why", clean(matter.reason))]),
        paragraph("Nothing needs to be done."),
    ]


def _plain(
    letter: Letterhead,
    subject: str,
    blocks: Sequence[str],
    *,
    notice_for: str,
    in_reply_to: str | None = None,
) -> Composed:
    """Plain text, not an answer to any mail: ``auto-generated`` (RFC 3834 section 5.1)."""
    header = head(
        letter, subject, notice_for=notice_for, auto_submitted="auto-generated", in_reply_to=in_reply_to
    )
    fields, _, body = text("\n\n".join(block for block in blocks if block) + "\n").partition(b"\r\n\r\n")
    return Composed(letter.to, header + fields + b"\r\n\r\n", body, subject, letter.own_id)
