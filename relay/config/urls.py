"""Reads URLs from their text, in the way of `relay.config.values`."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

from relay import dburl
from relay.config.values import bad, text_of


def read_https_url(value: object) -> str:
    """An https URL without query and trailing slash."""
    text = text_of(value)
    parts = _split_url(text)
    if parts is None or parts.scheme != "https" or not parts.hostname:
        raise bad("is not an https address", "write https:// and the host name: tokens travel over TLS alone")
    if parts.query or parts.fragment or parts.username is not None:
        raise bad("holds more than a host and a path", "write https:// and the host name")
    return text.rstrip("/")


def read_web_url(value: object) -> str:
    """An http or https URL. It is not repeated in a problem: such addresses hold keys."""
    text = text_of(value)
    parts = _split_url(text)
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        raise bad("is not a web address", "write it with https:// and the host name")
    return text


def read_proxy(value: object) -> str:
    """``http://host:port``, perhaps with user and password. Not repeated in a problem for that reason."""
    text = text_of(value)
    parts = _split_url(text)
    if parts is None or parts.scheme != "http" or not parts.hostname or parts.path.strip("/") or parts.query:
        raise bad(
            "is not the address of an HTTP proxy", "write http://name:port, such as http://proxy.example:3128"
        )
    return text.rstrip("/")


def read_spool_url(value: object) -> str:
    """``sqlite:////absolute/path``, ``sqlite:///relative/path`` or ``postgresql://...``."""
    text = text_of(value)
    remedy = "write sqlite:////var/lib/relay/spool.db (four slashes: an absolute path) or postgresql://user@host/db"
    if text.startswith("postgresql://"):
        return _postgresql_url(text)
    if not text.startswith("sqlite:///") or not text.removeprefix("sqlite:///").strip("/"):
        raise bad("is not an address of a spool", remedy)
    path = text.removeprefix("sqlite:///")
    if ":memory:" in path or "?" in path or not path.isprintable():
        raise bad("is not a plain file: mail must survive a restart", remedy)
    return text


def read_local_spool_url(value: object) -> str:
    """``sqlite:////absolute/path``: a file, since it is for the time when no server can be reached."""
    if text_of(value).startswith("postgresql://"):
        raise bad(
            "is not on this host's own disk",
            "write sqlite:////var/lib/relay/local.db; the server belongs in spool.url",
        )
    return read_spool_url(value)


def _postgresql_url(text: str) -> str:
    """As libpq reads it (PostgreSQL documentation 34.1.1.2): also several ``host:port`` with commas between them."""
    remedy = "write postgresql://user@host/database, or user@host1,host2 for a group that fails over"
    if not text.isprintable() or " " in text:
        raise bad("is not an address of a database", remedy)
    fault = dburl.form_fault(text)
    if fault:
        raise bad(fault, f"{remedy}; {dburl.REMEDY}")
    if not dburl.names_database(text):
        raise bad("names no database", remedy)
    return text


def _split_url(text: str) -> SplitResult | None:
    try:
        parts = urlsplit(text)
        _ = parts.port  # reading it checks it
    except ValueError:
        return None
    return parts if text.isprintable() and " " not in text else None
