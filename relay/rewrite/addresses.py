"""Addresses: compared, validated and written. What reads them from a header is in parser.py.

Written forms follow RFC 5322 section 3.4; obsolete and plainly broken forms are read, never written.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from dataclasses import dataclass

from relay.rewrite.encoding import clean, decode_words, encode_words, well_formed

ADDRESS_LIMIT = 320
"""Longest address taken for one: 64 + @ + 255 (RFC 5321 section 4.5.3.1)."""
NAME_LIMIT = 256
"""Longest display name, in characters: what Exchange keeps of one."""
_RAW_NAME_LIMIT = 700
_ATEXT = r"A-Za-z0-9!#$%&'*+/=?^_`{|}~\-"
_WORD = rf'(?:[{_ATEXT}]{{1,200}}+|"(?>(?:[^"\\\x00-\x08\x0a-\x1f\x7f-\U0010ffff]|\\[ -~])*)")'
_UTF8_WORD = rf'(?:[{_ATEXT}\xa1-\U0010ffff]{{1,200}}+|"(?>(?:[^"\\\x00-\x08\x0a-\x1f\x7f-\xa0]|\\[ -~])*)")'
_PHRASE = re.compile(rf"{_WORD}(?>(?:[ ]{_WORD})*)")
_UTF8_PHRASE = re.compile(rf"{_UTF8_WORD}(?>(?:[ ]{_UTF8_WORD})*)")
_ATOMS = re.compile(rf"[{_ATEXT}]+(?: [{_ATEXT}]+)*")
_QUOTED = re.compile(r'"((?>(?:[^"\\]|\\.)*))"', re.DOTALL)
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)
_LOCAL = r'(?:[^\x00-\x20\x7f-\xa0"(),:;<>@\[\]\\]++|"(?>(?:[^"\\\x00-\x1f\x7f-\xa0]|\\[ -~])*)")'
_LABEL = r"[A-Za-z0-9_\xa1-\U0010ffff](?:[A-Za-z0-9_\xa1-\U0010ffff-]*+)"
_DOMAIN = rf"(?:{_LABEL}(?>(?:\.{_LABEL})*)\.?|\[[^\[\]\\\x00-\x20\x7f-\U0010ffff]++\])"
_ASCII_DOMAIN = re.compile(r"[a-z0-9_][a-z0-9_-]*(?:\.[a-z0-9_][a-z0-9_-]*)*")
_ADDRESS = re.compile(rf"{_LOCAL}@{_DOMAIN}")
_DOT_ATOM = re.compile(rf"[{_ATEXT}\xa1-\U0010ffff]+(?:\.[{_ATEXT}\xa1-\U0010ffff]+)*")


@dataclass(frozen=True, slots=True)
class Mailbox:
    """One originator or destination as it was written."""

    phrase: str
    """The display name in header syntax (encoded words, quotes and all), blanks made single; may be empty."""
    address: str
    """As written; empty when there was only a name."""


def is_address(text: str) -> bool:
    """Whether this is an address one can route by and answer to; lenient about dots, underscores and bare hosts."""
    return len(text) <= ADDRESS_LIMIT and _ADDRESS.fullmatch(text) is not None and text.isprintable()


@functools.lru_cache(maxsize=4096)
def comparable(address: str) -> str:
    """The form in which two spellings of one address are equal: lower case, domain in A-labels, no idle quotes."""
    if address.isascii() and '"' not in address:
        return address.lower().rstrip(".")
    local, at, domain = address.rpartition("@")
    quoted = _QUOTED.fullmatch(local)
    if quoted and _DOT_ATOM.fullmatch(unquote(quoted[1])):
        local = unquote(quoted[1])
    return unicodedata.normalize("NFC", local).lower() + at + domain_to_ascii(domain)


def domain_to_ascii(domain: str) -> str:
    """Lower case and A-labels (``bücher.example`` is ``xn--bcher-kva.example``); left alone where that fails."""
    domain = domain.rstrip(".").lower()
    if domain.isascii():
        return domain
    try:
        ascii_form = domain.encode("idna").decode("ascii").lower()
    except UnicodeError:
        return domain
    # Compatibility forms turn into specials (a full-width @, an ellipsis): such a name stays what it is.
    return ascii_form if _ASCII_DOMAIN.fullmatch(ascii_form) else domain


def domain_to_unicode(domain: str) -> str:
    """U-labels, for regular expressions that were written with them; left alone where that fails."""
    if "xn--" not in domain:
        return domain
    try:
        return domain.encode("ascii").decode("idna")
    except UnicodeError:
        return domain


def unquote(text: str) -> str:
    """The inside of a quoted string or comment without its backslashes."""
    return _QUOTED_PAIR.sub(r"\1", text) if "\\" in text else text


def name_of(phrase: str) -> str:
    """A display name for people: quotes off, encoded words decoded, on one line."""
    if '"' in phrase:
        phrase = _QUOTED.sub(lambda match: unquote(match[1]), phrase)
    return clean(decode_words(phrase))


def write_phrase(phrase: str, *, smtputf8: bool = False) -> str:
    """The name as it was written where that is valid, else the same name in valid syntax."""
    if phrase and len(phrase) <= _RAW_NAME_LIMIT:
        valid = _UTF8_PHRASE if smtputf8 else _PHRASE
        if valid.fullmatch(phrase) and ("=?" not in phrase or _decodes_cleanly(phrase)):
            return phrase
    return encode_name(name_of(phrase))


def _decodes_cleanly(phrase: str) -> bool:
    """Encoded words may be broken, or hide line ends or endless text; such a name is written anew."""
    shown = decode_words(phrase)
    return well_formed(phrase) and len(shown) <= NAME_LIMIT and clean(shown) == shown.strip(" ")


def encode_name(name: str) -> str:
    """A display name in header syntax: atoms, a quoted string, or encoded words (RFC 2047 section 5, rule 3)."""
    name = clean(name)[:NAME_LIMIT].rstrip()
    if not name:
        return ""
    if not name.isascii() or "=?" in name:
        return encode_words(name, lead=len("From: "))
    if _ATOMS.fullmatch(name) and len(max(name.split(" "), key=len)) <= 200:
        return name
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


@functools.lru_cache(maxsize=1024)
def write_address(address: str, *, smtputf8: bool = False) -> str | None:
    """The address in strict syntax; None when it has none (no such domain, or a non-ASCII local part without SMTPUTF8)."""
    if not is_address(address):
        return None
    local, _, domain = address.rpartition("@")
    domain = domain.rstrip(".")
    if not domain.isascii():
        domain = domain_to_ascii(domain)
    if not domain.isascii() or not (smtputf8 or local.isascii()):
        return None
    if not local.startswith('"') and _DOT_ATOM.fullmatch(local) is None:
        local = f'"{local}"'
    return f"{local}@{domain}"


def write_mailbox(phrase: str, address: str) -> str:
    """``name <address>``, or the address alone."""
    return f"{phrase} <{address}>" if phrase else address
