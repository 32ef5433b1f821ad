"""The notice desk: who is told about mail that failed or is late, within a bound, and stored with what caused it.

Notices are composed by the report room; this one decides and stores them. They are messages of ours: null sender
(RFC 3464 section 2), so that none can ever cause another.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Mapping, Sequence
from typing import Protocol

from relay import events
from relay.clock import Clock
from relay.message import Client, Content, Envelope, Outcome, Recipient, Result
from relay.report import bulletin, notice
from relay.report.contract import About, Composed, Fate, Kind
from relay.schedule.accounts import Accounts
from relay.spool.contract import Claim, NewMail, NewMessage, Settlement, Spool

OWN_MAIL = "relay itself"
"""`Client.listener` of our own mail: it came through none."""
_SUMMED = "in a summary"
_EXPIRED = "5.4.7"
"""Delivery time expired (RFC 3463 section 3.5): what ended it, whatever the last temporary answer was."""


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
        self._accounts = Accounts(spool, clock)

    async def load(self) -> None:
        """Take up the counts of an earlier release. Raises SpoolError."""
        await self._accounts.adopt()

    async def about_outcomes(self, claim: Claim, done: Settlement, content: Content | None) -> Settlement:
        """The settlement of an attempt, with the notices that its outcomes call for."""
        told = await self.about_failures(claim, done, content)
        if not done.withdraw:
            told = await self._about_successes(claim, told, content)
        self.announce(claim, told)
        return told

    async def about_failures(self, claim: Claim, done: Settlement, content: Content | None) -> Settlement:
        """The same for its failures alone, not announced yet: for a settlement that may come to nothing."""
        failed = {address: one for address, one in done.outcomes.items() if one.result is Result.FAILED}
        if not failed or done.withdraw:
            return done
        kind = Kind.HELD if any(one.code == "held-too-long" for one in failed.values()) else Kind.FAILURE
        try:
            if claim.client.listener == OWN_MAIL:
                return await self._about_own_mail(kind, claim, done, failed, content)
            return await self._with_notice(kind, claim, done, failed, content)
        except Exception as error:
            # the outcome matters more than the notice; untold, the message keeps its content for the operator
            events.trouble(where=f"notice about {claim.id}", what=f"unexpected error: {error!r}", error=error)
            return done

    async def about_delay(
        self, claim: Claim, done: Settlement, reasons: dict[str, Outcome], content: Content, until: float
    ) -> Settlement:
        """The settlement that marks a message as delayed, with the notice for its sender; not announced yet."""
        return await self._with_notice(Kind.DELAY, claim, done, reasons, content, until)

    async def _about_successes(self, claim: Claim, done: Settlement, content: Content | None) -> Settlement:
        """Where Exchange was not asked to report success, we answer that the mail was relayed (RFC 3461 section 5.2.2)."""
        sent = {address: one for address, one in done.outcomes.items() if one.result is Result.SENT}
        asked = any("SUCCESS" in (one.notify or "").upper() for one in claim.envelope.recipients)
        if (
            not sent
            or not asked
            or done.details.get("dsn")
            or not self._post.deliverable(claim.envelope.sender)
        ):
            return done
        try:
            told = await self._with_notice(Kind.RELAYED, claim, done, sent, content)
            return dataclasses.replace(told, told=done.told)  # which is about failures
        except Exception as error:
            events.trouble(where=f"notice about {claim.id}", what=f"unexpected error: {error!r}", error=error)
            return done

    async def _about_own_mail(
        self,
        kind: Kind,
        claim: Claim,
        done: Settlement,
        failed: dict[str, Outcome],
        content: Content | None,
    ) -> Settlement:
        """A notice of ours was refused: the postmaster gets it instead, once; what the postmaster cannot get is logged."""
        to = self._post.postmaster
        refused = {one.lower() for one in failed}
        out = self._post.outgoing(to, claim.lane) if to else None
        if to is None or out is None or {to.lower(), out.recipient.lower()} & refused:
            first = next(iter(failed.values()))
            what = f"“{claim.subject}” could not be delivered to {', '.join(failed)}: {first.reason}"
            remedy = (
                f"Read it with `relay queue export {claim.id}`; set postmaster to an address that takes mail."
            )
            events.trouble(where="notices", what=what, remedy=remedy, id=claim.id)
            return done
        about = dataclasses.replace(_about(claim, content, None), ret="FULL")
        fates = [_fate(one, failed, done) for one in claim.envelope.recipients if one.address in failed]
        return await self._tell(kind, about, fates, to, claim, done, content)

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
        if not notice.answerable(about):
            return dataclasses.replace(done, told=True)
        fates = [
            _fate(one, outcomes, done)
            for one in claim.envelope.recipients
            if one.address in outcomes and notice.wanted(kind, one)
        ]
        if not fates:
            return dataclasses.replace(done, told=True)
        to = notice.recipient(about, postmaster=self._post.postmaster, deliverable=self._post.deliverable)
        return await self._tell(kind, about, fates, to, claim, done, content) if to else done

    async def _tell(
        self,
        kind: Kind,
        about: About,
        fates: Sequence[Fate],
        to: str,
        claim: Claim,
        done: Settlement,
        content: Content | None,
    ) -> Settlement:
        # before the outcome: a kill in between makes the bound stricter, never loses a summary
        taken = await self._accounts.take(to, bulletin.line(kind, about, fates))
        if not taken:
            return _said(done, f"{_SUMMED} to {to}")
        attempted = "host" in done.details  # else it is a decision, made some time after the last attempt
        mail = self._mail(await self._compose(kind, about, fates, to, content, attempted), claim.lane)
        return _said(done, f"{kind.value} to {to}", mail)

    def announce(self, claim: Claim, done: Settlement) -> None:
        """Log the notices that a settlement carries."""
        said = [one for one in done.details.get("notice", "").split("; ") if not one.startswith(_SUMMED)]
        for one, mail in zip(said, done.notices, strict=False):
            kind, _, to = one.partition(" to ")
            events.notified(id=claim.id, kind=kind, to=to, notice=mail.message.message_id)

    async def _compose(
        self,
        kind: Kind,
        about: About,
        fates: Sequence[Fate],
        to: str,
        content: Content | None,
        attempted: bool,
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
            attempted=attempted,
        )

    def _mail(self, composed: Composed, near: str) -> NewMail:
        out = self._post.outgoing(composed.to, near)
        assert out is not None  # with a lane to be near to there always is one
        return own_mail(composed, out, self._post.hostname)

    async def tend(self) -> None:
        """Send the summaries that are owed. Raises SpoolError."""
        now = self._clock.now()
        for owed in await self._accounts.owed():
            out = self._post.outgoing(owed.to)
            if out is None:
                continue
            composed = bulletin.summary(
                owed.to, owed.count, owed.samples, from_email=out.from_email, hostname=self._post.hostname,
                since=owed.since, now=now, message_id=new_id(self._post.hostname),
            )  # fmt: skip
            await self.send(composed, out)
            await self._accounts.settled(owed)

    async def send(self, composed: Composed, out: Outgoing) -> None:
        """Store a mail of ours by itself."""
        mail = own_mail(composed, out, self._post.hostname)
        draft = self._spool.draft()
        await draft.write(mail.body)
        await draft.commit(mail.message)


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


def _said(done: Settlement, what: str, *mail: NewMail) -> Settlement:
    """Somebody is told: by a notice, or in a summary."""
    words = "; ".join(filter(None, [done.details.get("notice"), what]))
    details = {**done.details, "notice": words}
    return dataclasses.replace(done, notices=(*done.notices, *mail), told=True, details=details)


def _fate(one: Recipient, outcomes: Mapping[str, Outcome], done: Settlement) -> Fate:
    outcome = outcomes[one.address]
    expired = _EXPIRED if outcome.code in ("too-old", "held-too-long") else ""
    return Fate(one, outcome.reply, outcome.reason, outcome.remedy, done.details.get("host", ""), expired)


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
