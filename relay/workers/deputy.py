"""The daemon's end of one helper process: starts it, serves what it asks, keeps its share of the counts, sees it end."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import pickle
import socket
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import relay
from relay import events
from relay.accept.auth import LoginJudge
from relay.accept.intake import announce
from relay.accept.listener import ListenerServer
from relay.background import Tasks
from relay.errors import SpoolBusy, SpoolError, SpoolFull
from relay.spool import ids
from relay.spool.intake import NewRow
from relay.spool.outpost import unpack
from relay.workers.channel import Channel, Frame

RETIRE_TIME = 10.0
"""Seconds in which a helper must end its duty when it is told to; it takes a millisecond."""
ROOM_SAID = 0.25
"""Seconds between two words to a helper about the spool's room."""
_PASSED_ON = frozenset({"PATH", "LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR",
                        "OPENSSL_CONF", "LD_LIBRARY_PATH", "PYTHONUTF8"})  # fmt: skip
"""Variables a helper may see: secrets are often given in others."""


class Store(Protocol):
    """The spool, as helpers need it (`relay.spool.sqlite.SqliteSpool`)."""

    def take_in(self, row: NewRow) -> asyncio.Future[None]: ...
    async def has_room(self, size: int) -> bool: ...
    def room(self) -> int: ...
    def relieved(self, by_helper: bool) -> None: ...
    def outpost(self) -> tuple[Path, int]: ...
    def reserve(self, size: int) -> None: ...
    async def abandon(self, node: int) -> None: ...


@dataclasses.dataclass(frozen=True, slots=True)
class Desk:
    """What the daemon decides for its helpers."""

    spool: Store
    logins: Callable[[], LoginJudge]
    choose: Callable[[tuple[str, ...], str], str]
    """The lane of a pool (its lanes, the source) whose turn it is."""


