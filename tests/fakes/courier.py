"""A courier without a network: it remembers what it carried and answers as told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from relay.message import Content, Outcome, Reply, Report, Result, Trouble
from relay.spool.contract import Claim

SENT = Outcome(Result.SENT, reply=Reply(250, "2.0.0", "OK"))
ABANDONED = Outcome(Result.DEFERRED, reason="given up", code="abandoned", counts=False)
Script = Callable[[Claim], Outcome | Report]


class FakeConnection:
    """Carries up to ``batch`` messages."""

    transport = "smtp"

    def __init__(self, courier: FakeCourier, mailbox: str, batch: int) -> None:
        self._courier = courier
        self._mailbox = mailbox
        self._left = batch
        self.broken = False
        self._abandoned = asyncio.Event()

    def usable(self) -> bool:
        return self._left > 0 and not self.broken

    async def submit(self, claim: Claim, content: Content, begin) -> Report:
        self._left -= 1
        await begin()
        self._courier.under_way += 1
        self._courier.progress.set()
        ends = [asyncio.ensure_future(one.wait()) for one in (self._courier.gate, self._abandoned)]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        self._courier.under_way -= 1
        if self._abandoned.is_set():
            return Report({one.address: ABANDONED for one in claim.envelope.recipients})
        self._courier.tried.append(claim)
        self._courier.progress.set()
        answer = self._courier.answer(claim)
        report = (
            answer
            if isinstance(answer, Report)
            else Report({r.address: answer for r in claim.envelope.recipients})
        )
        if report.lane_trouble is not None:
            self.broken = True
        if any(one.result is Result.SENT for one in report.outcomes.values()):
            self._courier.sent.append(claim)
            self._courier.progress.set()
        report.details.update({"host": "mail.example", "reply": "250 2.0.0 OK", "transport": "smtp"})
        return report

    def abandon(self) -> bool:
        if self._courier.dotted or not self._courier.under_way:
            return False
        self.broken = True
        self._abandoned.set()
        return True

    async def close(self) -> None:
        self._courier.open_now -= 1


class FakeCourier:
    """``answer`` decides each message, ``refuse`` each login (None: let in); ``gate`` keeps messages under way."""

    def __init__(self, batch: int = 30) -> None:
        self.batch = batch
        self.answer: Script = lambda claim: SENT
        self.refuse: Outcome | None = None
        self.opened: list[str] = []
        self.tries = 0
        self.open_now = 0
        self.most_open = 0
        self.under_way = 0
        """Messages being submitted."""
        self.dotted = True
        """Whether Exchange may have all of what is under way."""
        self.tried: list[Claim] = []
        self.sent: list[Claim] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.progress = asyncio.Event()

    async def open(self, upstream: str, mailbox: str) -> FakeConnection:
        self.tries += 1
        self.progress.set()
        if self.refuse is not None:
            raise Trouble(self.refuse)
        self.opened.append(mailbox)
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)
        return FakeConnection(self, mailbox, self.batch)

    async def close(self) -> None:
        return None

    async def until(self, condition: Callable[[], bool], seconds: float = 10.0) -> None:
        """Wait for something that a message or a login brings about."""
        async with asyncio.timeout(seconds):
            while not condition():
                self.progress.clear()
                await self.progress.wait()
