"""The object id under which Exchange must know the application, read from a token."""

from __future__ import annotations

from relay.check.bounds import dialogue_bound, in_thread
from relay.clock import SystemClock
from relay.errors import TokenError
from relay.settings import Upstream
from relay.tokens.asker import Asker
from relay.tokens.contract import Resource


async def object_id(upstream: Upstream) -> str:
    """The token's ``oid``; empty when no token can be had just now."""
    asker = Asker(upstream, SystemClock())
    try:
        token = await in_thread(lambda: asker.fetch(Resource.GRAPH), dialogue_bound(upstream))
    except (TokenError, TimeoutError):
        return ""
    return str(token.claims.get("oid") or "")
