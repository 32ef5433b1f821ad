"""The part of a notice that people read: what happened, why, what to do; no knowledge of mail needed."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from relay.report.addresses import host
from relay.report.contract import About, Action, Fate, Kind, action
from relay.report.fields import clean, moment

WIDTH = 72
_TITLES = {Action.FAILED: "Not delivered", Action.DELAYED: "Delayed", Action.RELAYED: "Relayed"}
LISTED = 50
"""Recipients named one by one; the others stand in the machine part."""
_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
           "November", "December")  # fmt: skip


def when(seconds: float) -> str:
    """``23 November 2026, 10:00 UTC``, in any locale."""
    time = moment(seconds)
    return f"{time.day} {_MONTHS[time.month - 1]} {time.year}, {time:%H:%M} UTC"


def paragraph(text: str, indent: str = "", hang: str | None = None) -> str:
    """Wrapped; long words (addresses, links) stay whole."""
    return textwrap.fill(
        clean(text, 2000),
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent if hang is None else hang,
        break_long_words=False,
        break_on_hyphens=False,
    )


def labelled(pairs: Iterable[tuple[str, str]], indent: str = "  ") -> str:
    """``Label:  text``, one under the other; pairs without a text are left out."""
    kept = [(label + ":", text) for label, text in pairs if text]
    width = max((len(label) for label, _ in kept), default=0) + 1
    hang = indent + " " * width
    return "\n".join(paragraph(text, indent + label.ljust(width), hang) for label, text in kept)


def title(kind: Kind, about: About) -> str:
    """The subject of a notice."""
    word = _TITLES[action(kind, about)]
    return f"{word}: {clean(about.subject, 200) or '(no subject)'}"


def human(kind: Kind, about: About, fates: Sequence[Fate], *, to: str, hostname: str) -> str:
    """The whole text, LF line ends."""
    to_sender = to.lower() == about.sender.lower()
    blocks = [
        paragraph(f"This is the mail relay on {host(hostname)}. {_opening(kind, about)}"),
        "" if to_sender else paragraph(_why_you(about)),
        labelled(_facts(about)),
        _recipients(fates, remedies=kind is Kind.FAILURE or not to_sender),
        paragraph(_next(kind, about, to_sender=to_sender)),
        labelled([("For the administrator", f"relay trace {clean(about.id, 100)}")], ""),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _opening(kind: Kind, about: About) -> str:
    if kind is Kind.RELAYED:
        return "The message below was handed over to Exchange for the following recipients."
    failed = action(kind, about) is Action.FAILED
    if kind is Kind.HELD and failed:
        return (
            "The message below was not delivered. It was kept because of a fault in the set-up of the relay, which"
            " was not mended in time."
        )
    if kind is Kind.HELD:
        return (
            "The message below is not delivered yet. It is kept because of a fault in the set-up of the relay, and"
            " goes out when that is mended."
        )
    if failed:
        return "The message below could not be delivered to the following recipients."
    return "The message below is not delivered yet. The relay keeps trying."


def _why_you(about: About) -> str:
    sender = clean(about.sender, 320)
    if not sender:
        return (
            "You get this as the postmaster of the relay: the message below is one of the relay's own, and whom it"
            " was for did not get it. It is attached."
        )
    return f"You get this as the postmaster of the relay: no notice can reach the sender, {sender}."


def _facts(about: About) -> list[tuple[str, str]]:
    shown = ", ".join(clean(one, 320) for one in about.header_from[:3])
    sender = clean(about.sender, 320)
    if shown and sender and shown.lower() != sender.lower():
        shown += f" (envelope sender {sender})"
    return [
        ("Subject", clean(about.subject, 250) or "(no subject)"),
        ("From", shown or sender),
        ("Accepted", when(about.received)),
        ("Message-ID", clean(about.message_id, 500)),
    ]


def _recipients(fates: Sequence[Fate], *, remedies: bool) -> str:
    """Recipients with the same news stand together."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for fate in fates[:LISTED]:
        words = clean(str(fate.reply or ""), 600)
        key = (clean(fate.reason), words, clean(fate.remedy) if remedies else "")
        groups.setdefault(key, []).append(clean(fate.recipient.address, 320) or "(unreadable address)")
    blocks = [_group(addresses, *key) for key, addresses in groups.items()]
    if len(fates) > LISTED:
        blocks.append(f"  and {len(fates) - LISTED} more, named in the attached report.")
    return "\n\n".join(blocks)


def _group(addresses: list[str], reason: str, reply: str, remedy: str) -> str:
    news = labelled(
        [
            ("Why", reason or ("" if reply else "No reason was given.")),
            ("Exchange's answer", reply),
            ("What to do", remedy),
        ],
        "    ",
    )
    return "\n".join([*(f"  {one}" for one in addresses), news])


def _next(kind: Kind, about: About, *, to_sender: bool) -> str:
    until = "" if about.will_retry_until is None else f" until {when(about.will_retry_until)}"
    if kind is Kind.RELAYED:
        return (
            "This is the notice of success that was asked for. Whether a mailbox got the message is for Exchange to say,"
            " which was not asked to report it; a failure is still reported."
        )
    if action(kind, about) is Action.FAILED:
        again = "It will not be tried again. Recipients who are not named here are not affected."
        if kind is Kind.HELD and to_sender:
            return (
                again + " You can do nothing about the cause; ask the administrator before you send it again."
            )
        return again
    if kind is Kind.HELD:
        calm = "Nothing is lost, and it need not be sent again." if to_sender else "Nothing is lost."
        return f"{calm} It is kept{until}, and a second notice follows only if it could not be delivered by then."
    return f"It need not be sent again. The relay tries{until}; if that fails, another notice follows."
