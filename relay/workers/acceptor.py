"""A helper process that accepts mail: the accept room's own code, with the daemon as owner of whatever is shared.

It accepts on the daemon's listening sockets, speaks SMTP, and hands each whole message over; 250 is said when the daemon
has it on disk. Asked of the daemon: passwords (and the count of wrong ones), and the spool's room when it is not ample.
Counted here while it is on duty: connections and messages by client, over what the daemon counted before; both are
handed back at the end of the duty.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import pickle
import socket
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from relay import events
from relay.accept.auth import Verdict
from relay.accept.intake import Intake
from relay.accept.limits import Gate
from relay.accept.listener import ListenerServer
from relay.background import Tasks
from relay.clock import SystemClock
from relay.errors import SpoolBusy, SpoolError, SpoolFull
from relay.rewrite.contract import Route
from relay.rewrite.route import Router
from relay.spool.intake import NewRow
from relay.spool.outpost import OutpostSpool, pack
from relay.workers.brief import Brief
from relay.workers.channel import Channel, Frame

REPORT = 0.5
"""Seconds between two reports of who is connected."""
MOST_WAITING = 8 * 1024 * 1024
"""Octets on their way to a daemon that does not keep up, beyond which events below a warning are counted alone."""
_FAULTS = {"full": SpoolFull, "busy": SpoolBusy}
_QUESTIONS = frozenset({"store", "room", "login"})


class FirstLane(Router):
    """The sender rules; whose turn it is in a pool is decided by the daemon, when it stores the message."""

    def choose(self, route: Route, source: str = "", *_: Any, **__: Any) -> str:
        """A member of the pool, for the moment."""
        return route.lanes[0]


class Owner:
    """The daemon, as the rooms of this process reach it."""

    def __init__(self, send: Callable[..., bool], room: Callable[[], Any]) -> None:
        self._send = send
        self._channel_room = room
        self._numbers = itertools.count()
        self._asked: dict[int, asyncio.Future[Any]] = {}

    def answer(self, number: int, value: Any, fault: tuple[str, str, str] | None = None) -> None:
        """The daemon's answer to a question."""
        future = self._asked.pop(number, None)
        if future is None or future.done():
            return
        if fault is None:
            future.set_result(value)
        else:
            kind, text, remedy = fault
            future.set_exception(_FAULTS.get(kind, SpoolError)(text, remedy=remedy))

    def unasked(self, frame: Frame) -> None:
        """A frame did not go out; where it was a question, whoever waits for the answer hears that there is none."""
        if frame[0] in _QUESTIONS:
            self.answer(frame[1], None, ("", "this could not be handed to the daemon", ""))

    def lost(self) -> None:
        """The daemon is gone: no question will be answered any more."""
        for number in tuple(self._asked):
            self.answer(number, None, ("", "the daemon has ended", ""))

    def _ask(self, word: str, *values: Any, octets: int = 0) -> asyncio.Future[Any]:
        number = next(self._numbers)
        future = self._asked[number] = asyncio.get_running_loop().create_future()
        if not self._send(word, number, *values, octets=octets):
            self.lost()
        return future

    def store(self, row: NewRow) -> asyncio.Future[None]:
        """See `relay.spool.outpost.Owner`."""
        return self._ask("store", pack(row), octets=len(row.message.header) + len(row.body or b""))

    async def has_room(self, size: int) -> bool:
        """See `relay.spool.outpost.Owner`."""
        await self._channel_room()
        return bool(await self._ask("room", size))

    def arriving(self, size: int) -> None:
        """See `relay.spool.outpost.Owner`."""
        self._send("arriving", size)

    async def judge(self, address: str, user: str, password: str, identity: str) -> Verdict:
        """See `relay.accept.auth.LoginJudge`: hashes are checked, and guesses counted, in one place."""
        return Verdict(*await self._ask("login", address, user, password, identity))


