"""The Graph transport: one mailbox's way into Microsoft Graph, carrying one message after another."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from relay.clock import Clock
from relay.deliver.attempt import Attempt, Rules, beyond
from relay.deliver.classify import judge_fault
from relay.deliver.contract import Begin
from relay.deliver.graph.contract import Answer, Lost
from relay.deliver.graph.judge import judge_answer, judge_lost, no_read_write
from relay.deliver.graph.large import LargeResult, send_large
from relay.deliver.graph.mime import send_mime
from relay.deliver.graph.recipients import addressed
from relay.deliver.graph.table import REFUSED, TOO_LARGE
from relay.deliver.graph.witness import Witness
from relay.deliver.login import token_outcome
from relay.deliver.parcel import Parcel
from relay.errors import SpoolError, TokenError
from relay.message import Content, Outcome, Recipient, Report, Result
from relay.spool.contract import Claim

if TYPE_CHECKING:
    from relay.deliver.graph.client import GraphClient

OLDEST = 480.0
LONGEST_IDLE = 60.0
"""Seconds, as the border's contract has them; Graph itself has no sessions."""
MIME_CEILING = 3_000_000
"""Octets of a message that fit into one sendMail: base64 makes 4,000,000 of them, and a request may have 4 MB (facts 6.2)."""
DOUBTFUL = 2_000_000
"""Octets above which a refusal may be about sendMail's size and not the mailbox's (facts 6.2: from 2,240 KB on)."""

SUBMITTING = frozenset({"send", "sendMail"})
"""The steps of large mail that submit it; those before only prepare a draft."""


