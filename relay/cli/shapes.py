"""The `--json` shapes of design section 4 for what the spool holds. Fields may be added, none renamed."""

from __future__ import annotations

from typing import Any

from relay.cli.output import iso
from relay.spool.contract import MessageView, Trace


def message_shape(view: MessageView) -> dict[str, Any]:
    """One message as `queue list` and `queue show` print it."""
    return {
        "id": view.id,
        "received": iso(view.received),
        "state": view.state,
        "client": view.client,
        "sender": view.sender,
        "mailbox": view.mailbox,
        "lane": view.lane,
        "message_id": view.message_id,
        "subject": view.subject,
        "size": view.size,
        "attempts": view.attempts,
        "next_attempt": iso(view.next_attempt),
        "reason": view.reason,
        "remedy": view.remedy,
        **({"replica": view.replica} if view.replica else {}),
        "recipients": [
            {"address": one.address, "state": str(one.state), "code": one.code, "text": one.text}
            for one in view.recipients
        ],
    }


def trace_shape(trace: Trace) -> dict[str, Any]:
    """One message's history as `trace` prints it; an event's fields stand beside its time and name."""
    return {
        "id": trace.id,
        "message_id": trace.message_id,
        "state": trace.state,
        "sender": trace.sender,
        "recipients": list(trace.recipients),
        "events": [{**one.fields, "time": iso(one.time), "event": one.event} for one in trace.events],
    }
