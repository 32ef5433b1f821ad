"""One MAIL transaction: envelope, DATA, body, final dot, and an outcome for each of its recipients.

With PIPELINING the envelope and DATA leave in one write (RFC 2920 section 3.1), so a small message costs two round
trips. The attempt is on disk (``begun``) before the final dot leaves; what breaks after it is uncertain (RFC 1047).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

from aiosmtplib import SMTPException, SMTPResponse, SMTPResponseException, SMTPServerDisconnected

from relay.deliver.classify import judge, judge_error, judge_fault, reply_of
from relay.deliver.envelope import mail_line, rcpt_line
from relay.deliver.parcel import Parcel
from relay.deliver.phases import Phase
from relay.deliver.session import Session
from relay.deliver.stuffing import Stuffing
from relay.errors import SpoolError
from relay.message import Outcome, Recipient, Scope

DATA_TOO = 50
"""Recipients up to which DATA goes out with the envelope; with more, their replies are waited for first."""
BLOCK = 256 * 1024
"""Octets read from the spool, and gathered into one write."""
STALE = frozenset({"connection-lost", "session-timed-out", "connection-ended", "service-not-available"})
"""How a kept connection shows, at its next MAIL, that the server had let go of it."""


class Transaction:
    """One envelope and one copy of the message. ``outcomes`` is complete after `run`, but for ``crowded``."""

    def __init__(
        self, session: Session, parcel: Parcel, recipients: Sequence[Recipient], begun: asyncio.Future[None]
    ) -> None:
        self._session = session
        self._wire = session.wire
        self._parcel = parcel
        self._recipients = recipients
        self._begun = begun
        self._phase = Phase.MAIL
        self._dotted = False
        self._abandoned = False
        self.outcomes: dict[str, Outcome] = {}
        self.crowded: list[Recipient] = []
        """Refused only because the server takes no more in one message (452 4.5.3)."""
        self.accepted: list[Recipient] = []
        self.fault: Outcome | None = None
        """Set when the connection fell, or was told to."""

    async def run(self) -> None:
        """The whole transaction. Raises SpoolError when the message cannot be read or the attempt not written."""
        try:
            if self._session.features.pipelining:
                proceed = await self._envelope_at_once()
            else:
                proceed = await self._envelope_in_steps()
            if proceed:
                await self._body()
        except (SMTPException, OSError) as error:
            self._fall(error)

    def abandon(self) -> bool:
        """Break it off, unless the final dot has left; whether that was done. `run` ends with a fault then."""
        if not self._dotted:
            self._abandoned = True
            self._wire.abort()
        return not self._dotted

    # the envelope

    async def _envelope_at_once(self) -> bool:
        features, timeout = self._session.features, self._session.timeout
        reset = self._session.needs_reset
        data_too = len(self._recipients) <= DATA_TOO
        lines = [b"RSET\r\n"] if reset else []
        lines.append(mail_line(self._parcel, features))
        lines.extend(rcpt_line(one, features) for one in self._recipients)
        if data_too:
            lines.append(b"DATA\r\n")
        self._wire.send(b"".join(lines), len(lines))
        if reset:
            self._took_reset(await self._wire.read_response(timeout))
        self._took_mail(await self._wire.read_response(timeout))
        self._phase = Phase.RCPT
        for one in self._recipients:
            self._took_rcpt(one, await self._wire.read_response(timeout))
        if not data_too:
            if not self.accepted:
                return False
            self._wire.send(b"DATA\r\n", 1)
        self._phase = Phase.DATA
        return await self._took_data(await self._wire.read_response(timeout))

    async def _envelope_in_steps(self) -> bool:
        features, wire, timeout = self._session.features, self._wire, self._session.timeout
        if self._session.needs_reset:
            self._took_reset(await wire.command(b"RSET", timeout))
        self._took_mail(await wire.command(mail_line(self._parcel, features)[:-2], timeout))
        if self.outcomes:
            return False
        self._phase = Phase.RCPT
        for one in self._recipients:
            self._took_rcpt(one, await wire.command(rcpt_line(one, features)[:-2], timeout))
        if not self.accepted:
            return False
        self._phase = Phase.DATA
        return await self._took_data(await wire.command(b"DATA", timeout))

    def _took_reset(self, reply: SMTPResponse) -> None:
        if reply.code == 421:
            raise SMTPResponseException(reply.code, reply.message)
        if reply.code != 250:  # no reason to blame the message: it goes over another connection
            raise SMTPServerDisconnected("The server refuses to start over")
        self._session.needs_reset = False

    def _took_mail(self, reply: SMTPResponse) -> None:
        if reply.code // 100 == 2:
            self._session.needs_reset = True
            return
        self._all(self._refusal(Phase.MAIL, reply))

    def _took_rcpt(self, recipient: Recipient, reply: SMTPResponse) -> None:
        if recipient.address in self.outcomes:  # MAIL was refused: its answer is the one that says why
            return
        if reply.code // 100 == 2:
            self.accepted.append(recipient)
            return
        outcome = self._refusal(Phase.RCPT, reply)
        self.outcomes[recipient.address] = outcome
        if outcome.code == "too-many-recipients":
            self.crowded.append(recipient)

    async def _took_data(self, reply: SMTPResponse) -> bool:
        """Whether the body may follow. A 354 that nobody can use is ended with a lone dot (RFC 2920 section 3.1)."""
        if reply.code == 354:
            if self.accepted:
                return True
            self._wire.send(b".\r\n", 1)
            await self._wire.read_response(self._session.timeout)
            self._session.needs_reset = False
        elif self.accepted:
            self._accepted(self._refusal(Phase.DATA, reply))
        return False

    # the message

    async def _body(self) -> None:
        self._phase = Phase.BODY
        timeout, stuffing = self._session.timeout, Stuffing()
        pending = stuffing.feed(self._parcel.header)
        async with aclosing(self._blocks()) as blocks:
            async for block in blocks:
                if len(pending) + len(block) > BLOCK:
                    self._raise_early()
                    self._wire.write(pending)
                    await self._wire.drained(timeout)
                    pending = stuffing.feed(block)
                else:
                    pending += stuffing.feed(block)
        if not self._begun.done():
            await asyncio.shield(self._begun)
        self._begun.result()
        self._raise_early()
        self._dotted = True
        self._wire.send(pending + stuffing.finish(), 1)
        self._took_body(await self._wire.read_response(timeout))

    async def _blocks(self) -> AsyncGenerator[bytes, None]:
        """The stored body; its faults are the spool's, not the connection's."""
        try:
            async for block in self._parcel.body.chunks(BLOCK):
                yield block
        except OSError as error:
            raise SpoolError(f"The stored message cannot be read: {error.strerror or error}") from error

    def _took_body(self, reply: SMTPResponse) -> None:
        if reply.code // 100 not in (2, 4, 5):
            raise SMTPResponseException(reply.code, reply.message)
        self._session.needs_reset = False
        outcome = judge(Phase.BODY, reply_of(reply.code, reply.message), self._session.names)
        if reply.code == 421:
            self.fault = outcome
        self._accepted(outcome)

    # what may go wrong

    def _refusal(self, phase: Phase, reply: SMTPResponse) -> Outcome:
        """What a 4xx or 5xx decides. Any other reply, and a 421 (RFC 5321 section 3.8), ends the dialogue."""
        if reply.code == 421 or not 400 <= reply.code < 600:
            raise SMTPResponseException(reply.code, reply.message)
        return judge(phase, reply_of(reply.code, reply.message), self._session.names)

    def _raise_early(self) -> None:
        """The server spoke up, or hung up, before the message was complete."""
        if not self._wire.early:
            return
        unasked = self._wire.unasked
        if unasked is not None and unasked.code >= 400:
            raise SMTPResponseException(unasked.code, unasked.message)
        raise SMTPServerDisconnected("Connection lost")

    def _fall(self, error: Exception) -> None:
        """The connection is of no more use: those who have no outcome yet get this one."""
        outcome = judge_error(self._phase, error, self._session.names)
        if self._dotted:
            outcome = judge_fault("uncertain", self._session.names, _words(outcome))
        elif self._abandoned:
            outcome = judge_fault("abandoned", self._session.names)
        elif self._phase is Phase.MAIL and self._session.carried and outcome.code in STALE:
            outcome = replace(outcome, scope=Scope.MESSAGE, wait=0.0)
        self._wire.abort()
        self.fault = outcome
        self._all(outcome)

    def _all(self, outcome: Outcome) -> None:
        for one in self._recipients:
            self.outcomes.setdefault(one.address, outcome)

    def _accepted(self, outcome: Outcome) -> None:
        for one in self.accepted:
            self.outcomes[one.address] = outcome


def _words(outcome: Outcome) -> str:
    return str(outcome.reply) if outcome.reply is not None else outcome.reason
