"""The end of a message's arrival: check it, build its header, store it, answer. And all it takes to do so.

A message that was stored is answered with 250; anything unexpected is a 451, never a permanent refusal, and what
broke goes to the log, not to the client.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from relay import events
from relay.accept import replies
from relay.accept.addresses import domain_of, matches
from relay.accept.auth import Authenticator, Guessing
from relay.accept.incoming import Incoming
from relay.accept.received import received_field
from relay.clock import Clock
from relay.errors import SpoolError, SpoolFull
from relay.message import Client, Envelope
from relay.rewrite.contract import HeaderFacts, Refused, Route
from relay.settings import Settings
from relay.spool.contract import Draft, NewMessage, Spool

HOPS = 50
"""Received fields beyond which a message is looping; Exchange gives up at about this number too."""

ReadHeader = Callable[[bytes], HeaderFacts]


class Router(Protocol):
    """The sender rules, as the listener needs them."""

    def route(self, sender: str, header_from: tuple[str, ...], client: Client) -> Route:
        """Where mail of this sender goes. Raises relay.rewrite.contract.Refused."""
        ...

    def choose(self, route: Route, source: str) -> str:
        """The lane to use: pools spread evenly and skip held members."""
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
    ) -> None:
        self.spool = spool
        self.router = router
        self.settings = settings
        self.clock = clock
        self.hostname = hostname
        self.authenticator = authenticator or Authenticator(settings.clients)
        self.guessing = guessing or Guessing()
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
            message = self._build(arrival, facts)
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
        if user and not all(self.authenticator.may_send_as(user, one) for one in facts.from_addresses):
            return replies.SENDER_DENIED
        return None

    def _build(self, arrival: Arrival, facts: HeaderFacts) -> NewMessage:
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
        return NewMessage(
            envelope=replace(envelope, eight_bit=True) if arrival.incoming.eight_bit else envelope,
            client=client,
            header=field + arrival.incoming.header,
            lane=self.router.choose(route, source),
            pool=route.lanes if len(route.mailboxes) > 1 else (),
            source=source,
            header_from=facts.from_addresses,
            message_id=facts.message_id,
            subject=facts.subject,
            notes=arrival.notes,
        )

    def _accepted(self, arrival: Arrival, message: NewMessage) -> Answer:
        events.accepted(
            id=arrival.draft.id,
            client=replies.clean(message.client.label),
            sender=replies.clean(message.envelope.sender),
            recipients=len(message.envelope.recipients),
            size=arrival.incoming.size,
            lane=message.lane,
        )
        return Answer(b"250 2.0.0 Ok: queued as %s\r\n" % arrival.draft.id.encode(), True)


def fairness_key(envelope: Envelope, facts: HeaderFacts, client: Client) -> str:
    """Who takes turns with whom: the client, and the original sender, since one server often sends for many."""
    sender = facts.from_addresses[0] if facts.from_addresses else envelope.sender
    return f"{client.user or client.address} {sender.lower()}"[:300]


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
