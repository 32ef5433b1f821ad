"""The operator's verbs, and what lists and traces read: SQL behind `find`, `operate`, `trace`."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from typing import Any

from relay.errors import SpoolError
from relay.spool import ids
from relay.spool.contract import Filter, MessageView, RecipientView, Trace, TraceEvent, lane_parts
from relay.spool.delivery import delete, marks
from relay.spool.records import (
    ACTIVE,
    DEFERRED,
    DONE,
    FAILED,
    HELD,
    QUEUED,
    SENT,
    STATES,
    add_event,
    where,
)
from relay.spool.states import State

STEP = 500
"""Messages changed in one transaction, so that an operator with a large filter never keeps delivery waiting."""


def find(connection: sqlite3.Connection, wanted: Filter, limit: int, after: int) -> list[MessageView]:
    """Messages of a filter, oldest first."""
    condition, values = where(wanted)
    rows = connection.execute(
        "SELECT m.id, m.received, m.state, m.client, m.sender, l.name, m.message_id, m.subject, m.size, m.attempts,"
        " m.due, m.reason, m.remedy, m.details, l.held_since IS NOT NULL"
        f" FROM message m JOIN lane l ON l.id = m.lane WHERE m.id > ? AND {condition} ORDER BY m.id LIMIT ?",
        [after, *values, limit],
    ).fetchall()
    people = _recipients(connection, [row[0] for row in rows])
    reasons = _lane_reasons(connection) if any(row[14] for row in rows) else {}
    return [_view(row, people.get(row[0], []), reasons) for row in rows]


def _recipients(connection: sqlite3.Connection, numbers: list[int]) -> dict[int, list[tuple[Any, ...]]]:
    found: dict[int, list[tuple[Any, ...]]] = {}
    for start in range(0, len(numbers), STEP):
        part = numbers[start : start + STEP]
        for row in connection.execute(
            f"SELECT message, address, state, code, text FROM recipient WHERE message IN ({marks(len(part))})"
            " ORDER BY message, n",
            part,
        ):
            found.setdefault(row[0], []).append(row)
    return found


def _lane_reasons(connection: sqlite3.Connection) -> dict[str, tuple[str, str]]:
    rows = connection.execute("SELECT key, reason, remedy FROM hold WHERE scope IN ('lane', 'upstream')")
    return {key: (reason, remedy) for key, reason, remedy in rows}


def _view(
    row: tuple[Any, ...], people: list[tuple[Any, ...]], reasons: dict[str, tuple[str, str]]
) -> MessageView:
    (number, received, state, client, sender, lane, message_id, subject, size, attempts, due, reason, remedy,
     details, lane_held) = row  # fmt: skip
    shown = _shown_state(state, bool(lane_held), people)
    upstream, mailbox = lane_parts(lane)
    if lane_held and state in (QUEUED, DEFERRED):
        reason, remedy = reasons.get(lane) or reasons.get(upstream) or (reason, remedy)
    user = json.loads(details)["c"][2]
    return MessageView(
        id=ids.show(number),
        received=received / 1000,
        state=shown,
        client=f"{client} ({user})" if user else client,
        sender=sender,
        mailbox=mailbox,
        lane=lane,
        message_id=message_id,
        subject=subject,
        size=size,
        attempts=attempts,
        next_attempt=due / 1000 if due is not None and shown == State.DEFERRED else None,
        reason=reason,
        remedy=remedy,
        recipients=tuple(
            RecipientView(
                address,
                State(shown) if s in (QUEUED, DEFERRED, HELD) and state != DONE else STATES[s],
                code,
                text,
            )
            for _, address, s, code, text in people
        ),
    )


def _shown_state(state: int, lane_held: bool, people: list[tuple[Any, ...]]) -> str:
    if state == DONE:
        return final_state([row[2] for row in people])
    if lane_held and state in (QUEUED, DEFERRED):
        return State.HELD.value
    return STATES[state].value


def final_state(states: list[int]) -> str:
    """What became of a finished message as a whole."""
    kinds = set(states)
    if kinds == {SENT}:
        return "sent"
    if FAILED in kinds:
        return "partly failed" if SENT in kinds else "failed"
    return "deleted" if SENT not in kinds else "partly deleted"


def matching(connection: sqlite3.Connection, wanted: Filter, after: int) -> list[tuple[int, int]]:
    """Up to STEP (number, state) of a filter, beyond ``after``."""
    condition, values = where(wanted)
    return connection.execute(
        f"SELECT m.id, m.state FROM message m JOIN lane l ON l.id = m.lane WHERE m.id > ? AND {condition}"
        " ORDER BY m.id LIMIT ?",
        [after, *values, STEP],
    ).fetchall()


def _retry(connection: sqlite3.Connection, number: int, state: int, now_ms: int) -> bool:
    """Due now; a failed message whose content is still here starts again for its failed recipients."""
    if state == DONE:
        return _revive(connection, number, now_ms)
    if state == DEFERRED:
        connection.execute("UPDATE message SET due = ? WHERE id = ?", (now_ms, number))
    elif state == HELD:
        return _release(connection, number, state, now_ms)
    add_event(connection, number, "retried", {"by": "operator"})
    return state in (QUEUED, DEFERRED)


def _revive(connection: sqlite3.Connection, number: int, now_ms: int) -> bool:
    if connection.execute("SELECT 1 FROM content WHERE message = ?", (number,)).fetchone() is None:
        return False
    connection.execute("UPDATE recipient SET state = 0 WHERE message = ? AND state = ?", (number, FAILED))
    connection.execute(
        "UPDATE message SET state = 0, attempts = 0, finished = NULL, held_ms = held_ms + ? - received WHERE id = ?",
        (now_ms, number),
    )
    add_event(connection, number, "retried", {"by": "operator"})
    return True


def _hold(connection: sqlite3.Connection, number: int, state: int, now_ms: int) -> bool:
    if state not in (QUEUED, DEFERRED):
        return False
    connection.execute(
        "UPDATE message SET state = 3, due = NULL, held_since = ?, reason = 'held by an operator',"
        " remedy = 'Release it with `relay queue release` when it may go.' WHERE id = ?",
        (now_ms, number),
    )
    add_event(connection, number, "held", {"by": "operator"})
    return True


def _release(connection: sqlite3.Connection, number: int, state: int, now_ms: int) -> bool:
    if state != HELD:
        return False
    release_message(connection, number, now_ms)
    add_event(connection, number, "released", {"by": "operator"})
    return True


def release_message(connection: sqlite3.Connection, number: int, now_ms: int) -> None:
    """Back to the queue at the lane's present turn; the time it was held is remembered."""
    connection.execute(
        "UPDATE message SET state = 0, held_ms = held_ms + max(0, ?1 - coalesce(held_since, ?1)), held_since = NULL,"
        " hold_key = NULL, reason = '', remedy = '', turn = (SELECT turn FROM lane WHERE lane.id = message.lane)"
        " WHERE id = ?2",
        (now_ms, number),
    )
    connection.execute("UPDATE recipient SET state = 0 WHERE message = ? AND state IN (2, 3)", (number,))


