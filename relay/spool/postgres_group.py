"""The group's side of a PostgreSQL spool: taking part, hearing the others, telling them, giving up those that are lost.

What is told to others (NOTIFY) goes out right after the commit and over another connection, not inside it: PostgreSQL
lets transactions that notify commit one at a time, and the disk would be waited for one replica after the other. What is
not told because a process ends between the two is found by the others' slow look (`relay.schedule.sharing`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar, cast

from relay import events
from relay.background import Tasks
from relay.clock import Clock, ClockOver, SystemClock
from relay.errors import SpoolError, SpoolLost
from relay.settings import SpoolSettings
from relay.spool import holding, ids, postgres_member
from relay.spool.contract import Hold, Recovered
from relay.spool.group import Hear, News, Replica, Taken, Worker
from relay.spool.postgres_link import Statements
from relay.spool.postgres_member import Member, lost, replica_name
from relay.spool.postgres_watch import CHANNEL, Missing, Watch
from relay.spool.records import as_json, event_times, ms
from relay.spool.relational import RelationalSpool
from relay.spool.writer import Kind

T = TypeVar("T")
P = TypeVar("P")

_SHARED_TEXTS = ("transport:", "throttle:")
"""Beginnings of keys whose texts the others take up at once when they are remembered."""
_UP = 10.0
"""Seconds that a start waits for its watch to stand."""
_ENDING = 1.0
"""Seconds that the server may take to see that a process of this host, which is no more, has ended."""
_NOTIFY = (
    "SELECT set_config('synchronous_commit', 'off', true),"
    f" pg_notify('{CHANNEL}', value) FROM json_array_elements_text(?::json) AS said(value)"
)


class GroupClock(ClockOver):
    """The server's clock, by this host's and the difference that the watch has measured."""

    offset = 0.0

    def now(self) -> float:
        return super().now() + self.offset


class GroupSpool(RelationalSpool):
    """`relay.spool.group.Group` for a spool on PostgreSQL."""

    shared = True

    def __init__(self, settings: SpoolSettings, clock: Clock | None = None) -> None:
        self._steered = GroupClock(SystemClock()) if clock is None else None
        super().__init__(settings, clock or self._steered)
        self._member = Member(replica_name())
        self._watch = Watch(settings.url, self._member, self._heard, self._missed)
        self._hearers: list[Hear] = []
        self._mine: set[str] = set()
        """Lanes that this replica works. None is lost without the membership, which each transaction makes sure of."""
        self._unsaid: dict[str, None] = {}
        self._saying: asyncio.Task[None] | None = None
        self._work = Tasks()
        self._giving_up: set[int] = set()
        self._up = asyncio.Event()
        self._told_off = False

    @abstractmethod
    async def recover(self) -> Recovered: ...

    # taking part

    @property
    def replica_name(self) -> str:  # type: ignore[override]
        return self._member.name

    def declare(self, config: Mapping[str, str]) -> None:
        self._member.config = as_json(dict(config))
        if self._member.fence and not self._member.given_up:
            self._work.spawn(self._tell_config())

    async def _tell_config(self) -> None:
        with contextlib.suppress(SpoolError):  # with the next connection then, see `_greet`
            await self._as_member(self._member.tell_config)

    async def _take_part(self) -> None:
        """Stand in the group: to be seen, to hear, and not to leave what an earlier process of this host had."""
        self._watch.start()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._up.wait(), _UP)
        self._keep_time()  # before anything is compared with what other hosts have written down
        self._ids = self._new_ids(self._ids.last)
        await self._bury_predecessors()
        self._tell("replicas")

    def _new_ids(self, last: int) -> ids.Ids:
        """Numbers after ``last`` that no other member gives out."""
        node = self._member.fence % 1023 + 1 if self._member.fence else 0
        return ids.Ids((last >> 22 << 22) | (node << 12) | 0xFFF if last else 0, node)

    async def _bury_predecessors(self) -> None:
        """Processes of this host that were killed: nobody need wait to see whether they come back."""
        fence, deadline = self._member.fence, time.monotonic() + _ENDING
        while dead := [
            one for one in await self._read(lambda c: postgres_member.of_this_host(c, fence)) if _ended(*one)
        ]:
            for other, seen, pid, present in dead:
                if not present:
                    why = Missing(other, f"process {pid} of this host", seen, "it was ended", silent=False)
                    await self._give_up(why)
            if time.monotonic() >= deadline:
                break
            await asyncio.sleep(0.05)
        lost_before = await self._read(postgres_member.indebted_of_this_host)
        await self._disconnected([other for other, pid in lost_before if _ended(other, 0.0, pid, False)])

    async def _disconnected(self, fences: list[int]) -> None:
        """Members that were given up, whose connections have ended for certain: nobody need wait for them any longer."""
        if fences:
            await self._writer.run(lambda c: postgres_member.disconnected(c, fences))
            self._tell("debts")

    async def _take_leave(self) -> None:
        """This replica ends; what it had is told to be free."""
        fence = self._member.fence
        if fence and not self._member.given_up:
            with contextlib.suppress(SpoolError):
                await self._writer.run(lambda c: postgres_member.leave(c, fence))
                self._tell("replicas")
        self._member.fence = 0  # that its row is gone is no news to it
        self._mine.clear()
        await self._work.ended()
        await self._watch.stop()

    async def _as_member(self, change: Callable[[sqlite3.Connection], T]) -> T:
        """A change that only a member may make: raises SpoolLost when this replica was given up. Operators may, too."""
        return await self._unless_lost(lambda: self._writer.run(self._guarded(change)))

    async def _as_members(self, kind: Kind[P, T], value: P) -> T:
        """The same for one that is made together with others of its kind (of `_for_members`)."""
        return await self._unless_lost(lambda: self._writer.run_one_of(kind, value))

    async def _unless_lost(self, ask: Callable[[], Awaitable[T]]) -> T:
        if self._member.given_up:
            raise lost(self._member.name)
        try:
            return await ask()
        except SpoolLost:
            self._watch.nudge()
            raise

    def _for_members(self, kind: Kind[P, T]) -> Kind[P, T]:
        def guarded(connection: sqlite3.Connection, values: list[P]) -> list[T]:
            return self._guarded(lambda c: kind(c, values))(connection)

        return guarded

    def _guarded(self, change: Callable[[sqlite3.Connection], T]) -> Callable[[sqlite3.Connection], T]:
        fence = self._member.fence
        if not fence:
            return change

        def guarded(connection: sqlite3.Connection) -> T:
            cast("Statements", connection).as_member(fence)
            return change(connection)

        return guarded

    async def rejoin(self) -> None:
        member, before = self._member, self._member.fence

        def join(connection: sqlite3.Connection) -> None:
            plain = cast("Statements", connection).connection
            member.join(plain)
            member.introduce(plain)

        if member.given_up:
            await self._writer.run(join)
            self._ids = self._new_ids(self._ids.last)
            self._watch.nudge()
            self._tell("replicas")
            if self._watch.stood_still == before:  # else the network may have lost the end of its connections
                await self._disconnected([before])
            events.notice(what=f"taking part again, as a new member of the group ({member.name})")

    @property
    def sure(self) -> bool:  # type: ignore[override]
        return not self._member.given_up and self._watch.sure(self._member.fence)

    async def assure(self) -> None:
        if self.sure:
            return
        fence, steady, wall = self._member.fence, time.monotonic(), time.time()
        await self._as_member(lambda c: postgres_member.beat(c, fence))
        self._watch.confirm(fence, steady, wall)

    async def leaving(self) -> None:
        fence = self._member.fence
        with contextlib.suppress(SpoolError):
            await self._as_member(
                lambda c: c.execute("UPDATE replica SET leaving = 1 WHERE fence = ?", (fence,)).close()
            )
            self._tell("replicas")

    # hearing and telling

    def listen(self, hear: Hear) -> None:
        self._hearers.append(hear)

    def _heard(self, news: News) -> None:
        if news.kind == "again":
            self._up.set()
        if news.kind == "replicas":
            self._watch.nudge()
        if news.kind == "lost":
            if news.text != str(self._member.fence) or self._member.given_up:
                return
            self._member.given_up = True
            self._mine.clear()
            self._prefetched.clear()
            error = lost(self._member.name)
            events.trouble(where="group", what=str(error), remedy=error.remedy)
        for hear in self._hearers:
            hear(news)

    def _tell(self, kind: str, text: str = "") -> None:
        """To all other replicas, soon."""
        if self._member.fence and not self._watch.company:
            return
        self._unsaid[f"{self._member.fence} {kind} {text}".rstrip()] = None
        if self._saying is None or self._saying.done():
            self._saying = self._work.spawn(self._say())

    async def _say(self) -> None:
        """One notification after the other; what gathers meanwhile goes with the next."""
        while self._unsaid:
            said, self._unsaid = as_json(list(self._unsaid)), {}
            with contextlib.suppress(SpoolError):  # the others look by themselves from time to time
                await self._read(lambda c, said=said: c.execute(_NOTIFY, (said,)).close())  # type: ignore[misc]

    def _wake(self, *lanes: str) -> None:
        super()._wake(*lanes)
        for lane in lanes:
            if lane not in self._mine:
                self._tell("mail", lane)

    def _keep_time(self) -> None:
        """Follow the server's clock, and say once when this host's is wrong."""
        if self._steered is None:
            return
        self._steered.offset = event_times.offset = self._watch.offset
        if self._watch.off and not self._told_off:
            events.advice(
                where="group",
                what=f"the clock of this host is {abs(self._watch.offset):.1f} s "
                f"{'behind' if self._watch.offset > 0 else 'ahead of'} the database server's; relay goes by the server's",
                remedy="Let both follow the same time (NTP: chrony or systemd-timesyncd).",
            )
        self._told_off = self._watch.off

    # the lost

    def _missed(self, missing: Missing) -> None:
        if missing.fence not in self._giving_up:
            self._work.spawn(self._give_up_quietly(missing))

    async def _give_up_quietly(self, missing: Missing) -> None:
        self._giving_up.add(missing.fence)
        try:
            await self._give_up(missing)
        except SpoolError:  # the next look sees it again
            return
        finally:
            self._giving_up.discard(missing.fence)

    async def _give_up(self, missing: Missing) -> None:
        now, hold = ms(self.now()), self._settings.on_uncertain == "hold"
        found = await self._as_member(
            lambda c: postgres_member.give_up(
                c, missing.fence, missing.seen, now, hold_uncertain=hold, silent=missing.silent
            )
        )
        if found is None:
            return
        events.advice(
            where="group",
            what=f"the replica {missing.name} is lost: {missing.why}. Its lanes are free; {found.requeued} of its "
            f"messages wait again, {len(found.uncertain)} may have been delivered",
        )
        for message_id in found.uncertain:
            events.uncertain(
                id=message_id, lane="", why=f"the replica {missing.name} was lost while submitting it"
            )
        self._tell("replicas")
        self._heard(News("replicas"))

    # lanes and tasks

    async def take(self, lane: str, *, anyway: bool = False) -> Taken:
        if lane in self._mine:
            return Taken.MINE
        fence = self._member.fence
        taken = await self._as_member(lambda c: postgres_member.take(c, lane, fence, anyway=anyway))
        if taken is Taken.MINE and fence == self._member.fence and not self._member.given_up:
            self._mine.add(lane)
        return taken

    async def note_connections(self, lane: str, connections: int) -> None:
        fence = self._member.fence
        await self._as_member(lambda c: postgres_member.note_connections(c, lane, fence, connections))

    async def let_go(self, lane: str, *, idle: bool = False) -> None:
        fence = self._member.fence
        if lane in self._mine:
            await self._as_member(lambda c: postgres_member.let_go(c, lane, fence, idle=idle))
            self._mine.discard(lane)
            if not idle:
                self._tell("free", lane)

    async def surplus(self) -> int:
        fence = self._member.fence
        return await self._read(lambda c: postgres_member.surplus(c, fence))

    async def on_duty(self, task: str) -> bool:
        fence = self._member.fence
        return await self._as_member(lambda c: postgres_member.on_duty(c, task, fence))

    async def replicas(self) -> list[Replica]:
        fence = self._member.fence
        return await self._read(lambda c: postgres_member.replicas(c, fence))

    async def workers(self) -> dict[str, Worker]:
        fence = self._member.fence
        return await self._read(lambda c: postgres_member.workers(c, fence))

    # what is shared besides

    async def claim_probe(self, scope: str, key: str, now: float, later: float) -> bool:
        return await self._as_member(lambda c: holding.claim_probe(c, scope, key, ms(now), ms(later)))

    async def answer(self, message_id: str, reply: str) -> None:
        self._tell("answer", f"{message_id} {reply}"[:4000])

    async def hold(self, hold: Hold) -> None:
        await self._as_member(lambda c: holding.set_hold(c, hold))
        self._tell("hold")

    async def unhold(self, scope: str, key: str, now: float) -> bool:
        ended = await self._as_member(lambda c: holding.end_hold(c, scope, key, ms(now)))
        self._tell("hold")
        return ended

    async def remember(self, key: str, value: str | None) -> None:
        await super().remember(key, value)
        if key.startswith(_SHARED_TEXTS):
            self._tell("memory", key)


def _ended(_fence: int, _seen: float, pid: int, present: bool) -> bool:
    """Whether a member of this host is a process that is no more (in a container the next one has the same number)."""
    if pid == os.getpid():
        return not present
    if os.name == "nt":  # where asking would be killing
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # not ours to ask, so it is there
        return False
    return False
