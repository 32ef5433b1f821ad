"""The border between scheduling and delivery: a courier opens connections, a connection submits messages.

The schedule room imports this module and nothing else of `deliver`; both transports (SMTP, Graph) stand behind it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Protocol

from relay.message import Content, Outcome, Report
from relay.spool.contract import Claim


class Begin(Protocol):
    """Leave to submit one message, perhaps in several submissions (SMTP transactions, Graph requests), one by one.

    For each submission: `room`, then the call. Calling alone means one submission to all recipients.
    """

    def room(self, recipients: int) -> int:
        """Set aside the next submission, to at most so many recipients; how many it may have.

        Fewer where Exchange takes no more in one message, or the day's limit leaves no more. 0 means none now (a
        limit is reached, the lane is held, relay stops): the transport ends there and leaves the recipients that
        are left out of its report; they go back to the queue untried. Never 0 for the first one.
        """
        ...

    def took(self, recipients: int, sent: Mapping[str, Outcome]) -> None:
        """What came of the submission: it was to so many in the end, and these (by address) have it.

        Written down with the next one, so that a crash in the middle of a split message repeats no finished part.
        """
        ...

    def crowded(self, most: int) -> None:
        """Exchange took no more than so many recipients in one message, and refused the rest for that (452 4.5.3).

        `room` gives no more from now on, for this message and for later ones of the mailbox.
        """
        ...

    def __call__(self) -> Awaitable[None]:
        """Write the submission down; what is awaited raises SpoolError. A transport starts it when the submission starts and
        awaits it before end of data (SMTP) or before the request body is complete (Graph)."""
        ...


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
        """Route and rewrite by today's rules, submit, and report on every recipient that `Begin.room` let go.

        Never raises for a mail fault.

        A connection that broke reports that too (and is no longer usable). Cancelling it leaves the
        message's fate unknown if ``begin`` was already called.
        """
        ...

    def abandon(self) -> bool:
        """Break off the submission under way, unless Exchange may have all of it already; whether that was done.

        True: it certainly has not been accepted, `submit` reports so soon, and the connection is of no more use.
        False: nothing is under way, or the end of data (SMTP) or of the request (Graph) may have been handed over.
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
