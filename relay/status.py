"""What `relay status --json` prints (design section 4), put together from the running rooms or from the spool alone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from relay import __version__, events
from relay.deliver.choice import PREFIX, Choice, choices_of
from relay.likeness import differing, digests
from relay.schedule.lane import Login
from relay.schedule.limits import NO_LIMITS, MailboxLimiter
from relay.schedule.telling import iso
from relay.schedule.verdicts import PACE, TROUBLE
from relay.settings import Settings, Upstream
from relay.spool.contract import Hold, LaneSummary, Replica, Spool, SpoolStats, lane_name, lane_parts
from relay.spool.factory import build_spool
from relay.tokens.choice import NAMES
from relay.tokens.choice import Choice as CredentialChoice
from relay.tokens.contract import TokenState
from relay.tokens.expiry import CredentialState, Ends, credential_states, days_left

COUNTED = ("accepted", "rejected", "delivered", "deferred", "held", "failed", "uncertain", "notified")
"""Events whose number since the start is part of the report."""


SLOWED = "Exchange asked this mailbox to slow down; the rate recovers by itself"


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
    last_login: Login | None = None


def held_health(
    hold: Hold, *, transport: str = "", sent: int = 0, limit: int = 0, connections: int = 0,
    last_login: Login | None = None,
) -> LaneHealth:  # fmt: skip
    """The health of something held; the server's own words follow the reason."""
    reason = f"{hold.reason} (the server said: {hold.evidence})" if hold.evidence else hold.reason
    return LaneHealth(
        transport, "held", reason, hold.remedy, hold.since, sent, limit, connections, last_login
    )


def login_row(login: Login | None) -> dict[str, Any] | None:
    """A mailbox's last login; None when there was none since the start."""
    return {"time": iso(login.at), "transport": login.transport} if login is not None else None


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
        "last_login": login_row(health.last_login),
    }


def replica_row(one: Replica, ours: Mapping[str, str]) -> dict[str, Any]:
    """One relay of the group that shares the spool; ``differs``: sections of its configuration that are not as ``ours``."""
    return {
        "name": one.name,
        "version": one.version,
        "host": one.host,
        "pid": one.pid,
        "started": iso(one.started),
        "seen": iso(one.seen),
        "lanes": one.lanes,
        "state": one.state,
        "me": one.me,
        "differs": differing(ours, one.config),
    }


def hold_row(hold: Hold) -> dict[str, Any]:
    """One hold of the report: also those that keep a sender's or single messages of a lane that is open."""
    return {
        "scope": hold.scope,
        "key": hold.key,
        "code": hold.code,
        "reason": hold.reason,
        "remedy": hold.remedy or None,
        "evidence": hold.evidence or None,
        "since": iso(hold.since),
        "next_probe": iso(hold.next_probe) if hold.next_probe is not None else None,
    }


def _drain(backlog: int, health: LaneHealth) -> int | None:
    """Seconds until the backlog is gone at the limit's rate; None while held or without a limit to reckon by."""
    if not backlog:
        return 0
    if health.state == "held" or not health.limit_per_minute:
        return None
    return round(backlog * 60 / health.limit_per_minute)


def credential_rows(
    upstream: Upstream, now: float, *, ends: Ends | None = None, choice: CredentialChoice | None = None
) -> list[dict[str, Any]]:
    """The upstream's one or two credentials with what is known of their ends. Reads files: not for the event loop."""
    return [_credential_row(one, now, choice) for one in credential_states(upstream, ends)]


