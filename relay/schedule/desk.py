"""The notice desk: who is told about mail that failed or is late, within a bound, and stored with what caused it.

Notices are composed by the report room; this one decides and stores them. They are messages of ours: null sender
(RFC 3464 section 2), so that none can ever cause another.
"""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections.abc import Sequence
from typing import Protocol

from relay import events
from relay.clock import Clock
from relay.errors import SpoolError
from relay.message import Client, Content, Envelope, Outcome, Recipient, Result
from relay.report import bulletin, notice
from relay.report.budget import Budget
from relay.report.contract import About, Composed, Fate, Kind
from relay.spool.contract import Claim, NewMail, NewMessage, Settlement, Spool

OWN_MAIL = "relay itself"
"""`Client.listener` of our own mail: it came through none."""
_BUDGET = "notices:budget"


@dataclasses.dataclass(frozen=True, slots=True)
class Outgoing:
    """How our own mail goes out just now."""

    from_email: str
    lane: str
    recipient: str
    """The envelope recipient: whom it is for, or where a test environment sends everything."""


class Post(Protocol):
    """What the desk must know of the configuration of the moment."""

    @property
    def postmaster(self) -> str | None:
        """Who gets what nobody else can get."""
        ...

    @property
    def hostname(self) -> str:
        """Our own name."""
        ...

    def deliverable(self, address: str) -> bool:
        """Whether mail to this address can be expected to arrive through us."""
        ...

    def outgoing(self, to: str, near: str = "") -> Outgoing | None:
        """A lane that works, that of ``near``'s upstream first; None when every one is held and ``near`` is empty."""
        ...


class Desk:
    """Composes and counts notices."""

    def __init__(self, spool: Spool, post: Post, clock: Clock) -> None:
        self._spool = spool
        self._post = post
        self._clock = clock
        self._budget = Budget()
        self._changed = False

    async def load(self) -> None:
        """Take up the counts from before a restart."""
        kept = (await self._spool.remembered(_BUDGET)).get(_BUDGET)
        if kept:
            try:
                self._budget = Budget.restore(json.loads(kept))
            except ValueError as error:
                events.trouble(where="notices", what=f"the counts of earlier notices cannot be read: {error}")

    async def about_failures(self, claim: Claim, done: Settlement, content: Content | None) -> Settlement:
        """The settlement of an attempt (or of giving up), with the notice that its failures call for."""
        failed = {address: one for address, one in done.outcomes.items() if one.result is Result.FAILED}
        if not failed or done.withdraw:
            return done
        kind = Kind.HELD if any(one.code == "held-too-long" for one in failed.values()) else Kind.FAILURE
        try:
            return await self._with_notice(kind, claim, done, failed, content)
        except Exception as error:
            # the outcome matters more than the notice; untold, the message keeps its content for the operator
            events.trouble(where=f"notice about {claim.id}", what=f"unexpected error: {error!r}", error=error)
            return done

    async def about_delay(
        self, claim: Claim, done: Settlement, reasons: dict[str, Outcome], content: Content, until: float
    ) -> Settlement:
        """The settlement that marks a message as delayed, with the notice for its sender."""
        return await self._with_notice(Kind.DELAY, claim, done, reasons, content, until)

    async def _with_notice(
        self,
        kind: Kind,
        claim: Claim,
        done: Settlement,
        outcomes: dict[str, Outcome],
        content: Content | None,
        until: float | None = None,
    ) -> Settlement:
        about = _about(claim, content, until)
        to = notice.recipient(about, postmaster=self._post.postmaster, deliverable=self._post.deliverable)
        fates = [
            Fate(one, outcomes[one.address].reply, outcomes[one.address].reason, outcomes[one.address].remedy,
                 done.details.get("host", ""))
            for one in claim.envelope.recipients
            if one.address in outcomes and notice.wanted(kind, one)
        ]  # fmt: skip
        if to is None or not fates:
            return done
        now = self._clock.now()
        self._changed = True
        if not self._budget.take(to, now, bulletin.line(kind, about, fates)):
            # it is part of the next summary, whose count survives a restart: the sender will hear of it
            await self._remember()
            return dataclasses.replace(
                done, told=True, details={**done.details, "notice": f"in a summary to {to}"}
            )
        mail = self._mail(await self._compose(kind, about, fates, to, content), claim.lane)
        events.notified(id=claim.id, kind=kind.value, to=to)
        return dataclasses.replace(
            done, notices=(mail,), told=True, details={**done.details, "notice": f"to {to}"}
        )

    async def _compose(
        self, kind: Kind, about: About, fates: Sequence[Fate], to: str, content: Content | None
    ) -> Composed:
        whole = None
        if (about.ret or "").upper() == "FULL" and content is not None and content.size <= notice.FULL_LIMIT:
            whole = content.header + b"".join([chunk async for chunk in content.body.chunks()])
        out = self._post.outgoing(to)
        return notice.compose(
            kind,
            about,
            fates,
            to=to,
            from_email=out.from_email if out else to,
            hostname=self._post.hostname,
            now=self._clock.now(),
            message_id=new_id(self._post.hostname),
            original=whole,
        )

    def _mail(self, composed: Composed, near: str) -> NewMail:
        out = self._post.outgoing(composed.to, near)
        assert out is not None  # with a lane to be near to there always is one
        return own_mail(composed, out, self._post.hostname)

    async def tend(self) -> None:
        """Send the summaries that are owed, and remember the counts."""
        now = self._clock.now()
        for owed in self._budget.owed(now):
            out = self._post.outgoing(owed.to)
            if out is None:
                continue
            composed = bulletin.summary(
                owed.to, owed.count, owed.samples, from_email=out.from_email, hostname=self._post.hostname,
                since=owed.since, now=now, message_id=new_id(self._post.hostname),
            )  # fmt: skip
            await self.send(composed, out)
            self._budget.settled(owed, now)
            self._changed = True
        if self._changed:
            await self._remember()

    async def send(self, composed: Composed, out: Outgoing) -> None:
        """Store a mail of ours by itself."""
        mail = own_mail(composed, out, self._post.hostname)
        draft = self._spool.draft()
        await draft.write(mail.body)
        await draft.commit(mail.message)

    async def _remember(self) -> None:
        try:
            await self._spool.remember(_BUDGET, json.dumps(self._budget.export()))
            self._changed = False
        except SpoolError as error:
            events.trouble(where="notices", what=str(error), remedy=error.remedy)


def new_id(hostname: str) -> str:
    """A Message-ID for a mail of ours."""
    return f"<{uuid.uuid4().hex}.notice@{hostname}>"


def own_mail(composed: Composed, out: Outgoing, hostname: str) -> NewMail:
    """A composed mail as a message for the spool."""
    message = NewMessage(
        envelope=Envelope(
            "", (Recipient(out.recipient, notify="NEVER"),), composed.eight_bit, composed.smtputf8
        ),
        client=Client(listener=OWN_MAIL, helo=hostname),
        header=composed.header,
        lane=out.lane,
        source=OWN_MAIL,
        header_from=(out.from_email,),
        message_id=composed.message_id,
        subject=composed.subject,
    )
    return NewMail(message, composed.body)


def _about(claim: Claim, content: Content | None, until: float | None) -> About:
    return About(
        id=claim.id,
        message_id=claim.message_id,
        subject=claim.subject,
        sender=claim.envelope.sender,
        received=claim.received,
        envid=claim.envelope.envid,
        ret=claim.envelope.ret,
        header=content.header if content is not None else b"",
        header_from=claim.header_from,
        will_retry_until=until,
    )