class GraphConnection:
    """`relay.deliver.contract.Connection` over Graph; also the `Carrier` that an `Attempt` hands its parcel to."""

    def __init__(
        self,
        client: GraphClient,
        mailbox: str,
        rules: Rules,
        clock: Clock,
        witness: Witness,
        *,
        number: int = 1,
        current: Callable[[], bool] = lambda: True,
    ) -> None:
        self._client = client
        self._upstream = client.upstream
        self._mailbox = mailbox
        self._rules = rules
        self._clock = clock
        self._witness = witness
        self._current = current
        self._http = client.http(mailbox)
        self._names = client.names(mailbox)
        self._opened = self._used = clock.monotonic()
        self._broken = self._closed = False
        self._carried = 0
        client.enter()
        self._under_way: tuple[Once, asyncio.Task[Outcome]] | None = None
        self._notes: tuple[str, ...] = ()
        self._details = {"transport": "graph", "host": client.host, "connection": str(number)}

    def __repr__(self) -> str:
        state = "usable" if self.usable() else "spent"
        return f"<GraphConnection {self._mailbox} at {self._client.host}, {state}, {self._carried} carried>"

    @property
    def transport(self) -> str:
        """``graph``."""
        return "graph"

    @property
    def mailbox(self) -> str:
        """The mailbox it submits as."""
        return self._mailbox

    @property
    def size_limit(self) -> int:
        """The configured limit; Graph announces none."""
        return self._upstream.limits.message_size

    @property
    def utf8(self) -> bool:
        """False: header text is encoded, which every reader understands."""
        return False

    def usable(self) -> bool:
        """Whether it is whole, young, awake, within its batch, and made with today's configuration."""
        now = self._clock.monotonic()
        return (
            not self._broken
            and self._carried < self._upstream.batch_size
            and now - self._opened < OLDEST
            and now - self._used <= LONGEST_IDLE
            and self._current()
        )

    async def submit(self, claim: Claim, content: Content, begin: Begin) -> Report:
        """See the contract. SpoolError of ``content`` or ``begin`` comes through; the connection is spent then."""
        self._notes = ()
        try:
            return await Attempt(claim, content, begin, self._rules, self).run()
        finally:
            self._used = self._clock.monotonic()

    def abandon(self) -> bool:
        """See the contract. Before the attempt is written down, no request that submits can be complete."""
        if self._under_way is None or not self._under_way[0].forbid():
            return False
        self._broken = True
        self._under_way[1].cancel()
        return True

    def unfit(self, parcel: Parcel) -> Outcome | None:
        """Nothing that is known in advance."""
        return None

    async def carry(self, parcel: Parcel, begin: Begin) -> dict[str, Outcome]:
        """All recipients, in as many requests as the limits ask for, or those that they leave room for."""
        try:
            outcomes = await self._chunks(parcel, begin)
        except BaseException:
            self._broken = True
            raise
        self._carried += 1
        return outcomes

    async def _chunks(self, parcel: Parcel, begin: Begin) -> dict[str, Outcome]:
        outcomes: dict[str, Outcome] = {}
        waiting = list(parcel.recipients)
        most = self._upstream.limits.recipients_per_message or len(waiting)
        while waiting:
            room = begin.room(min(most, len(waiting)))
            if not room:
                break
            chunk, waiting = waiting[:room], waiting[room:]
            try:
                outcome = await self._one(parcel, chunk, Once(begin))
            except SpoolError:
                if not outcomes:
                    raise
                # recipients that are served stay served; the rest waits, certainly not sent
                self._broken = True
                outcome = replace(judge_fault("connection-lost", self._names), counts=False)
            answers = {one.address: outcome for one in chunk}
            begin.took(len(chunk), answers if outcome.result is Result.SENT else {})
            outcomes.update(answers)
            if outcome.result is not Result.SENT and (self._broken or beyond(answers) is not None):
                rest = judge_fault("connection-lost", self._names) if outcome.uncertain else outcome
                outcomes.update((one.address, replace(rest, counts=False)) for one in waiting)
                break
        return outcomes

    async def _one(self, parcel: Parcel, recipients: Sequence[Recipient], begin: Once) -> Outcome:
        """One request's worth of recipients."""
        sending = asyncio.ensure_future(self._send(parcel, recipients, begin))
        self._under_way = begin, sending
        try:
            outcome = await sending
        except asyncio.CancelledError:
            if not begin.forbidden or _being_cancelled():
                raise
            return judge_fault("abandoned", self._names)
        except TokenError as error:
            self._broken = True
            return token_outcome(error)
        except Lost as lost:
            self._broken = True
            return judge_lost(lost, self._names)
        finally:
            self._under_way = None
        if outcome.result is Result.SENT:
            await self._witness.accepted()
        elif outcome.code in REFUSED:
            return await self._turned_away(outcome)
        return outcome

    async def _send(self, parcel: Parcel, recipients: Sequence[Recipient], begin: Once) -> Outcome:
        header = addressed(parcel.header, recipients)
        size = len(header) + parcel.body.size
        if size > MIME_CEILING:
            return await self._large(parcel, recipients, begin)
        answer = await send_mime(self._http, self._mailbox, header, parcel.body, begin)
        outcome = judge_answer(answer, self._names, now=self._clock.now())
        if answer.status == 401:
            self._broken = True
        if outcome.code in TOO_LARGE and size > DOUBTFUL:
            return await self._large(parcel, recipients, begin)
        return outcome

    async def _large(self, parcel: Parcel, recipients: Sequence[Recipient], begin: Once) -> Outcome:
        result = await send_large(self._http, self._mailbox, parcel, recipients, begin, self._upstream)
        self._notes += result.notes
        return self._judge_large(result)

    def _judge_large(self, result: LargeResult) -> Outcome:
        """Before the last step nothing is submitted, so a break there is no uncertainty."""
        if result.lost is not None:
            complete = result.lost.complete and result.step in SUBMITTING
            raise Lost(result.lost.reason, complete=complete, code=result.lost.code) from result.lost
        if result.outcome is not None:
            return result.outcome
        answer = result.answer if result.answer is not None else Answer(0)
        outcome = judge_answer(answer, self._names, now=self._clock.now())
        if outcome.code in REFUSED and result.step not in SUBMITTING:
            return no_read_write(answer, self._names)
        return outcome

    async def _turned_away(self, outcome: Outcome) -> Outcome:
        """The token may only be older than a consent that was given since: it is in doubt, and the next try gets a fresh one."""
        self._broken = True
        return await self._witness.refused(outcome)

    def details(self) -> dict[str, str]:
        """Host, the connection's and the message's number, and the ids that Microsoft's support asks for."""
        details = {**self._details, "message": str(self._carried), **self._http.latest}
        if self._notes:
            details["notes"] = "; ".join(self._notes)
        return details

    async def close(self) -> None:
        """Nothing to say good-bye to: the HTTP connections belong to the upstream's client."""
        self._broken = True
        if not self._closed:
            self._closed = True
            await self._client.leave()


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class Once:
    """``begin``, however often a message is tried in one submit: the first await writes it down, the others wait for it."""

    def __init__(self, begin: Callable[[], Awaitable[None]]) -> None:
        self._begin = begin
        self._task: asyncio.Future[None] | None = None
        self.forbidden = False
        """Nothing may be submitted any more."""

    def forbid(self) -> bool:
        """Let nothing be submitted, unless that may have begun; whether it is forbidden now."""
        self.forbidden = self._task is None
        return self.forbidden

    async def __call__(self) -> None:
        if self.forbidden:
            raise Lost("given up", complete=False)
        if self._task is None:
            self._task = asyncio.ensure_future(self._begin())
            self._task.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.shield(self._task)
