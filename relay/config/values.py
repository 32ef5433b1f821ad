"""Reads single values from their text: numbers, durations, sizes, addresses, networks. URLs: `relay.config.urls`.

Each `read_*` takes whatever the document held and returns the typed value, or raises the error made by `bad`:
a problem and a remedy in plain words. Values that may hold a secret by mistake are never repeated in a problem.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections.abc import Callable

from pydantic_core import PydanticCustomError

from relay.config.faults import printable
from relay.settings import Network

GUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
ZERO_GUID = "00000000-0000-0000-0000-000000000000"

_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?) ?([smhdw]?)")
_DURATION_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_LONGEST = 10 * 365 * 86400.0
_SIZE = re.compile(r"([0-9]{1,16}(?:\.[0-9]{1,6})?) ?(?:([KMGT])I?B?|B)?", re.IGNORECASE)
_SIZE_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_HOST_LABEL = re.compile(r"[^\W_](?:[\w-]{0,61}[^\W_])?")
_ATEXT = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\u0080-\U0010ffff-]+"
_ATOM = re.compile(rf"{_ATEXT}(?:\.{_ATEXT})*")
_QUOTED = re.compile(r'"(?:[^"\\\r\n]|\\[^\r\n])*"')
_SWITCHES = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def bad(problem: str, remedy: str) -> PydanticCustomError:
    """The error a reader raises: both texts travel through pydantic to the `Fault`."""
    return PydanticCustomError("relay", "{problem}", {"problem": problem, "remedy": remedy})


def text_of(value: object) -> str:
    """The text of a scalar with surrounding blanks removed; a list or a section in its place is an error."""
    if isinstance(value, list | tuple):
        raise bad("is a list, where one value belongs", "write a single value")
    if isinstance(value, dict):
        raise bad("is a section, where one value belongs", "write a single value")
    text = "" if value is None else str(value).strip()
    if not text:
        raise bad("is empty", "give it a value, or remove the key")
    if len(text) > 4096:
        raise bad("is longer than 4096 characters", "check that the right text was pasted")
    return text


def read_text(value: object) -> str:
    """A short text for people: one line without control characters."""
    text = text_of(value)
    if len(text) > 256 or not text.isprintable():
        raise bad("holds control characters, or is longer than 256", "write one short line")
    return text


def read_switch(value: object) -> bool:
    """true or false (yes, no, on, off)."""
    text = text_of(value)
    try:
        return _SWITCHES[text.lower()]
    except KeyError:
        raise bad(f"is {_shown(text)}, which is neither true nor false", "write true or false") from None


def read_number(low: int, high: int) -> Callable[[object], int]:
    """A whole number within bounds, both included."""

    def read(value: object) -> int:
        text = text_of(value)
        if not re.fullmatch(r"[0-9]{1,12}", text):
            raise bad(
                f"is {_shown(text)}, which is not a whole number", f"write a number from {low} to {high}"
            )
        if not low <= int(text) <= high:
            raise bad(f"is {text}, which is out of range", f"write a number from {low} to {high}")
        return int(text)

    return read


def read_choice(*names: str) -> Callable[[object], str]:
    """One of a few words, case not minded."""

    def read(value: object) -> str:
        text = text_of(value)
        if text.lower() not in names:
            raise bad(f"is {_shown(text)}, which is not known here", f"write one of: {', '.join(names)}")
        return text.lower()

    return read


def read_duration(value: object) -> float:
    """Seconds from ``30s``, ``5m``, ``4h``, ``5d`` or a bare number; more than nothing, at most ten years."""
    seconds = _duration(value)
    if seconds <= 0:
        raise bad("is no time at all", "write a duration such as 30s, 5m, 4h or 5d")
    return seconds


def read_duration_or_none(value: object) -> float:
    """Like `read_duration`, 0 allowed."""
    return _duration(value)


def _duration(value: object) -> float:
    text = text_of(value)
    found = _DURATION.fullmatch(text.lower())
    if found is None:
        raise bad(
            f"is {_shown(text)}, which is not a duration", "write 30s, 5m, 4h or 5d; a bare number is seconds"
        )
    seconds = float(found[1]) * _DURATION_UNITS[found[2]]
    if seconds > _LONGEST:
        raise bad("is longer than ten years", "write a shorter duration such as 5d")
    return seconds


def read_size(low: int, high: int) -> Callable[[object], int]:
    """Octets from ``512KB``, ``25MB``, ``10GB`` (powers of 1024) or a bare number, within bounds."""

    def read(value: object) -> int:
        text = text_of(value)
        found = _SIZE.fullmatch(text)
        if found is None:
            raise bad(
                f"is {_shown(text)}, which is not a size",
                "write 512KB, 25MB or 10GB; a bare number is octets",
            )
        octets = int(float(found[1]) * 1024 ** _SIZE_POWERS[(found[2] or "").lower()])
        if not low <= octets <= high:
            raise bad(
                f"is {_shown(text)}, which is out of range",
                f"write a size from {low} octets to {_size(high)}",
            )
        return octets

    return read


def _size(octets: int) -> str:
    for power, unit in ((4, "TB"), (3, "GB"), (2, "MB"), (1, "KB")):
        if octets >= 1024**power and octets % 1024**power == 0:
            return f"{octets // 1024**power}{unit}"
    return f"{octets} octets"


def read_date(value: object) -> datetime.date:
    """A day as ``2028-11-01``."""
    text = text_of(value)
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        raise bad(
            f"is {_shown(text)}, which is not a day", "write year-month-day, such as 2028-11-01"
        ) from None


def read_guid(value: object) -> str:
    """A GUID in its usual form, returned in lower case. The value is not repeated: it may be a misplaced secret."""
    text = text_of(value)
    if not GUID.fullmatch(text):
        raise bad(
            "is not a GUID (8-4-4-4-12 hexadecimal digits)",
            "copy it from the app registration's Overview page (the guide's step 6)",
        )
    return text.lower()


def read_tenant(value: object) -> str:
    """A tenant id: the GUID, or a verified domain of the tenant (facts 7.1: never ``common``)."""
    text = text_of(value).lower()
    remedy = "copy the Directory (tenant) ID from the app registration's Overview page (the guide's step 6)"
    if text in ("common", "organizations", "consumers"):
        raise bad(f"is `{text}`, which no app-only token can be asked from", remedy)
    if GUID.fullmatch(text):
        return text
    if not _is_domain(text, dots=1):
        raise bad("is neither a GUID (8-4-4-4-12 hexadecimal digits) nor a domain of the tenant", remedy)
    return text


def read_host(value: object) -> str:
    """A host name or IP address, nothing around it."""
    text = text_of(value)
    if "://" in text or "/" in text:
        raise bad(
            f"is {_shown(text)}, which is more than a host name",
            "write the name alone, without https:// or /",
        )
    if not _is_ip(text):
        if re.fullmatch(r"[^:]+:[0-9]+", text):
            raise bad(
                f"is {_shown(text)}, which holds a port", "write the name alone; the port has its own key"
            )
        if not _is_domain(text):
            raise bad(
                f"is {_shown(text)}, which is not a host name", "write a name such as smtp.office365.com"
            )
    return text.lower()


def read_bind(value: object) -> str:
    """``host:port`` or ``[v6 address]:port``; port 0 lets the system choose."""
    text = text_of(value)
    split_bind(text)
    return text


def split_bind(text: str) -> tuple[str, int]:
    """Host (IPv6 without its brackets) and port of a bind; raises the error of `bad`."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or host == "*":
        raise bad(
            f"is {_shown(text)}, which lacks the address",
            "write address:port: 127.0.0.1:25 for this machine alone, 0.0.0.0:25 for every IPv4 address",
        )
    if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise bad(f"is {_shown(text)}, whose port is not a number from 0 to 65535", "write address:port")
    if host.startswith("[") and host.endswith("]"):
        if not _is_ip(host[1:-1], version=6):
            raise bad(f"is {_shown(text)}: no IPv6 address is between the brackets", "write it as [::1]:25")
        return host[1:-1].lower(), int(port)
    if ":" in host:
        raise bad(f"is {_shown(text)}, where address and port cannot be told apart", "write it as [::1]:25")
    if not (_is_ip(host) or (_is_domain(host) and not re.fullmatch(r"[0-9.]+", host))):
        raise bad(
            f"is {_shown(text)}, whose address is not valid", "write address:port, such as 127.0.0.1:25"
        )
    return host.lower(), int(port)


