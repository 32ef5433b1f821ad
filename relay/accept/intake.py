"""The end of a message's arrival: check it, build its header, store it, answer. And all it takes to do so.

A message that was stored is answered with 250; anything unexpected is a 451, never a permanent refusal, and what
broke goes to the log, not to the client.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from relay import events
from relay.accept import replies
from relay.accept.addresses import domain_of, matches
from relay.accept.auth import Authenticator, Guessing, Judge, LoginJudge
from relay.accept.fitness import header_refusal
from relay.accept.incoming import Incoming
from relay.accept.received import received_field
from relay.clock import Clock
from relay.errors import SpoolError, SpoolFull
from relay.message import Client, Envelope, Recipient, Reply
from relay.rewrite.contract import HeaderFacts, Refused, Route
from relay.settings import Settings
from relay.spool.contract import Draft, NewMessage, Spool

HOPS = 50
"""Received fields beyond which a message is looping; Exchange gives up at about this number too."""

REDIRECT_FIELD = "X-Relay-Redirected-From"
"""Names the recipients that ``recipients.redirect_all_to`` replaced."""
REDIRECT_SHOWN = 50
"""Recipients named there."""

ReadHeader = Callable[[bytes], HeaderFacts]


class Router(Protocol):
    """The sender rules, as the listener needs them."""

    def route(self, sender: str, header_from: tuple[str, ...], client: Client) -> Route:
        """Where mail of this sender goes. Raises relay.rewrite.contract.Refused."""
        ...

    def choose(self, route: Route, source: str) -> str:
        """The lane to use: pools spread evenly and skip held members."""
        ...


class Answers(Protocol):
    """Where Exchange's answers come from, for ``answer_after: upstream``."""

    def expect(self, message_id: str, lane: str) -> Any:
        """Before the commit: a ticket for this client."""
        ...

    def forget(self, ticket: Any) -> None:
        """The commit failed."""
        ...

    async def wait(self, ticket: Any, patience: float, gone: asyncio.Event | None) -> Reply:
        """After the commit: what the client is told, within ``patience`` seconds where that is possible.

        ``gone`` is set when the client leaves meanwhile.
        """
        ...


@dataclass(slots=True)
class Arrival:
    """A message whose last octet has come."""

    draft: Draft
    incoming: Incoming
    envelope: Envelope
    client: Client
    extended: bool
    """EHLO rather than HELO (or nothing)."""
    notes: tuple[str, ...]
    patience: float | None = None
    """Seconds that the client waits for Exchange's own answer; None: it is answered when the message is safe here."""
    gone: asyncio.Event | None = None
    """Set when the client leaves while it waits."""
    came: float = field(default_factory=time.monotonic)
    """When its last octet was here; for the metrics."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the client is told."""

    line: bytes
    stored: bool = False


