"""Waiting mail moved from one lane to another: inside the writer's transaction, like `delivery`."""

from __future__ import annotations

import sqlite3

from relay.spool import ids
from relay.spool.contract import Claim
from relay.spool.intake import lane_for_insert, take_turn
from relay.spool.records import DEFERRED, LOCK, QUEUED, SKIP


def reassign(connection: sqlite3.Connection, lane: str, to: str, limit: int, now_ms: int) -> int:
    """Waiting messages of a pool go from one member lane to another, those that are due first; how many."""
    moved = 0
    for state in (QUEUED, DEFERRED):  # one partial index each
        rows = connection.execute(
            "SELECT m.id FROM message m WHERE m.lane = (SELECT id FROM lane WHERE name = ?)"
            f" AND m.state = {state:d} AND m.pool IS NOT NULL"
            " AND EXISTS (SELECT 1 FROM json_each(m.pool) WHERE value = ?)"
            f" ORDER BY {'m.turn, m.id' if state == QUEUED else 'm.due'} LIMIT ?{SKIP}",
            (lane, to, limit - moved),
        ).fetchall()
        for (number,) in rows:
            move(connection, number, to, now_ms)
        moved += len(rows)
    return moved


def move_all(connection: sqlite3.Connection, moves: list[tuple[Claim, str | None]], now_ms: int) -> int:
    """Messages with the lanes that they go to, those that still wait; how many moved."""
    moved = 0
    for claim, lane in moves:
        number = ids.number_of(claim.id)
        row = connection.execute(f"SELECT state FROM message WHERE id = ?{LOCK}", (number,)).fetchone()
        if lane is not None and row is not None and row[0] in (0, 2, 3):
            move(connection, number, lane, now_ms)
            moved += 1
    return moved


def move(connection: sqlite3.Connection, number: int, lane: str, now_ms: int) -> None:
    """To another lane, at the turn its source has there; the time held on the old lane stays counted."""
    old = connection.execute(
        "SELECT m.source, CASE WHEN m.held_since IS NOT NULL THEN 0 ELSE"
        " l.held_ms + CASE WHEN l.held_since IS NULL THEN 0 ELSE ? - l.held_since END - m.held_base END"
        " FROM message m JOIN lane l ON l.id = m.lane WHERE m.id = ?",
        (now_ms, number),
    ).fetchone()
    lane_id, present, held = lane_for_insert(connection, lane, now_ms)
    turn = take_turn(connection, lane_id, present, old[0])
    connection.execute(
        "UPDATE message SET lane = ?, turn = ?, held_ms = held_ms + ?, held_base = ? WHERE id = ?",
        (lane_id, turn, old[1], held, number),
    )
