"""Claiming, beginning and settling attempts: each function runs inside the writer's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

from relay.errors import SpoolLost
from relay.message import Outcome, Recipient, Result
from relay.spool import ids
from relay.spool.contract import Claim, Settlement
from relay.spool.holding import begin_own_hold, end_own_hold
from relay.spool.moving import move
from relay.spool.records import (
    ACTIVE,
    CLAIM_COLUMNS,
    DEFERRED,
    DELETED,
    DONE,
    FAILED,
    HELD,
    LOCK,
    QUEUED,
    SENT,
    SKIP,
    STATES,
    add_event,
    as_json,
    ms,
    read_claim,
    rows_of,
)
from relay.spool.states import DONE as DONE_WORD
from relay.spool.states import message_state

_RESULTS = {Result.SENT: SENT, Result.FAILED: FAILED, Result.DEFERRED: DEFERRED, Result.HELD: HELD}
_NUMBERS = {STATES[n].value: n for n in (QUEUED, DEFERRED, HELD)} | {DONE_WORD: DONE}
_LAST_WORD = {SENT: "delivered", FAILED: "failed", DEFERRED: "deferred", HELD: "held"}


def marks(count: int) -> str:
    """Placeholders for an IN list."""
    return ",".join("?" * count)


def claim(connection: sqlite3.Connection, lane: str, limit: int, now_ms: int) -> list[Claim]:
    """Deferred mail whose time has come rejoins at the present turn; then the first ``limit`` in turn order are taken."""
    row = connection.execute("SELECT id, turn FROM lane WHERE name = ?", (lane,)).fetchone()
    if row is None or limit < 1:
        return []
    lane_id, turn = row
    connection.execute(
        "UPDATE message SET state = 0, turn = ?, due = NULL WHERE id IN"
        " (SELECT id FROM message WHERE lane = ? AND state = 2 AND due <= ? ORDER BY due"
        f" LIMIT ?{SKIP})",
        (turn, lane_id, now_ms, limit),
    )
    rows = sorted(rows_of(connection, _NEXT, (lane_id, limit), 2))
    if not rows:
        return []
    numbers = [number for _, number in rows]
    connection.execute(
        "UPDATE message SET state = 1, begun = NULL WHERE id IN (SELECT value FROM json_each(?))",
        (as_json(numbers),),
    )
    if rows[-1][0] > turn:
        connection.execute("UPDATE lane SET turn = ? WHERE id = ?", (rows[-1][0], lane_id))
    return load_claims(connection, numbers, now_ms)


_NEXT = f"SELECT turn, id FROM message WHERE lane = ? AND state = 0 ORDER BY turn, id LIMIT ?{SKIP}"
_CLAIMS = (
    f"SELECT {CLAIM_COLUMNS} FROM message m JOIN lane l ON l.id = m.lane"
    " WHERE m.id IN (SELECT value FROM json_each(?))"  # the second parameter
)
_UNFINISHED = (
    "SELECT message, n, address, notify, orcpt, state FROM recipient"
    " WHERE message IN (SELECT value FROM json_each(?)) AND state IN (0, 2, 3)"
)


def load_claims(connection: sqlite3.Connection, numbers: Sequence[int], now_ms: int) -> list[Claim]:
    """The claims of these messages, in this order."""
    found = {}
    wanted = as_json(list(numbers))
    recipients = _unfinished(connection, wanted)
    for row in rows_of(connection, _CLAIMS, (int(now_ms), wanted), 18):
        found[row[0]] = read_claim(row, tuple(recipients.get(row[0], ())))
    return [found[number] for number in numbers if number in found]


def _unfinished(connection: sqlite3.Connection, wanted: str) -> dict[int, list[Recipient]]:
    """The recipients to try; those that are held wait by themselves while others of the message are due."""
    due: dict[int, list[Recipient]] = {}
    held: dict[int, list[Recipient]] = {}
    for number, _, address, notify, orcpt, state in sorted(rows_of(connection, _UNFINISHED, (wanted,), 6)):
        (held if state == HELD else due).setdefault(number, []).append(Recipient(address, notify, orcpt))
    return held | due


def unclaim(connection: sqlite3.Connection, numbers: Iterable[int]) -> None:
    """Back to the queue, as if never claimed: the lane's present turn goes back to theirs, and an attempt that was
    written down and not made is not counted."""
    wanted = as_json(list(numbers))
    _uncount(connection, wanted)
    connection.execute(
        "UPDATE lane SET turn = min(lane.turn, back.turn) FROM (SELECT lane, min(turn) AS turn FROM message WHERE id IN"
        " (SELECT value FROM json_each(?)) AND state = 1 GROUP BY lane) AS back WHERE lane.id = back.lane",
        (wanted,),
    )
    connection.execute(
        "UPDATE message SET state = 0, begun = NULL WHERE id IN (SELECT value FROM json_each(?)) AND state = 1",
        (wanted,),
    )


def _uncount(connection: sqlite3.Connection, wanted: str) -> None:
    """Take attempts that were written down out of their lanes' usage."""
    begun = connection.execute(
        "SELECT lane, begun / 1000, count(DISTINCT m.id), count(*) FROM message m JOIN recipient r ON r.message = m.id"
        " WHERE m.id IN (SELECT value FROM json_each(?)) AND m.state = 1 AND begun IS NOT NULL AND r.state IN (0, 2)"
        " GROUP BY 1, 2",
        (wanted,),
    ).fetchall()
    connection.executemany(
        "UPDATE usage SET messages = messages - ?, recipients = recipients - ? WHERE lane = ? AND span = ? AND at = ?",
        [
            (messages, recipients, lane, span, second - second % span)
            for lane, second, messages, recipients in begun
            for span in (1, 60)
        ],
    )


