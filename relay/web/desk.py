"""What the page asks of the running relay: the daemon hands in an object that answers (`relay.pages`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from relay.check.contract import CheckReport, Progress
from relay.settings import Settings, Upstream
from relay.spool.contract import Spool

MINUTES = 60
"""Length of a lane's rate chart."""


@dataclass(frozen=True, slots=True)
class News:
    """One event of the log, cleaned of secrets, for Overview and Activity."""

    number: int
    """Counts up from 1 since the start."""
    time: float
    level: str
    event: str
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Preview:
    """What would happen to a sender's mail."""

    refused: str
    """The SMTP reply the client would get; empty when it is taken."""
    rule: int | None = None
    """Index of the sender rule; None for the default."""
    upstream: str = ""
    mailboxes: tuple[str, ...] = ()
    from_address: str | None = None
    """None keeps the sender's own."""
    name: str = ""
    reply_to: str = ""


class Desk(Protocol):
    """The running relay, as the page sees it."""

    @property
    def settings(self) -> Settings:
        """Those in force."""
        ...

    @property
    def spool(self) -> Spool:
        """The open spool."""
        ...

    def now(self) -> float:
        """Wall time."""
        ...

    async def status(self) -> dict[str, Any]:
        """The report of `relay status --json`."""
        ...

    async def health(self) -> dict[str, Any]:
        """``{ok, reasons, warnings}``."""
        ...

    async def metrics(self) -> bytes:
        """The figures in Prometheus' text format."""
        ...

    async def reload(self) -> None:
        """Read the configuration again. Raises RelayError or OSError; then nothing (or not all) was changed."""
        ...

    async def look_again(self, lanes: Iterable[str], *, probe: bool = False) -> None:
        """Holds or messages of these lanes were changed in the spool; ``probe``: what is held is tried at once."""
        ...

    def rates(self, lane: str) -> Sequence[int]:
        """Messages delivered in each of the last `MINUTES` minutes, the present one last."""
        ...

    def news(self, after: int = 0) -> Sequence[News]:
        """The last events, newest first, of those beyond the number ``after``."""
        ...

    def troubles(self) -> Sequence[News]:
        """The last warnings and errors, newest first."""
        ...

    def preview(self, sender: str, header_from: str, address: str, user: str | None) -> Preview:
        """Today's sender rules for a message of this sender and client."""
        ...

    async def check(self, upstream: Upstream, progress: Progress, *, whole: bool) -> CheckReport:
        """Try an upstream's settings, also ones that are not in force, step by step.

        ``whole``: with every mailbox that the sender rules in force use, not `from_email` alone.
        """
        ...

    async def store_password(self, hashed: str) -> str:
        """Keep the page's password (an argon2 hash) and put it in force; where it was stored. Raises RelayError."""
        ...
