"""When a second process pays: started when accepting mail keeps the event loop busy, ended when it is quiet again.

At most one helper is on duty. While it is, the daemon accepts no connection itself on the listeners it has handed over;
listeners that answer only once Exchange has the mail stay with the daemon. A reload, or a renewed certificate, ends the
duty: new connections follow the new settings, open ones keep theirs, as without helpers.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
import traceback
from collections.abc import Mapping

from relay import events
from relay.accept.listener import ListenerServer
from relay.background import Tasks
from relay.settings import Settings
from relay.workers.brief import Brief, without_secrets
from relay.workers.deputy import Deputy, Desk
from relay.workers.load import Busy, cores

LOOK = 0.1
"""Seconds between two looks at the load, while there is any."""
BUSY = 0.3
"""Share of its time that the event loop must be busy before a helper is started. Between messages it waits for the spool's
writer, which a helper shortens, too: on a machine of its own, one process has taken all it can of 20 clients at 0.4 to 0.5."""
BURST = 20
"""Clients in one look that show at once what keeps it busy: a helper is started then."""
LOOKS = 3
"""Looks in a row that must find it so, with fewer clients: they send large messages."""
QUIET = 0.15
"""Share of one processor, daemon's event loop and helper together, below which a helper is not needed."""
CHECK = 5.0
"""Seconds over which the quiet is measured."""
QUIET_TIME = 60.0
"""Seconds of quiet after which it is ended."""
SILENT = 3
"""Checks in a row without a word from a helper, which reports twice a second, after which it counts as stuck. Checks, not
seconds: after a machine was suspended, the daemon may look before the helper has had its turn."""
START_TIME = 30.0
"""Seconds a helper may take until it is ready."""
AGAIN = (1.0, 5.0, 30.0, 300.0)
"""Seconds before another helper is started after one that failed; the last repeats."""


