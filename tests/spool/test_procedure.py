"""Several statements run by one call, as if one after another."""

from __future__ import annotations

import sqlite3

import pytest

from relay.spool.procedure import Procedure
from relay.spool.records import as_json, rows_of

WORK = Procedure(
    "work",
    ("INSERT INTO thing (n, words) SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?)", (0,)),
    ("UPDATE thing SET words = ?2 || words WHERE n > ?1", (1, 2)),
    ("DELETE FROM thing WHERE n = ? OR words = ?", (3, 2)),
)  # fmt: skip


@pytest.fixture
def connection():
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("CREATE TABLE thing (n INTEGER PRIMARY KEY, words TEXT)")
    yield connection
    connection.close()


def things(connection) -> list[tuple[int, str]]:
    return sorted(rows_of(connection, "SELECT n, words FROM thing", (), 2))


def test_each_statement_gets_its_values_in_order(connection):
    for _ in range(2):  # made at the first call, there at the second
        connection.execute("DELETE FROM thing")
        WORK.run(connection, as_json([[1, "a"], [2, "bc"], [3, ""]]), 1, "x?", 3)
        assert things(connection) == [(1, "a"), (2, "x?bc")]


def test_a_failure_undoes_all_of_its_statements(connection):
    connection.execute("INSERT INTO thing VALUES (2, 'there')")
    with pytest.raises(sqlite3.IntegrityError):
        WORK.run(connection, as_json([[1, "a"], [2, "b"]]), 0, "x", 9)
    assert things(connection) == [(2, "there")]


def test_it_is_made_again_after_a_transaction_that_was_taken_back(connection):
    connection.execute("BEGIN")
    WORK.run(connection, as_json([[1, "a"]]), 9, "x", 9)
    connection.execute("ROLLBACK")
    assert things(connection) == []
    WORK.run(connection, as_json([[1, "a"]]), 9, "x", 9)
    assert things(connection) == [(1, "a")]


def test_another_fault_of_the_database_is_not_taken_for_a_missing_procedure(connection):
    connection.execute("DROP TABLE thing")
    with pytest.raises(sqlite3.OperationalError, match=r"^no such table: thing$"):
        WORK.run(connection, as_json([[1, "a"]]), 9, "x", 9)


def test_elsewhere_the_statements_run_one_by_one():
    class Other:
        said: list[tuple[str, list]] = []

        def execute(self, statement, values):
            self.said.append((statement[:6], list(values)))

    WORK.run(Other(), "[]", 1, "x", 3)
    assert Other.said == [("INSERT", ["[]"]), ("UPDATE", [1, "x"]), ("DELETE", [3, "x"])]


def test_rows_come_whole_whatever_they_hold(connection):
    rows = [(1, 'quote " and \\'), (2, "nul \0 and line\n"), (2**62, "beyond \U0001f4e7"), (4, None)]
    connection.executemany("INSERT INTO thing VALUES (?, ?)", rows)
    assert sorted(rows_of(connection, "SELECT n, words FROM thing", (), 2)) == sorted(rows)
    assert rows_of(connection, "SELECT n, words FROM thing WHERE n = ?", (9,), 2) == []
