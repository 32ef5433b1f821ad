"""How mail that waits in a local spool is shown beside that of the shared one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from relay.spool.contract import Filter, MessageView, Trace, TraceEvent
from relay.spool.states import State

AWAY = "waits in this host's local spool: the database is away"
SOON = "waits in this host's local spool and is being forwarded"
REMEDY = "It is forwarded by itself when the database answers; nothing needs to be done for it."


def wanted(given: Filter) -> Filter:
    """The filter for the local spool, where no message has a reason of its own."""
    return dataclasses.replace(given, reason=None)


def may_mean(given: Filter) -> bool:
    """Whether a filter's reason, if it has one, is that of mail in the local spool."""
    return given.reason is None or any(given.reason.lower() in text.lower() for text in (AWAY, SOON))


def shown(views: Sequence[MessageView], given: Filter, reason: str) -> list[MessageView]:
    """The views of local messages with the reason for which they wait, where a filter means that reason."""
    if given.reason is not None and given.reason.lower() not in reason.lower():
        return []
    return [
        dataclasses.replace(view, reason=reason, remedy=REMEDY) if view.state == State.QUEUED else view
        for view in views
    ]


def merge(theirs: Sequence[MessageView], ours: Sequence[MessageView]) -> list[MessageView]:
    """Oldest first; a message that is being forwarded is in both, and is the shared spool's."""
    both = {view.id: view for view in [*ours, *theirs]}
    return [both[name] for name in sorted(both)]


def merge_traces(theirs: Sequence[Trace], ours: Sequence[Trace], reason: str) -> list[Trace]:
    """Newest first; the local ones say where the message is."""
    both = {one.id: one for one in [*(_waiting(one, reason) for one in ours), *theirs]}
    return [both[name] for name in sorted(both, reverse=True)]


def _waiting(one: Trace, reason: str) -> Trace:
    if one.state != State.QUEUED or not one.events:
        return one
    told = TraceEvent(one.events[-1].time, "waiting", {"reason": reason})
    return dataclasses.replace(one, events=(*one.events, told))
