"""Between rows and the words of the contract."""

from __future__ import annotations

import functools
import json
import sqlite3
import time
from collections.abc import Sequence
from typing import Any

from relay.message import Client, Envelope, Recipient
from relay.spool import ids
from relay.spool.contract import Claim, Filter, Hold, NewMessage
from relay.spool.states import State

QUEUED, ACTIVE, DEFERRED, HELD, DONE, SENT, FAILED, DELETED = range(8)

STATE_NUMBERS = {
    State.QUEUED: QUEUED,
    State.ACTIVE: ACTIVE,
    State.DEFERRED: DEFERRED,
    State.HELD: HELD,
    State.SENT: SENT,
    State.FAILED: FAILED,
    State.DELETED: DELETED,
}
STATES = {number: state for state, number in STATE_NUMBERS.items()}

LOCK = " /*lock*/"
"""After a SELECT: what was read stays so until the transaction ends. SQLite has one writer, and takes it for a comment."""
SKIP = " /*skip*/"
"""The same, without what somebody else has locked."""
SKIP_MESSAGES = " /*skip messages*/"
"""The same where ``m``, the messages, are joined with what is not to be locked."""
COUNTS = "lane /*counts*/"
"""The lanes with the numbers of their messages."""

CLAIM_COLUMNS = (
    "m.id, l.name, m.sender, m.client, m.received, m.size, m.attempts, m.message_id, m.pool, m.source, "
    "m.details, m.held_ms + CASE WHEN m.held_since IS NOT NULL THEN ?1 - m.held_since"
    " ELSE l.held_ms - m.held_base + CASE WHEN l.held_since IS NULL THEN 0 ELSE ?1 - l.held_since END END, "
    "m.delay_noticed, m.direct, m.state, l.held_since IS NOT NULL, m.subject, m.hold_key"
)


def ms(seconds: float) -> int:
    """Stored times are whole milliseconds."""
    return int(seconds * 1000)


_packed = json.JSONEncoder(separators=(",", ":")).encode
_packed_plainly = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def as_json(value: Any) -> str:
    """Rows for a statement that reads them with ``json_each``."""
    return _packed_plainly(value)


def rows_of(
    connection: sqlite3.Connection, statement: str, values: tuple[Any, ...], width: int
) -> list[tuple[Any, ...]]:
    """All rows of a SELECT of numbers and texts in ``width`` columns, in no order that could be relied on.

    From SQLite they come as one JSON value: each row by itself would give up Python's lock, and have to win it back.
    """
    if not isinstance(connection, sqlite3.Connection):
        return connection.execute(statement, values).fetchall()
    found = connection.execute(_gathered(statement, width), values).fetchone()[0]
    return [tuple(row) for row in json.loads(found)]


@functools.lru_cache(maxsize=64)
def _gathered(statement: str, width: int) -> str:
    names = ", ".join(f"c{n}" for n in range(width))
    return f"WITH found({names}) AS ({statement}) SELECT json_group_array(json_array({names})) FROM found"


def columns(count: int) -> str:
    """The elements of each array of a ``json_each``, as a list of columns."""
    return ", ".join(f"json_extract(value, '$[{n}]')" for n in range(count))


def pack_details(message: NewMessage) -> str:
    """What no query asks for, as one JSON text."""
    client, envelope = message.client, message.envelope
    return _packed(
        {
            "c": [client.port, client.helo, client.user, client.tls, client.listener],
            "e": [envelope.eight_bit, envelope.smtputf8, envelope.ret, envelope.envid],
            "f": message.header_from,
            "n": message.notes,
            "l": envelope.long_lines,
        }
    )


def unpack_client(address: str, details: dict[str, Any]) -> Client:
    """The client as it was at acceptance."""
    port, helo, user, tls, listener = details["c"]
    return Client(address, port, helo, user, tls, listener)


def unpack_envelope(sender: str, recipients: tuple[Recipient, ...], details: dict[str, Any]) -> Envelope:
    """The envelope as it was at acceptance, with these of its recipients."""
    eight_bit, smtputf8, ret, envid = details["e"]
    return Envelope(sender, recipients, eight_bit, smtputf8, ret, envid, long_lines=details.get("l", True))


def read_claim(row: Sequence[Any], recipients: tuple[Recipient, ...]) -> Claim:
    """A row of CLAIM_COLUMNS and its unfinished recipients."""
    (number, lane, sender, address, received, size, attempts, message_id, pool, source, packed, held,
     noticed, direct, state, lane_held, subject, hold_key) = row  # fmt: skip
    details = json.loads(packed)
    return Claim(
        id=ids.show(number),
        lane=lane,
        envelope=unpack_envelope(sender, recipients, details),
        client=unpack_client(address, details),
        received=received / 1000,
        size=size,
        attempts=attempts,
        message_id=message_id,
        subject=subject,
        header_from=tuple(details["f"]),
        pool=tuple(json.loads(pool)) if pool else (),
        source=source,
        held_for=max(0, held) / 1000,
        delay_noticed=bool(noticed),
        direct=bool(direct),
        tried_for=hold_key or "",
        state=State.HELD if lane_held and state in (QUEUED, DEFERRED) else STATES[state],
    )


