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
from collections import Counter
from collections.abc import Callable, Mapping
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
        self.fault = ""
        """Why it cannot serve, in words; empty while it can."""
        self.busy = 0.0
        """Seconds of processor time it has used."""
        self.accepted = 0
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
            "room": lambda number, size: self._tasks.spawn(self._has_room(number, size)),
            "login": lambda number, *login: self._tasks.spawn(self._judge(number, *login)),
            "arriving": self._counts_arriving,
            "event": events.repeat,
            "took": events.took,
            "counts": self._counts,
            "busy": self._is_busy,
            "message": self._message,
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

    # its life

    async def start(self, brief: Callable[[dict[str, tuple[int, ...]]], object]) -> None:
        """Start the process; it is not on duty yet. ``brief`` is given the descriptors of the listening sockets.

        Raises OSError.
        """
        mine = self._run()
        self._channel = Channel(self._take, self._lost)
        await self._channel.open(mine)
        self._channel.send("brief", pickle.dumps(brief(self._numbers)))

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
            gates[bind] = gate.connections(), gate.stamps()
            gate.on_leave = lambda address, bind=bind: self._say("free", bind, address)
        self.on_duty = True
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

    def _unfit(self, why: str) -> None:
        self.fault = why
        self._finish()

    def _finish(self) -> None:
        """It has nobody left, and says so: it may go."""
        self.drained = True
        if self._channel is not None:
            self._channel.close()

    def _lost(self) -> None:
        self._tasks.spawn(self._bury())

    async def _bury(self) -> None:
        """Its clients are gone with it, and what they had not finished."""
        self._off_duty()
        self.retired.set()
        for bind, clients in self._left.items():
            gate = self._servers[bind].roster.gate
            for address, count in clients.items():
                for _ in range(count):
                    gate.leave(address)
        self._left = {}
        for server in self._servers.values():
            _, rejected = server.elsewhere.pop(self, (0, 0))
            server.roster.rejected += rejected
        self._desk.spool.reserve(-self._arriving)
        self._arriving = 0
        status = await asyncio.to_thread(self._reap)
        if not self.drained:
            self.fault = self.fault or f"it ended unexpectedly ({_in_words(status)})"
            with contextlib.suppress(SpoolError):
                await self._desk.spool.abandon(self.node)
        self.ended.set()

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
                server.roster.gate.on_leave = None

    # what it says

    def _store(self, number: int, values: tuple[Any, ...]) -> None:
        row = unpack(values)
        message = row.message
        if message.pool:
            row.message = message = dataclasses.replace(
                message, lane=self._desk.choose(message.pool, message.source)
            )
        try:
            future = self._desk.spool.take_in(row)
        except SpoolError as error:
            self._refuse(number, error)
            return
        future.add_done_callback(lambda done: self._stored(number, row, done))

    def _stored(self, number: int, row: NewRow, done: asyncio.Future[None]) -> None:
        error = None if done.cancelled() else done.exception()
        if done.cancelled() or error is not None:
            self._refuse(
                number, error if isinstance(error, SpoolError) else SpoolError(f"not stored: {error!r}")
            )
            return
        self.accepted += 1
        server = self._servers.get(row.message.client.listener)
        if server is not None:
            server.roster.accepted += 1
        announce(ids.show(row.number), row.message)
        self._say("answer", number, None)
        now = time.monotonic()
        if now - self._room_said > ROOM_SAID:
            self._room_said = now
            self._say("room", self._desk.spool.room())

    def _refuse(self, number: int, error: SpoolError) -> None:
        kind = "full" if isinstance(error, SpoolFull) else "busy" if isinstance(error, SpoolBusy) else ""
        self._say("answer", number, None, (kind, str(error), error.remedy))

    async def _has_room(self, number: int, size: int) -> None:
        try:
            self._say("answer", number, await self._desk.spool.has_room(size))
        except SpoolError as error:
            self._refuse(number, error)

    async def _judge(self, number: int, address: str, user: str, password: str, identity: str) -> None:
        verdict = await self._desk.logins().judge(address, user, password, identity)
        self._say("answer", number, (verdict.right, verdict.blocked, verdict.wait))

    def _counts_arriving(self, size: int) -> None:
        self._arriving += size
        self._desk.spool.reserve(size)

    def _counts(self, bind: str, connections: int, rejected: int) -> None:
        self._servers[bind].elsewhere[self] = connections, rejected

    def _is_busy(self, seconds: float) -> None:
        self.busy = seconds

    def _message(self, bind: str, address: str) -> None:
        server = self._servers[bind]
        server.roster.gate.message(
            address, server.listener.limits.messages_per_minute_per_client, time.monotonic()
        )

    def _retired(self, clients: Mapping[str, Mapping[str, int]]) -> None:
        self._off_duty()
        for bind, counts in clients.items():
            self._left[bind] = Counter(counts)
            self._servers[bind].roster.gate.add(counts)
        self.retired.set()

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
