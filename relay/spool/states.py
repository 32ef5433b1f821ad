"""The life of a recipient, and of its message, as one table.

QUEUED    accepted, or due again; on disk, waiting for its lane. The listener puts it here (at the 250), the
          scheduler takes it out by claiming. A crash leaves it here.
ACTIVE    claimed by a running relay. The attempt is written down (``begun``) before end of data is sent. A
          crash leaves it here: at the next start it goes back to QUEUED, and when ``begun`` was set the message
          is *uncertain* (it may have been delivered; RFC 1047) and the trace says so.
DEFERRED  a temporary refusal; waits for its due time, then QUEUED again.
HELD      kept and not tried: an administrator's mistake, or an operator's wish. Released to QUEUED.
SENT      Exchange accepted it. Final.
FAILED    refused for good, or too old. Final, but an operator may send it again while its content is kept.
DELETED   an operator took it out. Final.

A message's own state is that of its unfinished recipients, which always move together; when none is
left it is DONE. While a *lane* is held its messages keep their stored state and are shown as held.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable


class State(enum.StrEnum):
    """State of one recipient; the first four are also states of a message."""

    QUEUED = "queued"
    ACTIVE = "active"
    DEFERRED = "deferred"
    HELD = "held"
    SENT = "sent"
    FAILED = "failed"
    DELETED = "deleted"


DONE = "done"
"""State of a message with no unfinished recipient."""

FINAL = frozenset({State.SENT, State.FAILED, State.DELETED})

MOVES: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.ACTIVE, State.HELD, State.DELETED, State.FAILED}),
    State.ACTIVE: frozenset({State.SENT, State.DEFERRED, State.HELD, State.FAILED, State.QUEUED}),
    State.DEFERRED: frozenset({State.QUEUED, State.HELD, State.DELETED, State.FAILED}),
    State.HELD: frozenset({State.QUEUED, State.DELETED, State.FAILED}),
    State.SENT: frozenset(),
    State.FAILED: frozenset({State.QUEUED}),
    State.DELETED: frozenset(),
}

_STRONGEST = (State.ACTIVE, State.DEFERRED, State.QUEUED, State.HELD)


def may_move(before: State, after: State) -> bool:
    """Whether the table allows this move."""
    return after in MOVES[before]


def message_state(recipients: Iterable[State]) -> str:
    """The message's state from its recipients': DONE when all are final.

    When an attempt left several kinds, a held recipient keeps no other waiting, and a deferred one is not hurried.
    """
    open_states = {state for state in recipients if state not in FINAL}
    if not open_states:
        return DONE
    return next(state.value for state in _STRONGEST if state in open_states)
