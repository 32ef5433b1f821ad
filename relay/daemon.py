"""Builds the rooms, starts them, stops them: the one file that knows them all."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from relay import events, logs, supervisor
from relay.accept.auth import Authenticator, Guessing, Judge
from relay.accept.intake import Intake
from relay.accept.listener import ListenerServer
from relay.alarms import Alarms
from relay.answering import Answering
from relay.background import Tasks
from relay.control import ControlServer, control_path
from relay.deliver.choice import PREFIX
from relay.deliver.courier import RelayCourier
from relay.duties import Duties, say
from relay.errors import RelayError
from relay.hardening import harden
from relay.keeper import PAUSE as KEEPER_PAUSE
from relay.keeper import Keeper
from relay.likeness import digests
from relay.liverouter import LiveRouter
from relay.memory import Memory
from relay.ownmail import OwnMail, our_name
from relay.pages import Pages
from relay.reload import Load, Reload
from relay.schedule.loop import Scheduler
from relay.settings import Settings
from relay.spool.contract import News, Spool, lane_parts
from relay.spool.factory import build_spool as spool_for
from relay.spool.sqlite import SqliteSpool
from relay.tokens.entra import EntraTokens
from relay.workers.acceptance import Acceptance
from relay.workers.deputy import Desk

DRAIN = 25.0
"""Seconds that a stop leaves for what is in flight: of the 30 s in all (design section 4), 5 are for closing."""

LOOK_AT_CERTIFICATES = 30.0
"""Seconds between two looks at the files of TLS certificates."""


def build_spool(settings: Settings) -> Spool:
    """The spool of a configuration, not yet open: for the operator's commands."""
    return spool_for(settings.spool)


def serve(load: Load, take_stop: Callable[[Callable[[], None]], None] | None = None) -> int:
    """`relay run`: until SIGTERM or SIGINT. Exit status 0, or 1 when it could not start.

    ``take_stop`` is given a function that ends it, for any thread to call: a service of Windows gets no signals.
    """
    harden()
    settings = load()
    logs.configure(settings.log)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(_run(settings, load, take_stop))
    finally:
        logs.flush()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # Windows
        return None
    return uvloop.new_event_loop


async def _run(settings: Settings, load: Load, take_stop: Callable[[Callable[[], None]], None] | None) -> int:
    daemon = Daemon(settings, load, supervisor.inherited())
    stop = asyncio.Event()
    watched = asyncio.ensure_future(supervisor.keep_watched())
    if take_stop is None:
        _watch_signals(daemon, stop)
    else:
        loop = asyncio.get_running_loop()
        take_stop(lambda: _call(loop, stop))
    try:
        if not await _started(daemon, stop):
            return 0
    except (RelayError, OSError) as error:
        events.trouble(where="start", what=str(error), remedy=getattr(error, "remedy", ""))
        supervisor.notify(f"STATUS=could not start: {error}")
        watched.cancel()
        await daemon.stop(0.0)
        return 1
    _calm_collector()
    await stop.wait()
    supervisor.notify("STOPPING=1", "STATUS=finishing what is in flight")
    events.notice(what="stopping: no new connections, finishing what is in flight")
    await daemon.stop(DRAIN)
    watched.cancel()
    events.notice(what="stopped")
    return 0


async def _started(daemon: Daemon, stop: asyncio.Event) -> bool:
    """Start; False when it was told to stop while it stood by for a relay of an older release."""
    starting, stopping = asyncio.ensure_future(daemon.start()), asyncio.ensure_future(stop.wait())
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if daemon.spool.standing_by and not starting.done():
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        return False
    stopping.cancel()
    await starting
    return True


