"""What a running relay does beside the mail: upkeep, mail that waits too long, alarms.

Where several relays share a spool only one of them does it at a time, so that nobody is told twice.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from relay import events
from relay.alarms import PAUSE
from relay.errors import RelayError, SpoolError, SpoolLost

if TYPE_CHECKING:
    from relay.daemon import Daemon

OFF_DUTY = 10.0
"""Seconds between looks whether another replica has left upkeep to this one."""
_SAID_FOR = 600.0
"""Seconds for which a fault of the spool that several tasks meet again and again is not repeated."""
SUMMARIES = 5.0
"""Seconds between looks for summaries of notices that are owed."""


def say(where: str, error: Exception) -> None:
    """One failed round of a task that goes on for as long as the daemon does."""
    if isinstance(error, RelayError):
        events.trouble(where=where, what=str(error), remedy=error.remedy)
    else:
        events.trouble(where=where, what=f"unexpected error: {error!r}", error=error)


class Duties:
    """Those of one daemon."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._duty = not daemon.spool.shared
        """Whether they are this replica's just now."""
        self._said: dict[str, float] = {}

    def _say(self, where: str, error: Exception) -> None:
        """`say`, but each fault of the spool once for all tasks that it stops."""
        now = self._daemon.clock.monotonic()
        if isinstance(error, SpoolError):
            if now - self._said.get(str(error), -_SAID_FOR) < _SAID_FOR:
                return
            self._said = {what: since for what, since in self._said.items() if now - since < _SAID_FOR}
            self._said[str(error)] = now
        say(where, error)

    def work(self) -> list[Coroutine[Any, Any, None]]:
        """What goes on for as long as the daemon runs."""
        return [self._tend(), self._watch_overdue(), self._watch_alarms(), self._watch_here()]

    async def _on_duty(self) -> bool:
        """Whether upkeep, notices about time and alarms are this replica's; whoever takes over knows what was done."""
        had = self._duty
        try:
            self._duty = await self._daemon.spool.on_duty("upkeep")
        except SpoolLost:
            self._duty = False
            raise
        if self._duty and not had:
            await self._daemon.scheduler.desk.load()
            self._daemon.alarms.start_anew()
        return self._duty

    async def _tend(self) -> None:
        while True:
            try:
                pause = (
                    await self._daemon.spool.tend(self._daemon.clock.now())
                    if await self._on_duty()
                    else OFF_DUTY
                )
            except SpoolLost:  # the group says so, and what becomes of it
                pause = OFF_DUTY
            except Exception as error:
                self._say("upkeep", error)
                pause = 30.0
            await self._daemon.clock.sleep(pause)

    async def _watch_overdue(self) -> None:
        """Delays, mail that is given up, summaries of notices."""
        summaries = 0.0
        while True:
            await self._daemon.clock.sleep(self._daemon.scheduler.overdue.pause())
            try:
                if not await self._on_duty():
                    continue
                await self._daemon.scheduler.overdue.look()
                if self._daemon.clock.monotonic() >= summaries:
                    await self._daemon.scheduler.desk.tend()
                    summaries = self._daemon.clock.monotonic() + SUMMARIES
            except SpoolLost:
                continue
            except Exception as error:
                self._say("notices", error)

    async def _watch_alarms(self) -> None:
        while True:
            try:
                await self._daemon.alarms.look(tells=await self._on_duty())
            except SpoolLost:
                pass
            except Exception as error:
                self._say("alerts", error)
            await self._daemon.clock.sleep(PAUSE)

    async def _watch_here(self) -> None:
        """What concerns this host alone, whoever is on duty."""
        while True:
            try:
                await self._daemon.alarms.look_here()
            except Exception as error:
                self._say("alerts", error)
            await self._daemon.clock.sleep(PAUSE)
