"""One function per mail event: the wording of log and metrics lives here, once.

The daemon plugs in a sink (structlog and prometheus behind it). Fields are short texts or numbers; nothing
secret is ever passed in. The same ``id`` runs through all events of one message.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Protocol


class Sink(Protocol):
    """Takes one event. Must be quick and must not raise."""

    def __call__(self, level: str, event: str, fields: Mapping[str, object]) -> None: ...


def _nowhere(level: str, event: str, fields: Mapping[str, object]) -> None:
    return None


_sink: Sink = _nowhere
_watchers: list[Sink] = []
_meters: list[Callable[[str, float], None]] = []
counts: Counter[str] = Counter()
"""How often each event happened in this process, whatever the log's level: the metrics are made of it."""


def _tell(level: str, event: str, fields: Mapping[str, object]) -> None:
    counts[event] += 1
    _sink(level, event, fields)
    for watcher in _watchers:
        watcher(level, event, fields)


def repeat(level: str, event: str, fields: Mapping[str, object]) -> None:
    """An event that happened in a helper process."""
    _tell(level, event, fields)


def plug(sink: Sink | None) -> None:
    """Send events there from now on; None: nowhere."""
    global _sink
    _sink = sink or _nowhere


def watch(watcher: Sink) -> Callable[[], None]:
    """Tell ``watcher`` every event, too, until what this returns is called."""
    _watchers.append(watcher)
    return lambda: _watchers.remove(watcher) if watcher in _watchers else None


def took(what: str, seconds: float) -> None:
    """One duration for the metrics: ``accept``, ``wait``, ``submit``, ``token`` or ``commit``. From any thread."""
    for meter in _meters:
        meter(what, seconds)


def meter(meter: Callable[[str, float], None]) -> Callable[[], None]:
    """Tell ``meter`` every duration until what this returns is called. It is called in any thread and must not raise."""
    _meters.append(meter)
    return lambda: _meters.remove(meter) if meter in _meters else None


def accepted(
    *, id: str, client: str, sender: str, recipients: int, size: int, lane: str, **more: object
) -> None:
    """A message is durable and was (or is about to be) answered with 250."""
    _tell("info", "accepted", {"id": id, "client": client, "sender": sender, "recipients": recipients,
                               "size": size, "lane": lane, **more})  # fmt: skip


def rejected(*, client: str, phase: str, reply: str, reason: str, **more: object) -> None:
    """A client was refused something: connection, AUTH, MAIL, RCPT or the message."""
    _tell("info", "rejected", {"client": client, "phase": phase, "reply": reply, "reason": reason, **more})


def connection(*, client: str, what: str, **more: object) -> None:
    """Something about a connection worth a line: probe, TLS failure, time-out, protocol misuse (debug)."""
    _tell("debug", "connection", {"client": client, "what": what, **more})


def attempted(*, id: str, lane: str, **more: object) -> None:
    """A submission starts."""
    _tell("debug", "attempted", {"id": id, "lane": lane, **more})


def delivered(*, id: str, lane: str, recipients: int, reply: str, **more: object) -> None:
    """Exchange accepted it."""
    _tell("info", "delivered", {"id": id, "lane": lane, "recipients": recipients, "reply": reply, **more})


def deferred(*, id: str, lane: str, reason: str, next_attempt: str, **more: object) -> None:
    """A temporary refusal; it will be tried again."""
    _tell(
        "warning",
        "deferred",
        {"id": id, "lane": lane, "reason": reason, "next_attempt": next_attempt, **more},
    )


def held(*, lane: str, scope: str, reason: str, remedy: str, evidence: str, **more: object) -> None:
    """A lane, sender or upstream is held until somebody mends it."""
    _tell("error", "held", {"lane": lane, "scope": scope, "reason": reason, "remedy": remedy,
                            "evidence": evidence, **more})  # fmt: skip


def released(*, lane: str, scope: str, why: str, **more: object) -> None:
    """A hold ended."""
    _tell("info", "released", {"lane": lane, "scope": scope, "why": why, **more})


def failed(*, id: str, lane: str, reason: str, recipients: int, **more: object) -> None:
    """Refused for good, or too old."""
    _tell("warning", "failed", {"id": id, "lane": lane, "reason": reason, "recipients": recipients, **more})


def uncertain(*, id: str, lane: str, why: str, **more: object) -> None:
    """The message may have been delivered already; it is sent again (or held) with the same Message-ID."""
    _tell("warning", "uncertain", {"id": id, "lane": lane, "why": why, **more})


def login(*, lane: str, transport: str, host: str, **more: object) -> None:
    """A connection to Exchange is authenticated."""
    _tell("debug", "login", {"lane": lane, "transport": transport, "host": host, **more})


def transport(*, upstream: str, transport: str, why: str, **more: object) -> None:
    """``transport: auto`` has decided how an upstream's mail is submitted, or decided anew."""
    _tell("info", "transport", {"upstream": upstream, "transport": transport, "why": why, **more})


def requested(*, mailbox: str, method: str, target: str, status: str, **more: object) -> None:
    """One exchange with Microsoft Graph, with the ids that Microsoft's support asks for (debug)."""
    _tell(
        "debug",
        "requested",
        {"mailbox": mailbox, "method": method, "target": target, "status": status, **more},
    )


def notified(*, id: str, kind: str, to: str, **more: object) -> None:
    """A notice about a message is on its way: of a failure, a delay, or of being held too long."""
    _tell("info", "notified", {"id": id, "kind": kind, "to": to, **more})


def trouble(*, where: str, what: str, remedy: str = "", **more: object) -> None:
    """Something of ours went wrong that is not about one message."""
    _tell("error", "trouble", {"where": where, "what": what, "remedy": remedy, **more})


def advice(*, where: str, what: str, remedy: str = "", **more: object) -> None:
    """Something works but an administrator should know: a plain secret, a readable file, a key of a later release."""
    _tell("warning", "advice", {"where": where, "what": what, "remedy": remedy, **more})


def notice(*, what: str, **more: object) -> None:
    """The daemon's own news: started, listening, reloaded, stopping."""
    _tell("info", "notice", {"what": what, **more})
