"""A replica's eye on its group: a connection of its own that says "I am here" and hears what the others say.

Every second it writes the time into its row and looks at the others' rows. Which of them is lost it judges by its own
steady clock, over rows that it has watched without a break, so that neither clocks that differ nor an outage of the
database make anybody look lost. New mail and the like arrive by LISTEN/NOTIFY: nobody polls the queue.
"""

from __future__ import annotations

import asyncio
import selectors
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import psycopg

from relay.spool.group import News
from relay.spool.postgres_link import Row, connect
from relay.spool.postgres_member import IS_PRESENT, PRESENT, Member

CHANNEL = "relay"
GONE = 5.0
"""Seconds after which a member whose session has ended is lost: longer than a new connection takes."""
SILENT = 15.0
"""Seconds after which a member that has a session and says nothing is lost: it stands still, or is cut off."""
_LOOK = 1.0
"""Seconds between signs of life."""
_STUCK = 10.0
"""Seconds after which a process whose event loop does not answer gives no more signs of life."""
SURE = 4.0
"""Seconds after a sign of life during which nobody gives its member up: less than `GONE`."""
_LAST_WORDS = 3.0
"""Seconds between the last sign of life and the end of its session of a process that ended, and did not stand still before."""
_STOOD_STILL = 5.0
"""Seconds that a wait of one second may take until this process must have stood still."""
_OFF = 1.0
"""Seconds by which this host's clock may differ from the server's before it is worth a word."""
_BEAT = "UPDATE replica SET seen = extract(epoch FROM clock_timestamp()) WHERE fence = %s RETURNING seen::double precision"
_OTHERS = f"SELECT r.fence, r.name, r.seen, {IS_PRESENT} FROM replica r WHERE r.fence <> %s"

_END_UNFINISHED = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND usename = current_user"
    " AND application_name LIKE 'relay %' AND xact_start IS NOT NULL AND wait_event = 'ClientRead'"
    " AND query_start < clock_timestamp() - interval '5 s'"
)
"""A relay that stands still between two statements of a change keeps what it has locked. The server ends such a session
by itself (idle_in_transaction_session_timeout), but not in a pipeline: it counts from the end of one."""


@dataclass(frozen=True, slots=True)
class Missing:
    """A member that is lost, as far as this one can see."""

    fence: int
    name: str
    seen: float
    """Its last sign of life: should there be one since, it is not lost."""
    why: str
    silent: bool = True
    """It may stand still, with its connections open; else its process has ended, or is cut off from the database."""


@dataclass(slots=True)
class _Peer:
    seen: float
    since: float
    """When this sign of life was first seen; our steady clock."""
    gone: float | None = None
    """Since when its session is gone; our steady clock."""
    new: bool = False
    """The sign was made when it was seen, and not some time before."""

    @property
    def died(self) -> bool:
        """Whether its session ended while it gave signs of life."""
        return self.new and self.gone is not None and self.gone - self.since <= _LAST_WORDS


class Peers:
    """What was seen of the other members, without a break."""

    def __init__(self) -> None:
        self._known: dict[int, _Peer] = {}

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._known)

    def look(self, rows: list[tuple[int, str, float, bool]], now: float) -> tuple[list[Missing], bool]:
        """Those that are lost, and whether members came or went. ``rows``: fence, name, last sign, session is there."""
        before, missing = set(self._known), []
        self._known = {fence: self._known.get(fence) or _Peer(seen, now) for fence, _, seen, _ in rows}
        for fence, name, seen, present in rows:
            peer = self._known[fence]
            if seen != peer.seen:
                peer.seen, peer.since, peer.new = seen, now, True
            peer.gone = None if present else peer.gone if peer.gone is not None else now
            if peer.gone is not None and now - max(peer.gone, peer.since) >= GONE:
                missing.append(
                    Missing(fence, name, seen, "its session with the database has ended", not peer.died)
                )
            elif now - peer.since >= SILENT:
                missing.append(Missing(fence, name, seen, f"it has said nothing for {SILENT:.0f} s"))
        return missing, set(self._known) != before

    def forget(self) -> None:
        """There was a break: begin anew."""
        self._known.clear()


