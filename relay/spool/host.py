"""The part of a spool's contract that is about this host: whether mail can be taken here, and what waits here alone.

A shared spool may have a local one in front of it (``spool.local``), which takes mail while the database is away. A
spool without one answers these questions trivially: `NoLocal`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self

from relay.errors import SpoolError
from relay.spool.views import LocalMail

if TYPE_CHECKING:
    from relay.spool.contract import Spool

PROBE = "health:probe"
"""A key under which nothing is ever remembered."""


class Texts(Protocol):
    """Small texts that this host keeps for itself. Errors are SpoolError and its subclasses."""

    async def remembered(self, prefix: str = "") -> dict[str, str]:
        """See `relay.spool.contract.Spool.remembered`."""
        ...

    async def remember(self, key: str, value: str | None) -> None:
        """See `relay.spool.contract.Spool.remember`."""
        ...


class Host(Protocol):
    """See the head of this file. Errors are SpoolError and its subclasses."""

    @property
    def local(self) -> Texts | None:
        """What this host remembers on its own disk; None when it has no local spool."""
        ...

    @property
    def trouble(self) -> SpoolError | None:
        """Why only what this host keeps can be had just now; None when all can be, or nothing is kept here."""
        ...

    @property
    def diverted(self) -> str:
        """Why new mail goes into the local spool; empty when it does not."""
        ...

    async def probe(self) -> None:
        """Raises SpoolError when no mail can be taken here: a transaction that changes nothing, where mail would go."""
        ...

    async def local_mail(self) -> LocalMail | None:
        """What waits in the local spool; None when there is none."""
        ...

    @property
    def reached(self) -> bool:
        """Whether all of it was opened; False after an `open` while the database was away."""
        ...

    async def reach(self) -> None:
        """Try to open the rest until that works; `recover` then begins the work on it. Raises SpoolVersion."""
        ...

    def last_seen(self) -> Spool:
        """A spool for those who only look: lanes and holds of one that is away are as they were last seen.

        For delivery they are an error then, and of a spool without a local one for everybody.
        """
        ...


class NoLocal:
    """`Host` for a spool that has no local one in front of it; who uses it says how it is probed."""

    local = None
    trouble = None
    diverted = ""
    reached = True

    async def local_mail(self) -> LocalMail | None:
        """None."""
        return None

    async def reach(self) -> None:
        """It was opened as a whole."""

    def last_seen(self) -> Self:
        """It is seen as it is, or not at all."""
        return self