class Intake:
    """The collaborators of all listeners, and the rules that need no connection."""

    def __init__(
        self,
        *,
        spool: Spool,
        router: Router,
        settings: Settings,
        clock: Clock,
        hostname: str,
        read_header: ReadHeader | None = None,
        authenticator: Authenticator | None = None,
        guessing: Guessing | None = None,
        answers: Answers | None = None,
        logins: LoginJudge | None = None,
        announces: bool = True,
    ) -> None:
        """``announces``: whether accepted messages are told to the log here, or by the process that stores them."""
        self.spool = spool
        self.router = router
        self.settings = settings
        self.clock = clock
        self.hostname = hostname
        self.authenticator = authenticator or Authenticator(settings.clients)
        self.logins = logins or Judge(self.authenticator, guessing or Guessing(), clock)
        self.answers = answers
        self._announces = announces
        self._read_header = read_header or _rewrite_reader()
        policy = settings.recipients
        self._everybody = "*" in policy.allow and not policy.deny

    def recipient_refusal(self, address: str) -> bytes | None:
        """The reply for a recipient that ``recipients.allow`` and ``deny`` rule out; None when it may receive."""
        if self._everybody:
            return None
        policy = self.settings.recipients
        if any(matches(address, pattern) for pattern in policy.deny):
            return replies.RECIPIENT_DENIED
        if any(matches(address, pattern) for pattern in policy.allow):
            return None
        return replies.RECIPIENT_DENIED

    async def has_room(self, size: int) -> bytes | None:
        """The reply when the spool cannot take ``size`` more octets (0: not announced); None when it can."""
        try:
            return None if await self.spool.has_room(size) else replies.NO_ROOM
        except SpoolError as error:
            events.trouble(where="accept.spool", what=str(error), remedy=error.remedy)
            return replies.SPOOL_TROUBLE

    async def finish(self, arrival: Arrival) -> Answer:
        """Check, build, store, answer. Never raises; what is refused leaves nothing in the spool."""
        stored = False
        try:
            refusal = arrival.incoming.refusal
            if refusal:
                return _refused(arrival, refusal)
            facts = self._read_header(arrival.incoming.header)
            refusal = self._check(arrival, facts)
            if refusal:
                return _refused(arrival, refusal)
            message = await self._build(arrival, facts)
            if message.direct:
                stored = True  # or nothing of it is left: the commit sees to that
                return await self._pass_on(arrival, message)
            await arrival.draft.commit(message)
            stored = True
            return self._accepted(arrival, message)
        except Refused as error:
            return _refused(arrival, replies.encode(error.reply))
        except SpoolError as error:
            return _refused(arrival, spool_reply(error))
        except Exception as error:
            trouble("accept.intake", error)
            return Answer(replies.INTERNAL, stored)
        finally:
            if not stored:
                await arrival.draft.discard()

    def _check(self, arrival: Arrival, facts: HeaderFacts) -> bytes | None:
        if facts.received_count > HOPS:
            return replies.LOOP
        user = arrival.client.user
        shown = facts.from_addresses + facts.sender_addresses
        if user and not all(self.authenticator.may_send_as(user, one) for one in shown):
            return replies.SENDER_DENIED
        return None

    async def _build(self, arrival: Arrival, facts: HeaderFacts) -> NewMessage:
        """Route it and put our Received field before its header block."""
        envelope, client = arrival.envelope, arrival.client
        route = self.router.route(envelope.sender, facts.from_addresses, client)
        source = fairness_key(envelope, facts, client)
        field = received_field(
            client,
            host=self.hostname,
            extended=arrival.extended,
            utf8=envelope.smtputf8,
            id=arrival.draft.id,
            now=self.clock.now(),
        )
        header = field + self._redirect_field(envelope) + arrival.incoming.header
        unfit = await header_refusal(header, route, envelope.sender, self.clock.now())
        if unfit is not None:
            raise Refused(unfit)
        return NewMessage(
            envelope=self._redirected(envelope),
            client=client,
            header=header,
            lane=self.router.choose(route, source),
            pool=route.lanes if len(route.mailboxes) > 1 else (),
            source=source,
            header_from=facts.from_addresses,
            message_id=facts.message_id,
            subject=facts.subject,
            notes=arrival.notes,
            came=arrival.incoming.size,
            direct=arrival.patience is not None and self.answers is not None,
        )

    def _redirected(self, envelope: Envelope) -> Envelope:
        """``recipients.redirect_all_to``: for test environments, everything goes to one address."""
        target = self.settings.recipients.redirect_all_to
        return envelope if target is None else replace(envelope, recipients=(Recipient(target),))

    def _redirect_field(self, envelope: Envelope) -> bytes:
        """A header field that names whom a redirected message was for."""
        if self.settings.recipients.redirect_all_to is None:
            return b""
        people = [one.address for one in envelope.recipients]
        shown = ",\r\n ".join(people[:REDIRECT_SHOWN])
        more = f",\r\n and {len(people) - REDIRECT_SHOWN} more" if len(people) > REDIRECT_SHOWN else ""
        charset = "utf-8" if envelope.smtputf8 else "ascii"
        return f"{REDIRECT_FIELD}: {shown}{more}\r\n".encode(charset, "replace")

    async def _pass_on(self, arrival: Arrival, message: NewMessage) -> Answer:
        """``answer_after: upstream``: the client hears what Exchange says."""
        assert self.answers is not None and arrival.patience is not None
        ticket = self.answers.expect(arrival.draft.id, message.lane)
        try:
            await arrival.draft.commit(message)
        except BaseException:
            self.answers.forget(ticket)
            raise
        reply = await self.answers.wait(ticket, arrival.patience, arrival.gone)
        if 200 <= reply.code < 300:
            self._accepted(arrival, message)
            return Answer(replies.encode(reply), True)
        return _refused(arrival, replies.encode(reply))

    def _accepted(self, arrival: Arrival, message: NewMessage) -> Answer:
        events.took("accept", time.monotonic() - arrival.came)
        if self._announces:
            announce(arrival.draft.id, message)
        return Answer(b"250 2.0.0 Ok: queued as %s\r\n" % arrival.draft.id.encode(), True)


def fairness_key(envelope: Envelope, facts: HeaderFacts, client: Client) -> str:
    """Who takes turns with whom: the client, and the original sender, since one server often sends for many."""
    sender = facts.from_addresses[0] if facts.from_addresses else envelope.sender
    return f"{client.user or client.address} {sender.lower()}"[:300]


def announce(id: str, message: NewMessage) -> None:
    """Tell the log of a message that is stored."""
    events.accepted(
        id=id,
        client=replies.clean(message.client.label),
        sender=replies.clean(message.envelope.sender),
        recipients=len(message.envelope.recipients),
        size=message.came,
        lane=message.lane,
    )


def spool_reply(error: SpoolError) -> bytes:
    """The temporary refusal for a spool that cannot; said to the log with the reason."""
    events.trouble(where="accept.spool", what=str(error), remedy=error.remedy)
    return replies.NO_ROOM if isinstance(error, SpoolFull) else replies.SPOOL_TROUBLE


def trouble(where: str, error: Exception) -> None:
    """An unexpected error, with its trace, to the log."""
    trace = "".join(traceback.format_exception(error))
    events.trouble(where=where, what=f"{type(error).__name__}: {error}", trace=trace)


def _refused(arrival: Arrival, line: bytes) -> Answer:
    shown = replies.show(line)
    sender = arrival.envelope.sender
    events.rejected(
        client=replies.clean(arrival.client.label),
        phase="message",
        reply=shown,
        reason=shown,
        sender=replies.clean(sender),
        domain=replies.clean(domain_of(sender)),
    )
    return Answer(line)


def _rewrite_reader() -> ReadHeader:
    """The rewrite room's reader, looked up when the first intake is built."""
    from relay.rewrite.headers import read_header

    return read_header
