"""What differs between the SQL of SQLite and that of PostgreSQL, in one place.

The functions that claim, settle, hold, list and trace are written once (`delivery.py`, `holding.py`, `operators.py`),
in SQL that both understand but for the few words below. A statement is translated once and then remembered.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from relay.spool.intake import INSERT_MESSAGES, INSERT_RECIPIENTS
from relay.spool.together import FIND, SET_RECIPIENTS, TRACE, USE

_J = "jsonb_array_elements(?::jsonb) AS j(v)"


def _fields(*types: str) -> str:
    """The elements of each array of `_J`, as columns."""
    return ", ".join(f"(v->>{n})" + (f"::{kind}" if kind != "text" else "") for n, kind in enumerate(types))


_WHOLE = {
    INSERT_MESSAGES: (
        "INSERT INTO message (id, received, lane, state, turn, size, sender, client, source, message_id, subject, pool,"
        " details, held_base, direct) SELECT "
        + _fields(*["bigint"] * 3, "smallint", *["bigint"] * 2, *["text"] * 7, "bigint", "smallint")
        + f" FROM {_J}"
    ),
    INSERT_RECIPIENTS: (
        "INSERT INTO recipient (message, n, address, notify, orcpt, state) SELECT "
        + _fields("bigint", "integer", "text", "text", "text")
        + f", 0 FROM {_J}"
    ),
    FIND: (
        "SELECT m.id, m.state, m.begun, m.lane, false, m.size,"
        " (SELECT count(*) FROM recipient r WHERE r.message = m.id AND r.state NOT IN (5, 7)) FROM message m"
        " WHERE m.id IN (SELECT value::bigint FROM json_array_elements_text(?::json)) ORDER BY m.id FOR UPDATE"
    ),
    SET_RECIPIENTS: (
        "UPDATE recipient SET state = (v->>0)::smallint, code = (v->>1)::integer, text = v->>2"
        f" FROM {_J} WHERE message = (v->>3)::bigint AND address = v->>4 AND state IN (0, 2, 3)"
    ),
    USE: (
        "INSERT INTO usage (lane, span, at, messages, recipients) SELECT "
        + _fields("bigint", "integer", "bigint", "integer", "integer")
        + f" FROM {_J} ON CONFLICT (lane, span, at) DO UPDATE SET messages = messages + excluded.messages,"
        " recipients = recipients + excluded.recipients"
    ),
    TRACE: (
        "INSERT INTO event (message, at, event, fields) SELECT "
        + _fields("bigint", "bigint", "text", "text")
        + f" FROM {_J}"
    ),
}  # fmt: skip
"""Statements about many rows at once, which travel as one JSON value here as there, in this one's own words."""

_WORDS = (
    (
        "INSERT OR REPLACE INTO source VALUES (?,?,?)",
        "INSERT INTO source VALUES (?,?,?) ON CONFLICT (lane, name) DO UPDATE SET turn = excluded.turn",
    ),
    (
        "INSERT OR REPLACE INTO memory VALUES (?, ?)",
        "INSERT INTO memory VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
    ),
    (" /*lock*/", " FOR UPDATE"),
    (" /*skip*/", " FOR UPDATE SKIP LOCKED"),
    (" /*skip messages*/", " FOR UPDATE OF m SKIP LOCKED"),
    ("lane /*counts*/", "lane_now"),
    ("SELECT bytes FROM total", "SELECT bytes FROM total_now"),
    # who has it in hand, and whose line of a trace it is: the session knows (`postgres_member.Member.introduce`)
    ("SET state = 1, begun = NULL", "SET state = 1, begun = NULL, replica = my_fence()"),
    ("SELECT at, event, fields FROM event",
     "SELECT at, event, CASE WHEN replica IS NULL THEN fields ELSE left(fields, -1)"
     " || CASE WHEN fields = '{}' THEN '' ELSE ',' END || '\"replica\":' || to_json(replica) || '}' END FROM event"),
    # the first line of a trace is read from the message, as "r" among its details
    ("m.details /*and by whom*/",
     "CASE WHEN m.accepted_by IS NULL THEN m.details ELSE left(m.details, -1)"
     " || ',\"r\":' || to_json(m.accepted_by) || '}' END"),
    # an upsert may mean the row that is there or the one that comes: PostgreSQL wants to be told
    ("SET messages = messages + ", "SET messages = usage.messages + "),
    ("recipients = recipients + excluded", "recipients = usage.recipients + excluded"),
    # JSON is text here as there; what is read from it comes from a function or as rows
    ("json_each(m.details, '$.f') f", "texts_of(m.details, 'f') AS f(value)"),
    ("json_each(m.pool)", "json_array_elements_text(m.pool::json)"),
    ("SELECT value FROM json_each(?)", "SELECT value::bigint FROM json_array_elements_text(?::json)"),
    (" IN ()", " IN (NULL)"),
    ("instr(", "strpos("),
    (" LIKE ", " ILIKE "),
    ("max(0, ", "greatest(0, "),
    ("max(delay_noticed, ", "greatest(delay_noticed, "),
    ("min(lane.turn, ", "least(lane.turn, "),
    ("sum(m.state IN (0, 2) AND l.held_since IS NOT NULL)",
     "sum((m.state IN (0, 2) AND l.held_since IS NOT NULL)::int)"),
)  # fmt: skip

_ADVICE = re.compile(r" INDEXED BY \w+")
"""To SQLite's planner; PostgreSQL's takes none."""
_MARK = re.compile(r"\?(\d*)")


@lru_cache(maxsize=1024)
def translate(statement: str) -> str:
    """A statement for PostgreSQL, its parameters as ``$1``. No text in our statements holds a question mark.

    A bare ``?`` is the number after the largest one so far (SQLite documentation, "Parameters").
    """
    statement = _WHOLE.get(statement) or _ADVICE.sub("", statement)
    for ours, theirs in _WORDS:
        statement = statement.replace(ours, theirs)
    if statement.startswith("INSERT INTO lane "):
        statement += " ON CONFLICT (name) DO UPDATE SET held_since = coalesce(lane.held_since, excluded.held_since) RETURNING id"
    largest = 0

    def mark(match: re.Match[str]) -> str:
        nonlocal largest
        number = int(match.group(1)) if match.group(1) else largest + 1
        largest = max(largest, number)
        return f"${number}"

    return _MARK.sub(mark, statement)


def bound(value: Any) -> Any:
    """A parameter as PostgreSQL takes it: truth as 0 and 1, as the columns are; no NUL, which no text there may hold."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str) and ("\0" in value or "\\u0000" in value):
        return value.replace("\0", "\ufffd").replace("\\u0000", "\\ufffd")
    return value
