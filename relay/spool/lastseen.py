"""A spool with a local one, for those who only look: lanes and holds of a database that is away are as last seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from relay.errors import SpoolError

if TYPE_CHECKING:
    from relay.spool.buffered import BufferedSpool

_NOTHING: dict[str, Callable[[], Any]] = {
    "lanes": list,
    "holds": list,
    "remembered": dict,
    "workers": dict,
    "replicas": list,
    "sent_last_minute": dict,
}
"""What those who only look may ask while the shared spool is away -> what they hear when it was never asked before."""


class LastSeen:
    """See `relay.spool.host.Host.last_seen`; what is not remembered so is the spool's own answer."""

    def __init__(self, spool: BufferedSpool) -> None:
        self._spool = spool

    def __getattr__(self, name: str) -> Any:
        if name not in _NOTHING:
            return getattr(self._spool, name)

        async def ask(*which: Any) -> Any:
            # a time is not what tells answers apart
            key = (name, *(one for one in which if isinstance(one, str)))
            try:
                self._spool.seen[key] = await getattr(self._spool, name)(*which)
            except SpoolError:
                return self._spool.seen.get(key, _NOTHING[name]())
            return self._spool.seen[key]

        return ask
