"""The courier: opens logins for lanes, and hands every connection today's rules."""

from __future__ import annotations

import asyncio
import itertools
import ssl
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from relay import events
from relay.background import Tasks
from relay.clock import Clock
from relay.deliver.attempt import Rewrite, Router, Rules
from relay.deliver.choice import Choice, Choices, Forced, Memory
from relay.deliver.classify import judge_fault
from relay.deliver.contract import Connection
from relay.deliver.graph.gate import Gate, Places
from relay.deliver.graph.witness import Witness
from relay.deliver.login import Door, log_in, token_outcome
from relay.deliver.smtp import SmtpConnection
from relay.errors import TokenError
from relay.message import Outcome, Result, Scope, Trouble
from relay.rewrite.pipeline import rewrite
from relay.settings import Settings, Upstream
from relay.spool.contract import lane_name
from relay.tokens.contract import Resource, TokenSource

if TYPE_CHECKING:
    from relay.deliver.graph.client import GraphClient
    from relay.deliver.graph.connection import GraphConnection

Opener = Callable[[Upstream, str], Awaitable[Connection]]
"""How one transport opens a connection for a mailbox of an upstream."""


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Verifying, host name checked, TLS 1.2 or newer; the system's CAs and ``ca_file``. Blocks: it reads files.

    Raises OSError (ssl.SSLError too) when ``ca_file`` cannot be used.
    """
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file is not None:
        context.load_verify_locations(cafile=str(ca_file))
    return context


class RelayCourier:
    """`relay.deliver.contract.Courier`. TLS contexts are made once per upstream, and anew after a reload."""

    def __init__(
        self,
        settings: Settings,
        tokens: Mapping[str, TokenSource],
        router: Router,
        *,
        hostname: str,
        clock: Clock,
        rewrite: Rewrite = rewrite,
        memory: Memory | None = None,
        places: Places | None = None,
    ) -> None:
        """``places``: what this app's relays share of Graph's requests at once; None: it is the only one."""
        self._settings = settings
        self._tokens = tokens
        self._rules = Rules(router, rewrite)
        self._hostname = hostname
        self._clock = clock
        self._numbers = itertools.count(1)
        self._contexts: dict[str, asyncio.Task[ssl.SSLContext]] = {}
        self._clients: dict[str, GraphClient] = {}
        self._gates: dict[str, Gate] = {}
        self._places = places
        self._retiring = Tasks()
        self._choices = Choices(self._open_smtp, self._open_graph, clock, memory)
        self._openers: dict[str, Opener] = {
            "smtp": self._open_smtp,
            "graph": lambda upstream, mailbox: self._open_graph(upstream, mailbox, Forced()),
            "auto": self._open_auto,
        }

    async def recall(self) -> None:
        """Once at start: what ``transport: auto`` decided before. Raises SpoolError."""
        await self._choices.recall()

    def revisit(self) -> None:
        """An administrator may have changed permissions: ``transport: auto`` decides anew."""
        self._choices.revisit()

    def choice(self, upstream: str) -> Choice | None:
        """What ``transport: auto`` has decided for an upstream; None before that."""
        return self._choices.of(upstream)

    def update(self, settings: Settings, router: Router, tokens: Mapping[str, TokenSource]) -> None:
        """A reload: queued mail follows the new rules at once; logins of a changed upstream are not used again."""
        self._settings = settings
        self._tokens = tokens
        self._rules.router = router
        self._contexts.clear()
        for client in self._clients.values():
            self._retiring.spawn(client.retire())
        self._clients.clear()
        self._choices.revisit()

    async def open(self, upstream: str, mailbox: str) -> Connection:
        """A login for that lane, by the upstream's transport. Raises Trouble."""
        try:
            settings = self._settings.upstream(upstream)
        except KeyError:
            raise Trouble(_unknown(upstream)) from None
        return await self._openers[settings.transport](settings, mailbox)

    async def close(self) -> None:
        """Let go of TLS contexts and Graph's sessions; token sources belong to whoever made them."""
        for task in self._contexts.values():
            task.cancel()
        self._contexts.clear()
        closing = (client.close() for client in self._clients.values())
        await asyncio.gather(*closing, self._retiring.ended(), return_exceptions=True)
        self._clients.clear()

    async def _open_auto(self, upstream: Upstream, mailbox: str) -> Connection:
        return await self._choices.open(upstream, mailbox, self._tokens_of(upstream))

    def _tokens_of(self, upstream: Upstream) -> TokenSource:
        tokens = self._tokens.get(upstream.name)
        if tokens is None:
            raise Trouble(_unknown(upstream.name))
        return tokens

    async def _open_graph(self, upstream: Upstream, mailbox: str, witness: Witness) -> Connection:
        make_client, make_connection = await asyncio.to_thread(_graph_parts)
        context = await self._context(upstream)
        client = self._clients.get(upstream.name)
        if client is None:  # shared: HTTP connections and the app's requests at once are counted there
            gate = self._gates.setdefault(upstream.client_id, Gate(upstream.client_id, self._places))
            client = self._clients[upstream.name] = make_client(
                upstream, self._tokens_of(upstream), context, gate
            )
        try:
            await client.tokens.token(Resource.GRAPH)
        except TokenError as error:
            raise Trouble(token_outcome(error)) from error
        number = next(self._numbers)
        events.login(
            lane=lane_name(upstream.name, mailbox), transport="graph", host=client.host, connection=number
        )
        return make_connection(
            client, mailbox, self._rules, self._clock, witness, number=number,
            current=lambda: self._is_current(upstream))  # fmt: skip

    async def _open_smtp(self, upstream: Upstream, mailbox: str) -> Connection:
        door = Door(upstream, self._tokens_of(upstream), await self._context(upstream), self._hostname)
        session = await log_in(door, mailbox)
        number = next(self._numbers)
        events.login(lane=lane_name(upstream.name, mailbox), transport="smtp", host=upstream.host, tls=session.tls,
                     connection=number)  # fmt: skip
        return SmtpConnection(
            session, upstream, mailbox, self._rules, self._clock, number=number,
            current=lambda: self._is_current(upstream))  # fmt: skip

    def _is_current(self, upstream: Upstream) -> bool:
        return any(one is upstream or one == upstream for one in self._settings.upstreams)

    async def _context(self, upstream: Upstream) -> ssl.SSLContext:
        """Shared by all logins of an upstream; one caller builds it, in a thread, since reading CAs takes time."""
        task = self._contexts.get(upstream.name)
        if task is None:
            task = asyncio.ensure_future(asyncio.to_thread(tls_context, upstream.ca_file))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._contexts[upstream.name] = task
        try:
            return await asyncio.shield(task)
        except OSError as error:
            self._contexts.pop(upstream.name, None)
            detail = f"{upstream.ca_file}: {error.strerror or error}"
            raise Trouble(judge_fault("ca-file", detail=detail)) from error


def _graph_parts() -> tuple[type[GraphClient], type[GraphConnection]]:
    """Loaded when first needed, in a thread: aiohttp is slow to load and large, and SMTP does without."""
    from relay.deliver.graph.client import GraphClient
    from relay.deliver.graph.connection import GraphConnection

    return GraphClient, GraphConnection


def _unknown(upstream: str) -> Outcome:
    return Outcome(
        Result.HELD, Scope.UPSTREAM, None, f"There is no upstream named {upstream} in the configuration any more.",
        "Name it again under upstreams, or let the sender rules choose another one, and reload.",
        "upstream-missing", counts=False)  # fmt: skip
