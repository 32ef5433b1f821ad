"""What differs between the SQL of SQLite and that of PostgreSQL, in one place.

The functions that claim, settle, hold, list and trace are written once (`delivery.py`, `holding.py`, `operators.py`),
in SQL that both understand but for the few words below. A statement is translated once and then remembered.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

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
    statement = _ADVICE.sub("", statement)
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
