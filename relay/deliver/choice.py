"""`transport: auto`: which way an upstream's mail takes, decided from its tokens and, where they do not tell, by trying.

Design section 5: the right to send over SMTP decides for SMTP, Graph's Mail.Send for Graph; when neither shows, SMTP
is tried before Graph, since roles given in Exchange leave no trace in a token (facts 0.2, 1.4). A decision is
remembered over restarts. It changes only for a cause, each cause is remembered too, so the two never play ping-pong:
when both ways are refused the mail is held, with both remedies.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Protocol

from relay import events
from relay.clock import Clock
from relay.deliver.contract import Connection
from relay.deliver.graph.witness import Witness
from relay.deliver.login import token_outcome
from relay.deliver.rights import Rights, Way, choose, rights_of, shows, words_of
from relay.deliver.table_login import LOGIN_ROWS, PROBE
from relay.errors import SpoolError, TokenError
from relay.message import Outcome, Result, Scope, Trouble
from relay.settings import Upstream, UserLogin
from relay.tokens.contract import Resource, TokenSource

PREFIX = "transport:"
"""Under which key, with the upstream's name, a decision is remembered."""
IN_THE_WAY = frozenset({
    "connection-refused", "connect-timed-out", "unreachable", "proxy-refused", "starttls-not-offered",
    "xoauth2-not-offered", "tls-too-old", "mechanism-refused", "bad-helo", "ip-banned",
})  # fmt: skip
"""Something between here and port 587: Graph needs none of it."""
REFUSALS = frozenset(row.code for row in LOGIN_ROWS if row.hold) - IN_THE_WAY | {"login-refused"}
"""Exchange does not let this app log in: an administrator's to mend, or Graph's to circumvent."""
HOUR = 3600.0
"""Seconds after which a closed port is tried again, and a refusal no longer keeps the relay from trying that way."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One decision."""

    transport: str
    why: str
    since: float
    """Wall time, seconds since 1970."""
    until: float | None = None
    """When SMTP is to be tried again, since only the network kept it away."""


class Memory(Protocol):
    """Where decisions outlive the process (the spool's `remembered` and `remember`)."""

    async def remembered(self, prefix: str = "") -> dict[str, str]:
        """What was remembered under keys that begin so."""
        ...

    async def remember(self, key: str, value: str | None) -> None:
        """Remember a text; None: forget it."""
        ...


@dataclass(slots=True)
class State:
    """What is known of one upstream."""

    choice: Choice | None = None
    last: Choice | None = None
    """The decision before, while it has to be proven anew."""
    rights: Rights | None = None
    revisit: bool = False
    refusals: dict[str, tuple[float, Outcome]] = field(default_factory=dict)
    """By transport: when (monotonic seconds) and how it was refused."""
    worked: dict[tuple[str, str], float] = field(default_factory=dict)
    """By transport and mailbox: when it last worked (monotonic seconds). What works for others is one mailbox's trouble."""
    turned_away: dict[str, float] = field(default_factory=dict)
    """When Exchange last refused a mailbox's SMTP login, while no token shows a right (monotonic seconds)."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def refused(self, transport: str, now: float) -> Outcome | None:
        """How that way was refused within the last hour."""
        found = self.refusals.get(transport)
        return found[1] if found is not None and now - found[0] < HOUR else None

    def works_for_others(self, transport: str, mailbox: str, now: float) -> bool:
        """Whether that way carried another mailbox's mail within the last hour."""
        return any(
            way == transport and box != mailbox and now - at < HOUR for (way, box), at in self.worked.items()
        )


@dataclass(frozen=True, slots=True)
class Named:
    """What the rights are called in an upstream's tokens."""

    smtp: str
    graph: str

    @classmethod
    def of(cls, upstream: Upstream) -> Named:
        """A user's are scopes, an application's are roles."""
        user = isinstance(upstream.credential, UserLogin)
        return cls(words_of(Resource.SMTP, user=user), words_of(Resource.GRAPH, user=user))


OpenSmtp = Callable[[Upstream, str], Awaitable[Connection]]
OpenGraph = Callable[[Upstream, str, Witness], Awaitable[Connection]]


