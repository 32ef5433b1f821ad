"""The arguments of MAIL and RCPT, read strictly by RFC 5321 section 4.1.2 (and 6531, 3461, 1870, 6152, 4954)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping

_ATEXT = r"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~\u0080-\U0010ffff]"
_LOCAL = re.compile(
    rf'{_ATEXT}+(?:\.{_ATEXT}+)*|"(?:[\x20\x21\x23-\x5b\x5d-\x7e\u0080-\U0010ffff]|\\[\x20-\x7e])*"'
)
_LABEL = r"[A-Za-z0-9\u0080-\U0010ffff](?:[A-Za-z0-9\-\u0080-\U0010ffff]*[A-Za-z0-9\u0080-\U0010ffff])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([\x21-\x3c\x3e-\x7e]+))?")
_XTEXT = re.compile(r"(?:[\x21-\x2a\x2c-\x3c\x3e-\x7e]|\+[0-9A-F]{2})*")
_NOTIFY = re.compile(r"NEVER|(?:SUCCESS|FAILURE|DELAY)(?:,(?:SUCCESS|FAILURE|DELAY))*", re.I)

LOCAL_LENGTH, DOMAIN_LENGTH, PATH_LENGTH = 64, 255, 254  # octets; RFC 5321 section 4.5.3.1, erratum 1690

MAIL_PARAMETERS = {
    "SIZE": re.compile(r"[0-9]{1,20}"),
    "BODY": re.compile(r"7BIT|8BITMIME|BINARYMIME", re.I),
    "SMTPUTF8": None,
    "RET": re.compile(r"FULL|HDRS", re.I),
    "ENVID": _XTEXT,
    "AUTH": re.compile(r"<>|" + _XTEXT.pattern),
}
RCPT_PARAMETERS = {
    "NOTIFY": _NOTIFY,
    "ORCPT": re.compile(r"[A-Za-z0-9-]+;" + _XTEXT.pattern),
}


class SyntaxRefused(ValueError):
    """The argument is not what the RFC allows; the reply says what to answer."""

    def __init__(self, reply: str) -> None:
        super().__init__(reply)
        self.reply = reply


def read_path(argument: str, keyword: str, invalid: str) -> tuple[str, str]:
    """Split ``FROM:<a@b> KEY=VALUE`` into address and the text of the parameters.

    No blank after the colon, angle brackets required. ``invalid`` is the reply to a bad address.
    """
    if argument[: len(keyword)].upper() != keyword or argument[len(keyword) : len(keyword) + 1] != "<":
        raise SyntaxRefused("501 5.5.4 Invalid arguments")
    rest = argument[len(keyword) + 1 :]
    end = _closing_bracket(rest)
    if end < 0:
        raise SyntaxRefused("501 5.5.4 Invalid arguments")
    address, parameters = rest[:end], rest[end + 1 :]
    if parameters.strip() and not parameters.startswith(" "):
        raise SyntaxRefused("501 5.5.4 Invalid arguments")
    if address and not valid_address(address):
        raise SyntaxRefused(invalid)
    return address, parameters


def _closing_bracket(text: str) -> int:
    """Where the path ends: the first ``>`` outside a quoted local part."""
    quoted = escaped = False
    for index, character in enumerate(text):
        if escaped:
            escaped = False
        elif quoted and character == "\\":
            escaped = True
        elif character == '"':
            quoted = not quoted
        elif character == ">" and not quoted:
            return index
    return -1


def valid_address(address: str) -> bool:
    """Whether this is a Mailbox of RFC 5321 (or 6531): local part, ``@``, domain or address literal."""
    local, at, domain = address.rpartition("@")
    if not at or not _LOCAL.fullmatch(local) or len(local.encode()) > LOCAL_LENGTH:
        return False
    if len(domain.encode()) > DOMAIN_LENGTH or len(address.encode()) > PATH_LENGTH:
        return False
    return _valid_literal(domain) if domain.startswith("[") else bool(_DOMAIN.fullmatch(domain))


def _valid_literal(domain: str) -> bool:
    if not domain.endswith("]"):
        return False
    try:
        ipaddress.ip_address(domain[1:-1].removeprefix("IPv6:"))
    except ValueError:
        return False
    return True


def valid_hello(name: str) -> bool:
    """Whether EHLO's argument is a domain or an address literal (underscores are let pass)."""
    return _valid_literal(name) if name.startswith("[") else bool(_DOMAIN.fullmatch(name.replace("_", "-")))


def read_parameters(text: str, known: Mapping[str, re.Pattern[str] | None]) -> dict[str, str]:
    """The ESMTP parameters in capitals. Unknown ones 555, malformed or repeated ones 501 (RFC 5321 section 4.1.1.11)."""
    found: dict[str, str] = {}
    for word in text.split():
        match = _PARAMETER.fullmatch(word)
        if match is None:
            raise SyntaxRefused("501 5.5.4 Invalid arguments")
        key, value = match[1].upper(), match[2]
        if key not in known:
            raise SyntaxRefused(f"555 5.5.4 Unsupported option: {key}")
        pattern = known[key]
        fits = (
            value is None if pattern is None else value is not None and pattern.fullmatch(value) is not None
        )
        if not fits or key in found:
            raise SyntaxRefused("501 5.5.4 Invalid arguments")
        found[key] = value or ""
    return found
