"""The changes that every message needs, made for many at once: an attempt begins, an attempt is settled.

Few statements, however many messages: see `relay.spool.writer`. Storing, the third, is `relay.spool.intake.insert_all`.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from relay.errors import SpoolLost
from relay.message import Result
from relay.spool.contract import Settlement
from relay.spool.delivery import begin, conclude, count_at_the_end, recipient_changes, states_of, trace_of
from relay.spool.procedure import Procedure
from relay.spool.records import ACTIVE, LOCK, as_json, columns, event_row, rows_of


@dataclass(frozen=True, slots=True)
class Beginning:
    """One attempt that starts."""

    number: int
    now_ms: int
    recipients: int


@dataclass(frozen=True, slots=True)
class Ending:
    """One attempt that ended well."""

    number: int
    now_ms: int
    done: Settlement


_CLAIMED = (
    "SELECT id, lane FROM message WHERE id IN (SELECT value FROM json_each(?)) AND state = 1 AND begun IS NULL"
    f"{LOCK}"
)
_BEGIN = "UPDATE message SET begun = ? WHERE id IN (SELECT value FROM json_each(?))"
USE = (
    f"INSERT INTO usage (lane, span, at, messages, recipients) SELECT {columns(5)} FROM json_each(?) WHERE true"
    " ON CONFLICT (lane, span, at) DO UPDATE"
    " SET messages = messages + excluded.messages, recipients = recipients + excluded.recipients"
)
BEGINNING = Procedure("beginning", (_BEGIN, (0, 1)), (USE, (2,)))


def begin_all(connection: sqlite3.Connection, attempts: list[Beginning]) -> list[None]:
    """Mark attempts and count them in their lanes' usage. Raises SpoolLost when one of the messages is not claimed."""
    latest = max(one.now_ms for one in attempts)
    rows = rows_of(connection, _CLAIMED, (as_json([one.number for one in attempts]),), 2)
    lanes: dict[int, int] = dict(rows)
    second = latest // 1000
    used: dict[tuple[int, int, int], tuple[int, int]] = {}
    for one in attempts:
        if one.number not in lanes:  # it goes on after a part of it went (or is not claimed, which this says)
            begin(connection, one.number, one.now_ms, one.recipients, {})
            continue
        for key in ((lanes[one.number], 1, second), (lanes[one.number], 60, second - second % 60)):
            messages, recipients = used.get(key, (0, 0))
            used[key] = messages + 1, recipients + one.recipients
    counts = [(*key, *count) for key, count in used.items()]
    BEGINNING.run(connection, latest, as_json(list(lanes)), as_json(counts))
    return [None] * len(attempts)


def is_plain(done: Settlement) -> bool:
    """Whether it is the usual one: all that was tried is delivered, and nothing else is to be written down."""
    return (
        bool(done.outcomes)
        and all(one.result is Result.SENT and not one.uncertain for one in done.outcomes.values())
        and not (
            done.move_to or done.notices or done.behind or done.delay_noticed or done.withdraw or done.keep
        )
    )


FIND = (
    "SELECT m.id, m.state, m.begun, m.lane, c.body IS NULL, c.size,"
    " (SELECT count(*) FROM recipient r WHERE r.message = m.id AND r.state NOT IN (5, 7))"
    " FROM json_each(?) j JOIN message m ON m.id = j.value LEFT JOIN content c ON c.message = m.id"
)
SET_RECIPIENTS = (
    "UPDATE recipient SET state = json_extract(j.value, '$[0]'), code = json_extract(j.value, '$[1]'),"
    " text = json_extract(j.value, '$[2]') FROM json_each(?) j WHERE message = json_extract(j.value, '$[3]')"
    " AND address = json_extract(j.value, '$[4]') AND state IN (0, 2, 3)"
)
TRACE = f"INSERT INTO event (message, at, event, fields) SELECT {columns(4)} FROM json_each(?)"
_FINISH = (
    "UPDATE message SET state = 4, begun = NULL, due = NULL, held_since = NULL, hold_key = NULL, finished = ?"
    " WHERE id IN (SELECT value FROM json_each(?))"
)
_FORGET = "DELETE FROM content WHERE message IN (SELECT value FROM json_each(?))"
ENDING = Procedure("ending", (SET_RECIPIENTS, (0,)), (TRACE, (1,)), (_FINISH, (2, 3)), (_FORGET, (3,)))


def settle_plain(connection: sqlite3.Connection, endings: list[Ending]) -> list[tuple[bool, int]]:
    """`relay.spool.delivery.settle` for plain ones; for each, whether its body is a file that must now go, and the
    octets of content that went.

    Raises SpoolLost when one of the messages is not claimed.
    """
    numbers = as_json([one.number for one in endings])
    found = {row[0]: row for row in rows_of(connection, FIND, (numbers,), 7)}
    for one in endings:
        row = found.get(one.number)
        if row is None or row[1] != ACTIVE:
            raise SpoolLost(f"message {one.done.id} is not claimed")
        count_at_the_end(connection, row[3], row[2], one.now_ms)
    changes = [change for one in endings for change in recipient_changes(one.number, one.done.outcomes)]
    trace = [event_row(one.number, *line) for one in endings for line in trace_of(one.done)]
    others = {one.number for one in endings if found[one.number][6] != len(one.done.outcomes)}
    finished = [one.number for one in endings if one.number not in others]
    latest = max(one.now_ms for one in endings)
    ENDING.run(connection, as_json(changes), as_json(trace), latest, as_json(finished))
    gone = [one.number not in others or _conclude(connection, one) for one in endings]
    return [
        (bool(found[one.number][4]), found[one.number][5] or 0) if went else (False, 0)
        for one, went in zip(endings, gone, strict=True)
    ]


def _conclude(connection: sqlite3.Connection, one: Ending) -> bool:
    """Another of its recipients waits, was refused for good before, or has the same address."""
    kept = states_of(connection, one.number)
    return conclude(connection, one.number, one.done, one.now_ms, kept, attempted=True)
