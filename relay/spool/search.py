"""Looking through a long queue while somebody waits: stride by stride, until enough is found or the time is over.

Each stride is a piece of work of its own for the reader, so that what delivery wants to read never waits for a whole
search. Where the lanes' own sums say that only a few messages can be meant, those are looked at and no others.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from relay.spool import ids
from relay.spool.contract import Filter, MessageView, Part, Trace
from relay.spool.operators import EVERYTHING, Condition, find, trace
from relay.spool.records import HELD_LANE, STATE_NUMBERS, like
from relay.spool.states import State

T = TypeVar("T")
STRIDE = 2000
"""Messages looked at in one piece of work: a few milliseconds."""
FEW = 2000
"""Messages of a state or lane that are picked out by an index and sorted, instead of walking along all of them."""
_SLACK = 24 * 3600 * 1000
"""Milliseconds by which a number may be older than ``received``: a message gets it before it has arrived."""


class Read(Protocol):
    """Runs a piece of work on the reader's connection."""

    def __call__(self, read: Callable[[sqlite3.Connection], T], /) -> Awaitable[T]: ...


async def find_within(
    read: Read, wanted: Filter, limit: int, after: str | None, seconds: float
) -> Part[MessageView]:
    """See `relay.spool.contract.Spool.find_within`."""
    ends, start = time.monotonic() + seconds, (ids.read(after) or 0) if after else 0
    few = None if wanted.ids else await read(lambda c: _few(c, wanted))
    if wanted.ids or few is not None:
        return Part(await read(lambda c: find(c, wanted, limit, start, also=few or ("", []))), None)
    found: list[MessageView] = []
    start = max(start, await read(_oldest))
    while True:
        views, reached = await read(_stride_of(wanted, limit - len(found), start))
        found += views
        if reached is None or len(found) >= limit:
            return Part(found, None)
        if time.monotonic() >= ends:
            return Part(found, ids.show(reached))
        start = reached


def _stride_of(
    wanted: Filter, limit: int, start: int
) -> Callable[[sqlite3.Connection], tuple[list[MessageView], int | None]]:
    """A stride beyond ``start``: what it found, and its last number; None when no message is left behind it."""

    def work(connection: sqlite3.Connection) -> tuple[list[MessageView], int | None]:
        row = connection.execute(
            "SELECT id FROM message WHERE id > ? ORDER BY id LIMIT 1 OFFSET ?", (start, STRIDE - 1)
        ).fetchone()
        also: Condition = (" AND m.id <= ?", [row[0]]) if row else ("", [])
        return find(connection, wanted, limit, start, also=also), row[0] if row else None

    return work


def _oldest(connection: sqlite3.Connection) -> int:
    """A number below those of all unfinished messages, so that a long history is not walked along."""
    row = connection.execute("SELECT min(received) FROM message WHERE state < 4").fetchone()
    return ids.begin(row[0] - _SLACK) if row[0] is not None else 0


def _few(connection: sqlite3.Connection, wanted: Filter) -> Condition | None:
    """Which messages alone can be meant, as far as state and lane tell; None when they are many, or nothing tells."""
    for count, chosen, values in _by_state(wanted), _by_lane(wanted):
        if chosen and connection.execute(count, values).fetchone()[0] <= FEW:
            return f" AND m.id IN ({chosen})", values
    return None


def _by_state(wanted: Filter) -> tuple[str, str, list[object]]:
    """How many the lanes count of a state at most, and the SQL that picks them by index; empty for any state."""
    if wanted.state is None:
        return "", "", []
    state = State(wanted.state)
    column, chosen = state.value, f"SELECT id FROM message WHERE state = {STATE_NUMBERS[state]:d}"
    if state is not State.HELD:
        return f"SELECT coalesce(sum({column}), 0) FROM lane", chosen, []
    more = f"SELECT l.id FROM lane l WHERE {HELD_LANE}"
    count = (
        "SELECT coalesce(sum(l.held), 0)"
        f" + coalesce(sum(CASE WHEN {HELD_LANE} THEN l.queued + l.deferred END), 0) FROM lane l"
    )
    return count, f"{chosen} UNION SELECT id FROM message WHERE state < 4 AND lane IN ({more})", []


def _by_lane(wanted: Filter) -> tuple[str, str, list[object]]:
    """The same of a lane."""
    if wanted.lane is None:
        return "", "", []
    named = "(name = ? OR name LIKE ? ESCAPE '!')"
    chosen = f"SELECT id FROM message WHERE state < 4 AND lane IN (SELECT id FROM lane WHERE {named})"
    count = f"SELECT coalesce(sum(queued + active + deferred + held), 0) FROM lane WHERE {named}"
    return count, chosen, [wanted.lane, like("/" + wanted.lane.lower())[:-1]]


async def trace_within(read: Read, text: str, limit: int, before: str | None, seconds: float) -> Part[Trace]:
    """See `relay.spool.contract.Spool.trace_within`."""
    ends, number = time.monotonic() + seconds, (ids.read(before) if before else None)
    last = EVERYTHING[1] if number is None else number - 1
    if ids.read(text.strip()) is not None:
        return Part(await read(lambda c: trace(c, text, limit, (0, last))), None)
    found: list[Trace] = []
    while True:
        traces, reached = await read(_traces_of(text, limit - len(found), last))
        found += traces
        if reached is None or len(found) >= limit:
            return Part(found, None)
        if time.monotonic() >= ends:
            return Part(found, ids.show(reached))
        last = reached - 1


def _traces_of(
    text: str, limit: int, last: int
) -> Callable[[sqlite3.Connection], tuple[list[Trace], int | None]]:
    """A stride back from ``last``: what it found, and its first number; None when no message is left before it."""

    def work(connection: sqlite3.Connection) -> tuple[list[Trace], int | None]:
        row = connection.execute(
            "SELECT id FROM message WHERE id <= ? ORDER BY id DESC LIMIT 1 OFFSET ?", (last, STRIDE - 1)
        ).fetchone()
        first = row[0] if row else EVERYTHING[0]
        return trace(connection, text, limit, (first, last)), row[0] if row else None

    return work
