"""The spool that a URL asks for."""

from __future__ import annotations

from relay.clock import Clock
from relay.errors import SpoolError
from relay.settings import SpoolSettings
from relay.spool.contract import Spool
from relay.spool.sqlite import SqliteSpool


def build_spool(settings: SpoolSettings, clock: Clock | None = None) -> Spool:
    """A spool, not yet open. Raises SpoolError for an engine this release does not have."""
    if settings.url.startswith("sqlite:"):
        return SqliteSpool(settings, clock)
    raise SpoolError(
        "spool.url names an engine this release cannot use yet",
        remedy="Use sqlite:////path/spool.db until the PostgreSQL spool arrives.",
    )
