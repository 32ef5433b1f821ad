"""The SMTP transport: one login to Exchange, carrying one message after another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace

from aiosmtplib import SMTPException

from relay.clock import Clock
from relay.deliver.attempt import Attempt, Rules, beyond
from relay.deliver.classify import judge_fault
from relay.deliver.contract import Begin
from relay.deliver.parcel import Parcel
from relay.deliver.session import Session
from relay.deliver.table import AGAIN
from relay.deliver.transaction import Transaction
from relay.errors import SpoolError
from relay.message import Content, Outcome, Recipient, Report, Result, Scope
from relay.settings import Upstream
from relay.spool.contract import Claim

OLDEST = 480.0
"""Seconds a connection is used: Exchange Server ends sessions at 10 minutes (facts 4)."""
LONGEST_IDLE = 60.0
"""Seconds a connection may lie idle (facts 4)."""
FAREWELL = 5.0
"""Seconds QUIT may take."""


class SmtpConnection:
    """`relay.deliver.contract.Connection` over SMTP; also the `Carrier` that an `Attempt` hands its parcel to."""

    def __init__(
        self,
        session: Session,
        upstream: Upstream,
        mailbox: str,
        rules: Rules,
        clock: Clock,
        *,
        number: int = 1,
        current: Callable[[], bool] = lambda: True,
    ) -> None:
        self._session = session
        self._upstream = upstream
        self._mailbox = mailbox
        self._rules = rules
        self._clock = clock
        self._current = current
        """False once the configuration this login was made with is no longer today's."""
        self._under_way: Transaction | None = None
        self._out_of_step = False
        """The server did not understand the dialogue: the second try is to be on a clean connection (facts 3.2)."""
        self._opened = self._used = clock.monotonic()
        self._details = {
            "transport": "smtp",
            "host": upstream.host,
            "tls": session.tls,
            "connection": str(number),
            **({"dsn": "offered"} if session.features.dsn else {}),
        }

    def __repr__(self) -> str:
        state = "usable" if self.usable() else "spent"
        return f"<SmtpConnection {self._mailbox} at {self._upstream.host}, {state}, {self._session.carried} carried>"

    @property
    def transport(self) -> str:
        """``smtp``."""
        return "smtp"

    @property
    def mailbox(self) -> str:
        """The mailbox it is logged in as."""
        return self._mailbox

    @property
    def size_limit(self) -> int:
        """The smaller of the configured limit and what EHLO said."""
        offered = self._session.features.size or 0
        configured = self._upstream.limits.message_size
        return min(offered, configured) if offered and configured else offered or configured

    @property
    def utf8(self) -> bool:
        """Whether the server offers SMTPUTF8."""
        return self._session.features.utf8

    def usable(self) -> bool:
        """Whether it is whole, young, awake, within its batch, and made with today's configuration."""
        now = self._clock.monotonic()
        return (
            self._session.wire.alive
            and not self._out_of_step
            and self._session.carried < self._upstream.batch_size
            and now - self._opened < OLDEST
            and now - self._used <= LONGEST_IDLE
            and self._current()
        )

    async def submit(self, claim: Claim, content: Content, begin: Begin) -> Report:
        """See the contract. SpoolError of ``content`` or ``begin`` comes through; the connection is dropped then."""
        try:
            return await Attempt(claim, content, begin, self._rules, self).run()
        finally:
            self._used = self._clock.monotonic()

    def abandon(self) -> bool:
        """See the contract."""
        return self._under_way is not None and self._under_way.abandon()

    def unfit(self, parcel: Parcel) -> Outcome | None:
        """What the server would have to offer and does not. Exchange offers both (facts 4), so a device hides it."""
        features = self._session.features
        if parcel.utf8_needed and not features.utf8:
            return _missing("SMTPUTF8", "an address with letters beyond ASCII", self._upstream.host)
        if parcel.eight_bit and not features.eight_bit:
            return _missing("8BITMIME", "8-bit text", self._upstream.host)
        return None

    async def carry(self, parcel: Parcel, begin: Begin) -> dict[str, Outcome]:
        """All recipients, in as many transactions as the limits ask for, or those that they leave room for."""
        try:
            outcomes = await self._chunks(parcel, begin)
        except BaseException:
            self._session.wire.abort()
            raise
        self._session.carried += 1
        if any(one.code in AGAIN for one in outcomes.values()):
            self._out_of_step = True
        return outcomes

    async def _chunks(self, parcel: Parcel, begin: Begin) -> dict[str, Outcome]:
        outcomes: dict[str, Outcome] = {}
        waiting = list(parcel.recipients)
        most = self._session.most_recipients
        while waiting:
            room = begin.room(min(most, len(waiting)))
            if not room:
                break
            chunk, waiting = waiting[:room], waiting[room:]
            try:
                transaction = await self._transaction(parcel, chunk, begin)
            except SpoolError:
                if not outcomes:
                    raise
                # recipients that are served stay served; the rest waits, certainly not sent
                self._session.wire.abort()
                _give_up(chunk + waiting, outcomes, judge_fault("connection-lost"))
                break
            begin.took(len(transaction.accepted), _sent(transaction.outcomes))
            outcomes.update(transaction.outcomes)
            if transaction.fault is not None:
                _give_up(waiting, outcomes, transaction.fault)
                break
            trouble = beyond(transaction.outcomes)
            if trouble is not None:  # the rest would only provoke Exchange with the same again
                outcomes.update((one.address, replace(trouble, counts=False)) for one in waiting)
                break
            if transaction.crowded and not transaction.accepted:
                outcomes.update(_patiently(transaction))
            elif transaction.crowded:
                for one in transaction.crowded:
                    outcomes.pop(one.address, None)  # not refused: their turn comes in another transaction
                most = min(most, len(transaction.accepted))
                begin.crowded(most)
                waiting = transaction.crowded + waiting
        return outcomes

    async def _transaction(self, parcel: Parcel, chunk: list[Recipient], begin: Begin) -> Transaction:
        """One of them; it is written down while its envelope travels. Raises SpoolError."""
        begun = asyncio.ensure_future(begin())
        begun.add_done_callback(_retrieve)
        transaction = self._under_way = Transaction(self._session, parcel, chunk, begun)
        try:
            await transaction.run()
        finally:
            self._under_way = None
        if not begun.done():
            await asyncio.shield(begun)
        begun.result()
        return transaction

    def details(self) -> dict[str, str]:
        """Host, TLS version, the connection's number and the message's number on it."""
        return {**self._details, "message": str(self._session.carried)}

    async def close(self) -> None:
        """QUIT when the dialogue is in step, and let go."""
        wire = self._session.wire
        if wire.alive:
            try:
                await wire.command(b"QUIT", FAREWELL)
            except (SMTPException, OSError):  # nobody to say it to: that is what closing is for
                wire.abort()
        wire.abort()


