"""A message and its bad news, to vary one thing at a time; and a notice read back by the standard library."""

from __future__ import annotations

import email
import email.policy
from dataclasses import replace
from email.message import EmailMessage, Message
from typing import Any

from relay.message import Recipient, Reply
from relay.report.notice import About, Composed, Fate, Kind, compose

RECEIVED = 1_795_428_000.0  # 23 November 2026, 10:00 UTC
NOW = RECEIVED + 3600
HEADER = b"From: App <app@contoso.com>\r\nTo: bob@example.com\r\nSubject: Figures\r\n\r\n"
ABOUT = About(
    id="01JDCQ5S7H2AB",
    message_id="<figures.1@app.site.local>",
    subject="Figures",
    sender="app@contoso.com",
    received=RECEIVED,
    envid=None,
    ret=None,
    header=HEADER,
    header_from=("app@contoso.com",),
    will_retry_until=None,
)
UNKNOWN = Reply(550, "5.1.1", "RESOLVER.ADR.RecipientNotFound; not found")
BOB = Fate(
    Recipient("bob@example.com"),
    UNKNOWN,
    "The recipient does not exist.",
    "Check the address and send again.",
    "smtp.office365.com",
)


def about(**changes: Any) -> About:
    return replace(ABOUT, **changes)


def fate(address: str = "bob@example.com", **changes: Any) -> Fate:
    """Bob's news for another address; ``notify`` and ``orcpt`` go to the recipient."""
    wishes = {key: changes.pop(key) for key in ("notify", "orcpt") if key in changes}
    return replace(BOB, recipient=Recipient(address, **wishes), **changes)


def written(kind: Kind = Kind.FAILURE, of: About = ABOUT, *fates: Fate, **changes: Any) -> Composed:
    """A notice to the sender, unless told otherwise."""
    said = {
        "to": of.sender,
        "from_email": "notifications@contoso.com",
        "hostname": "relay.contoso.com",
        "now": NOW,
        "message_id": "<n.1@relay.contoso.com>",
    }
    return compose(kind, of, fates or (BOB,), **{**said, **changes})


def read(composed: Composed) -> EmailMessage:
    parsed = email.message_from_bytes(composed.header + composed.body, policy=email.policy.default)
    assert isinstance(parsed, EmailMessage)
    return parsed


def parts(composed: Composed) -> tuple[EmailMessage, EmailMessage, EmailMessage]:
    """Human part, machine part, returned part."""
    human, machine, returned = read(composed).iter_parts()
    assert isinstance(human, EmailMessage)
    assert isinstance(machine, EmailMessage)
    assert isinstance(returned, EmailMessage)
    return human, machine, returned


def words(composed: Composed) -> str:
    """The human part on one line, so that wrapping does not matter."""
    return " ".join(str(parts(composed)[0].get_content()).split())


def groups(composed: Composed) -> list[Message]:
    """The per-message group and one per recipient, of a ``message/delivery-status``."""
    payload = parts(composed)[1].get_payload()
    assert isinstance(payload, list)
    return [one for one in payload if isinstance(one, Message)]


def group(composed: Composed, index: int = 1) -> dict[str, str]:
    """One group as a dictionary; a field given twice would be a fault."""
    fields = [(name, " ".join(str(value).split())) for name, value in groups(composed)[index].items()]
    assert len({name for name, _ in fields}) == len(fields)
    return dict(fields)