def is_loopback(host: str) -> bool:
    """Whether a bind host is reachable from this machine alone."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def read_network(value: object) -> Network:
    """A network such as ``192.168.10.0/24``; a bare address is a network of one."""
    text = text_of(value)
    try:
        return ipaddress.ip_network(text.strip("[]"), strict=False)
    except ValueError:
        remedy = "write an address or a network such as 192.168.10.0/24"
        raise bad(f"is {_shown(text)}, which is not a network", remedy) from None


def read_address(value: object) -> str:
    """A mailbox address with a full domain, as Exchange wants it. Returned as written."""
    text = text_of(value)
    if not is_address(text, dots=1):
        raise bad(
            f"is {_shown(text)}, which is not a mail address", "write an address such as name@contoso.com"
        )
    return text


def is_address(text: str, dots: int = 0) -> bool:
    """Whether this is one bare address (RFC 5321 section 4.1.2), its domain having at least ``dots`` dots."""
    local, at, domain = text.rpartition("@")
    if not at or domain.endswith(".") or len(local.encode(errors="replace")) > 64:
        return False
    if not (_ATOM.fullmatch(local) or _QUOTED.fullmatch(local)) or not local.isprintable():
        return False
    return _is_domain(domain, dots) or (not dots and _is_literal(domain))


def _is_literal(domain: str) -> bool:
    return (
        domain.startswith("[") and domain.endswith("]") and _is_ip(domain[1:-1].lower().removeprefix("ipv6:"))
    )


def read_pattern(value: object) -> str:
    """An address, ``*@domain`` or ``*``; returned in lower case."""
    text = text_of(value).lower()
    if text == "*" or is_address(text) or (text.startswith("*@") and is_address("x" + text[1:])):
        if "*" not in text.removeprefix("*"):
            return text
    elif text.startswith("@") and is_address("x" + text):
        raise bad(f"is {_shown(text)}, which lacks the part before the @", f"write *{printable(text)}")
    raise bad(
        f"is {_shown(text)}, which is not a pattern",
        "write an address, *@domain, or * (a sender rule may also be a /regular expression/)",
    )


def read_sender_pattern(value: object) -> str:
    """Like `read_pattern`, or a ``/regular expression/`` of at most 1,000 characters that compiles."""
    text = text_of(value)
    if not text.startswith("/"):
        return read_pattern(text)
    if len(text) < 3 or not text.endswith("/"):
        raise bad(
            "begins a regular expression that does not end", "write it between two slashes: /...@old\\.local/"
        )
    if len(text) > 1000:
        raise bad("is a regular expression of more than 1000 characters", "split it into several rules")
    compile_pattern(text)
    return text


def compile_pattern(text: str) -> re.Pattern[str]:
    """The compiled form of a ``/regular expression/``, case not minded; raises the error of `bad`."""
    try:
        return re.compile(text[1:-1], re.IGNORECASE)
    except (re.error, OverflowError, RecursionError) as error:
        reason = printable(str(error), 100)
        raise bad(
            f"is not a valid regular expression ({reason})", "correct it; a dot is written \\."
        ) from None


def _is_domain(text: str, dots: int = 0) -> bool:
    labels = text.removesuffix(".").split(".")
    return len(text) <= 253 and len(labels) > dots and all(_HOST_LABEL.fullmatch(label) for label in labels)


def _is_ip(text: str, version: int | None = None) -> bool:
    try:
        return version in (None, ipaddress.ip_address(text).version)
    except ValueError:
        return False


def _shown(text: str) -> str:
    return f"`{printable(text)}`"