class Acceptance:
    """Decides, and keeps the helpers."""

    def __init__(
        self, desk: Desk, listeners: Mapping[str, ListenerServer], hostname: str, settings: Settings
    ) -> None:
        self._desk = desk
        self._listeners = listeners
        self._hostname = hostname
        self._settings = settings
        self._on_duty: Deputy | None = None
        self._starting: Deputy | None = None
        self._all: set[Deputy] = set()
        self._nodes = itertools.cycle(range(1, 1024))
        self._failures = 0
        self._not_before = 0.0
        self._stopping = False
        self._watch_fault = ""
        self._changing = asyncio.Lock()
        self._watch: asyncio.Task[None] | None = None
        self._tasks = Tasks()

    @property
    def on_duty(self) -> Deputy | None:
        """The helper that lets clients in just now."""
        return self._on_duty

    @property
    def helpers(self) -> list[Deputy]:
        """Those whose process runs."""
        return list(self._all)

    def start(self) -> None:
        """Watch the load from now on."""
        if self._wanted() != "never" and self._watch is None:
            self._watch = asyncio.ensure_future(self._watch_load())

    def _wanted(self) -> str:
        """``never``, ``always``, or ``auto``: when it pays, as it never does on one processor."""
        wanted = self._settings.workers
        return "never" if wanted == "auto" and cores() <= 1 else wanted

    async def update(self, settings: Settings) -> None:
        """A reload: new connections follow the new settings."""
        self._settings = settings
        await self.renew()
        if self._wanted() == "never" and self._watch is not None:
            self._watch.cancel()
            self._watch = None
        self.start()

    async def renew(self) -> None:
        """Something that a helper was told at its start has changed: one that is starting is not waited for."""
        if self._starting is not None:
            self._starting.call_off()
        async with self._changing:
            await self._relieve()

    def dismiss(self, bind: str, seconds: float) -> None:
        """A reload took a listener away: helpers that have clients of it still give them so many seconds."""
        for one in self._all:
            one.dismiss(bind, seconds)

    async def stop(self, seconds: float) -> None:
        """Refuse new work, let what is under way finish within ``seconds``."""
        self._stopping = True
        if self._watch is not None:
            self._watch.cancel()
        await asyncio.gather(*(one.drain(seconds) for one in tuple(self._all)))
        for one in tuple(self._all):
            one.kill()

    # the load

    async def _watch_load(self) -> None:
        looks = 0
        while True:
            try:
                looks = await self._watch_once(looks)
            except Exception as error:
                looks = 0
                self._tell_watch_fault(error)
                await asyncio.sleep(AGAIN[1])

    def _tell_watch_fault(self, error: Exception) -> None:
        """Once, while it is the same that fails."""
        what = f"{type(error).__name__}: {error}"
        if what != self._watch_fault:
            self._watch_fault = what
            trace = "".join(traceback.format_exception(error))
            events.trouble(
                where="helper process", what=f"watching the load failed, and goes on: {what}", trace=trace
            )

    async def _watch_once(self, looks: int) -> int:
        """Wait until it may be time for a helper, and start it when it is; how many looks have found the load high."""
        if self._on_duty is not None:
            await self._until_quiet(self._on_duty)
        if self._wanted() == "always":
            await asyncio.sleep(LOOK)
        else:
            looks = await self._look(looks) if looks or await self._somebody_came() else 0
        if looks < LOOKS and self._wanted() != "always":
            return looks
        await self._try_to_begin()
        return 0

    async def _look(self, before: int) -> int:
        """How many looks in a row have found it busy with accepting, after ``before`` of them."""
        joined, busy = self._joined(), Busy()
        await asyncio.sleep(LOOK)
        came = self._joined() - joined
        if busy.since() < BUSY or not came:
            return 0
        return LOOKS if came >= BURST else before + 1

    async def _somebody_came(self) -> bool:
        """Wait for a client: without any, there is nothing to look at."""
        came = asyncio.Event()
        for one in self._listeners.values():
            one.roster.on_join = came.set
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(came.wait(), 60.0)  # and listeners that a reload brings
        for one in self._listeners.values():
            one.roster.on_join = None
        return came.is_set()

    def _joined(self) -> int:
        return sum(one.roster.joined for one in self._listeners.values())

    async def _until_quiet(self, deputy: Deputy) -> None:
        """While it pays to have it."""
        busy, used, quiet = Busy(), deputy.busy, 0.0
        while deputy is self._on_duty:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(deputy.retired.wait(), CHECK)
                # the listeners are being taken back; from Python 3.12 on, the wait alone never yields
                await asyncio.sleep(LOOK)
                continue
            share = busy.since() + (deputy.busy - used) / CHECK
            used = deputy.busy
            quiet = quiet + CHECK if share < QUIET else 0.0
            if quiet >= QUIET_TIME and self._wanted() != "always":
                await self.renew()

    async def _mind(self, deputy: Deputy) -> None:
        """End one that is stuck, on duty or after it: its clients would wait, and be counted, for ever."""
        silent, heard = 0, deputy.heard
        while not deputy.gone.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(deputy.gone.wait(), CHECK)
                return
            silent, heard = silent + 1 if deputy.heard == heard else 0, deputy.heard
            if silent >= SILENT and not deputy.drained:
                deputy.give_up()

    # the helpers

    async def _try_to_begin(self) -> None:
        burying = any(one.gone.is_set() for one in self._all)
        if time.monotonic() < self._not_before or self._stopping or burying:
            return
        async with self._changing:
            try:
                await self._begin()
            except Exception as error:
                self._failed(str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}")

    async def _begin(self) -> None:
        """Start a helper and hand the listeners over to it once it is ready. Raises OSError."""
        servers = {
            bind: one
            for bind, one in self._listeners.items()
            if one.listener.answer_after == "spool" and not (one.paused or one.roster.draining)
        }
        if not servers:
            return
        deputy = self._starting = Deputy(self._desk, servers, next(self._nodes))
        try:
            await self._make_ready(deputy)
            if deputy.ready.is_set() and not self._stopping:
                await self._hand_over(deputy, servers)
        finally:
            self._starting = None
            if deputy is not self._on_duty:
                deputy.call_off()

    async def _make_ready(self, deputy: Deputy) -> None:
        await deputy.start(lambda sockets: self._brief(deputy.node, sockets))
        self._all.add(deputy)
        self._tasks.spawn(self._see_end(deputy))
        waits = [asyncio.ensure_future(one.wait()) for one in (deputy.ready, deputy.gone)]
        try:
            done, _ = await asyncio.wait(waits, timeout=START_TIME, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()
        if not done:
            raise TimeoutError(f"it was not ready within {START_TIME:g} s")

    async def _hand_over(self, deputy: Deputy, servers: Mapping[str, ListenerServer]) -> None:
        try:
            await ListenerServer.pause_all(servers.values())
            if not (deputy.closed or deputy.drained):  # as it was a moment ago
                deputy.go()
                self._on_duty = deputy
        finally:
            if deputy is not self._on_duty:
                await self._resume()
        if deputy is self._on_duty:
            self._tasks.spawn(self._mind(deputy))
            events.notice(what="a helper process accepts mail", process=deputy.pid)

    def _brief(self, node: int, sockets: dict[str, tuple[int, ...]]) -> Brief:
        folder, last = self._desk.spool.outpost()
        return Brief(without_secrets(self._settings), sockets, self._hostname, folder, node, last)

    async def _relieve(self) -> None:
        """The one on duty lets nobody in any more; the daemon does again."""
        deputy, self._on_duty = self._on_duty, None
        if deputy is not None:
            try:
                await deputy.retire()
            finally:
                await self._resume()
            events.notice(
                what="the helper process accepts no more mail", process=deputy.pid, accepted=deputy.accepted
            )

    async def _resume(self) -> None:
        """Accept again on what was handed over; clients wait in the kernel's queue meanwhile."""
        for one in [one for one in self._listeners.values() if one.paused]:
            while one.paused and not self._stopping:
                try:
                    await one.resume()
                except Exception as error:  # whatever it is: nobody else accepts there
                    events.trouble(where="helper process", what=f"{type(error).__name__}: {error}")
                    await asyncio.sleep(AGAIN[0])

    async def _see_end(self, deputy: Deputy) -> None:
        await deputy.gone.wait()
        if deputy is self._on_duty:
            self._on_duty = None
            await self._resume()
        await deputy.ended.wait()
        self._all.discard(deputy)
        if deputy.began and (not deputy.fault or time.monotonic() - deputy.began > AGAIN[-1]):
            self._failures = 0  # it did its duty
        if deputy.fault:
            self._failed(deputy.fault)

    def _failed(self, why: str) -> None:
        pause = AGAIN[min(self._failures, len(AGAIN) - 1)]
        self._failures += 1
        self._not_before = time.monotonic() + pause
        events.trouble(
            where="helper process", what=f"the helper process that accepts mail cannot: {why}",
            remedy="The daemon accepts by itself meanwhile, and clients that were cut off try again; `workers: never`"
            " goes without helpers for good.",
        )  # fmt: skip
