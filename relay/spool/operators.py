"""The operator's verbs, and what lists and traces read: SQL behind `find`, `operate`, `trace`."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from typing import Any

from relay.errors import SpoolError
from relay.spool import ids
from relay.spool.contract import Filter, Hold, MessageView, RecipientView, Trace, TraceEvent, lane_parts
from relay.spool.delivery import delete, marks
from relay.spool.holding import all_holds, begin_own_hold, end_own_hold
from relay.spool.records import (
    ACTIVE,
    DEFERRED,
    DONE,
    FAILED,
    FROM_MATCHES,
    HELD,
    HELD_LANE,
    LOCK,
    QUEUED,
    SENT,
    SKIP_MESSAGES,
    STATES,
    add_event,
    like,
    where,
)
from relay.spool.states import State

Condition = tuple[str, list[Any]]
"""SQL that begins with ``AND``, or is empty; and its parameters."""
STEP = 500
"""Messages changed in one transaction, so that an operator with a large filter never keeps delivery waiting."""


def find(
    connection: sqlite3.Connection, wanted: Filter, limit: int, after: int, *, also: Condition = ("", [])
) -> list[MessageView]:
    """Messages of a filter, oldest first; ``also``: a further condition on ``m``."""
    condition, values = where(wanted)
    condition, values = condition + also[0], [*values, *also[1]]
    rows = connection.execute(
        "SELECT m.id, m.received, m.state, m.client, m.sender, l.name, m.message_id, m.subject, m.size, m.attempts,"
        " m.due, m.reason, m.remedy, m.details, l.held_since IS NOT NULL"
        f" FROM message m JOIN lane l ON l.id = m.lane WHERE m.id > ? AND {condition} ORDER BY m.id LIMIT ?",
        [after, *values, limit],
    ).fetchall()
    people = _recipients(connection, [row[0] for row in rows])
    holds = _lane_holds(connection) if any(row[14] for row in rows) else {}
    return [_view(row, people.get(row[0], []), holds) for row in rows]


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


def _lane_holds(connection: sqlite3.Connection) -> dict[str, Hold]:
    """Holds that stop whole lanes, by lane or upstream name."""
    return {hold.key: hold for hold in all_holds(connection) if hold.scope in ("lane", "upstream")}


def _hold_of(lane: str, holds: dict[str, Hold]) -> Hold | None:
    return holds.get(lane) or holds.get(lane_parts(lane)[0])


def _view(row: tuple[Any, ...], people: list[tuple[Any, ...]], holds: dict[str, Hold]) -> MessageView:
    (number, received, state, client, sender, lane, message_id, subject, size, attempts, due, reason, remedy,
     details, lane_held) = row  # fmt: skip
    shown = _shown_state(state, bool(lane_held), people)
    hold = _hold_of(lane, holds) if lane_held and state in (QUEUED, DEFERRED) else None
    if hold is not None:
        reason, remedy = hold.reason, hold.remedy
    user = json.loads(details)["c"][2]
    return MessageView(
        id=ids.show(number),
        received=received / 1000,
        state=shown,
        client=f"{client} ({user})" if user else client,
        sender=sender,
        mailbox=lane_parts(lane)[1],
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
                text or (hold.evidence if hold is not None and s == QUEUED else ""),
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


def count_release(connection: sqlite3.Connection, wanted: Filter) -> tuple[int, int]:
    """Messages of a filter, and those of them that nothing but a hold of their lane or upstream keeps."""
    condition, values = where(wanted)
    row = connection.execute(
        f"SELECT count(*), coalesce(sum(m.state IN (0, 2) AND {HELD_LANE}), 0)"
        f" FROM message m JOIN lane l ON l.id = m.lane WHERE {condition}",
        values,
    ).fetchone()
    return int(row[0]), int(row[1])


def _retry(connection: sqlite3.Connection, number: int, state: int, now_ms: int) -> bool:
    """Due now; a failed message whose content is still here starts again for its failed recipients."""
    if state == DONE:
        return _revive(connection, number, now_ms)
    if state == HELD:
        return _release(connection, number, state, now_ms)
    if state == ACTIVE:
        return False
    if state == DEFERRED:
        connection.execute("UPDATE message SET due = ? WHERE id = ?", (now_ms, number))
    add_event(connection, number, "retried", {"by": "operator"})
    return True


def _revive(connection: sqlite3.Connection, number: int, now_ms: int) -> bool:
    if connection.execute("SELECT 1 FROM content WHERE message = ?", (number,)).fetchone() is None:
        return False
    connection.execute("UPDATE recipient SET state = 0 WHERE message = ? AND state = ?", (number, FAILED))
    connection.execute(
        "UPDATE message SET state = 0, attempts = 0, untold = 0, finished = NULL, held_ms = held_ms + ? - received WHERE id = ?",
        (now_ms, number),
    )
    add_event(connection, number, "retried", {"by": "operator"})
    return True


def _hold(connection: sqlite3.Connection, number: int, state: int, now_ms: int) -> bool:
    if state not in (QUEUED, DEFERRED, HELD):
        return False
    # without a hold key nothing but an operator lets it go, whatever held it before
    changed = connection.execute(
        "UPDATE message SET state = 3, due = NULL, hold_key = NULL,"
        " reason = 'held by an operator', remedy = 'Release it with `relay queue release` when it may go.'"
        " WHERE id = ? AND (state <> 3 OR hold_key IS NOT NULL)",
        (number,),
    ).rowcount
    if not changed:
        return False
    begin_own_hold(connection, number, now_ms)
    add_event(connection, number, "held", {"by": "operator"})
    return True


def _release(connection: sqlite3.Connection, number: int, state: int, now_ms: int) -> bool:
    if state != HELD:
        return False
    release_message(connection, number, now_ms)
    add_event(connection, number, "released", {"by": "operator"})
    return True


def release_message(connection: sqlite3.Connection, number: int, now_ms: int) -> None:
    """Back to the queue at the lane's present turn; the time it was held, and what kept it, are remembered."""
    end_own_hold(connection, number, now_ms)
    connection.execute(
        "UPDATE message SET state = 0, reason = '', remedy = '', turn = (SELECT turn FROM lane WHERE lane.id = message.lane)"
        " WHERE id = ?",
        (number,),
    )
    connection.execute("UPDATE recipient SET state = 0 WHERE message = ? AND state IN (2, 3)", (number,))


