"""One tenant and app registration, step by step: network, token, permissions, logins, expiry.

What does not depend on one another runs side by side. A step whose weight depends on the transport (a blocked SMTP
port does not matter to Graph) is told as soon as the transport is known.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import replace

from relay.check import catalogue, verdicts
from relay.check.board import Board
from relay.check.bounds import dialogue_bound
from relay.check.catalogue import Kind
from relay.check.contract import Status
from relay.check.expiry import expiry_step
from relay.check.graph import Answer, try_mailbox
from relay.check.logins import Logins
from relay.check.network import Place, Seen, https_place, reach, resolve, smtp_place
from relay.check.permissions import Permissions, Tries, granted
from relay.check.smtp import Offer, look
from relay.clock import Clock
from relay.deliver.courier import tls_context
from relay.deliver.login import Door
from relay.deliver.rights import Way, choose
from relay.errors import TokenError
from relay.message import Outcome
from relay.settings import ManagedIdentity, Upstream
from relay.tokens import claims
from relay.tokens.contract import Resource, Token
from relay.tokens.entra import EntraTokens
from relay.tokens.reasons import local

SKEW_WORTH_SAYING = 60.0
"""Seconds by which a clock may be off before it is worth a word; from 300 s on signatures are refused."""
ONE_RESOURCE = frozenset({"resource-unknown", "resource-not-granted", "scope-wrong", "consent-missing"})
"""Reasons that concern one of the two services only: the other token may still be had."""
TOKEN_KINDS = {Resource.SMTP: catalogue.TOKEN_SMTP, Resource.GRAPH: catalogue.TOKEN_GRAPH}


class UpstreamCheck:
    """`run` once. ``about`` tells its steps apart when there are several upstreams."""

    def __init__(
        self,
        upstream: Upstream,
        mailboxes: Sequence[str],
        board: Board,
        clock: Clock,
        hostname: str,
        about: str,
    ) -> None:
        self._upstream = upstream
        self._mailboxes = list(mailboxes)
        self._board = board
        self._clock = clock
        self._hostname = hostname
        self._about = about
        self._source = EntraTokens(upstream, clock=clock)
        self._tokens: dict[Resource, Token] = {}
        self._places = {
            catalogue.TCP_SMTP: smtp_place(upstream),
            catalogue.TCP_TOKEN: https_place(upstream, upstream.authority),
            catalogue.TCP_GRAPH: https_place(upstream, upstream.graph_url),
        }
        self._unresolved: set[str] = set()
        self.choice: Way | None = None
        self._spare = False
        """Whether Graph stands in when SMTP fails: `transport: auto`, and the app has Mail.Send as well."""
        self.usable: list[str] = []
        """Mailboxes that were let in by the transport that will be used."""

    async def run(self) -> None:
        """All steps. Raises nothing that a server or a network can cause."""
        try:
            await self._resolve()
            smtp_side = asyncio.create_task(self._smtp_side())
            graph_side = asyncio.create_task(self._reach(catalogue.TCP_GRAPH, tls=True))
            await self._token_side()
            await self._decide(await smtp_side, await graph_side)
        finally:
            await self._source.close()

    # the network

    async def _resolve(self) -> None:
        seen = await resolve(self._upstream, list(self._places.values()))
        bad = {host: one for host, one in seen.items() if one.problem}
        self._unresolved = set(bad)
        words = "; ".join(one.words for one in (bad or seen).values())
        remedy = (
            f"Check the spelling of {', '.join(bad)}, and this machine's DNS servers: nslookup {next(iter(bad))}"
            if bad
            else ""
        )
        self._add(catalogue.DNS, Status.FAIL if bad else Status.OK, words, remedy)

    async def _reach(self, kind: Kind, *, tls: bool) -> Seen | None:
        """None: there is no address to dial."""
        place = self._places[kind]
        if place.proxy is None and place.host in self._unresolved:
            return None
        return await reach(self._upstream, place, tls=tls)

    async def _smtp_side(self) -> tuple[Seen | None, Offer | None]:
        seen = await self._reach(catalogue.TCP_SMTP, tls=False)
        if seen is None or seen.problem:
            return seen, None
        return seen, await look(await self._door())

    async def _door(self) -> Door:
        try:
            context = await asyncio.to_thread(tls_context, self._upstream.ca_file)
        except OSError:  # the configuration was read with a good file a moment ago
            context = ssl.create_default_context()
        return Door(self._upstream, self._source, context, self._hostname)

    # the tokens

    async def _token_side(self) -> None:
        kind = catalogue.TCP_TOKEN
        order = [Resource.GRAPH, Resource.SMTP] if self._upstream.transport == "graph" else list(Resource)
        if isinstance(self._upstream.credential, ManagedIdentity):
            self._add(
                kind, Status.SKIPPED, "not needed: tokens come from this machine's own identity service"
            )
            await self._fetch(order)
        elif await self._token_server_fails():
            for resource in order:
                self._add(TOKEN_KINDS[resource], Status.SKIPPED, "the sign-in server cannot be reached")
        else:
            await self._fetch(order)
        self._tell_identity()
        self._tell_clock()

    async def _token_server_fails(self) -> bool:
        kind = catalogue.TCP_TOKEN
        seen = await self._reach(kind, tls=True)
        self._tell_reached(kind, self._places[kind], seen, needed=True)
        return seen is None or seen.problem is not None

    async def _fetch(self, order: list[Resource]) -> None:
        """One after the other: the same mistake need not be made twice at Entra."""
        refused: TokenError | None = None
        failed: dict[Kind, TokenError] = {}
        for resource in order:
            kind = TOKEN_KINDS[resource]
            if refused is not None and refused.code not in ONE_RESOURCE:
                self._add(
                    kind, Status.SKIPPED, "not asked for: it takes the credential that was just refused"
                )
                continue
            try:
                self._tokens[resource] = await self._token(resource)
            except TokenError as error:
                refused = error
                failed[kind] = error
            else:
                self._tell_token(kind, self._tokens[resource])
        for kind, reason in failed.items():
            step = verdicts.token_failed(kind, reason, self._upstream, self._about)
            self._board.add(replace(step, status=Status.WARN) if self._other_way(kind) else step)

    def _other_way(self, failed: Kind) -> bool:
        """Whether mail goes by the token that could be had, so that this one does not matter."""
        other = Resource.GRAPH if failed is catalogue.TOKEN_SMTP else Resource.SMTP
        token = self._tokens.get(other)
        if self._upstream.transport != "auto":
            return self._upstream.transport == other.value
        return _may_send(token)

    async def _token(self, resource: Resource) -> Token:
        try:
            async with asyncio.timeout(dialogue_bound(self._upstream)):
                return await self._source.token(resource)
        except TimeoutError:
            seconds = dialogue_bound(self._upstream)
            raise local("timed-out").error(evidence=f"no answer within {seconds:g} s") from None

    def _tell_token(self, kind: Kind, token: Token) -> None:
        minutes = (token.expires - self._clock.now()) / 60
        shown = ", ".join(granted(token)) or "none"
        self._add(
            kind, Status.OK, f"Entra gave a token, valid for {minutes:.0f} min; permissions in it: {shown}"
        )

    def _tell_identity(self) -> None:
        if not self._tokens:
            self._add(catalogue.IDENTITY, Status.SKIPPED, "there is no token to compare")
            return
        found = [
            one
            for token in self._tokens.values()
            for one in claims.judge(token, self._upstream)
            if one.slug in ("tenant", "application", "audience", "delegated", "not-delegated", "opaque")
        ]
        if not found:
            up = self._upstream
            self._add(catalogue.IDENTITY, Status.OK, f"tenant {up.tenant_id}, client {up.client_id}")
            return
        worst = Status.FAIL if any(one.level == "fail" for one in found) else Status.WARN
        self._add(
            catalogue.IDENTITY, worst, " ".join({one.seen: None for one in found}),
            " ".join({verdicts.filled(one.remedy, self._upstream): None for one in found}),
        )  # fmt: skip

    def _tell_clock(self) -> None:
        skew = self._source.clock_skew
        if skew is None:
            self._add(catalogue.CLOCK, Status.SKIPPED, "no answer of Entra to compare with")
            return
        way = "ahead of" if skew > 0 else "behind"
        seen = (
            f"this machine's clock is {abs(skew):.0f} s {way} Microsoft's"
            if abs(skew) >= 2
            else "right to 2 s"
        )
        far = abs(skew) > claims.SKEW_LIMIT
        status = Status.FAIL if far else Status.WARN if abs(skew) > SKEW_WORTH_SAYING else Status.OK
        remedy = "Set the clock by NTP: timedatectl set-ntp true, or on Windows: w32tm /resync"
        self._add(catalogue.CLOCK, status, seen, "" if status is Status.OK else remedy)

    # the transport, and what hangs on it

    async def _decide(self, smtp_side: tuple[Seen | None, Offer | None], graph_seen: Seen | None) -> None:
        smtp, graph = self._tokens.get(Resource.SMTP), self._tokens.get(Resource.GRAPH)
        self.choice = self._chosen(smtp, graph)
        self._spare = self.choice is Way.SMTP and self._upstream.transport == "auto" and _may_send(graph)
        self._tell_smtp(smtp_side, needed=self.choice is not Way.GRAPH and not self._spare)
        place = self._places[catalogue.TCP_GRAPH]
        self._tell_reached(catalogue.TCP_GRAPH, place, graph_seen, needed=self.choice is not Way.SMTP)
        expiry = asyncio.create_task(self._tell_expiry(graph, graph_seen))
        logins = await self._log_in(smtp, smtp_side)
        answers = await self._try_graph(graph, graph_seen, logins)
        await expiry
        self._tell_results(smtp, graph, logins, answers)

    def _chosen(self, smtp: Token | None, graph: Token | None) -> Way | None:
        """None: without a token nobody can tell."""
        if not self._tokens and self._upstream.transport == "auto":
            return None
        return choose(self._upstream.transport, smtp=_may_send(smtp), graph=_may_send(graph))

    def _tell_smtp(self, side: tuple[Seen | None, Offer | None], *, needed: bool) -> None:
        seen, offer = side
        self._tell_reached(catalogue.TCP_SMTP, self._places[catalogue.TCP_SMTP], seen, needed=needed)
        if offer is None:
            self._add(catalogue.STARTTLS, Status.SKIPPED, "the port cannot be reached")
        elif offer.trouble is not None:
            words = offer.words if needed else f"{offer.words} {_NOT_NEEDED}"
            self._add(catalogue.STARTTLS, Status.FAIL if needed else Status.WARN, words, offer.remedy)
        else:
            self._add(
                catalogue.STARTTLS, Status.WARN if offer.doubt else Status.OK, offer.words, offer.remedy
            )

    def _tell_reached(self, kind: Kind, place: Place, seen: Seen | None, *, needed: bool) -> None:
        if seen is None:
            self._add(kind, Status.SKIPPED, f"{place.host} has no address")
        elif seen.problem:
            words = (
                seen.words
                if needed
                else f"{seen.words}. {_NOT_NEEDED if kind is catalogue.TCP_SMTP else _SMTP_DOES}"
            )
            self._add(kind, Status.FAIL if needed else Status.WARN, words, seen.remedy)
        else:
            self._add(kind, Status.WARN if seen.doubt else Status.OK, seen.words, seen.remedy)

    async def _log_in(
        self, token: Token | None, side: tuple[Seen | None, Offer | None]
    ) -> dict[str, Outcome | None]:
        """By mailbox; those that were not tried are missing."""
        reached = side[1] is not None and side[1].trouble is None
        if token is None or not reached or self.choice is Way.GRAPH:
            return {}
        return await Logins(await self._door(), token).run(self._mailboxes)

    async def _try_graph(
        self, token: Token | None, seen: Seen | None, logins: dict[str, Outcome | None]
    ) -> dict[str, Answer]:
        """Where Graph carries the mail, or will because SMTP does not let in."""
        if token is None or seen is None or seen.problem or not self._graph_matters(logins):
            return {}
        found: dict[str, Answer] = {}
        for mailbox in self._mailboxes:  # one at a time: Graph counts requests of the app as a whole
            found[mailbox] = await try_mailbox(self._upstream, token, mailbox)
        return found

    def _graph_matters(self, logins: dict[str, Outcome | None]) -> bool:
        if self.choice is Way.GRAPH:
            return True
        let_in = any(outcome is None for outcome in logins.values())
        return not let_in and (self._spare or (self.choice is Way.TRY_SMTP and bool(logins)))

    async def _tell_expiry(self, graph: Token | None, seen: Seen | None) -> None:
        usable = graph if seen is not None and not seen.problem else None
        self._board.add(await expiry_step(self._upstream, usable, self._clock.now(), self._about))

    def _tell_results(
        self,
        smtp: Token | None,
        graph: Token | None,
        logins: dict[str, Outcome | None],
        answers: dict[str, Answer],
    ) -> None:
        smtp_in = [mailbox for mailbox, outcome in logins.items() if outcome is None]
        graph_in = [mailbox for mailbox, answer in answers.items() if answer.status in (202, 400)]
        self.usable = smtp_in or graph_in
        denied = any(outcome is not None and outcome.code in verdicts.REFUSED for outcome in logins.values())
        denied = denied or any(answer.status == 403 for answer in answers.values())
        tries = Tries(bool(smtp_in), bool(graph_in), denied, self._spare)
        self._board.add(Permissions(self._upstream, self.choice, smtp, graph).step(tries, self._about))
        self._tell_logins(smtp, graph, logins, by_graph=bool(graph_in))
        app = verdicts.app_of(self._upstream, graph, smtp)
        for mailbox, answer in answers.items():
            if graph is not None:
                self._board.add(verdicts.graph_step(answer, mailbox, app, graph, self._of(mailbox)))

    def _tell_logins(
        self, smtp: Token | None, graph: Token | None, logins: dict[str, Outcome | None], *, by_graph: bool
    ) -> None:
        app = verdicts.app_of(self._upstream, smtp, graph)
        ready = _may_send(graph) and not self._spare
        for mailbox in self._mailboxes:
            about = self._of(mailbox)
            if mailbox not in logins or smtp is None:
                self._board.add(catalogue.SMTP_LOGIN.step(Status.SKIPPED, self._why_not(logins), about=about))
                continue
            others = any(outcome is None for one, outcome in logins.items() if one != mailbox)
            step = verdicts.login_step(
                logins[mailbox], mailbox, app, smtp, about=about, others_in=others, graph_ready=ready
            )
            if step.status is Status.FAIL and (by_graph or self._spare):
                seen = f"{step.seen} That does not stop mail: {_GRAPH_DOES}."
                status, remedy = (Status.WARN, step.remedy) if self._spare else (Status.OK, "")
                step = catalogue.SMTP_LOGIN.step(status, seen, remedy, about=about)
            self._board.add(step)

    def _why_not(self, logins: dict[str, Outcome | None]) -> str:
        if self.choice is Way.GRAPH:
            return f"not needed: {_GRAPH_DOES}"
        if logins:
            return "not tried: another mailbox was refused for a reason that concerns all of them"
        return "not tried: an earlier step failed"

    def _of(self, mailbox: str) -> str:
        return f"{mailbox}:{self._about}" if self._about else mailbox

    def _add(self, kind: Kind, status: Status, seen: str, remedy: str = "") -> None:
        self._board.add(kind.step(status, seen, remedy, about=self._about))


def _may_send(token: Token | None) -> bool:
    return token is not None and token.may_send


_GRAPH_DOES = "Graph will be used"
_NOT_NEEDED = f"That does not matter: {_GRAPH_DOES}."
_SMTP_DOES = "That does not stop mail: SMTP will be used."