def _patiently(transaction: Transaction) -> dict[str, Outcome]:
    """Too many although none was taken: no list to shorten, so it is a temporary refusal like any other."""
    return {
        one.address: replace(transaction.outcomes[one.address], wait=None, counts=True)
        for one in transaction.crowded
    }


def _sent(outcomes: Mapping[str, Outcome]) -> dict[str, Outcome]:
    return {address: one for address, one in outcomes.items() if one.result is Result.SENT}


def _give_up(recipients: list[Recipient], outcomes: dict[str, Outcome], fault: Outcome) -> None:
    """Recipients not reached before the connection ended: they wait, certainly not sent."""
    if fault.uncertain or fault.result is not Result.DEFERRED:
        fault = judge_fault("connection-lost")
    for one in recipients:
        outcomes[one.address] = replace(fault, counts=False)


def _missing(extension: str, what: str, host: str) -> Outcome:
    return Outcome(
        Result.HELD, Scope.MESSAGE, None,
        f"The message has {what}, and {host} does not offer {extension}.",
        "Take SMTP inspection off the firewall (it hides what Exchange offers), then retry the message.",
        f"{extension.lower()}-not-offered", counts=False)  # fmt: skip


def _retrieve(begun: asyncio.Future[None]) -> None:
    """The error of a begin is raised where it is awaited; an attempt cancelled before that leaves it here."""
    if not begun.cancelled():
        begun.exception()