def release_key_step(
    connection: sqlite3.Connection, key: str | None, now_ms: int, limit: int
) -> list[tuple[int, str]]:
    """Up to ``limit`` messages that a hold keeps go back to the queue, those held longest first; with their lanes.

    None: those whose hold is no more.
    """
    rows = connection.execute(
        "SELECT m.id, l.name FROM message m JOIN lane l ON l.id = m.lane"
        " WHERE m.state = 3 AND m.hold_key IS NOT NULL AND (m.hold_key = ?1 OR (?1 IS NULL AND NOT EXISTS"
        " (SELECT 1 FROM hold h WHERE h.scope IN ('sender', 'message') AND h.key = m.hold_key)))"
        f" ORDER BY m.held_since, m.id LIMIT ?2{SKIP_MESSAGES}",
        (key, limit),
    ).fetchall()
    for number, _ in rows:
        release_message(connection, number, now_ms)
        add_event(connection, number, "released", {"by": "relay, to see whether it goes now"})
    return rows


def _delete(connection: sqlite3.Connection, number: int, state: int, now_ms: int) -> bool:
    if state == ACTIVE:
        return False
    if state == DONE:
        gone = connection.execute("DELETE FROM content WHERE message = ?", (number,)).rowcount > 0
        if gone:
            add_event(
                connection, number, "deleted", {"by": "operator", "what": "its content, kept after it failed"}
            )
        return gone
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
        row = connection.execute(f"SELECT state FROM message WHERE id = ?{LOCK}", (number,)).fetchone()
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


_TRACED = (
    "(m.message_id LIKE ?1 ESCAPE '!' OR m.sender LIKE ?1 ESCAPE '!'"
    f" OR {FROM_MATCHES.format(value='?1')}"
    " OR m.id IN (SELECT message FROM recipient WHERE address LIKE ?1 ESCAPE '!'"
    " AND message BETWEEN ?2 AND ?3))"
)
EVERYTHING = (0, (1 << 63) - 1)
"""All numbers that a message may have."""


def trace(
    connection: sqlite3.Connection, text: str, limit: int, within: tuple[int, int] = EVERYTHING
) -> list[Trace]:
    """Messages by id, Message-ID, sender, From or recipient, newest first; ``within``: least and greatest number.

    A scan of those. ``<>`` means the null sender.
    """
    number, bare = ids.read(text.strip()), text.strip().strip("<> ")
    meant = "m.id = ?1" if number is not None else _TRACED if bare else "m.sender = ?1"
    values: list[Any] = [number if number is not None else like(bare) if bare else "", *within]
    condition = f"m.id BETWEEN ?2 AND ?3 AND {meant}"
    rows = connection.execute(
        "SELECT m.id, m.message_id, m.state, m.sender, m.received, m.client, l.name, m.details /*and by whom*/, m.size,"
        f" m.subject, {HELD_LANE} FROM message m JOIN lane l ON l.id = m.lane WHERE {condition} ORDER BY m.id DESC LIMIT ?4",
        [*values, limit],
    ).fetchall()
    people = _recipients(connection, [row[0] for row in rows])
    holds = _lane_holds(connection) if any(row[10] for row in rows) else {}
    return [_trace(connection, row, people.get(row[0], []), holds) for row in rows]


def _trace(
    connection: sqlite3.Connection,
    row: tuple[Any, ...],
    people: list[tuple[Any, ...]],
    holds: dict[str, Hold],
) -> Trace:
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
    if "r" in details:
        first["replica"] = details["r"]
    events = [TraceEvent(received / 1000, "accepted", first)]
    for at, event, fields in connection.execute(
        "SELECT at, event, fields FROM event WHERE message = ? ORDER BY at", (number,)
    ):
        events.append(TraceEvent(at / 1e6, event, json.loads(fields)))
    hold = _hold_of(lane, holds) if lane_held and state in (QUEUED, DEFERRED) else None
    if hold is not None:
        events.append(_kept(hold, max(hold.since, received / 1000)))
        events.sort(key=lambda event: event.time)
    return Trace(
        id=ids.show(number),
        message_id=message_id,
        state=_shown_state(state, bool(lane_held), people),
        sender=sender,
        recipients=tuple(person[1] for person in people),
        events=tuple(events),
    )


def _kept(hold: Hold, since: float) -> TraceEvent:
    """What keeps a message of a held lane, while it does: the hold is the lane's, so no row of the message says it."""
    fields = {"by": f"{hold.scope} {hold.key}", "reason": hold.reason, "remedy": hold.remedy}
    if hold.evidence:
        fields["reply"] = hold.evidence
    return TraceEvent(since, "held", fields)
