"""The one field this relay adds: ``Received`` (RFC 5321 section 4.4), folded, of values that cannot break it."""

from __future__ import annotations

import re
import time
from functools import lru_cache

from relay.message import Client

_ODD = re.compile(r"[^A-Za-z0-9._:\[\]-]")
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def received_field(client: Client, *, host: str, extended: bool, utf8: bool, id: str, now: float) -> bytes:
    """The field with its CRLF. The AUTH user is not named: recipients need not know the login."""
    address = f"IPv6:{client.address}" if ":" in client.address else client.address
    secured = f" (using {client.tls})" if client.tls else ""
    lines = (
        f"Received: from {_name(client.helo)} ([{address}])",
        f"\tby {_name(host)} with {_protocol(client, extended, utf8)}{secured} id {id};",
        f"\t{_date(int(now))}",
    )
    return "\r\n".join((*lines, "")).encode("ascii", "replace")


def _name(text: str) -> str:
    return _ODD.sub("?", text)[:255] or "unknown"


def _protocol(client: Client, extended: bool, utf8: bool) -> str:
    """The "with" keyword: RFC 3848, and RFC 6531 section 4.3 for SMTPUTF8."""
    if not extended and not utf8 and not client.tls and not client.user:
        return "SMTP"
    return f"{'UTF8SMTP' if utf8 else 'ESMTP'}{'S' if client.tls else ''}{'A' if client.user else ''}"


@lru_cache(maxsize=4)
def _date(now: int) -> str:
    """RFC 5322 date in UTC; English whatever the locale."""
    at = time.gmtime(now)
    clock = f"{at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02}"
    return f"{_DAYS[at.tm_wday]}, {at.tm_mday} {_MONTHS[at.tm_mon - 1]} {at.tm_year} {clock} +0000"