class Choices:
    """Opens connections of upstreams with ``transport: auto``."""

    def __init__(self, smtp: OpenSmtp, graph: OpenGraph, clock: Clock, memory: Memory | None = None) -> None:
        self._smtp = smtp
        self._graph = graph
        self._clock = clock
        self._memory = memory
        self._states: dict[str, State] = {}

    def of(self, name: str) -> Choice | None:
        """The decision for an upstream; None before there is one."""
        state = self._states.get(name)
        return state.choice if state is not None else None

    async def recall(self) -> None:
        """What was decided before the restart."""
        if self._memory is None:
            return
        for name, choice in choices_of(await self._memory.remembered(PREFIX)).items():
            self._state(name).choice = choice

    def revisit(self) -> None:
        """Permissions or settings may have changed: the next connection of each upstream decides anew."""
        for state in self._states.values():
            state.revisit = True

    async def open(self, upstream: Upstream, mailbox: str, tokens: TokenSource) -> Connection:
        """A connection by the way that is right for the upstream. Raises Trouble."""
        state = self._state(upstream.name)
        async with state.lock:
            await self._decide(upstream, state, tokens)
        if self._by_graph(state, mailbox):
            return await self._graph(upstream, mailbox, Trial(self, upstream, mailbox, tokens))
        try:
            connection = await self._smtp(upstream, mailbox)
        except Trouble as trouble:
            return await self._instead(upstream, mailbox, tokens, trouble)
        await self._smtp_works(upstream, mailbox)
        return connection

    def _state(self, name: str) -> State:
        return self._states.setdefault(name, State())

    def _by_graph(self, state: State, mailbox: str) -> bool:
        """Whether SMTP need not be asked: it is decided, or Exchange refused this mailbox's login a moment ago."""
        choice, now = state.choice, self._clock.now()
        if (
            choice is None
        ):  # a consent that is given meanwhile shows at Graph's door, without provoking Exchange
            return self._clock.monotonic() - state.turned_away.get(mailbox, -HOUR) < PROBE
        if choice.transport != "graph" or choice.until is None or now < choice.until:
            return choice.transport == "graph"
        # this one connection tries SMTP again, the others go on
        state.choice = replace(choice, until=now + HOUR)
        return False

    # deciding

    async def _decide(self, upstream: Upstream, state: State, tokens: TokenSource) -> None:
        """Read the tokens when there is a reason to, and choose by them. Raises Trouble when there is no token."""
        if state.choice is not None and not state.revisit and not state.refusals:
            return
        try:
            rights = await rights_of(tokens, fresh=bool(state.refusals))
        except TokenError as error:
            if state.choice is None:
                raise Trouble(token_outcome(error)) from error
            return  # the way that is known may still have a token
        if not state.revisit and rights == state.rights:
            return
        state.rights, state.revisit = rights, False
        state.refusals, state.worked, state.turned_away = {}, {}, {}
        way, named = choose(upstream.transport, smtp=rights.smtp, graph=rights.graph), Named.of(upstream)
        if way is Way.SMTP:
            await self._choose(upstream, "smtp", f"the token carries {named.smtp}")
        elif way is Way.GRAPH:
            why = f"the token carries Graph's {named.graph} and not {named.smtp}"
            await self._choose(upstream, "graph", why)
        else:
            state.last, state.choice = state.choice or state.last, None

    async def _choose(self, upstream: Upstream, transport: str, why: str, until: float | None = None) -> None:
        state = self._state(upstream.name)
        before = state.choice or state.last
        same = before is not None and before.transport == transport
        since = before.since if before is not None and same else self._clock.now()
        state.choice = choice = Choice(transport, why, since, until)
        if before is not None and same and before.why == why:
            return
        events.transport(upstream=upstream.name, transport=transport, why=why)
        if self._memory is not None:
            try:
                await self._memory.remember(PREFIX + upstream.name, json.dumps(asdict(choice)))
            except SpoolError as error:  # it is in force, and will be found again by the same reasoning
                events.trouble(
                    where="transport", what=f"the choice is not remembered: {error}", remedy=error.remedy
                )

    # SMTP's side

    async def _smtp_works(self, upstream: Upstream, mailbox: str) -> None:
        state = self._state(upstream.name)
        state.refusals.pop("smtp", None)
        state.worked["smtp", mailbox] = self._clock.monotonic()
        if state.choice is None:
            await self._choose(
                upstream, "smtp", "Exchange took the SMTP login, by a role that no token shows"
            )
        elif state.choice.transport == "graph" and state.choice.until is not None:
            await self._choose(upstream, "smtp", "Exchange's SMTP service can be reached again")

    async def _instead(
        self, upstream: Upstream, mailbox: str, tokens: TokenSource, trouble: Trouble
    ) -> Connection:
        """SMTP did not open: Graph where that may help, else the trouble goes on."""
        state, outcome, now = self._state(upstream.name), trouble.outcome, self._clock.monotonic()
        if outcome.code not in REFUSALS | IN_THE_WAY:
            raise trouble
        granted = await shows(tokens, Resource.GRAPH, fresh=state.choice is not None)
        if not granted and await self._only_smtp(state, tokens, outcome):
            raise trouble
        if granted and state.refused("graph", now) is not None:
            raise Trouble(both(state, outcome, now)) from trouble
        one_mailbox = outcome.scope is Scope.LANE and state.works_for_others("smtp", mailbox, now)
        state.refusals["smtp"], state.turned_away[mailbox] = (now, outcome), now
        if granted and not one_mailbox:
            until = self._clock.now() + HOUR if outcome.code in IN_THE_WAY else None
            what = outcome.reason.rstrip(".")
            await self._choose(
                upstream,
                "graph",
                f"SMTP cannot be used ({what}), and the token carries Graph's {Named.of(upstream).graph}",
                until,
            )
        return await self._graph(upstream, mailbox, Trial(self, upstream, mailbox, tokens))

    async def _only_smtp(self, state: State, tokens: TokenSource, outcome: Outcome) -> bool:
        """Whether Graph, whose right does not show, is not worth a try: SMTP's does show, or worked before it was cut off."""
        cut_off = outcome.code in IN_THE_WAY and state.choice is not None
        return cut_off or await shows(tokens, Resource.SMTP)

    # Graph's side

    async def graph_works(self, upstream: Upstream, mailbox: str) -> None:
        """Graph took a message."""
        state = self._state(upstream.name)
        state.refusals.pop("graph", None)
        state.worked["graph", mailbox] = self._clock.monotonic()
        if state.choice is None:
            why = "SMTP refused the login, and Graph takes mail by a role that no token shows"
            await self._choose(upstream, "graph", why)

    async def graph_refused(
        self, upstream: Upstream, mailbox: str, tokens: TokenSource, outcome: Outcome
    ) -> Outcome:
        """Graph did not: SMTP where its right shows and it was not refused itself, else a hold with both remedies."""
        state, now = self._state(upstream.name), self._clock.monotonic()
        if state.works_for_others("graph", mailbox, now):
            return outcome
        state.refusals["graph"] = (now, outcome)
        if state.refused("smtp", now) is not None or not await shows(tokens, Resource.SMTP, fresh=True):
            return both(state, outcome, now)
        state.rights = Rights(smtp=True, graph=False)
        what = outcome.reason.rstrip(".")
        why = f"Graph cannot be used ({what}), and the token carries {Named.of(upstream).smtp}"
        await self._choose(upstream, "smtp", why)
        return Outcome(
            Result.DEFERRED, Scope.MESSAGE, outcome.reply, f"{outcome.reason} The relay goes over to SMTP.", "",
            "transport-changed", wait=0.0, counts=False)  # fmt: skip


