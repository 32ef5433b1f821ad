"""What a stopped or killed relay had in hand, taken back: inside the writer's transaction, like `delivery`."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from relay.spool import ids
from relay.spool.contract import Recovered
from relay.spool.delivery import count_at_the_end, delete, unclaim
from relay.spool.holding import begin_own_hold
from relay.spool.records import HELD, QUEUED, add_event


def recover(connection: sqlite3.Connection, now_ms: int, *, hold_uncertain: bool) -> Recovered:
    """What was under way when the last owner stopped: back to the queue, and said so where it may have been delivered."""
    rows = connection.execute(
        "SELECT id, begun, lane FROM message INDEXED BY message_active WHERE state = 1 ORDER BY id"
    ).fetchall()
    waited = connection.execute("SELECT id FROM message WHERE direct = 1 AND state < 4").fetchall()
    return take_back(
        connection, rows, [number for (number,) in waited], now_ms, hold_uncertain=hold_uncertain
    )


def take_back(
    connection: sqlite3.Connection,
    claimed: Sequence[tuple[int, int | None, int]],
    waited: Sequence[int],
    now_ms: int,
    *,
    hold_uncertain: bool,
    who: str = "relay stopped",
) -> Recovered:
    """Messages (id, begun, lane) that somebody had in hand who is no more, and those of which a client of his waited."""
    uncertain = [number for number, begun, _ in claimed if begun is not None]
    unclaim(connection, [number for number, begun, _ in claimed if begun is None])
    for _, begun, lane in claimed:
        count_at_the_end(connection, lane, begun, now_ms)  # until the crash, which was before now
    for number in uncertain:
        _recover_uncertain(connection, number, now_ms, hold=hold_uncertain, who=who)
    for number in waited:
        delete(connection, number, now_ms, "a restart: its client was never told that we have it")
    return Recovered(len(claimed) - len(uncertain), tuple(ids.show(number) for number in uncertain))


def _recover_uncertain(
    connection: sqlite3.Connection, number: int, now_ms: int, *, hold: bool, who: str
) -> None:
    reason = f"{who} while this message was being submitted; it may have been delivered already"
    then = "held for a decision (spool.on_uncertain: hold)" if hold else "sent again with the same Message-ID"
    remedy = "Look whether it arrived; then `relay queue release` or `relay queue delete` it." if hold else ""
    add_event(connection, number, "uncertain", {"reason": reason, "then": then})
    connection.execute(
        "UPDATE message SET state = ?, begun = NULL, attempts = attempts + 1, reason = ?, remedy = ? WHERE id = ?",
        (HELD if hold else QUEUED, reason, remedy, number),
    )
    if hold:
        begin_own_hold(connection, number, now_ms)
