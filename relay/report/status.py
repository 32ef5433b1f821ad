"""The part of a notice that machines read: RFC 3464, and RFC 6533 when an address is not ASCII."""

from __future__ import annotations

import re
from collections.abc import Sequence

from relay.message import Reply
from relay.report.addresses import host
from relay.report.contract import About, Action, Fate
from relay.report.fields import clean, date, folded, seen
from relay.report.xtext import decode, encode_utf8, original_recipient

_ENHANCED = re.compile(r"[245](\.\d{1,3}\.\d{1,3})")
_CLASS = {Action.FAILED: "5", Action.DELAYED: "4", Action.RELAYED: "2"}
_NAME = re.compile(r"[!-~]+")


def is_global(fates: Sequence[Fate]) -> bool:
    """Whether ``message/global-delivery-status`` is needed: some address is not ASCII."""
    return not all(_ascii_addresses(fate) for fate in fates)


def _ascii_addresses(fate: Fate) -> bool:
    original = original_recipient(fate.recipient.orcpt or "")
    return fate.recipient.address.isascii() and (original is None or original[1].isascii())


def delivery_status(
    about: About, fates: Sequence[Fate], action: Action, *, hostname: str, last_attempt: float | None
) -> bytes:
    """The per-message fields and one group for each recipient, parted by empty lines; CRLF line ends."""
    wide = is_global(fates)
    groups = [_per_message(about, hostname)]
    groups += [_per_recipient(about, fate, action, wide, last_attempt) for fate in fates]
    return b"\r\n".join(groups)


def _per_message(about: About, hostname: str) -> bytes:
    """RFC 3464 section 2.2. ENVID is given back decoded (RFC 3461 section 6.3)."""
    out = [folded("Reporting-MTA", f"dns; {host(hostname)}")]
    envid = _ascii(clean(decode(about.envid or "")))
    if envid:
        out.insert(0, folded("Original-Envelope-Id", envid))
    return b"".join([*out, folded("Arrival-Date", date(about.received))])


def _per_recipient(about: About, fate: Fate, action: Action, wide: bool, last_attempt: float | None) -> bytes:
    """RFC 3464 section 2.3, fields in its order."""
    out = [
        *_original(fate, wide),
        folded("Final-Recipient", _typed("rfc822", fate.recipient.address, wide)),
        folded("Action", action.value),
        folded("Status", fate.status or status(fate.reply, action)),
    ]
    if fate.remote and _NAME.fullmatch(fate.remote):
        out.append(folded("Remote-MTA", f"dns; {fate.remote[:255]}"))
    out += _diagnostic(fate.reply, wide)
    if last_attempt is not None:
        out.append(folded("Last-Attempt-Date", date(last_attempt)))
    if action is Action.DELAYED and about.will_retry_until is not None:
        out.append(folded("Will-Retry-Until", date(about.will_retry_until)))
    return b"".join(out)


def _original(fate: Fate, wide: bool) -> list[bytes]:
    original = original_recipient(fate.recipient.orcpt or "")
    return [folded("Original-Recipient", _typed(*original, wide))] if original else []


def _typed(kind: str, address: str, wide: bool) -> str:
    """``type;address``: what is not ASCII gets the type utf-8, and its ASCII form where only ASCII may stand."""
    address = seen(address) or "unknown"
    if not address.isascii():
        kind = "utf-8"
    if kind == "utf-8" and not wide:
        address = encode_utf8(address)
    return f"{kind};{address}"


def status(reply: Reply | None, action: Action) -> str:
    """The ``Status`` field: the server's enhanced code, its class made to agree with the action (RFC 3464, 2.3.4).

    A message that is given up after temporary refusals has failed for good: 4.4.1 becomes 5.4.1.
    """
    found = _ENHANCED.fullmatch(reply.enhanced) if reply else None
    return _CLASS[action] + (found[1] if found else ".0.0")


def _diagnostic(reply: Reply | None, wide: bool) -> list[bytes]:
    """The server's words. What carries no SMTP code (Graph, a broken connection) is of a type of our own."""
    words = clean(str(reply)) if reply else ""
    if not words or reply is None:
        return []
    kind = "smtp" if 200 <= reply.code <= 599 else "x-relay"
    return [folded("Diagnostic-Code", f"{kind}; {words if wide else _ascii(words)}")]


def _ascii(text: str) -> str:
    return text.replace("…", "...").encode("ascii", "backslashreplace").decode("ascii")