def begin(
    connection: sqlite3.Connection, number: int, now_ms: int, recipients: int, sent: dict[str, Outcome]
) -> None:
    """Mark the attempt and count the submission in the lane's usage; the one before it, if any, has ended."""
    row = connection.execute(
        f"SELECT lane, begun FROM message WHERE id = ? AND state = 1{LOCK}", (number,)
    ).fetchone()
    if row is None:
        raise SpoolLost(f"message {ids.show(number)} is not claimed")
    count_at_the_end(connection, row[0], row[1], now_ms)
    connection.execute("UPDATE message SET begun = ? WHERE id = ?", (now_ms, number))
    if sent:
        _settle_recipients(connection, number, sent)
    second = now_ms // 1000
    connection.executemany(
        "INSERT INTO usage VALUES (?,?,?,1,?) ON CONFLICT (lane, span, at) DO UPDATE"
        " SET messages = messages + 1, recipients = recipients + excluded.recipients",
        [(row[0], 1, second, recipients), (row[0], 60, second - second % 60, recipients)],
    )


def settle(connection: sqlite3.Connection, done: Settlement, now_ms: int) -> bool:
    """Write down an attempt; whether the content went."""
    number = ids.read(done.id)
    row = connection.execute(
        f"SELECT state, begun, lane FROM message WHERE id = ?{LOCK}", (number,)
    ).fetchone()
    if number is None or row is None or row[0] != ACTIVE:
        raise SpoolLost(f"message {done.id} is not claimed")
    count_at_the_end(connection, row[2], row[1], now_ms)
    return _write_down(connection, number, done, now_ms, attempted=True)


def decide(connection: sqlite3.Connection, done: Settlement, now_ms: int) -> bool | None:
    """The same for a message that waits; None when it does not (any more)."""
    number = ids.read(done.id)
    row = connection.execute(f"SELECT state FROM message WHERE id = ?{LOCK}", (number,)).fetchone()
    if number is None or row is None or row[0] not in (QUEUED, DEFERRED, HELD):
        return None
    return _write_down(connection, number, done, now_ms, attempted=False)


def _write_down(
    connection: sqlite3.Connection, number: int, done: Settlement, now_ms: int, *, attempted: bool
) -> bool:
    kept = _settle_recipients(connection, number, done.outcomes)
    if done.outcomes or done.details:
        _write_trace(connection, number, done)
    if done.move_to is not None:
        move(connection, number, done.move_to, now_ms)
    if not done.told and any(one.result is Result.FAILED for one in done.outcomes.values()):
        connection.execute("UPDATE message SET untold = 1 WHERE id = ?", (number,))
    if done.delay_noticed or done.keep:
        connection.execute(
            "UPDATE message SET delay_noticed = max(delay_noticed, ?), direct = direct * ? WHERE id = ?",
            (done.delay_noticed, not done.keep, number),
        )
    if done.withdraw:
        delete(connection, number, now_ms, "the relay: its client was never told that we have it")
        return True
    return conclude(connection, number, done, now_ms, kept, attempted=attempted)


def conclude(
    connection: sqlite3.Connection,
    number: int,
    done: Settlement,
    now_ms: int,
    kept: list[int],
    *,
    attempted: bool,
) -> bool:
    """What becomes of the message once its recipients' states (``kept``) are written; whether its content went."""
    state = _NUMBERS[message_state(STATES[one] for one in kept)]
    if state == DONE:
        # who was told of a failure has the message's headers; where nobody could be, the operator still has it all
        return finish(connection, number, now_ms, keep_content=_is_untold(connection, number))
    if attempted or done.outcomes:
        _reschedule(connection, number, state, done, now_ms)
    if attempted and done.outcomes and state == QUEUED:
        # the limits left some of it over: others get a turn first, later mail of its own source (turn + 1 at the
        # least, and a higher id) does not overtake it
        connection.execute("UPDATE message SET turn = turn + 1 WHERE id = ?", (number,))
    if done.behind:
        connection.execute(
            "UPDATE message SET turn = 1 + coalesce((SELECT max(o.turn) FROM message o WHERE o.lane = message.lane"
            " AND o.state = 0), turn) WHERE id = ?",
            (number,),
        )
    return False


def _is_untold(connection: sqlite3.Connection, number: int) -> bool:
    return bool(connection.execute("SELECT untold FROM message WHERE id = ?", (number,)).fetchone()[0])


