"""The configuration read again while the daemon runs: SIGHUP, `relay reload`, the admin page."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from relay import events, logs, supervisor
from relay.config.faults import ConfigError
from relay.errors import RelayError, SpoolError
from relay.likeness import digests
from relay.rewrite.route import Router
from relay.settings import Settings
from relay.tokens.entra import EntraTokens

if TYPE_CHECKING:
    from relay.daemon import Daemon

_AGAIN = 2.0
"""Seconds between tries to put a configuration in force for waiting mail, when the spool was away at the reload."""

Load = Callable[[], Settings]
"""Reads the configuration. Raises ConfigError."""


class Reload:
    """Hands a changed configuration to the rooms of one daemon."""

    def __init__(self, daemon: Daemon, load: Load) -> None:
        self._daemon = daemon
        self._load = load
        self._one = asyncio.Lock()
        """Two at once could bind the same port, or end with the older settings."""
        self._waits = False

    def asked(self) -> bool:
        """Whether one must be started: one that waits for its turn reads the files as they are then, for all that come."""
        waited, self._waits = self._waits, True
        return not waited

    async def reload_and_tell(self) -> None:
        """`reload` when nobody waits to hear of its faults: the log and the service manager are told."""
        try:
            await self.reload()
        except (RelayError, OSError) as error:
            what = "nothing was changed" if isinstance(error, (ConfigError, OSError)) else "not all was done"
            remedy = getattr(error, "remedy", "") or "Mend the configuration and reload again."
            events.trouble(where="reload", what=f"{what}: {error}", remedy=remedy)
            supervisor.notify(f"STATUS=reload: {what}: {error}".replace("\n", " "))

    async def reload(self) -> None:
        """See `relay.daemon.Daemon.reload`."""
        async with self._one:
            self._waits = False
            supervisor.reloading()
            try:
                await self._reload()
            finally:
                supervisor.ready("listening on " + ", ".join(self._daemon.listeners))

    async def _reload(self) -> None:
        settings = await asyncio.to_thread(self._load)
        for key in ("url", "local"):
            if getattr(settings.spool, key) != getattr(self._daemon.settings.spool, key):
                events.advice(
                    where="reload",
                    what=f"spool.{key} changed",
                    remedy="Restart relay to use the other spool.",
                )
        for warning in settings.warnings:
            events.advice(where="configuration", what=warning)
        await self._daemon.listen(settings)
        await self._adopt(settings)
        events.notice(what="reloaded", configuration=settings.source)

    async def _adopt(self, settings: Settings) -> None:
        daemon = self._daemon
        await self._adopt_tokens(settings)
        daemon.settings = daemon.own.settings = settings
        daemon.router.rules = Router(settings)
        daemon.courier.update(settings, daemon.router, daemon.tokens)
        logs.configure(settings.log)
        if daemon.acceptance is not None:
            await daemon.acceptance.update(settings)
        daemon.keeper.update(settings)
        daemon.alarms.update()
        daemon.spool.declare(digests(settings))
        for bind in set(daemon.listeners) - {one.bind for one in settings.listeners}:
            daemon.dismiss(bind)
        await daemon.pages.update()
        try:
            await self._apply_to_waiting()
        except SpoolError as error:
            daemon.spawn(self._apply_later(settings))
            raise SpoolError(
                f"the configuration is in force for new mail; mail that waits follows by itself later: {error}",
                remedy=error.remedy,
            ) from error

    async def _apply_to_waiting(self) -> None:
        """Mail that waits, its lanes and holds, by the settings in force. Raises SpoolError."""
        daemon = self._daemon
        await daemon.sort_out()
        await daemon.scheduler.reload(daemon.settings)
        await daemon.scheduler.drop_unused(daemon.router.uses)

    async def _apply_later(self, settings: Settings) -> None:
        """As soon as the spool answers, unless there is another configuration by then."""
        while self._daemon.settings is settings:
            await self._daemon.clock.sleep(_AGAIN)
            with contextlib.suppress(SpoolError):
                await self._apply_to_waiting()
                events.notice(what="the configuration is in force for mail that waited, too")
                return

    async def _adopt_tokens(self, settings: Settings) -> None:
        tokens = self._daemon.tokens
        old = {one.name: one for one in self._daemon.settings.upstreams}
        for one in settings.upstreams:
            if old.get(one.name) == one and one.name in tokens:
                tokens[one.name].retry_now()
                continue
            before = tokens.get(one.name)
            tokens[one.name] = EntraTokens(one, clock=self._daemon.clock)
            if before is not None:
                await before.close()