def release_key_step(
    connection: sqlite3.Connection, key: str | None, now_ms: int, limit: int
) -> list[tuple[int, str]]:
    """Up to ``limit`` messages that a sender hold keeps (any hold for None) go back to the queue; with their lanes."""
    rows = connection.execute(
        "SELECT m.id, l.name FROM message m JOIN lane l ON l.id = m.lane"
        " WHERE m.state = 3 AND m.hold_key IS NOT NULL AND (?1 IS NULL OR m.hold_key = ?1) LIMIT ?2",
        (key, limit),
    ).fetchall()
    for number, _ in rows:
        release_message(connection, number, now_ms)
        add_event(connection, number, "released", {"by": "the sender is tried again"})
    return rows


def _delete(connection: sqlite3.Connection, number: int, state: int, now_ms: int) -> bool:
    if state == ACTIVE:
        return False
    if state == DONE:
        return connection.execute("DELETE FROM content WHERE message = ?", (number,)).rowcount > 0
    delete(connection, number, now_ms, "operator")
    return True


VERBS: dict[str, Callable[[sqlite3.Connection, int, int, int], bool]] = {
    "retry": _retry,
    "hold": _hold,
    "release": _release,
    "delete": _delete,
}


def operate_step(
    connection: sqlite3.Connection, verb: str, rows: list[tuple[int, int]], now_ms: int
) -> tuple[list[int], set[str]]:
    """Apply a verb to some messages; those changed, and the lanes they are in."""
    if verb not in VERBS:
        raise SpoolError(f"there is no verb {verb!r}")
    act = VERBS[verb]
    changed: list[int] = []
    for number, _ in rows:
        row = connection.execute("SELECT state FROM message WHERE id = ?", (number,)).fetchone()
        if row is not None and act(connection, number, row[0], now_ms):
            changed.append(number)
    lanes: set[str] = set()
    if changed:
        lanes = {
            name
            for (name,) in connection.execute(
                "SELECT DISTINCT l.name FROM message m JOIN lane l ON l.id = m.lane"
                f" WHERE m.id IN ({marks(len(changed))})",
                changed,
            )
        }
    return changed, lanes


