"""A shared spool with a local one in front of it (``spool.local``), so that mail is taken while the database is away.

While the database answers and nothing waits here, all is as without: this class passes everything on. When it is away,
mail is accepted into a SQLite spool on this host (`local`), and `forward` carries it over in its order once the
database is back. `switch` says where new mail goes, `buffered_draft` puts it there, `handover` says why nothing is
lost or stored twice on the way. Delivery knows nothing of it: only the shared spool's mail is delivered.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar, cast

from relay import events
from relay.clock import Clock, SystemClock
from relay.errors import SpoolBusy, SpoolError, SpoolVersion
from relay.message import Content
from relay.settings import SpoolSettings
from relay.spool import beside, ids
from relay.spool.buffered_draft import BufferedDraft
from relay.spool.contract import (
    Changed,
    Draft,
    Filter,
    LocalMail,
    MessageView,
    Part,
    Recovered,
    Spool,
    SpoolStats,
    Trace,
    Wake,
)
from relay.spool.forward import Forwarder
from relay.spool.handover import Shared
from relay.spool.lastseen import LastSeen
from relay.spool.local import BATCH, LocalSpool
from relay.spool.switch import Switch

T = TypeVar("T")
_NO_VIEWS: Part[MessageView] = Part([], None)
_NO_TRACES: Part[Trace] = Part([], None)

_LOOK_EVERY = 1.0
"""Seconds between looks whether the shared spool answers."""
_AWAY_PAUSE = 30.0
"""Seconds until upkeep is asked for again while the shared spool is away."""
_A_MOMENT = 0.005
"""Seconds in which the local disk stores what is just coming."""


class BufferedSpool:
    """See `relay.spool.contract.Spool`: what is not about accepting or showing is the shared spool's own."""

    def __init__(
        self, settings: SpoolSettings, shared: Shared, clock: Clock | None = None, *, shown: str = ""
    ) -> None:
        """``shown``: the shared spool's URL as it may be shown, for the time before it was ever opened."""
        clock = clock or SystemClock()
        self.local = LocalSpool(settings, clock)
        self.switch = Switch(clock)
        self.trouble: SpoolError | None = None
        """Why the shared spool could not be used when it was last tried; None when it could."""
        self._shared = shared
        self._opened = False
        self._forwarder = Forwarder(self.local, shared, clock, settings.history)
        self._tasks: list[asyncio.Task[None]] = []
        self._news = asyncio.Event()
        self._wakes: list[Wake] = []
        self.seen: dict[tuple[str, ...], Any] = {}
        """What was last answered to those who only look: see `relay.spool.lastseen`."""
        self._stats = SpoolStats(shown, 0, 0, 0)

    def __getattr__(self, name: str) -> Any:
        """Whatever else the contract holds, of the shared spool. Raises SpoolError for what needs it to be open."""
        if name.startswith("_"):
            raise AttributeError(name)
        found = getattr(self._shared, name)
        return (
            found if self._opened or not inspect.iscoroutinefunction(found) else getattr(self._through, name)
        )

    @property
    def standing_by(self) -> bool:
        """See the contract."""
        return self._shared.standing_by

    @property
    def _through(self) -> Shared:
        if not self._opened:
            error = self.trouble or SpoolError("the spool is closed")
            raise error.with_traceback(None)  # raised again and again, it would gather all of them
        return self._shared

    # opening and closing

    async def open(self, *, owner: bool = True) -> None:
        """Opens the local spool in any case; the shared one being away is no error (see `reach`)."""
        await self.local.open(owner=owner)
        try:
            if owner and (left := await self._forwarder.waiting()):
                self.switch.forward_first(
                    f"{left} messages of the last run in the local spool are forwarded first"
                )
            await self._open_shared(owner=owner)
        except BaseException:
            await self.local.close()
            raise
        self.switch.ready = self._opened
        if owner:
            self._tasks = [asyncio.ensure_future(one) for one in (self._keep_forwarding(), self._keep_tidy())]

    async def _open_shared(self, *, owner: bool = True) -> None:
        try:
            await self._shared.open(owner=owner)
        except (SpoolVersion, SpoolBusy):
            raise
        except SpoolError as error:
            self.trouble = error
            if owner:
                self.switch.turn_local(error)
        else:
            self.trouble = None
            self._opened = True

    @property
    def reached(self) -> bool:
        """Whether the shared spool was opened."""
        return self._opened

    async def reach(self) -> None:
        """Try to open the shared spool until that works; `recover` then begins the work on it. Raises SpoolVersion."""
        while not self._opened:
            await asyncio.sleep(_LOOK_EVERY)
            await self._open_shared()

    async def close(self) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.local.close()
        if self._opened:
            await self._shared.close()

    def subscribe(self, wake: Wake) -> None:
        if wake not in self._wakes:  # a start that is tried again subscribes again
            self._wakes.append(wake)
            self._shared.subscribe(wake)

    async def recover(self) -> Recovered:
        found = await self._through.recover()
        self.switch.ready = True
        self._news.set()
        return found

    async def leaving(self) -> None:
        with contextlib.suppress(SpoolError):
            await self._through.leaving()

    async def on_duty(self, task: str) -> bool:
        """Nobody is while the shared spool is away: what is looked after is there."""
        return self.trouble is None and await self._through.on_duty(task)

    # accepting

    def draft(self) -> BufferedDraft:
        """Ids are the shared spool's, which knows how to keep those of several relays apart."""
        theirs = ids.read(self._shared.draft().id) if self.switch.ready else None
        return BufferedDraft(self, self.local.new_number(theirs))

    def draft_there(self, number: int) -> Draft:
        """The same message for the shared spool."""
        return self._through.draft_as(number)

    async def has_room(self, size: int) -> bool:
        """Of the spool that new mail goes to."""
        if self.switch.direct:
            try:
                return await self._through.has_room(size)
            except SpoolError as error:
                self._is_away(error)
        return await self.local.has_room(size)

    async def probe(self) -> None:
        """Of the local spool: with it mail is taken whether the shared one answers or not."""
        await self.local.probe()

    def stored_here(self, error: SpoolError | None) -> None:
        """A message was accepted into the local spool, because of ``error`` if it was tried in the shared one."""
        if error is not None:
            self.switch.turn_local(error)
        else:
            self.switch.forward_first(
                "a message that had begun to come while the database was away is forwarded first"
            )
        self._news.set()

    def _is_away(self, error: SpoolError) -> None:
        self.trouble = error
        self.switch.turn_local(error)

    # forwarding

    async def _keep_forwarding(self) -> None:
        while True:
            self._news.clear()
            try:
                await self._look()
            except SpoolError as error:
                self._is_away(error)
                self._news.clear()  # new mail changes nothing about that
            except Exception as error:
                events.trouble(where="spool.local", what=f"unexpected error: {error!r}", error=error)
                self._news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_EVERY):
                    await self._news.wait()

    async def _look(self) -> None:
        """Whether the shared spool answers, and forward what waits. Raises SpoolError when it does not."""
        if not self.switch.ready:
            return
        await self._through.has_room(0)
        self.trouble = None
        if self.switch.since is None and not (self._forwarder.aside and await self._forwarder.waiting()):
            return
        with self.switch.forwarding():
            while left := await self._left():
                done = await self._forwarder.step()
                self.switch.moved(done, last=left <= BATCH)
                if not done:
                    await asyncio.sleep(_A_MOMENT)
            self.switch.turn_back()
        await self._forwarder.finish()

    async def _left(self) -> int:
        """What waits in the local spool; not 0 either while something is about to."""
        switch = self.switch
        entering, entered = switch.entering, switch.entered
        waiting = await self._forwarder.waiting()
        return waiting or entering or switch.entering or switch.entered - entered

    # showing

    def last_seen(self) -> Spool:
        """See the contract."""
        return cast("Spool", LastSeen(self))

    @property
    def diverted(self) -> str:
        """See the contract."""
        return self.switch.reason if self.switch.since is not None else ""

    async def stats(self) -> SpoolStats:
        """Of the shared spool (as last seen while it is away), with what waits here."""
        with contextlib.suppress(SpoolError):
            self._stats = await self._through.stats()
        return dataclasses.replace(self._stats, local=await self.local_mail())

    async def local_mail(self) -> LocalMail:
        """What waits in the local spool, and why."""
        stats = await self.local.stats()
        since, reason = self.switch.since, self.switch.reason
        return LocalMail(
            stats.url, stats.messages, stats.bytes, stats.free, await self.local.oldest(), since, reason
        )

    async def find(self, wanted: Filter, *, limit: int = 1000, after: str | None = None) -> list[MessageView]:
        theirs: list[MessageView] = await self._or(
            lambda: self._through.find(wanted, limit=limit, after=after), []
        )
        ours = await self.local.find(beside.wanted(wanted), limit=limit, after=after)
        return beside.merge(theirs, beside.shown(ours, wanted, self._why()))[:limit]

    async def find_within(
        self, wanted: Filter, *, seconds: float, limit: int = 1000, after: str | None = None
    ) -> Part[MessageView]:
        theirs = await self._or(
            lambda: self._through.find_within(wanted, seconds=seconds, limit=limit, after=after),
            _NO_VIEWS,
        )
        ours = await self.local.find_within(beside.wanted(wanted), seconds=seconds, limit=limit, after=after)
        views = beside.merge(theirs.found, beside.shown(ours.found, wanted, self._why()))
        reached = min([one for one in (theirs.reached, ours.reached) if one is not None], default=None)
        found = [one for one in views if reached is None or one.id <= reached]
        return Part(found[:limit], None if len(found) > limit else reached)

    async def trace(self, text: str, *, limit: int = 100) -> list[Trace]:
        theirs: list[Trace] = await self._or(lambda: self._through.trace(text, limit=limit), [])
        ours = await self.local.trace(text, limit=limit)
        return beside.merge_traces(theirs, ours, self._why())[:limit]

    async def trace_within(
        self, text: str, *, seconds: float, limit: int = 100, before: str | None = None
    ) -> Part[Trace]:
        theirs = await self._or(
            lambda: self._through.trace_within(text, seconds=seconds, limit=limit, before=before),
            _NO_TRACES,
        )
        ours = await self.local.trace_within(text, seconds=seconds, limit=limit, before=before)
        traces = beside.merge_traces(theirs.found, ours.found, self._why())
        reached = max([one for one in (theirs.reached, ours.reached) if one is not None], default=None)
        found = [one for one in traces if reached is None or one.id >= reached]
        return Part(found[:limit], None if len(found) > limit else reached)

    async def content(self, message_id: str) -> Content:
        return await (await self._whose(message_id)).content(message_id)

    async def raw(self, message_id: str) -> AsyncIterator[bytes]:
        async for chunk in (await self._whose(message_id)).raw(message_id):
            yield chunk

    async def _whose(self, message_id: str) -> Shared | LocalSpool:
        """Only looks here while mail may wait here: delivery asks for each message's content."""
        maybe_here = self.switch.since is not None or not self._tasks
        return self.local if maybe_here and await self.local.has(message_id) else self._through

    async def operate(self, verb: str, wanted: Filter, now: float) -> Changed:
        """Of the messages that wait here, `delete` alone is for the operator; the other verbs are for their turn."""
        if verb != "delete":
            return await self._through.operate(verb, wanted, now)
        theirs = await self._or(lambda: self._through.operate(verb, wanted, now), Changed(0, 0))
        if not beside.may_mean(wanted):
            return theirs
        ours = await self.local.operate(verb, beside.wanted(wanted), now)
        lanes = tuple(sorted({*theirs.lanes, *ours.lanes}))
        return Changed(theirs.matched + ours.matched, theirs.changed + ours.changed, lanes)

    async def _or(self, ask: Callable[[], Awaitable[T]], nothing: T) -> T:
        """What the shared spool says; ``nothing`` while it is away, so that what waits here is shown all the same."""
        try:
            return await ask()
        except SpoolError as error:
            self.trouble = error
            return nothing

    def _why(self) -> str:
        away = self.trouble is not None
        return beside.AWAY if away else beside.SOON

    # upkeep

    async def _keep_tidy(self) -> None:
        """The local spool is this relay's own, whoever looks after the shared one."""
        while True:
            try:
                pause = await self.local.tend(self.local.now())
            except SpoolError as error:
                events.trouble(where="spool.local", what=str(error), remedy=error.remedy)
                pause = 30.0
            await asyncio.sleep(pause)

    async def tend(self, now: float) -> float:
        return _AWAY_PAUSE if self.trouble is not None else await self._through.tend(now)
