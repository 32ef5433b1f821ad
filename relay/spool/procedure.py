"""Several statements run by one call.

Each statement that Python has SQLite run gives up Python's lock, and has to win it back from a busy event loop: that
costs more than the work of a small statement. SQLite has no stored procedures, but a trigger may hold any statements, and
a trigger on a view without rows does nothing else (SQLite documentation, "CREATE TRIGGER", INSTEAD OF). View and
trigger are temporary: they belong to the connection, not to the file.
"""

from __future__ import annotations

import itertools
import re
import sqlite3
from typing import Any

_MARK = re.compile(r"\?(\d*)")


class Procedure:
    """Statements with the places of their values among those of the call."""

    def __init__(self, name: str, *steps: tuple[str, tuple[int, ...]]) -> None:
        """``steps``: each statement, and which of the call's values its parameters are (in order)."""
        self._name = name
        self.steps = steps
        self._columns = 1 + max(place for _, places in steps for place in places)
        self._call = f"INSERT INTO temp.{name} VALUES ({','.join('?' * self._columns)})"

    def run(self, connection: sqlite3.Connection, *values: Any) -> None:
        """Run them in the transaction under way; on another database than SQLite, one by one."""
        if not isinstance(connection, sqlite3.Connection):
            for statement, places in self.steps:
                connection.execute(statement, [values[place] for place in places])
            return
        try:
            connection.execute(self._call, values)
        except sqlite3.OperationalError as error:
            if str(error) != f"no such table: temp.{self._name}":
                raise
            self._make(connection)
            connection.execute(self._call, values)

    def _make(self, connection: sqlite3.Connection) -> None:
        columns = ", ".join(f"NULL AS v{place}" for place in range(self._columns))
        connection.execute(f"CREATE TEMP VIEW {self._name} AS SELECT {columns}")
        body = "; ".join(_bound(statement, places) for statement, places in self.steps)
        connection.execute(
            f"CREATE TEMP TRIGGER run_{self._name} INSTEAD OF INSERT ON {self._name} BEGIN {body}; END"
        )


def _bound(statement: str, places: tuple[int, ...]) -> str:
    """The statement with the row's values where its parameters are."""
    following = itertools.count()

    def value(match: re.Match[str]) -> str:
        index = int(match[1]) - 1 if match[1] else next(following)
        return f"NEW.v{places[index]}"

    return _MARK.sub(value, statement)
