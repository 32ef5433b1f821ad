"""What one SMTP session knows and how it speaks: replies, faults, refusals. The verbs are in `session` and `mail`."""

from __future__ import annotations

import asyncio
import datetime
import uuid

from relay.simulator.channel import Channel
from relay.simulator.faults import FALLBACK_REPLY, Fault
from relay.simulator.services import Services


class Over(Exception):
    """The session ends here: everything to be said has been queued."""


class Conversation:
    """State of one session. ``mailbox`` is set by a successful AUTH; ``auth_error`` is the last failure's reply."""

    def __init__(self, services: Services, channel: Channel, host: str, number: int) -> None:
        self.services = services
        self.channel = channel
        self.host = host
        self.number = number
        self.hello = ""
        self.extended = False
        self.mailbox: str | None = None
        self.auth_error = ""
        self.protocol_errors = 0
        self.logon_failures = 0

    def reply(self, text: str) -> None:
        """Queue one reply."""
        self.channel.write(text)

    def bracket(self) -> str:
        """The ``[host time id]`` that Exchange appends to failures."""
        now = datetime.datetime.fromtimestamp(self.services.state.clock(), datetime.UTC)
        return f"[{self.host} {now:%Y-%m-%dT%H:%M:%S}.{now.microsecond // 1000:03d}Z {uuid.uuid4().hex[:16].upper()}]"

    def error(self, text: str) -> None:
        """A protocol error: after five the connection closes. Raises Over."""
        self.protocol_errors += 1
        self.services.store.counters["protocol_errors"] += 1
        limit = self.services.state.limits.protocol_errors
        if limit and self.protocol_errors >= limit:
            self.reply("421 4.7.0 Too many errors on this connection, closing transmission channel")
            raise Over
        self.reply(text)

    async def refuse(self, phase: str, text: str) -> None:
        """Refuse a logon, a message or a recipient, after the tarpit; 421 closes. Raises Over."""
        self.services.store.refuse(phase, self.mailbox, text)
        if seconds := self.services.state.limits.tarpit:
            await self.channel.flush()
            await asyncio.sleep(seconds)
        self.reply(text)
        if text.startswith("421"):
            raise Over

    def take_fault(
        self, where: str, mailbox: str | None = None, recipients: list[str] | None = None
    ) -> Fault | None:
        """The fault due here, if any."""
        return self.services.faults.take(where, mailbox or self.mailbox, recipients or ())

    async def fault(
        self, where: str, mailbox: str | None = None, recipients: list[str] | None = None
    ) -> bool:
        """Carry out the fault due here; True when it has answered in place of the server. Raises Over."""
        found = self.take_fault(where, mailbox, recipients)
        return found is not None and await self.carry_out(found, where)

    async def carry_out(self, fault: Fault, where: str) -> bool:
        """As `fault`, for one already taken."""
        self.services.store.counters["faults"] += 1
        if fault.action == "delay":
            await self.channel.flush()
            await self._pause(fault.seconds)
            return False
        if fault.action == "reply":
            await self.refuse(where, fault.reply or FALLBACK_REPLY)
            return True
        if fault.action == "hang":
            await self.channel.flush()
            await self._pause(fault.seconds)
        elif fault.action == "close" and fault.reply:
            self.reply(fault.reply)
        if fault.action != "close":
            self.channel.abort()
        raise Over

    async def _pause(self, seconds: float) -> None:
        """Wait so long (0: for ever), or until the client has gone."""
        try:
            async with asyncio.timeout(seconds or None):
                await self.channel.closed.wait()
        except TimeoutError:
            return
        raise Over
