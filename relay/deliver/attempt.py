"""One attempt at one message: route, rewrite, weigh, carry, report. The same for every transport."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from relay import events
from relay.deliver.contract import Begin
from relay.deliver.fitting import fit
from relay.deliver.parcel import Carrier, Parcel
from relay.deliver.table import AGAIN
from relay.message import Body, Client, Content, Outcome, Recipient, Reply, Report, Result, Scope
from relay.rewrite.contract import Refused, Rewritten, Route
from relay.spool.contract import Claim

UNSAFE = re.compile(r"[\x00-\x1f\x7f<>]")
"""Never in an address or a DSN parameter: it could start another command."""


class Router(Protocol):
    """Today's rules (`relay.rewrite.route.Router`)."""

    def route(self, sender: str, header_from: tuple[str, ...], client: Client) -> Route:
        """Where a message goes. Raises `relay.rewrite.contract.Refused`."""
        ...

    def choose(self, route: Route, source: str = "") -> str:
        """The lane of the route that takes this message: members of a pool take turns."""
        ...


class Rewrite(Protocol):
    """`relay.rewrite.pipeline.rewrite`."""

    def __call__(
        self,
        header: bytes,
        route: Route,
        mailbox: str,
        *,
        sender: str,
        client: Client | None = None,
        message_id: str,
        received: float,
        smtputf8: bool = False,
    ) -> Rewritten:
        """The header block as it is submitted."""
        ...


@dataclass(slots=True)
class Rules:
    """What decides over routes and headers; one object shared by all connections, its contents replaced at reload."""

    router: Router
    rewrite: Rewrite


class Attempt:
    """One method per step; nothing is sent before `_carry`."""

    def __init__(self, claim: Claim, content: Content, begin: Begin, rules: Rules, carrier: Carrier) -> None:
        self._claim = claim
        self._content = content
        self._begin = begin
        self._rules = rules
        self._carrier = carrier
        self._unmended = False
        """A line over 998 octets had to stay, in a part that must not be changed."""

    async def run(self) -> Report:
        """The whole attempt."""
        try:
            route = self._route()
        except Refused as refused:
            return self._alike(_refused(refused.reply))
        if self._claim.lane not in route.lanes:
            return Report({}, moved_to=self._destination(route))
        rewritten, body = await self._fitted(self._rewrite(route))
        parcel = self._pack(route, rewritten, body)
        hindrance = self._weigh(parcel)
        if hindrance is not None:
            return self._alike(hindrance, rewritten)
        return await self._carry(parcel, rewritten)

    def _route(self) -> Route:
        claim = self._claim
        return self._rules.router.route(claim.envelope.sender, claim.header_from, claim.client)

    def _destination(self, route: Route) -> str:
        """The lane it belongs to now."""
        return self._rules.router.choose(route, self._claim.source)

    def _rewrite(self, route: Route) -> Rewritten:
        claim = self._claim
        return self._rules.rewrite(
            self._content.header,
            route,
            self._carrier.mailbox,
            sender=claim.envelope.sender,
            client=claim.client,
            message_id=claim.id,
            received=claim.received,
            smtputf8=claim.envelope.smtputf8 and self._carrier.utf8,
        )

    async def _fitted(self, rewritten: Rewritten) -> tuple[Rewritten, Body]:
        """Lines over 998 octets are encoded away, where the message was seen (or might be) to have them."""
        if not self._claim.envelope.long_lines:
            return rewritten, self._content.body
        fitted = await fit(rewritten.header, self._content.body)
        if fitted.notes:
            self._unmended = any("left as" in note for note in fitted.notes)
            rewritten = replace(rewritten, header=fitted.header, notes=rewritten.notes + fitted.notes)
        return rewritten, fitted.body

    def _pack(self, route: Route, rewritten: Rewritten, body: Body) -> Parcel:
        envelope, header = self._claim.envelope, rewritten.header
        mail_from = self._mail_from(route)
        plain = header.isascii()
        needed = not (mail_from.isascii() and all(one.address.isascii() for one in envelope.recipients))
        return Parcel(
            mail_from,
            envelope.recipients if self._keeps_sender(route) else tuple(map(_unasked, envelope.recipients)),
            header,
            body,
            len(header) + body.size,
            eight_bit=envelope.eight_bit or not plain,
            utf8_needed=needed,
            utf8_welcome=needed or (not plain and _is_utf8(header)),
            ret=envelope.ret,
            envid=envelope.envid,
        )

    def _mail_from(self, route: Route) -> str:
        """Equal to the From that goes out (facts 5): the rule's, else the one kept, else the mailbox."""
        kept = self._claim.header_from
        if route.from_address:
            return route.from_address
        return (kept[0] if kept else self._claim.envelope.sender) or self._carrier.mailbox

    def _keeps_sender(self, route: Route) -> bool:
        """Whether reports of the next server reach who asked for them: the return path stays as it was."""
        return self._mail_from(route).lower() == self._claim.envelope.sender.lower()

    def _weigh(self, parcel: Parcel) -> Outcome | None:
        """Why it cannot be sent at all, found before a connection is troubled with it."""
        limit = self._carrier.size_limit
        if limit and parcel.size > limit:
            return _too_large(parcel.size, limit, self._carrier.mailbox)
        words = [parcel.mail_from, parcel.ret or "", parcel.envid or ""]
        words.extend(f"{one.address}{one.notify or ''}{one.orcpt or ''}" for one in parcel.recipients)
        if UNSAFE.search("".join(words)):
            return _unsafe()
        return self._carrier.unfit(parcel)

    async def _carry(self, parcel: Parcel, rewritten: Rewritten) -> Report:
        events.attempted(id=self._claim.id, lane=self._claim.lane)
        outcomes = await self._carrier.carry(parcel, self._begin)
        first = next(iter(outcomes.values()))
        if first.result is not Result.SENT or len(outcomes) > 1:
            outcomes = {address: self._once_more(outcome) for address, outcome in outcomes.items()}
        details = self._details(rewritten, outcomes, parcel)
        left = sum(one.address not in outcomes for one in self._claim.envelope.recipients)
        if left:
            details["left"] = f"{left} recipients wait for their turn under the mailbox's limits"
        return Report(outcomes, beyond(outcomes), details=details)

    def _once_more(self, outcome: Outcome) -> Outcome:
        """Some refusals are believed only when they come twice; one is known better than Exchange can say it."""
        if self._unmended and outcome.reply is not None and "line" in outcome.reply.text.lower():
            return _line_too_long(outcome)
        if outcome.code in AGAIN and outcome.result is Result.FAILED and self._claim.attempts == 0:
            return replace(outcome, result=Result.DEFERRED, remedy="")
        return outcome

    def _alike(self, outcome: Outcome, rewritten: Rewritten | None = None) -> Report:
        """The same outcome for every recipient; nothing was sent."""
        outcomes = {one.address: outcome for one in self._claim.envelope.recipients}
        return Report(outcomes, beyond(outcomes), details=self._details(rewritten, outcomes))

    def _details(
        self, rewritten: Rewritten | None, outcomes: Mapping[str, Outcome], parcel: Parcel | None = None
    ) -> dict[str, str]:
        details = self._carrier.details()
        if details.pop("dsn", "") and parcel is not None and _asks_success(parcel):
            details["dsn"] = "passed on"
        if rewritten is not None:
            details["from_before"] = rewritten.from_before
            details["from_after"] = rewritten.from_after
            if rewritten.notes:
                details["repairs"] = "; ".join(rewritten.notes)
        reply = next((one.reply for one in outcomes.values() if one.reply is not None), None)
        if reply is not None:
            details["reply"] = str(reply)
        return details