def count_at_the_end(connection: sqlite3.Connection, lane: int, begun: int | None, now_ms: int) -> None:
    """The server counts a message somewhere between begin and reply: after a restart, the later second is the safe one."""
    if begun is None or begun // 1000 == now_ms // 1000:
        return
    connection.execute(
        "UPDATE usage SET messages = messages - 1 WHERE lane = ? AND span = 1 AND at = ?",
        (lane, begun // 1000),
    )
    connection.execute(
        "INSERT INTO usage VALUES (?,1,?,1,0) ON CONFLICT (lane, span, at) DO UPDATE"
        " SET messages = messages + 1",
        (lane, now_ms // 1000),
    )


def _settle_recipients(
    connection: sqlite3.Connection, number: int, outcomes: dict[str, Outcome]
) -> list[int]:
    """Set the named recipients; the states of all, afterwards (duplicates of an address share one outcome)."""
    connection.executemany(
        "UPDATE recipient SET state = ?, code = ?, text = ? WHERE message = ? AND address = ? AND state IN (0, 2, 3)",
        recipient_changes(number, outcomes),
    )
    return states_of(connection, number)


def recipient_changes(number: int, outcomes: dict[str, Outcome]) -> list[tuple[int, int, str, int, str]]:
    """New state, code and text; message and address."""
    changes = []
    for address, outcome in outcomes.items():
        reply = outcome.reply
        words = str(reply) if reply is not None else outcome.reason
        changes.append((_RESULTS[outcome.result], reply.code if reply else 0, words[:500], number, address))
    return changes


def states_of(connection: sqlite3.Connection, number: int) -> list[int]:
    """The states of all recipients of a message."""
    return [row[0] for row in connection.execute("SELECT state FROM recipient WHERE message = ?", (number,))]


def _write_trace(connection: sqlite3.Connection, number: int, done: Settlement) -> None:
    lines = trace_of(done) or [(done.event, done.details)]
    for event, fields in lines:
        add_event(connection, number, event, fields)


def trace_of(done: Settlement) -> list[tuple[str, dict[str, str]]]:
    """One event for the attempt's result, or one for each kind of result when recipients fared differently."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for address, outcome in done.outcomes.items():
        word = "uncertain" if outcome.uncertain else _LAST_WORD[_RESULTS[outcome.result]]
        key = (word, str(outcome.reply or ""), outcome.reason)
        groups.setdefault(key, []).append(address)
    lines = []
    for (word, reply, reason), addresses in groups.items():
        fields = dict(done.details)
        fields["recipients"] = ", ".join(addresses[:20]) + (
            f" and {len(addresses) - 20} more" if len(addresses) > 20 else ""
        )
        if reply:
            fields["reply"] = reply
        if reason and word != "delivered":
            fields["reason"] = reason
        lines.append((word, fields))
    return lines


def _reschedule(
    connection: sqlite3.Connection, number: int, state: int, done: Settlement, now_ms: int
) -> None:
    last = next((one for one in reversed(done.outcomes.values()) if one.result is not Result.SENT), None)
    connection.execute(
        "UPDATE message SET state = ?, begun = NULL, due = ?, attempts = attempts + ?, reason = ?, remedy = ?,"
        " hold_key = coalesce(?, hold_key) WHERE id = ?",
        (
            state,
            ms(done.due)
            if state == DEFERRED and done.due is not None
            else (now_ms if state == DEFERRED else None),
            1 if done.counts and done.outcomes else 0,
            last.reason if last else "",
            last.remedy if last else "",
            done.hold_key,
            number,
        ),
    )
    (begin_own_hold if state == HELD else end_own_hold)(connection, number, now_ms)


def finish(connection: sqlite3.Connection, number: int, now_ms: int, *, keep_content: bool) -> bool:
    """The message is done: its content goes at once, its trace stays. True when the content went."""
    connection.execute(
        "UPDATE message SET state = 4, begun = NULL, due = NULL, held_since = NULL, hold_key = NULL, finished = ?"
        " WHERE id = ?",
        (now_ms, number),
    )
    if not keep_content:
        connection.execute("DELETE FROM content WHERE message = ?", (number,))
    return not keep_content


def overdue(
    connection: sqlite3.Connection,
    before_ms: int,
    after: tuple[int, int],
    limit: int,
    now_ms: int,
    *,
    unnoticed: bool,
) -> list[Claim]:
    """Waiting messages from before a time, oldest first, without taking them."""
    rows = connection.execute(
        "SELECT id FROM message WHERE state < 4 AND state <> 1 AND received < ? AND (received, id) > (?, ?)"
        f" AND direct = 0 {'AND delay_noticed = 0' if unnoticed else ''} ORDER BY received, id LIMIT ?",
        (before_ms, *after, limit),
    ).fetchall()
    return load_claims(connection, [number for (number,) in rows], now_ms)


def delete(connection: sqlite3.Connection, number: int, now_ms: int, why: str) -> None:
    """An operator takes a message out; the trace says so."""
    connection.execute(
        "UPDATE recipient SET state = ? WHERE message = ? AND state IN (0, 2, 3)", (DELETED, number)
    )
    add_event(connection, number, "deleted", {"by": why})
    finish(connection, number, now_ms, keep_content=False)
