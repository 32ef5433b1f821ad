"""Parameters of MAIL and RCPT: SIZE (RFC 1870), BODY (6152), SMTPUTF8 (6531), AUTH (4954), DSN (3461)."""

from __future__ import annotations

import re
from dataclasses import dataclass

_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*")
_UTF8_XTEXT = re.compile(r"[!-~\u00a0-\ud7ff\ue000-\U0010ffff]*")
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
_ATOM = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+")


class BadParameter(ValueError):
    """A known parameter with a value it cannot have, or given twice: 501 5.5.4."""


class UnknownParameter(ValueError):
    """Not one we offered: 555 5.5.4."""


@dataclass(slots=True)
class MailParameters:
    """What MAIL said besides the address."""

    size: int = 0
    """Octets the client announces; 0 when it did not."""
    eight_bit: bool = False
    smtputf8: bool = False
    ret: str | None = None
    envid: str | None = None


@dataclass(slots=True)
class RcptParameters:
    """What RCPT said besides the address."""

    notify: str | None = None
    orcpt: str | None = None


def mail_parameters(rest: str) -> MailParameters:
    """Read what follows the sender. Raises BadParameter and UnknownParameter."""
    found = MailParameters()
    for key, value in _split(rest):
        if key == "SIZE":
            found.size = _number(value)
        elif key == "BODY":
            found.eight_bit = _one_of(value, "7BIT", "8BITMIME") == "8BITMIME"
        elif key == "SMTPUTF8" and value is None:
            found.smtputf8 = True
        elif key == "RET":
            found.ret = _one_of(value, "FULL", "HDRS")
        elif key == "ENVID":
            found.envid = _xtext(value, 100)
        elif key != "AUTH":  # accepted and ignored: RFC 4954 section 5 lets an untrusting server do so
            raise UnknownParameter(key)
    return found


def rcpt_parameters(rest: str) -> RcptParameters:
    """Read what follows a recipient. Raises BadParameter and UnknownParameter."""
    found = RcptParameters()
    for key, value in _split(rest):
        if key == "NOTIFY":
            found.notify = _notify(value)
        elif key == "ORCPT":
            found.orcpt = _orcpt(value)
        else:
            raise UnknownParameter(key)
    return found


def _split(rest: str) -> list[tuple[str, str | None]]:
    pairs: list[tuple[str, str | None]] = []
    for word in rest.split():
        key, equals, value = word.partition("=")
        if not _KEY.fullmatch(key):
            raise UnknownParameter(word)
        pairs.append((key.upper(), value if equals else None))
    if len({key for key, _ in pairs}) < len(pairs):
        raise BadParameter("given twice")
    return pairs


def _number(value: str | None) -> int:
    if value is None or not (value.isascii() and value.isdigit()) or len(value) > 20:
        raise BadParameter("SIZE")
    return int(value)


def _one_of(value: str | None, *allowed: str) -> str:
    if value is None or value.upper() not in allowed:
        raise BadParameter(value)
    return value.upper()


def _xtext(value: str | None, limit: int) -> str:
    if not value or len(value) > limit or not _XTEXT.fullmatch(value):
        raise BadParameter(value)
    return value


def _notify(value: str | None) -> str:
    wishes = (value or "").upper().split(",")
    if wishes == ["NEVER"]:
        return "NEVER"
    if len(set(wishes)) < len(wishes) or not set(wishes) <= {"SUCCESS", "FAILURE", "DELAY"}:
        raise BadParameter(value)
    return ",".join(wishes)


def _orcpt(value: str | None) -> str:
    """``addr-type;xtext`` of at most 500 characters; utf-8 addresses as RFC 6533 section 3 writes them."""
    kind, semicolon, address = (value or "").partition(";")
    text = _UTF8_XTEXT if kind.lower() == "utf-8" else _XTEXT
    if value is None or len(value) > 500 or not semicolon or not address:
        raise BadParameter(value)
    if not _ATOM.fullmatch(kind) or not text.fullmatch(address):
        raise BadParameter(value)
    return value