class Deputy:
    """One helper that accepts mail. ``ended`` is set when its process is gone, whatever the reason."""

    def __init__(self, desk: Desk, servers: Mapping[str, ListenerServer], node: int) -> None:
        self._desk = desk
        self._servers = dict(servers)
        self.node = node
        self.on_duty = self.drained = False
        self.ready, self.retired, self.ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.gone = asyncio.Event()
        """It lets nobody in any more, and has nobody left: its end of the channel is closed."""
        self.fault = ""
        """Why it cannot serve, in words; empty while it can."""
        self.busy = 0.0
        """Seconds of processor time it has used."""
        self.accepted = 0
        self.began = 0.0
        """When its duty did; monotonic."""
        self.heard = 0
        """Frames it has sent."""
        self._numbers: dict[str, tuple[int, ...]] = {}
        """Descriptors of the listening sockets, as its process has them."""
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._left: dict[str, Counter[str]] = {}
        """Connections it still has after its duty, by listener and client: they are in the daemon's counts."""
        self._arriving = 0
        self._room_said = 0.0
        self._tasks = Tasks()
        self._words: dict[str, Callable[..., object]] = {
            "ready": self.ready.set,
            "unfit": self._unfit,
            "store": self._store,
            "room": lambda number, size: self._answer_later(number, self._has_room(size)),
            "login": lambda number, *login: self._answer_later(number, self._judge(*login)),
            "arriving": self._counts_arriving,
            "event": events.repeat,
            "untold": self._untold,
            "took": events.took,
            "counts": self._counts,
            "busy": self._is_busy,
            "message": self._message,
            "came": self._one_came,
            "left": self._one_left,
            "retired": self._retired,
            "ended": self._finish,
        }

    def __repr__(self) -> str:
        return f"<Deputy {self.node}, process {self._process.pid if self._process else None}, {self.accepted} accepted>"

    @property
    def pid(self) -> int:
        """Its process; 0 before there is one."""
        return self._process.pid if self._process else 0

    @property
    def closed(self) -> bool:
        """Whether nothing can be said to it: it has hung up, or was never there."""
        return self._channel is None or self._channel.closed

    # its life

    async def start(self, brief: Callable[[dict[str, tuple[int, ...]]], object]) -> None:
        """Start the process; it is not on duty yet. ``brief`` is given the descriptors of the listening sockets.

        Raises OSError, and what ``brief`` raises; then there is no process.
        """
        mine = self._run()
        try:
            self._channel = Channel(self._take, self._lost, self._unsent)
            await self._channel.open(mine)
            self._channel.send("brief", pickle.dumps(brief(self._numbers)))
        except BaseException:
            self.call_off()
            await asyncio.to_thread(self._reap)
            raise

    def _run(self) -> socket.socket:
        """The process; our end of the socket pair."""
        mine, its = socket.socketpair()
        sockets = {bind: server.copies() for bind, server in self._servers.items()}
        self._numbers = {bind: tuple(one.fileno() for one in some) for bind, some in sockets.items()}
        passed = [its.fileno(), *(one for some in self._numbers.values() for one in some)]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "relay.workers", str(its.fileno()), str(os.getpid())],
                pass_fds=passed, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=_environment(),
            )  # fmt: skip
        except OSError:
            mine.close()
            raise
        finally:
            for one in (its, *(one for some in sockets.values() for one in some)):
                one.close()
        return mine

    def go(self) -> None:
        """Its duty begins; the daemon has stopped accepting on these listeners."""
        gates = {}
        for bind, server in self._servers.items():
            gate = server.roster.gate
            gates[bind] = gate.connections(), gate.stamps(time.monotonic())
            gate.on_enter = partial(self._say, "came", bind)
            gate.on_leave = partial(self._say, "free", bind)
            gate.on_message[self] = partial(self._say, "message", bind)
        self.on_duty, self.began = True, time.monotonic()
        self._desk.spool.relieved(True)
        self._say("go", gates, self._desk.spool.room())

    async def retire(self) -> None:
        """Its duty ends: its clients finish there, nobody new is let in. Returns when the daemon may accept again."""
        self._say("retire")
        try:
            await asyncio.wait_for(self.retired.wait(), RETIRE_TIME)
        except TimeoutError:
            self.give_up()
            await self.retired.wait()

    def dismiss(self, bind: str, seconds: float) -> None:
        """A listener is no more: its clients finish within so many seconds."""
        if bind in self._servers:
            self._say("dismiss", bind, seconds)

    async def drain(self, seconds: float) -> None:
        """Relay stops: clients between messages are sent away, those in one have so many seconds."""
        if self.ended.is_set():
            return
        self.drained = True
        self._say("drain", seconds)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.ended.wait(), seconds + 2.0)
        self.kill()

    def give_up(self) -> None:
        """It is stuck: end it, so that the daemon accepts again."""
        self.fault = "it does not answer"
        self.kill()

    def call_off(self) -> None:
        """It is not needed after all: end it, which is no fault of its own, unless it has ended already."""
        self.drained = self.drained or not self.closed
        self.kill()

    def kill(self) -> None:
        """End the process at once."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()

    def _say(self, *frame: Any) -> None:
        if self._channel is not None:
            self._channel.send(*frame)

    def _take(self, frame: Frame) -> None:
        self.heard += 1
        self._words[frame[0]](*frame[1:])

    def _unsent(self, frame: Frame) -> None:
        """An answer that could not be packed: the question is answered all the same."""
        if frame[0] == "answer":
            self._say("answer", frame[1], None, ("", "the daemon's answer could not be handed over", ""))

    def _unfit(self, why: str) -> None:
        self.fault = why
        self._hang_up()
        self.kill()

    def _finish(self) -> None:
        """It has nobody left, and says so: it may go."""
        self.drained = True
        self._hang_up()

    def _hang_up(self) -> None:
        if self._channel is not None:
            self._channel.close()

    def _lost(self) -> None:
        self._tasks.spawn(self._bury())

    async def _bury(self) -> None:
        """Its clients are gone with it, and what they had not finished."""
        if not self.drained:
            self.kill()  # it may be stuck, and must not let in anybody beside the daemon
        try:
            self._settle_up()
        except Exception as error:
            self.fault = self.fault or f"its counts could not be settled ({type(error).__name__}: {error})"
        self.gone.set()
        self.retired.set()
        try:
            status = await asyncio.to_thread(self._reap)
            if not self.drained:
                self.fault = self.fault or f"it ended unexpectedly ({_in_words(status)})"
                with contextlib.suppress(SpoolError):
                    await self._desk.spool.abandon(self.node)
        finally:
            self.ended.set()

    def _settle_up(self) -> None:
        """Its share of the counts."""
        self._off_duty()
        self._desk.spool.reserve(-self._arriving)
        self._arriving = 0
        for server in self._servers.values():
            server.roster.gate.on_message.pop(self, None)
            _, rejected = server.elsewhere.pop(self, (0, 0))
            server.roster.rejected += rejected
        left, self._left = self._left, {}
        for bind, clients in left.items():
            for address in clients.elements():
                self._servers[bind].roster.gate.leave(address)

    def _reap(self) -> int:
        assert self._process is not None
        try:
            return self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _off_duty(self) -> None:
        if self.on_duty:
            self.on_duty = False
            self._desk.spool.relieved(False)
            for server in self._servers.values():
                server.roster.gate.on_enter = server.roster.gate.on_leave = None

    # what it says

    def _store(self, number: int, values: tuple[Any, ...]) -> None:
        try:
            row = unpack(values)
            message = row.message
            if message.pool:
                lane = self._desk.choose(message.pool, message.source)
                row.message = dataclasses.replace(message, lane=lane)
            future = self._desk.spool.take_in(row)
        except Exception as error:
            self._refuse(number, error)
            return
        future.add_done_callback(lambda done: self._stored(number, row, done))

    def _stored(self, number: int, row: NewRow, done: asyncio.Future[None]) -> None:
        error = SpoolError("not stored: broken off") if done.cancelled() else done.exception()
        if error is not None:
            self._refuse(number, error)
            return
        self._say("answer", number, None)
        self.accepted += 1
        server = self._servers.get(row.message.client.listener)
        if server is not None:
            server.roster.accepted += 1
        announce(ids.show(row.number), row.message)
        now = time.monotonic()
        if now - self._room_said > ROOM_SAID:
            self._room_said = now
            self._say("room", self._desk.spool.room())

    def _refuse(self, number: int, error: BaseException) -> None:
        """Answer that it cannot be done; why, in the log, where that was not foreseen."""
        if not isinstance(error, SpoolError):
            trace = "".join(traceback.format_exception(error))
            events.trouble(where="helper process", what=f"{type(error).__name__}: {error}", trace=trace)
            error = SpoolError(f"the daemon could not serve the helper process: {type(error).__name__}")
        kind = "full" if isinstance(error, SpoolFull) else "busy" if isinstance(error, SpoolBusy) else ""
        self._say("answer", number, None, (kind, str(error), error.remedy))

    def _answer_later(self, number: int, work: Coroutine[Any, Any, object]) -> None:
        self._tasks.spawn(self._answer(number, work))

    async def _answer(self, number: int, work: Coroutine[Any, Any, object]) -> None:
        """Every question has an answer, whatever becomes of it: a client waits for it."""
        try:
            self._say("answer", number, await work)
        except Exception as error:
            self._refuse(number, error)

    async def _has_room(self, size: int) -> bool:
        return await self._desk.spool.has_room(size)

    async def _judge(self, address: str, user: str, password: str, identity: str) -> tuple[bool, bool, float]:
        verdict = await self._desk.logins().judge(address, user, password, identity)
        return verdict.right, verdict.blocked, verdict.wait

    def _counts_arriving(self, size: int) -> None:
        self._arriving += size
        self._desk.spool.reserve(size)

    def _counts(self, bind: str, connections: int, rejected: int) -> None:
        self._servers[bind].elsewhere[self] = connections, rejected

    def _is_busy(self, seconds: float) -> None:
        self.busy = seconds

    def _message(self, bind: str, address: str) -> None:
        server = self._servers[bind]
        limits = server.listener.limits
        server.roster.gate.note(address, limits.messages_per_minute_per_client, time.monotonic(), self)

    def _untold(self, counts: Mapping[str, int]) -> None:
        """Events that it only counted, since this process did not keep up with their words."""
        events.counts.update(counts)
        words = ", ".join(f"{count} {event}" for event, count in sorted(counts.items()))
        events.trouble(
            where="helper process", what=f"log lines of the helper process were left out: {words}",
            remedy="The daemon was too busy, or stopped, to write them; look at the load.",
        )  # fmt: skip

    def _retired(self, clients: Mapping[str, Mapping[str, int]]) -> None:
        self._off_duty()
        for bind, counts in clients.items():
            self._left[bind] = Counter(counts)
            self._servers[bind].roster.gate.add(counts)
        self.retired.set()

    def _one_came(self, bind: str, address: str) -> None:
        """After its duty: somebody who was connected before, but behind a balancer that had not said who it is."""
        self._left.setdefault(bind, Counter())[address] += 1
        self._servers[bind].roster.gate.add({address: 1})

    def _one_left(self, bind: str, address: str) -> None:
        clients = self._left.get(bind)
        if clients is not None and clients[address] > 0:
            clients[address] -= 1
            self._servers[bind].roster.gate.leave(address)


def _environment() -> dict[str, str]:
    home = str(Path(relay.__file__).parent.parent)
    kept = {name: value for name, value in os.environ.items() if name in _PASSED_ON}
    return {**kept, "PYTHONPATH": home}


def _in_words(status: int) -> str:
    return f"killed by signal {-status}" if status < 0 else f"exit status {status}"