def both(state: State, outcome: Outcome, now: float) -> Outcome:
    """The hold of an upstream that may use neither way: both reasons and remedies, where both are known."""
    smtp, graph = state.refused("smtp", now) or outcome, state.refused("graph", now) or outcome
    if smtp is graph:
        return outcome
    name, other = ("Graph", graph) if smtp is outcome else ("SMTP", smtp)
    reason = f"Neither way of sending is open. SMTP: {smtp.reason} Graph: {graph.reason}"
    if other.reply is not None:  # the outcome's own reply goes along with it
        reason = f"{reason.rstrip('.')} ({name} said: {other.reply})."
    ways = f"For Graph (all that the set-up guide asks for): {graph.remedy} For SMTP: {smtp.remedy}"
    return replace(outcome, reason=reason, remedy=f"Mend one of the two. {ways}")


class Trial:
    """`Witness` of the Graph connections of one upstream: what happens to them may change the choice."""

    def __init__(self, choices: Choices, upstream: Upstream, mailbox: str, tokens: TokenSource) -> None:
        self._choices = choices
        self._upstream = upstream
        self._mailbox = mailbox
        self._tokens = tokens

    async def accepted(self) -> None:
        """Graph works."""
        await self._choices.graph_works(self._upstream, self._mailbox)

    async def refused(self, outcome: Outcome) -> Outcome:
        """Graph does not; see `Choices.graph_refused`."""
        return await self._choices.graph_refused(self._upstream, self._mailbox, self._tokens, outcome)


class Forced:
    """`Witness` under ``transport: graph``: nothing to choose."""

    async def accepted(self) -> None:
        """As it should be."""

    async def refused(self, outcome: Outcome) -> Outcome:
        """The outcome stands."""
        return outcome


def choices_of(texts: dict[str, str]) -> dict[str, Choice]:
    """What was remembered, by upstream; what cannot be read is decided anew."""
    found = {}
    for key, text in texts.items():
        try:
            kept = json.loads(text)
            until = None if kept["until"] is None else float(kept["until"])
            choice = Choice(str(kept["transport"]), str(kept["why"]), float(kept["since"]), until)
        except (ValueError, TypeError, KeyError):
            continue
        if choice.transport in ("smtp", "graph"):
            found[key.removeprefix(PREFIX)] = choice
    return found
