"""The spool that a URL asks for, with a local one in front of it when that is wanted."""

from __future__ import annotations

from typing import cast

from relay.clock import Clock
from relay.dburl import shown_url
from relay.errors import SpoolError
from relay.settings import SpoolSettings
from relay.spool.contract import Spool
from relay.spool.sqlite import SqliteSpool


def build_spool(settings: SpoolSettings, clock: Clock | None = None) -> Spool:
    """A spool, not yet open. Raises SpoolError when its driver is not installed."""
    if settings.url.startswith("sqlite:"):
        return SqliteSpool(settings, clock)
    try:
        from relay.spool.postgres import PostgresSpool
    except ImportError as error:
        raise SpoolError(
            "spool.url names PostgreSQL, and its driver is not installed",
            remedy="Install it: pip install 'relay[postgresql]' (it brings psycopg).",
        ) from error
    shared = PostgresSpool(settings, clock)
    if settings.local is None:
        return shared
    from relay.spool.buffered import BufferedSpool

    # it passes on what it does not do itself, which the type checker cannot see
    return cast("Spool", BufferedSpool(settings, shared, clock, shown=shown_url(settings.url)))