def read_hold(row: tuple[Any, ...]) -> Hold:
    """A row of the hold table."""
    scope, key, code, reason, remedy, evidence, since, probes, next_probe, at_login = row
    probe_at = None if next_probe is None else next_probe / 1000
    return Hold(scope, key, code, reason, remedy, evidence, since / 1000, probes, probe_at, bool(at_login))


class Microseconds:
    """Times for events that never repeat within this process, so that a trace keeps its order."""

    def __init__(self) -> None:
        self._last = 0
        self.offset = 0.0
        """Seconds to add to this host's clock: that of the group, where several relays write one trace."""

    def next(self) -> int:
        """Microseconds since 1970, later than every earlier answer."""
        self._last = max(self._last + 1, time.time_ns() // 1000 + int(self.offset * 1_000_000))
        return self._last


event_times = Microseconds()


def add_event(connection: sqlite3.Connection, message: int, event: str, fields: dict[str, str]) -> None:
    """One line of a trace."""
    connection.execute("INSERT INTO event (message, at, event, fields) VALUES (?, ?, ?, ?)",
                       event_row(message, event, fields))  # fmt: skip


def event_row(message: int, event: str, fields: dict[str, str]) -> tuple[int, int, str, str]:
    """The columns of one line of a trace."""
    return message, event_times.next(), event, _packed(fields)


def like(text: str) -> str:
    """A LIKE pattern for a part of a text, taken literally (with ESCAPE '!')."""
    return "%" + text.replace("!", "!!").replace("%", "!%").replace("_", "!_") + "%"


def address_pattern(text: str) -> str:
    """The LIKE pattern for what an operator writes to mean addresses; LIKE takes ASCII letters without their case.

    ``anna@example.com`` means exactly that address, so that whoever deletes the mail of one person never deletes
    that of `susanna@example.com`; ``@example.com`` means all of that domain; anything else is a part.
    ``<>`` is the null sender, and angle brackets around an address are no part of it.
    """
    bare = text.strip()
    if bare.startswith("<") and bare.endswith(">"):
        bare = bare[1:-1]
        if not bare:
            return ""
    pattern = like(bare)
    if bare.startswith("@"):
        return pattern[:-1]
    return pattern[1:-1] if "@" in bare[1:-1] else pattern


FROM_MATCHES = (
    "((m.details LIKE '%' || {value} || '%' ESCAPE '!' OR instr(m.details, '\\') > 0)"
    " AND EXISTS (SELECT 1 FROM json_each(m.details, '$.f') f WHERE f.value LIKE {value} ESCAPE '!'))"
)
"""Whether one of the addresses of a message's From field(s) is like ``{value}``, a parameter's mark.

Reading JSON is what costs, so the text is looked at first; where it holds escapes, it may hide what is looked for.
"""


HELD_LANE = "l.held_since IS NOT NULL"


def _state_condition(state: str) -> tuple[str, list[Any]]:
    if state == State.HELD:
        return f"(m.state = 3 OR (m.state IN (0, 2) AND {HELD_LANE}))", []
    number = STATE_NUMBERS[State(state)]
    if number in (QUEUED, DEFERRED):
        return f"(m.state = ? AND NOT ({HELD_LANE}))", [number]
    return "m.state = ?", [number]


def where(wanted: Filter) -> tuple[str, list[Any]]:
    """The SQL condition of a filter over ``message m JOIN lane l``, and its parameters."""
    parts: list[str] = []
    values: list[Any] = []

    def add(part: str, *more: Any) -> None:
        parts.append(part)
        values.extend(more)

    if wanted.ids:
        numbers = [number for text in wanted.ids if (number := ids.read(text)) is not None]
        add(f"m.id IN ({','.join('?' * len(numbers))})", *numbers)
    else:
        add("m.state < 4")
    if wanted.state is not None:
        part, more = _state_condition(wanted.state)
        add(part, *more)
    if wanted.lane is not None:
        add("(l.name = ? OR l.name LIKE ? ESCAPE '!')", wanted.lane, like("/" + wanted.lane.lower())[:-1])
    if wanted.sender is not None:
        pattern = address_pattern(wanted.sender)
        add(f"(m.sender LIKE ? ESCAPE '!' OR {FROM_MATCHES.format(value='?')})", pattern, pattern, pattern)
    if wanted.recipient is not None:
        add(
            "EXISTS (SELECT 1 FROM recipient r WHERE r.message = m.id AND r.address LIKE ? ESCAPE '!')",
            address_pattern(wanted.recipient),
        )
    if wanted.older_than is not None:
        add("m.received < ?", ms(wanted.older_than))
    if wanted.reason is not None:
        add(
            # the lanes of such holds are looked for once, not for each message
            "(m.reason LIKE ? ESCAPE '!' OR (m.state IN (0, 2) AND m.lane IN (SELECT k.id FROM lane k JOIN hold h"
            " ON (h.scope = 'lane' AND h.key = k.name) OR"
            " (h.scope = 'upstream' AND substr(k.name, 1, length(h.key) + 1) = h.key || '/')"
            " WHERE h.reason LIKE ? ESCAPE '!')))",
            like(wanted.reason),
            like(wanted.reason),
        )
    return " AND ".join(parts), values
