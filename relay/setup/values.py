"""Each value that is entered, checked at once: the form, and the mistakes people make with it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

from pydantic_core import PydanticCustomError

from relay.config import values

SHORTEST_SECRET = 8
"""Characters; Entra's secrets have 40."""
_GUID = values.GUID
T = TypeVar("T")


class Refused(Exception):
    """The value cannot be right; the text says why and what to do."""


def tenant_id(text: str) -> str:
    """Directory (tenant) ID: a GUID, or a domain of the tenant."""
    return _read(values.read_tenant, text)


def client_id(text: str) -> str:
    """Application (client) ID: a GUID."""
    return _read(values.read_guid, text)


def client_secret(text: str) -> str:
    """The secret's Value. The secret itself is in no refusal."""
    cleaned = text.strip().strip("\ufeff")
    if not cleaned:
        raise Refused("nothing was entered; paste the secret's Value (step 5)")
    if _GUID.fullmatch(cleaned):
        raise Refused(
            "this is the Secret ID, not its Value: in Certificates & secrets copy the column Value. It is shown only "
            "right after the secret was made; if it is gone, make a new secret"
        )
    if cleaned[0] in "\"'`" or cleaned[-1] in "\"'`":
        raise Refused("quotes were copied along with it; copy the column Value alone")
    if not cleaned.isascii() or any(character.isspace() for character in cleaned):
        raise Refused("a secret has no blanks and no letters beyond ASCII; copy the column Value again")
    if len(cleaned) < SHORTEST_SECRET:
        raise Refused("this is too short for a client secret; copy the whole column Value")
    return cleaned


def address(text: str) -> str:
    """A mail address."""
    return _read(values.read_address, text)


def short_text(text: str) -> str:
    """A name for people."""
    return _read(values.read_text, text)


def transport(text: str) -> str:
    """auto, smtp or graph."""
    return _read(values.read_choice("auto", "smtp", "graph"), text)


def bind(text: str) -> str:
    """An address and a port to listen on."""
    return _read(values.read_bind, text)


def network(text: str) -> str:
    """A network that may connect."""
    return str(_read(values.read_network, text))


def networks(text: str) -> list[str]:
    """Several, separated by commas or blanks."""
    parts = [part for part in re.split(r"[,\s]+", text.strip()) if part]
    if not parts:
        raise Refused("name at least one network, such as 192.168.10.0/24")
    return [network(part) for part in parts]


def day(text: str) -> str:
    """A date."""
    return str(_read(values.read_date, text))


def _read(reader: Callable[[object], T], text: str) -> T:
    try:
        return reader(text.strip().strip("\ufeff"))
    except PydanticCustomError as error:
        context = error.context or {}
        raise Refused(
            f"it {context.get('problem', error.message())}; {context.get('remedy', '')}".rstrip("; ")
        ) from None


KINDS: dict[str, Callable[[str], str]] = {
    "server_name": short_text,
    "from_email": address,
    "tenant_id": tenant_id,
    "client_id": client_id,
    "secret": client_secret,
    "secret_expires": day,
    "transport": transport,
    "postmaster": address,
    "web": bind,
}
"""How each single answer is read."""