def _credential_row(state: CredentialState, now: float, choice: CredentialChoice | None) -> dict[str, Any]:
    which = NAMES.index(state.slot)
    dead = choice.faults.get(which) if choice else None
    error = f"{dead.code}: {dead}" if dead else state.fault or None
    return {
        "upstream": state.upstream,
        "kind": state.kind,
        "expires": iso(state.expires) if state.expires is not None else None,
        "days_left": days_left(state.expires, now) if state.expires is not None else None,
        "slot": state.slot,
        "in_use": choice.working == which if choice and choice.working is not None else None,
        "source": state.source or None,
        "rotates": state.rotates,
        "about": state.about or None,
        "error": error,
        "remedy": (dead.remedy if dead else state.remedy) or None,
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
    credentials: Mapping[str, CredentialChoice] | None = None,
    ends: Ends | None = None,
    now: float | None = None,
) -> dict[str, Any]:
    """The whole report. Lanes: those with mail, those in use, and each upstream's default mailbox.

    ``health``: of the lanes that the caller works; of the others, what the spool knows is shown.
    """
    spool = spool.last_seen()
    summaries = {summary.lane: summary for summary in await spool.lanes()}
    workers = await spool.workers()
    names = list(dict.fromkeys([lane_name(one.name, one.from_email) for one in settings.upstreams]))
    names += sorted((set(summaries) | set(health) | set(workers)) - set(names))
    stats = await spool.stats()
    replicas = await spool.replicas()
    ours = digests(settings)
    afar = await Afar.look(settings, spool, choices, now or time.time())
    return {
        "version": __version__,
        "started": iso(started) if started is not None else None,
        "listeners": listeners,
        "lanes": [
            lane_row(name, summaries.get(name), health.get(name) or afar.health(name))
            | ({"replica": workers[name].name if name in workers else None} if spool.shared else {})
            for name in names
        ],
        "replica": (spool.replica_name or None) if started is not None else None,
        "replicas": [replica_row(one, ours) for one in replicas],
        "holds": [hold_row(one) for one in afar.holds],
        "transports": [transport_row(one, choices.get(one.name)) for one in settings.upstreams],
        "tokens": token_rows(tokens),
        "credentials": await asyncio.to_thread(
            _credentials, settings, now or time.time(), credentials or {}, ends or {}
        ),
        "counters": {name: events.counts[name] for name in COUNTED},
        "spool": spool_row(stats),
    }


def spool_row(stats: SpoolStats) -> dict[str, Any]:
    """The spool of the report; ``local``: what waits in this host's own one beside it, null without such a one."""
    row = {"url": stats.url, "messages": stats.messages, "bytes": stats.bytes, "free": stats.free}
    local = stats.local
    if local is None:
        return {**row, "local": None}
    times = {
        name: iso(moment) if moment is not None else None
        for name, moment in (("oldest", local.oldest), ("since", local.since))
    }
    mine = {"url": local.url, "messages": local.messages, "bytes": local.bytes, "free": local.free}
    return {**row, "local": {**mine, **times, "reason": local.reason or None}}


def _credentials(
    settings: Settings, now: float, choices: Mapping[str, CredentialChoice], ends: Ends
) -> list[dict[str, Any]]:
    return [
        row
        for one in settings.upstreams
        for row in credential_rows(one, now, ends=ends, choice=choices.get(one.name))
    ]


@dataclass(frozen=True, slots=True)
class Afar:
    """What the spool knows of lanes that nobody works, or another replica does."""

    settings: Settings
    choices: Mapping[str, Choice]
    now: float
    holds: list[Hold]
    sent: dict[str, int]
    paces: dict[str, str]
    troubles: dict[str, str]

    @classmethod
    async def look(cls, settings: Settings, spool: Spool, choices: Mapping[str, Choice], now: float) -> Afar:
        """Read it. Raises SpoolError."""
        return cls(
            settings,
            choices,
            now,
            await spool.holds(),
            await spool.sent_last_minute(now),
            await spool.remembered(PACE),
            await spool.remembered(TROUBLE),
        )

    def health(self, name: str) -> LaneHealth:
        """One lane."""
        upstream = lane_parts(name)[0]
        transport = transport_of(self.settings, upstream, self.choices.get(upstream))
        limits = [one.limits for one in self.settings.upstreams if one.name == upstream]
        limiter = MailboxLimiter(limits[0] if limits else NO_LIMITS)
        limiter.recall(self.paces.get(PACE + name))
        limiter.sent_last_minute(self.now)
        sent = self.sent.get(name, 0)
        for hold in self.holds:
            if hold.scope in ("lane", "upstream") and hold.key in (name, upstream):
                return held_health(hold, transport=transport, sent=sent, limit=limiter.limit)
        with contextlib.suppress(ValueError, TypeError):
            reason, remedy, since = json.loads(self.troubles.get(TROUBLE + name, ""))
            return LaneHealth(transport, "slowed", reason, remedy, since, sent, limiter.limit)
        state, reason = ("slowed", SLOWED) if limiter.slowed else ("open", "")
        return LaneHealth(transport, state, reason, sent_last_minute=sent, limit_per_minute=limiter.limit)


async def offline(settings: Settings) -> dict[str, Any]:
    """The report of a stopped relay, from the spool alone; ``started`` is null."""
    from relay.keeper import known_ends

    spool = build_spool(settings.spool).last_seen()
    await spool.open(owner=False)
    try:
        choices = choices_of(await spool.remembered(PREFIX))
        listeners = [
            {"bind": one.bind, "connections": 0, "accepted": 0, "rejected": 0} for one in settings.listeners
        ]
        ends = await known_ends(spool, settings)
        return await report(
            settings,
            spool,
            started=None,
            listeners=listeners,
            health={},
            tokens={},
            choices=choices,
            ends=ends,
        )
    finally:
        await spool.close()
