"""The border between scheduling and delivery: a courier opens connections, a connection submits messages.

The schedule room imports this module and nothing else of `deliver`; both transports (SMTP, Graph) stand behind it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from relay.message import Content, Report
from relay.spool.contract import Claim

Begin = Callable[[], Awaitable[None]]
"""Writes the attempt down. A transport starts it when it starts a message and awaits it before end of data
(SMTP) or before the request body is complete (Graph); it is called at most once per submit."""


class Connection(Protocol):
    """One authenticated way into Exchange, good for one batch."""

    @property
    def transport(self) -> str:
        """``smtp`` or ``graph``."""
        ...

    def usable(self) -> bool:
        """False once it is broken, older than 8 minutes, idle over 60 s, or has carried its batch."""
        ...

    async def submit(self, claim: Claim, content: Content, begin: Begin) -> Report:
        """Route and rewrite by today's rules, submit, and report on every recipient. Never raises for a mail fault.

        A connection that broke reports that too (and is no longer usable). Cancelling it leaves the
        message's fate unknown if ``begin`` was already called.
        """
        ...

    async def close(self) -> None:
        """Say QUIT if there is anybody to say it to; never raises, never takes longer than 5 s."""
        ...


class Courier(Protocol):
    """Delivery as the scheduler sees it."""

    async def open(self, upstream: str, mailbox: str) -> Connection:
        """Dial, TLS, token, login: each step within the upstream's time-out.

        Raises ``relay.message.Trouble`` whose outcome says what broke (lane or upstream), why, and the remedy.
        """
        ...

    async def close(self) -> None:
        """Let go of tokens, sessions and caches."""
        ...