def trace(connection: sqlite3.Connection, text: str, limit: int) -> list[Trace]:
    """Messages by id, Message-ID, sender or recipient, newest first; a scan, since nobody waits for it but a person."""
    number = ids.read(text.strip())
    columns = (
        "m.id, m.message_id, m.state, m.sender, m.received, m.client, l.name, m.details, m.size, m.subject,"
        " l.held_since IS NOT NULL"
    )
    if number is not None:
        rows = connection.execute(
            f"SELECT {columns} FROM message m JOIN lane l ON l.id = m.lane WHERE m.id = ?",
            (number,),
        ).fetchall()
    else:
        like = "%" + text.strip("<> ").replace("!", "!!").replace("%", "!%").replace("_", "!_") + "%"
        rows = connection.execute(
            f"SELECT {columns} FROM message m JOIN lane l ON l.id = m.lane WHERE m.message_id LIKE ?1 ESCAPE '!'"
            " OR m.sender LIKE ?1 ESCAPE '!' OR m.details LIKE ?1 ESCAPE '!' OR m.id IN"
            " (SELECT message FROM recipient WHERE address LIKE ?1 ESCAPE '!') ORDER BY m.id DESC LIMIT ?2",
            (like, limit),
        ).fetchall()
    people = _recipients(connection, [row[0] for row in rows])
    return [_trace(connection, row, people.get(row[0], [])) for row in rows]


def _trace(connection: sqlite3.Connection, row: tuple[Any, ...], people: list[tuple[Any, ...]]) -> Trace:
    number, message_id, state, sender, received, client, lane, packed, size, subject, lane_held = row
    details = json.loads(packed)
    first = {
        "client": client,
        "helo": details["c"][1],
        "sender": sender,
        "subject": subject,
        "lane": lane,
        "size": str(size),
    }
    if details["c"][2]:
        first["user"] = details["c"][2]
    if details["n"]:
        first["repairs"] = "; ".join(details["n"])
    events = [TraceEvent(received / 1000, "accepted", first)]
    for at, event, fields in connection.execute(
        "SELECT at, event, fields FROM event WHERE message = ? ORDER BY at", (number,)
    ):
        events.append(TraceEvent(at / 1e6, event, json.loads(fields)))
    return Trace(
        id=ids.show(number),
        message_id=message_id,
        state=_shown_state(state, bool(lane_held), people),
        sender=sender,
        recipients=tuple(person[1] for person in people),
        events=tuple(events),
    )
