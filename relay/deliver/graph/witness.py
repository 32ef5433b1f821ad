"""What a Graph connection tells to whoever chooses the transport."""

from __future__ import annotations

from typing import Protocol

from relay.message import Outcome


class Witness(Protocol):
    """Who wants to know whether Graph lets this app send, to choose the transport by it."""

    async def accepted(self) -> None:
        """A message was taken."""
        ...

    async def refused(self, outcome: Outcome) -> Outcome:
        """The right to send is missing. What is to be told instead: another transport may take over."""
        ...
