"""What `relay status --json` prints (design section 4), put together from the running rooms or from the spool alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from relay import __version__, events
from relay.deliver.choice import PREFIX, Choice, choices_of
from relay.errors import TokenError
from relay.schedule.telling import iso
from relay.settings import Certificate, ClientSecret, ManagedIdentity, Settings, Upstream
from relay.spool.contract import Hold, LaneSummary, Spool, lane_name, lane_parts
from relay.spool.factory import build_spool
from relay.tokens.contract import TokenState
from relay.tokens.credentials import expires

COUNTED = ("accepted", "rejected", "delivered", "deferred", "held", "failed", "uncertain", "notified")
"""Events whose number since the start is part of the report."""


@dataclass(frozen=True, slots=True)
class LaneHealth:
    """A lane as the scheduler knows it."""

    transport: str = ""
    state: str = "open"
    reason: str = ""
    remedy: str = ""
    since: float | None = None
    sent_last_minute: int = 0
    limit_per_minute: int = 0
    connections: int = 0


def held_health(
    hold: Hold, *, transport: str = "", sent: int = 0, limit: int = 0, connections: int = 0
) -> LaneHealth:
    """The health of something held; the server's own words follow the reason."""
    reason = f"{hold.reason} (the server said: {hold.evidence})" if hold.evidence else hold.reason
    return LaneHealth(transport, "held", reason, hold.remedy, hold.since, sent, limit, connections)


def lane_row(name: str, summary: LaneSummary | None, health: LaneHealth) -> dict[str, Any]:
    """One lane of the report."""
    upstream, mailbox = lane_parts(name)
    backlog = summary.queued + summary.active + summary.deferred + summary.held if summary else 0
    return {
        "upstream": upstream,
        "mailbox": mailbox,
        "transport": health.transport,
        "state": health.state,
        "reason": health.reason or None,
        "remedy": health.remedy or None,
        "since": iso(health.since) if health.since is not None else None,
        "backlog": backlog,
        "oldest": iso(summary.oldest) if summary and summary.oldest is not None else None,
        "sent_last_minute": health.sent_last_minute,
        "limit_per_minute": health.limit_per_minute,
        "time_to_drain": _drain(backlog, health),
        "connections": health.connections,
    }


def _drain(backlog: int, health: LaneHealth) -> int | None:
    """Seconds until the backlog is gone at the limit's rate; None while held or without a limit to reckon by."""
    if not backlog:
        return 0
    if health.state == "held" or not health.limit_per_minute:
        return None
    return round(backlog * 60 / health.limit_per_minute)


def credential_row(upstream: Upstream) -> dict[str, Any]:
    """Kind and known expiry of an upstream's credential. Reads certificate files: not for the event loop."""
    kinds = {ClientSecret: "client_secret", Certificate: "certificate", ManagedIdentity: "managed_identity"}
    kind = kinds.get(type(upstream.credential), "federated_token_file")
    try:
        when = expires(upstream)
    except TokenError:  # an unreadable certificate: the token's own error says so
        when = None
    return {
        "upstream": upstream.name,
        "kind": kind,
        "expires": iso(when.timestamp()) if when is not None else None,
    }


def token_rows(tokens: Mapping[str, Iterable[TokenState]]) -> list[dict[str, Any]]:
    """All tokens held, by upstream."""
    return [
        {
            "upstream": name,
            "resource": state.resource.value,
            "expires": iso(state.expires) if state.expires is not None else None,
            "error": state.error,
        }
        for name, states in tokens.items()
        for state in states
    ]


def transport_of(settings: Settings, upstream: str, choice: Choice | None) -> str:
    """The transport in use: the configured one, or what ``auto`` has decided; ``auto`` before that."""
    for one in settings.upstreams:
        if one.name == upstream:
            return choice.transport if one.transport == "auto" and choice is not None else one.transport
    return ""


def transport_row(upstream: Upstream, choice: Choice | None) -> dict[str, Any]:
    """How one upstream submits, and why."""
    if upstream.transport != "auto":
        why, choice = f"the configuration says transport: {upstream.transport}", None
    else:
        why = choice.why if choice is not None else "the next message decides"
    return {
        "upstream": upstream.name,
        "transport": choice.transport if choice is not None else upstream.transport,
        "configured": upstream.transport,
        "why": why,
        "since": iso(choice.since) if choice is not None else None,
    }


async def report(
    settings: Settings,
    spool: Spool,
    *,
    started: float | None,
    listeners: list[dict[str, Any]],
    health: Mapping[str, LaneHealth],
    tokens: Mapping[str, Iterable[TokenState]],
    choices: Mapping[str, Choice],
) -> dict[str, Any]:
    """The whole report. Lanes: those with mail, those in use, and each upstream's default mailbox."""
    summaries = {summary.lane: summary for summary in await spool.lanes()}
    names = list(dict.fromkeys([lane_name(one.name, one.from_email) for one in settings.upstreams]))
    names += sorted((set(summaries) | set(health)) - set(names))
    stats = await spool.stats()
    return {
        "version": __version__,
        "started": iso(started) if started is not None else None,
        "listeners": listeners,
        "lanes": [
            lane_row(name, summaries.get(name), health.get(name) or _idle_health(settings, name, choices))
            for name in names
        ],
        "transports": [transport_row(one, choices.get(one.name)) for one in settings.upstreams],
        "tokens": token_rows(tokens),
        "credentials": await asyncio.to_thread(lambda: [credential_row(one) for one in settings.upstreams]),
        "counters": {name: events.counts[name] for name in COUNTED},
        "spool": {"url": stats.url, "messages": stats.messages, "bytes": stats.bytes, "free": stats.free},
    }


def _idle_health(settings: Settings, name: str, choices: Mapping[str, Choice]) -> LaneHealth:
    upstream = lane_parts(name)[0]
    transport = transport_of(settings, upstream, choices.get(upstream))
    limits = [one.limits.messages_per_minute for one in settings.upstreams if one.name == upstream]
    return LaneHealth(transport=transport, limit_per_minute=limits[0] if limits else 0)


async def offline(settings: Settings) -> dict[str, Any]:
    """The report of a stopped relay, from the spool alone; ``started`` is null."""
    spool = build_spool(settings.spool)
    await spool.open(owner=False)
    try:
        health, choices = {}, choices_of(await spool.remembered(PREFIX))
        for summary in await spool.lanes():
            idle = _idle_health(settings, summary.lane, choices)
            for hold in await spool.holds():
                if hold.scope != "sender" and hold.key in (summary.lane, lane_parts(summary.lane)[0]):
                    health[summary.lane] = held_health(
                        hold, transport=idle.transport, limit=idle.limit_per_minute
                    )
        listeners = [
            {"bind": one.bind, "connections": 0, "accepted": 0, "rejected": 0} for one in settings.listeners
        ]
        return await report(
            settings, spool, started=None, listeners=listeners, health=health, tokens={}, choices=choices
        )
    finally:
        await spool.close()