def _asks_success(parcel: Parcel) -> bool:
    return any("SUCCESS" in (one.notify or "").upper() for one in parcel.recipients)


def _unasked(recipient: Recipient) -> Recipient:
    """The recipient without a wish for a notice of success: it would go to a mailbox that never asked (RFC 3461, 5.2.7)."""
    wishes = (recipient.notify or "").upper().split(",")
    if "SUCCESS" not in wishes:
        return recipient
    left = ",".join(one for one in wishes if one != "SUCCESS")
    return replace(recipient, notify=left or "NEVER")


REACH = {Scope.SENDER: 1, Scope.LANE: 2, Scope.UPSTREAM: 3}


def beyond(outcomes: Mapping[str, Outcome]) -> Outcome | None:
    """The outcome that reaches furthest beyond the message, if any does."""
    widest, reach = None, 0
    for outcome in outcomes.values():
        if REACH.get(outcome.scope, 0) > reach:
            widest, reach = outcome, REACH[outcome.scope]
    return widest


def _is_utf8(header: bytes) -> bool:
    try:
        header.decode()
    except UnicodeDecodeError:
        return False
    return True


def _refused(reply: Reply) -> Outcome:
    return Outcome(
        Result.HELD, Scope.MESSAGE, reply, f"Today's sender rules refuse the message: {reply.text or reply}",
        "Add a rule to senders that matches it (or set default_sender: rewrite) and reload; or delete the message.",
        "sender-refused", counts=False)  # fmt: skip


def _too_large(size: int, limit: int, mailbox: str) -> Outcome:
    text = f"The message has {size} octets, and {limit} are allowed."
    return Outcome(
        Result.FAILED, Scope.MESSAGE, Reply(552, "5.3.4", text), text,
        f"Send less at once; or raise limits.message_size, and in Exchange Online PowerShell run Set-Mailbox {mailbox}"
        " -MaxSendSize 150MB.", "message-too-large")  # fmt: skip


def _line_too_long(outcome: Outcome) -> Outcome:
    return replace(
        outcome, result=Result.FAILED, scope=Scope.MESSAGE,
        reason="A signed or encrypted part has a line over 998 octets, which cannot be re-encoded without breaking it.",
        remedy="Let the signing program use quoted-printable or base64, and send again.", code="line-too-long",
    )  # fmt: skip


def _unsafe() -> Outcome:
    text = "An address of the envelope holds characters that no address may have."
    return Outcome(
        Result.FAILED, Scope.MESSAGE, Reply(501, "5.1.3", text), text, "Correct the address and send again.",
        "bad-recipient-address")  # fmt: skip