class Acceptor:
    """One helper's life: brief, ready, go, retire, ended."""

    def __init__(self) -> None:
        self._channel: Channel | None = None
        self._owner = Owner(self._send, self._room)
        self._servers: dict[str, ListenerServer] = {}
        self._spool: OutpostSpool | None = None
        self._told: dict[str, tuple[int, int]] = {}
        self._untold: Counter[str] = Counter()
        self._home = threading.get_ident()
        self._starting: asyncio.Task[None] | None = None
        self._tasks = Tasks()
        self._over = asyncio.Event()
        self._words: dict[str, Callable[..., object]] = {
            "brief": self._brief,
            "go": self._go,
            "answer": self._owner.answer,
            "room": self._has_room,
            "came": lambda bind, address: self._gate(bind).add({address: 1}),
            "free": lambda bind, address: self._gate(bind).leave(address),
            "message": self._message,
            "retire": lambda: self._tasks.spawn(self._retire()),
            "dismiss": lambda bind, seconds: self._tasks.spawn(self._servers[bind].drain(seconds)),
            "drain": lambda seconds: self._tasks.spawn(self._drain(seconds)),
        }

    async def run(self, end: socket.socket) -> None:
        """Until the daemon hangs up."""
        self._channel = Channel(self._take, self._lost, self._owner.unasked)
        events.plug(self._tell)
        events.meter(self._took)
        logging.getLogger().addHandler(_Library())
        asyncio.get_running_loop().set_exception_handler(_unexpected)
        await self._channel.open(end)
        await self._over.wait()

    def _take(self, frame: Frame) -> None:
        self._words[frame[0]](*frame[1:])

    def _lost(self) -> None:
        self._owner.lost()
        self._over.set()

    def _send(self, *frame: Any, octets: int = 0) -> bool:
        assert self._channel is not None
        return self._channel.send(*frame, octets=octets)

    async def _room(self) -> None:
        assert self._channel is not None
        await self._channel.room()

    # what the daemon says

    def _brief(self, packed: bytes) -> None:
        """Build the listeners, not listening yet."""
        try:
            self._prepare(pickle.loads(packed))  # noqa: S301 (from our own daemon)
        except Exception as error:
            self._unfit(error)
            return
        self._send("ready")

    def _prepare(self, brief: Brief) -> None:
        clock = SystemClock()
        self._spool = OutpostSpool(brief.bodies, self._owner, clock, node=brief.node, last=brief.last)
        intake = Intake(
            spool=self._spool,  # type: ignore[arg-type]
            router=FirstLane(brief.settings),
            settings=brief.settings,
            clock=clock,
            hostname=brief.hostname,
            logins=self._owner,
            announces=False,
        )
        for one in brief.settings.listeners:
            if one.bind in brief.sockets:
                sockets = [socket.socket(fileno=number) for number in brief.sockets[one.bind]]
                server = ListenerServer(one, intake, hostname=brief.hostname, sockets=sockets)
                server.prepare()
                self._servers[one.bind] = server

    def _unfit(self, error: Exception) -> None:
        """Serving is not possible: the daemon ends this process and accepts by itself."""
        self._send("unfit", str(error) or type(error).__name__)

    def _go(self, gates: Mapping[str, tuple[dict[str, int], dict[str, list[float]]]], room: int) -> None:
        """The duty begins: who is connected elsewhere, and how many messages each client sent lately."""
        try:
            self._has_room(room)
            for bind, (connections, stamps) in gates.items():
                gate = self._gate(bind)
                gate.add(connections)
                gate.recall(stamps)
                gate.on_message[self] = partial(self._send, "message", bind)
        except Exception as error:
            self._unfit(error)
            return
        self._starting = self._tasks.spawn(self._let_in(tuple(gates)))

    async def _let_in(self, binds: tuple[str, ...]) -> None:
        try:
            for bind in binds:
                await self._servers[bind].start()
        except Exception as error:
            self._unfit(error)
            return
        self._tasks.spawn(self._report_often())

    def _gate(self, bind: str) -> Gate:
        return self._servers[bind].roster.gate

    def _message(self, bind: str, address: str) -> None:
        """The daemon, or another helper, has let in a message of this client."""
        limits = self._servers[bind].listener.limits
        self._gate(bind).note(address, limits.messages_per_minute_per_client, time.monotonic(), self)

    def _has_room(self, octets: int) -> None:
        assert self._spool is not None
        self._spool.room(octets)

    async def _retire(self) -> None:
        """The duty ends: nobody new; those who are connected finish at their leisure. What they do is told as before."""
        if self._starting is not None:
            await self._starting
        await ListenerServer.pause_all(self._servers.values())
        mine: dict[str, dict[str, int]] = {}
        for bind, server in self._servers.items():
            gate = server.roster.gate
            # a balancer's connection that had not said yet whose it is comes now
            gate.on_enter = partial(self._send, "came", bind)
            gate.on_leave = partial(self._send, "left", bind)
            mine[bind] = server.roster.admitted()
        self._send("retired", mine)
        for server in self._servers.values():
            await server.roster.empty.wait()
        self._end()

    async def _drain(self, seconds: float) -> None:
        """Relay stops."""
        await asyncio.gather(*(one.drain(seconds) for one in self._servers.values()))
        self._end()

    def _end(self) -> None:
        self._report()
        self._send("ended")

    # what is told to the daemon

    def _tell(self, level: str, event: str, fields: Mapping[str, object]) -> None:
        if threading.get_ident() != self._home:  # a library's warning, from a thread of its own
            assert self._channel is not None
            self._channel.loop.call_soon_threadsafe(self._tell, level, event, dict(fields))
            return
        if level in ("debug", "info") and not self._keeps_up():
            self._untold[event] += 1
            return
        self._report()
        self._send("event", level, event, {key: _plain(value) for key, value in fields.items()})

    def _keeps_up(self) -> bool:
        """Whether the daemon takes what it is told."""
        assert self._channel is not None
        return self._channel.waiting <= MOST_WAITING

    def _took(self, what: str, seconds: float) -> None:
        self._send("took", what, seconds)

    def _report(self) -> None:
        """Who is connected, and how often somebody was refused; only what has changed."""
        for bind, server in self._servers.items():
            now = server.connections, server.rejected
            if self._told.get(bind) != now:
                self._told[bind] = now
                self._send("counts", bind, *now)

    async def _report_often(self) -> None:
        while True:
            self._report()
            if self._untold and self._keeps_up():
                untold, self._untold = self._untold, Counter()
                self._send("untold", dict(untold))
            self._send("busy", time.process_time())
            await asyncio.sleep(REPORT)


def _plain(value: object) -> object:
    """What `marshal` takes: it knows the types themselves, and none that is derived from them."""
    return value if value is None or type(value) in (str, int, float, bool) else str(value)


class _Library(logging.Handler):
    """Warnings of libraries go to the daemon's log."""

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        if record.levelno >= logging.WARNING:
            level = "error" if record.levelno >= logging.ERROR else "warning"
            events.repeat(level, "library", {"library": record.name, "what": record.getMessage()})


def _unexpected(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """An error that nobody awaited."""
    error = context.get("exception")
    trace = "".join(traceback.format_exception(error)) if isinstance(error, BaseException) else ""
    events.trouble(where="helper process", what=str(context.get("message", error)), trace=trace)
