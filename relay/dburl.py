"""The address of a PostgreSQL database: what is wrong with its form, and how it is shown without its passwords.

libpq reads such an address more loosely than RFC 3986 writes it: up to the first ``@`` everything but ``/`` may be a
password, also ``?`` and ``#`` (PostgreSQL documentation 34.1.1.2). Where the two could disagree about which part is the
password the address is a fault, so that none is ever shown as something else.
"""

from __future__ import annotations

import re

SCHEME = "postgresql://"
HIDDEN = "***"
REMEDY = (
    "in its user name and password write / ? # @ % as %2F %3F %23 %40 %25; better, keep the password in"
    " ~/.pgpass or the file that PGPASSFILE names"
)
"""What to do about nearly every fault of `form_fault`: a password that was written as it is."""
_SECRET = frozenset({"password", "sslpassword", "oauth_client_secret"})
"""Parameters whose values are secret (PostgreSQL documentation 34.1.2)."""
_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^\[\]:]*)(:\d*)?")
_NAME_AND_VALUE = re.compile(r"[a-z_]+=[^=]*")


def form_fault(url: str) -> str:
    """What is wrong with its form, in words that repeat nothing of it; empty when it is well."""
    authority, path, query = _parts(url)
    tail = path + query
    if "#" in url or "@" in tail or authority.count("@") > 1:
        return "has an @ or # in a place where none may stand"
    if _STRAY_PERCENT.search(url):
        return "has a % that does not begin a percent-encoded character"
    if not all(_HOST.fullmatch(host) for host in authority.rpartition("@")[2].split(",")):
        return "names a host or a port that cannot be one"
    if not all(_NAME_AND_VALUE.fullmatch(piece) for piece in query[1:].split("&") if query):
        return "has more behind the question mark than name=value, joined by &"
    return ""


def names_database(url: str) -> bool:
    """Whether it says which database, by itself or by a service that libpq looks up."""
    _, path, query = _parts(url)
    return bool(path.strip("/")) or not {"dbname", "service"}.isdisjoint(_names(query))


def parameters(url: str) -> list[str]:
    """The names behind its ``?``."""
    return _names(_parts(url)[2])


def has_password(url: str) -> bool:
    """Whether a password stands in it."""
    authority, _, query = _parts(url)
    return ":" in authority.rpartition("@")[0] or not _SECRET.isdisjoint(_names(query))


def shown_url(url: str) -> str:
    """The address for people's eyes: without its passwords, and nothing of one that is not well formed."""
    if not url.startswith(SCHEME):
        return url
    if form_fault(url):
        return SCHEME + HIDDEN
    authority, path, query = _parts(url)
    user, at, hosts = authority.rpartition("@")
    name, colon, _ = user.partition(":")
    return SCHEME + f"{name}{colon}{HIDDEN if colon else ''}{at}{hosts}{path}{_shown_query(query)}"


def _parts(url: str) -> tuple[str, str, str]:
    """User and hosts, path, and the query with its ``?``."""
    rest = url.removeprefix(SCHEME)
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    path, mark, query = rest[len(authority) :].partition("?")
    return authority, path, mark + query


def _names(query: str) -> list[str]:
    return [piece.partition("=")[0] for piece in query[1:].split("&")] if query else []


def _shown_query(query: str) -> str:
    """What follows a password may be the rest of it, should it hold an ``&`` that was written as it is."""
    shown: list[str] = []
    for piece in query[1:].split("&") if query else ():
        name = piece.partition("=")[0]
        if name in _SECRET:
            shown.append(f"{name}={HIDDEN}")
            break
        shown.append(piece)
    return "?" + "&".join(shown) if shown else ""
