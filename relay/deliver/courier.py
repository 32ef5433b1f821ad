"""The courier: opens logins for lanes, and hands every connection today's rules."""

from __future__ import annotations

import asyncio
import itertools
import ssl
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from relay import events
from relay.clock import Clock
from relay.deliver.attempt import Rewrite, Router, Rules
from relay.deliver.classify import judge_fault
from relay.deliver.contract import Connection
from relay.deliver.login import Door, log_in
from relay.deliver.smtp import SmtpConnection
from relay.message import Outcome, Result, Scope, Trouble
from relay.rewrite.pipeline import rewrite
from relay.settings import Settings, Upstream
from relay.spool.contract import lane_name
from relay.tokens.contract import TokenSource

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
    ) -> None:
        self._settings = settings
        self._tokens = tokens
        self._rules = Rules(router, rewrite)
        self._hostname = hostname
        self._clock = clock
        self._numbers = itertools.count(1)
        self._contexts: dict[str, asyncio.Task[ssl.SSLContext]] = {}
        self._openers: dict[str, Opener] = {"smtp": self._open_smtp, "auto": self._open_smtp}

    def update(self, settings: Settings, router: Router, tokens: Mapping[str, TokenSource]) -> None:
        """A reload: queued mail follows the new rules at once; logins of a changed upstream are not used again."""
        self._settings = settings
        self._tokens = tokens
        self._rules.router = router
        self._contexts.clear()

    async def open(self, upstream: str, mailbox: str) -> Connection:
        """A login for that lane, by the upstream's transport. Raises Trouble."""
        try:
            settings = self._settings.upstream(upstream)
        except KeyError:
            raise Trouble(_unknown(upstream)) from None
        opener = self._openers.get(settings.transport)
        if opener is None:
            raise Trouble(_no_transport(settings.transport))
        return await opener(settings, mailbox)

    async def close(self) -> None:
        """Let go of the TLS contexts; token sources belong to whoever made them."""
        for task in self._contexts.values():
            task.cancel()
        self._contexts.clear()

    async def _open_smtp(self, upstream: Upstream, mailbox: str) -> Connection:
        tokens = self._tokens.get(upstream.name)
        if tokens is None:
            raise Trouble(_unknown(upstream.name))
        door = Door(upstream, tokens, await self._context(upstream), self._hostname)
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


def _unknown(upstream: str) -> Outcome:
    return Outcome(
        Result.HELD, Scope.UPSTREAM, None, f"There is no upstream named {upstream} in the configuration any more.",
        "Name it again under upstreams, or let the sender rules choose another one, and reload.",
        "upstream-missing", counts=False)  # fmt: skip


def _no_transport(transport: str) -> Outcome:
    return Outcome(
        Result.HELD, Scope.UPSTREAM, None, f"The transport {transport} is not part of this release yet.",
        "Set transport: smtp (or auto), and reload.", "transport-missing", counts=False)  # fmt: skip