def _calm_collector() -> None:
    """Look for cycles of garbage less often, and never in what lives as long as the daemon.

    Messages make no cycles, reference counts free them; by default a tenth of the time under load went into looking
    for some. What libraries do make (a failed login's traceback) still goes, after 20,000 new objects or so.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def _watch_signals(daemon: Daemon, stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    try:
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        loop.add_signal_handler(signal.SIGINT, stop.set)
        loop.add_signal_handler(signal.SIGHUP, daemon.reload_soon)
    except (NotImplementedError, AttributeError):  # Windows: the console's Ctrl-C only
        signal.signal(signal.SIGINT, lambda *_: loop.call_soon_threadsafe(stop.set))


def _call(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    with contextlib.suppress(RuntimeError):  # over already
        loop.call_soon_threadsafe(stop.set)


class Daemon:
    """All rooms of one running relay."""

    def __init__(self, settings: Settings, load: Load, inherited: supervisor.Inherited | None = None) -> None:
        """``load`` reads the configuration again; ``inherited``: sockets that the service manager holds open."""
        self.settings = settings
        self._inherited = inherited or supervisor.Inherited()
        self._reload = Reload(self, load)
        self.hostname = our_name()
        self.own = OwnMail(settings, self.hostname)
        self.router = LiveRouter(settings, self.own)
        self.spool = build_spool(settings)
        self.spool.declare(digests(settings))
        self.clock = self.spool.clock
        self.tokens = {one.name: EntraTokens(one, clock=self.clock) for one in settings.upstreams}
        self.courier = RelayCourier(
            settings, self.tokens, self.router, hostname=self.hostname, clock=self.clock, memory=self.spool
        )
        self.scheduler = Scheduler(
            self.spool, self.courier, settings, self.clock, self.router.identity, self.own
        )
        self.own.lanes, self.own.upstreams = self.scheduler.lanes, self.scheduler.upstreams
        self.keeper = Keeper(self.spool, settings, self.tokens, self.clock)
        self.alarms = Alarms(self.spool, self.scheduler, self.own, self.keeper, self.clock)
        self.router.scheduler = self.scheduler
        self.listeners: dict[str, ListenerServer] = {}
        self._answering = Answering(self)
        self.control = ControlServer(control_path(settings), self.answer)
        self.started: float | None = None
        self.pages = Pages(self)
        self.memory = Memory()
        self._forget: Callable[[], None] = lambda: None
        self._guessing = Guessing()
        self._logins = Judge(Authenticator(()), self._guessing, self.clock)
        self.acceptance = self._acceptance()
        self._up = asyncio.Event()
        self._duties = Duties(self)
        self._tasks = Tasks()

    # life

    async def start(self) -> None:
        """Spool, listeners, control, lanes: in this order, so that clients are served before old mail is looked at."""
        self._forget = events.watch(self.memory)
        self.pages.watch()
        for warning in self.settings.warnings:
            events.advice(where="configuration", what=warning)
        await self.spool.open()
        away = not self.spool.reached
        if not away:
            await self._recover()
            await self.courier.recall()
        self.spool.listen(self._heard)
        await self.control.start()  # before any client: it changes the umask for a moment
        await self.listen(self.settings)
        if away:
            self._tasks.spawn(self._take_up_later())
        else:
            await self.sort_out()
            await self.scheduler.start()
            await self._drop_unused()
        self.started = self.clock.now()
        if self.acceptance is not None:
            self.acceptance.start()
        self._up.set()
        for work in self._duties.work():
            self._tasks.spawn(work)
        self._tasks.spawn(self._keep_credentials())
        self._tasks.spawn(self._watch_certificates())
        binds = ", ".join(f"{host}:{port}" for host, port in (one.address for one in self.listeners.values()))
        name = {"replica": self.spool.replica_name} if self.spool.shared else {}
        events.notice(what="started", listening=binds, configuration=self.settings.source, **name)
        await self.pages.start()
        supervisor.ready(f"listening on {binds}")

    async def _recover(self) -> None:
        """What a stopped or killed relay had under way."""
        recovered = await self.spool.recover()
        for message_id in recovered.uncertain:
            events.uncertain(id=message_id, lane="", why="relay stopped while it was being submitted")

    async def sort_out(self) -> None:
        """Waiting mail that today's rules want in other lanes goes there. Raises SpoolError."""
        await self._reroute(await self._stray())

    async def _drop_unused(self) -> None:
        await self.scheduler.drop_unused(self.router.uses)

    async def _take_up_later(self) -> None:
        """The rest of a start whose database was away: mail is accepted into the local spool until it is there.

        It may go away again: each step is tried until it is done, and done once.
        """
        steps: list[Callable[[], Awaitable[None]]] = [
            self.spool.reach, self._recover, self.courier.recall, self.sort_out, self.scheduler.start, self._drop_unused,
        ]  # fmt: skip
        while steps:
            try:
                await steps[0]()
                del steps[0]
            except Exception as error:
                say("start", error)
                await self.clock.sleep(2.0)

    def _heard(self, news: News) -> None:
        """Another replica has found the way by which an upstream takes mail."""
        if news.kind == "memory" and news.text.startswith(PREFIX):
            self._tasks.spawn(self._recall())

    async def _recall(self) -> None:
        with contextlib.suppress(RelayError):  # it would find the same way by itself
            await self.courier.recall()

    async def stop(self, seconds: float) -> None:
        """Refuse new work, finish what is in flight within ``seconds`` in all, close everything."""
        self._tasks.cancel()
        await asyncio.gather(
            self.pages.stop(),
            *(one.drain(seconds) for one in self.listeners.values()),
            self.scheduler.stop(seconds),
            *([self.acceptance.stop(seconds)] if self.acceptance is not None else []),
            self.alarms.stop(min(seconds, 5.0)),
        )
        await self.courier.close()
        for tokens in self.tokens.values():
            await tokens.close()
        await self.control.stop()
        await self.spool.close()
        self._inherited.close()
        self._forget()

    async def listen(self, settings: Settings) -> None:
        """Start what is new; then, nothing having failed, hand the settings to what already listens. Raises OSError."""
        intake = self._intake(settings)
        fresh: dict[str, ListenerServer] = {}
        try:
            for one in settings.listeners:
                if one.bind not in self.listeners:
                    sock = self._inherited.take(one.host, one.port)
                    fresh[one.bind] = ListenerServer(one, intake, hostname=self.hostname, sock=sock)
                    await fresh[one.bind].start()
        except OSError:
            for server in fresh.values():
                await server.drain(0.0)
            raise
        for one in settings.listeners:
            if one.bind in self.listeners:
                self.listeners[one.bind].update(one, intake)
        self.listeners.update(fresh)
        for address in self._inherited.idle():
            events.trouble(
                where="start", what=f"systemd listens on {address} for relay, and no listener has that address",
                remedy=f"Add `- bind: {address}` to listeners, or take it out of relay.socket: clients wait there in vain.",
            )  # fmt: skip

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Have something done beside all else, until the stop."""
        self._tasks.spawn(work)

    def dismiss(self, bind: str) -> None:
        """A listener that the configuration names no more ends; its connections have `DRAIN` to finish."""
        self._tasks.spawn(self.listeners.pop(bind).drain(DRAIN))
        if self.acceptance is not None:
            self.acceptance.dismiss(bind, DRAIN)

    def _intake(self, settings: Settings) -> Intake:
        authenticator = Authenticator(settings.clients)
        self._logins = Judge(authenticator, self._guessing, self.clock)
        return Intake(
            spool=self.spool,
            router=self.router,
            settings=settings,
            clock=self.clock,
            hostname=self.hostname,
            authenticator=authenticator,
            logins=self._logins,
            answers=self.scheduler.answers,
        )

    def _acceptance(self) -> Acceptance | None:
        """Helper processes that accept mail; None where the spool takes mail from this process alone.

        On a database server another replica is the way to more.
        """
        if not isinstance(self.spool, SqliteSpool) or not hasattr(os, "sched_getaffinity"):
            return None
        desk = Desk(self.spool, lambda: self._logins, self.router.member)
        return Acceptance(desk, self.listeners, self.hostname, self.settings)

    async def _watch_certificates(self) -> None:
        """Certificates that were renewed on disk (certbot, cert-manager) are used without a reload."""
        while True:
            await self.clock.sleep(LOOK_AT_CERTIFICATES)
            try:
                renewed = [one.renew() for one in tuple(self.listeners.values())]
                if self.acceptance is not None and any(renewed):
                    await self.acceptance.renew()
                self.pages.renew()
            except Exception as error:
                say("certificates", error)

    async def _keep_credentials(self) -> None:
        while True:
            try:
                pause = await self.keeper.tend()
            except Exception as error:
                say("credentials", error)
                pause = KEEPER_PAUSE
            await self.keeper.rest(pause)

    async def _stray(self) -> list[str]:
        """Lanes whose mail today's rules may want elsewhere: held ones, and those that no rule uses any more."""
        held = {hold.key.split("|")[0] for hold in await self.spool.holds()}
        names = [summary.lane for summary in await self.spool.lanes()]
        return [one for one in names if not self.router.uses(one) or {one, lane_parts(one)[0]} & held]

    async def _reroute(self, lanes: list[str]) -> None:
        moved = await self.spool.reroute(self.router.lane_for, self.clock.now(), lanes=lanes)
        if moved:
            events.notice(what=f"{moved} waiting messages moved to other lanes by today's sender rules")

    # reload

    def reload_soon(self) -> None:
        """SIGHUP."""
        if self._reload.asked():
            self._tasks.spawn(self._reload_when_up())

    async def _reload_when_up(self) -> None:
        await self._up.wait()
        await self._reload.reload_and_tell()

    async def reload(self) -> None:
        """Read the configuration again; one that is faulty or cannot be listened with changes nothing.

        Raises ConfigError, OSError (a listener), or SpoolError (then it is in force, but not all waiting mail was told).
        """
        await self._reload.reload()

    # what is asked of it

    async def answer(self, do: str, payload: dict[str, Any]) -> dict[str, Any]:
        """What `relay.control.ask` asks. Raises RelayError."""
        return await self._answering.answer(do, payload)

    async def health(self) -> dict[str, Any]:
        """Live and ready, with the reasons why not."""
        return await self._answering.health()

    async def status(self) -> dict[str, Any]:
        """The report of `relay status`."""
        return await self._answering.status()