class Watch:
    """Runs in a thread of its own; tells what it hears in the event loop."""

    def __init__(
        self, url: str, member: Member, hear: Callable[[News], None], miss: Callable[[Missing], None]
    ) -> None:
        self._url = url
        self._member = member
        self._hear = hear
        self._miss = miss
        self._peers = Peers()
        self._present_as = 0
        self._answered = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._inside, self._outside = socket.socketpair()
        self._stopping = False
        self._confirmed = (0, 0.0, 0.0)
        """The last member that a sign of life was written down of; and when that was sent: steady and wall seconds."""
        self.stood_still = 0
        """The member as which this process stood still for long; its connections are as they were."""
        self.company = False
        """Whether there are other members: seen, or heard."""
        self.offset = 0.0
        """Seconds to add to this host's clock to have the server's."""
        self.off = False
        """Whether that is more than it should be."""

    def start(self) -> None:
        """Begin to watch."""
        self._loop = asyncio.get_running_loop()
        self._answered = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="spool-watch", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """Watch no more. Harmless when repeated."""
        if self._outside.fileno() < 0:
            return
        self._stopping = True
        self._outside.send(b".")
        if self._thread is not None:
            thread, self._thread = self._thread, None
            await asyncio.to_thread(thread.join)
        self._inside.close()
        self._outside.close()

    def nudge(self) -> None:
        """Look at once, not with the next second."""
        if not self._stopping:
            self._outside.send(b".")

    def sure(self, fence: int) -> bool:
        """Whether that member has just given a sign of life; also the wall clock is asked: a machine may have slept."""
        whose, steady, wall = self._confirmed
        return whose == fence and time.monotonic() - steady < SURE and time.time() - wall < SURE

    def confirm(self, fence: int, steady: float, wall: float) -> None:
        """A sign of life was written down that was sent at that time."""
        self._confirmed = (fence, steady, wall)

    # in the thread

    def _run(self) -> None:
        while not self._stopping:
            try:
                with connect(self._url, f"relay {self._member.name} watching") as connection:
                    connection.execute("SET synchronous_commit = off")
                    self._watch(connection)
            except (psycopg.Error, OSError):
                self._wait([], _LOOK)  # the writer says what is wrong

    def _watch(self, connection: psycopg.Connection[Row]) -> None:
        connection.add_notify_handler(self._notified)
        connection.execute(f"LISTEN {CHANNEL}")
        self._peers.forget()
        self._present_as = 0
        self._look(connection)
        self._say(News("again"))
        due = time.monotonic() + _LOOK
        while not self._stopping:
            nudged = self._wait([connection.fileno()], max(0.0, due - time.monotonic()))
            connection.pgconn.consume_input()
            while note := connection.pgconn.notifies():
                self._heard(note.extra.decode("utf-8", "replace"))
            if nudged or time.monotonic() >= due:
                self._look(connection)
                due = time.monotonic() + _LOOK

    def _wait(self, files: list[int], seconds: float) -> bool:
        """Until one of these can be read, for so long at most; whether somebody wants it to look at once."""
        began = time.monotonic()
        with selectors.DefaultSelector() as selector:
            for file in (*files, self._inside.fileno()):
                selector.register(file, selectors.EVENT_READ)
            ready = {key.fd for key, _ in selector.select(seconds)}
        if time.monotonic() - began > _STOOD_STILL:
            self.stood_still = self._member.fence
        if self._inside.fileno() not in ready:
            return False
        self._inside.recv(4096)
        return True

    def _notified(self, note: psycopg.Notify) -> None:
        self._heard(note.payload)

    def _heard(self, payload: str) -> None:
        """``fence kind text``; what we said ourselves is no news."""
        fence, _, rest = payload.partition(" ")
        kind, _, text = rest.partition(" ")
        if fence != str(self._member.fence):
            self.company = True
            self._say(News(kind, text))

    def _say(self, news: News) -> None:
        self._in_loop(lambda: self._hear(news))

    def _in_loop(self, call: Callable[[], None]) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(call)
        except RuntimeError:  # the loop is gone, and its callers with it
            self._stopping = True

    def _look(self, connection: psycopg.Connection[Row]) -> None:
        member, fence = self._member, self._member.fence
        self._in_loop(self._answer)
        if not fence or member.given_up or time.monotonic() - self._answered > _STUCK:
            return
        if self._present_as != fence:
            connection.execute("SELECT pg_advisory_lock_shared(%s, %s)", (PRESENT, fence))
            self._present_as = fence
        steady, before = time.monotonic(), time.time()
        row = connection.execute(_BEAT, (fence,)).fetchone()
        after = time.time()
        if row is None:
            self._say(News("lost", str(fence)))
            return
        self.confirm(fence, steady, before)
        self._compare(float(row[0]), before, after)
        missing, changed = self._peers.look(
            connection.execute(_OTHERS, (fence,)).fetchall(), time.monotonic()
        )
        self.company = self._peers.count > 0
        connection.execute(_END_UNFINISHED)
        if changed:
            self._say(News("replicas"))
        for one in missing:
            self._in_loop(lambda one=one: self._miss(one))  # type: ignore[misc]

    def _answer(self) -> None:
        """In the event loop: it runs."""
        self._answered = time.monotonic()

    def _compare(self, server: float, before: float, after: float) -> None:
        """The server's time was read between two of ours; what is known is changed only where that contradicts it."""
        least, most = server - after, server - before
        if least <= most:  # else this host's clock was set meanwhile
            self.offset = min(max(self.offset, least), most)
        self.off = abs(self.offset) > _OFF
