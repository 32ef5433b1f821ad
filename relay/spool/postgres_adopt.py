"""Mail that other hosts accepted while this database was away: stored once, whatever was stored of it before.

See `relay.spool.handover`. One such transaction at a time, over all hosts. What a commit that is still under way has
stored cannot be seen yet, but the same id cannot be stored a second time: PostgreSQL waits for that commit, and then
this one fails and is made again.
"""

from __future__ import annotations

import json
import sqlite3
import time

from relay.spool.handover import UNCERTAIN, Adopted, Handover, Stop
from relay.spool.intake import NewRow
from relay.spool.postgres_dialect import bound
from relay.spool.postgres_rows import LOCK_PIECES, add_piece, insert_all
from relay.spool.records import add_event, as_json, pack_details

NOTE = "forwarded:"
"""Key, before the giver's name, of the ids that it gave and still has."""

Mark = tuple[object, ...]


def adopt(connection: sqlite3.Connection, given: Handover) -> Adopted:
    """See `relay.spool.handover.Shared.adopt`."""
    connection.execute(LOCK_PIECES)
    noted = _noted(connection, given.giver)
    there = _marks(connection, [row.number for row in given.rows])
    fresh: list[NewRow] = []
    done, stop = 0, Stop.NOTHING
    for row in given.rows:
        if row.number not in noted:
            if row.number not in there:
                if row.body is None and not _has_pieces(connection, row):
                    stop = Stop.PIECES
                    break
                fresh.append(row)
            elif there[row.number] != _mark_of(row):
                stop = Stop.STRANGER
                break
        done += 1
    insert_all(connection, fresh)
    for row in fresh:
        _tell(connection, row, given)
    given_now = {row.number for row in given.rows[:done]}
    _note(connection, given.giver, (noted - given.gone) | given_now)
    return Adopted(done, stop, tuple(fresh))


def put_piece(connection: sqlite3.Connection, number: int, n: int, data: bytes) -> bool:
    """A piece of a body, or nothing where the same is there. False: something else is."""
    if add_piece(connection, number, n, data, " ON CONFLICT DO NOTHING"):
        return True
    row = connection.execute("SELECT data FROM chunk WHERE message = ? AND n = ?", (number, n)).fetchone()
    return row is not None and bytes(row[0]) == data


def _noted(connection: sqlite3.Connection, giver: str) -> set[int]:
    row = connection.execute("SELECT value FROM memory WHERE key = ?", (NOTE + giver,)).fetchone()
    return set(json.loads(row[0])) if row else set()


def _note(connection: sqlite3.Connection, giver: str, numbers: set[int]) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO memory VALUES (?, ?)", (NOTE + giver, as_json(sorted(numbers)))
    )


def _marks(connection: sqlite3.Connection, numbers: list[int]) -> dict[int, Mark]:
    """What tells the messages that are there from others: nothing in it changes while a message is in the spool."""
    rows = connection.execute(
        "SELECT id, size, sender, client, source, message_id, details FROM message"
        " WHERE id IN (SELECT value FROM json_each(?))",
        (as_json(numbers),),
    ).fetchall()
    return {row[0]: tuple(row[1:]) for row in rows}


def _mark_of(row: NewRow) -> Mark:
    message = row.message
    texts = (message.envelope.sender, message.client.address, message.source, message.message_id)
    return (row.size, *(bound(text) for text in (*texts, pack_details(message))))


def _has_pieces(connection: sqlite3.Connection, row: NewRow) -> bool:
    """Whether all of its body is there; upkeep may have taken pieces for those of a message that never came."""
    found = connection.execute(
        "SELECT coalesce(sum(length(data)), 0) FROM chunk WHERE message = ?", (row.number,)
    ).fetchone()
    return int(found[0]) == row.body_size


def _tell(connection: sqlite3.Connection, row: NewRow, given: Handover) -> None:
    """Its trace says where it has been, and whether it may have been there before."""
    waited = max(0, round(time.time() - row.received / 1000))
    add_event(connection, row.number, "forwarded", {"from": given.host, "waited": f"{waited} s"})
    if row.number in given.uncertain:
        add_event(connection, row.number, "uncertain", {"why": UNCERTAIN})
