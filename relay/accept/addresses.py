"""Envelope paths: tolerant about what stands around an address, strict about the address itself.

RFC 5321 section 4.1.2 (Mailbox, source routes), RFC 6531 section 3.3 (non-ASCII). Nothing is decoded: an encoded
word is an ordinary (valid) local part and stays one.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from dataclasses import dataclass

_WIDE = "\u00a0-\ud7ff\ue000-\U0010ffff"  # RFC 6531 UTF8-non-ascii, without C1 controls and surrogates
_ATOM = rf"[A-Za-z0-9!#$%&'*+/=?^_`{{|}}~{_WIDE}-]+"
_LOCAL = rf'(?:{_ATOM}(?:\.{_ATOM})*|"(?:[ !#-\[\]-~{_WIDE}]|\\[ -~])*")'
_LABEL = rf"[A-Za-z0-9{_WIDE}](?:[A-Za-z0-9{_WIDE}-]*[A-Za-z0-9{_WIDE}])?"
_DOMAIN = rf"{_LABEL}(?:\.{_LABEL})*"
_MAILBOX = re.compile(rf"({_LOCAL})@({_DOMAIN}|\[[!-Z^-~]+\])")
_TOKEN = re.compile(r'(?:"(?:[^"\\]|\\.)*"|[^\s"<>])+')
_PREFIX = re.compile(r'(?:"(?:[^"\\]|\\.)*"|[^"<])*<')
_INNER = re.compile(r'<*((?:"(?:[^"\\]|\\.)*"|[^"<>])*)>+')
_LITERAL = re.compile(r"[A-Za-z0-9-]*[A-Za-z0-9]:[!-Z^-~]+")

LOCAL_LIMIT = 64
DOMAIN_LIMIT = 255
PATH_LIMIT = 254


@functools.cache
def _route() -> re.Pattern[str]:
    """A source route, which hardly any client sends: made when one does, since that takes 20 ms of a start."""
    return re.compile(rf"@{_DOMAIN}(?:,@{_DOMAIN})*:")


class BadAddress(ValueError):
    """What was given holds no valid address; the text says why, for the client."""


@dataclass(frozen=True, slots=True)
class Path:
    """An address as given (empty for the null path) and what follows it: the parameters."""

    address: str
    rest: str


def parse_path(text: str, *, local_only: tuple[str, ...] = ()) -> Path:
    """Read the argument of ``MAIL FROM:`` or ``RCPT TO:``.

    Takes it with or without angle brackets, blanks and a display name before them; source routes are dropped
    (RFC 5321 appendix C). ``local_only`` names local parts that may stand without a domain (lower case).
    Raises BadAddress.
    """
    text = text.strip()
    if not text.startswith("<"):
        bare = _TOKEN.match(text)
        if bare and (_is_mailbox(bare[0]) or bare[0].lower() in local_only):
            return Path(bare[0], text[bare.end() :].strip())
    prefix = _PREFIX.match(text)
    if not prefix:
        raise BadAddress("no address found")
    inner = _INNER.match(text, prefix.end())
    if not inner:
        raise BadAddress("the closing angle bracket is missing")
    return Path(_address(inner[1].strip(), local_only), text[inner.end() :].strip())


def is_valid(address: str) -> bool:
    """Whether it is a strictly valid Mailbox."""
    return _is_mailbox(address)


def domain_of(address: str) -> str:
    """The part after the last ``@``, in lower case."""
    return address.rpartition("@")[2].lower()


def matches(address: str, pattern: str) -> bool:
    """Whether ``address`` falls under a pattern: an address, ``*@domain`` or ``*``; case does not matter."""
    if pattern == "*":
        return True
    pattern = pattern.lower()
    if pattern.startswith("*@"):
        return "@" in address and domain_of(address) == pattern[2:]
    return address.lower() == pattern


def _address(text: str, local_only: tuple[str, ...]) -> str:
    """The mailbox inside the brackets, without a source route."""
    route = _route().match(text) if text.startswith("@") else None
    if route:
        text = text[route.end() :]
    if not text and not route:
        return ""
    if _is_mailbox(text) or text.lower() in local_only:
        return text
    raise BadAddress("not a valid address")


def _is_mailbox(text: str) -> bool:
    found = _MAILBOX.fullmatch(text)
    if not found or not text.isprintable():  # no line separators, no characters that turn the text around
        return False
    local, domain = found[1], found[2]
    if len(local) > LOCAL_LIMIT or len(domain) > DOMAIN_LIMIT or len(text) > PATH_LIMIT:
        return False
    return _is_literal(domain[1:-1]) if domain.startswith("[") else True


def _is_literal(text: str) -> bool:
    """Address literals, RFC 5321 section 4.1.3."""
    kind, colon, value = text.partition(":")
    try:
        if not colon:
            ipaddress.IPv4Address(text)
        elif kind.lower() == "ipv6":
            ipaddress.IPv6Address(value)
    except ValueError:
        return False
    return not colon or bool(_LITERAL.fullmatch(text))
