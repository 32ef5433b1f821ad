"""What a running relay answers: to the commands over the control channel, and to the admin page."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from relay import status
from relay.errors import ControlError, SpoolError
from relay.likeness import others_differ
from relay.schedule.lane import Lane
from relay.schedule.telling import iso
from relay.spool.contract import lane_name, lane_parts
from relay.status import LaneHealth, held_health
from relay.tokens.contract import TokenState

if TYPE_CHECKING:
    from relay.daemon import Daemon

_SLOW_DIAL = 10.0
"""Seconds after which a connection that is still being made is worth a word in `relay status`."""

_SPOOL_PATIENCE = 5.0
"""Seconds in which the spool must answer a probe."""
_LANES = 100
"""Mailboxes that an answer about health shows one by one."""
_NONE_ASKED = "none yet: no mail has needed one since the start"
_OVER = "it has ended: the next login asks for a new one"
_NO_LOGIN = "no login yet: no mail has needed one since the start"


def _glance(name: str, health: LaneHealth) -> dict[str, Any]:
    """One mailbox in the answer about health."""
    upstream, mailbox = lane_parts(name)
    return {
        "upstream": upstream,
        "mailbox": mailbox,
        "state": health.state,
        "last_login": status.login_row(health.last_login),
        "reason": health.reason or (None if health.last_login else _NO_LOGIN),
    }


def _token_glance(upstream: str, state: TokenState, now: float) -> dict[str, Any]:
    """One token in the answer about health."""
    held = state.expires is not None and state.expires > now
    return {
        "upstream": upstream,
        "resource": state.resource.value,
        "held": held,
        "expires": iso(state.expires) if state.expires is not None else None,
        "reason": state.error or (None if held else _OVER),
    }


class Answering:
    """Answers about one running daemon, and passes on what an operator changed."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    async def answer(self, do: str, payload: dict[str, Any]) -> dict[str, Any]:
        """What `relay.control.ask` asks."""
        if do == "status":
            return await self.status()
        if do == "health":
            return await self.health()
        if do == "events":
            return {"events": self._daemon.memory.events()}
        if do in ("wake", "release", "check"):
            self._daemon.courier.revisit()
            for tokens in self._daemon.tokens.values():
                tokens.retry_now()
            lanes = [str(lane) for lane in payload.get("lanes", [])]
            await self._daemon.scheduler.refresh(lanes, probe_now=do == "release")
            return {}
        if do == "reload":
            return await self._reload()
        raise ControlError(f"the running relay does not know {do!r}")

    async def _reload(self) -> dict[str, Any]:
        """``replica``: which one has read its configuration; ``differing``: which others have another one now."""
        daemon = self._daemon
        try:
            await daemon.reload()
        except OSError as error:
            raise ControlError(f"nothing was changed: {error}") from error
        others = []
        with contextlib.suppress(SpoolError):
            others = await daemon.spool.replicas()
        return {"replica": daemon.spool.replica_name, "differing": others_differ(daemon.settings, others)}

    async def health(self) -> dict[str, Any]:
        """``ok`` and ``reasons``: whether mail is taken. ``warnings``: why mail that was taken may not leave just now.

        Only the first decides whether relay is ready: clients should go on handing over mail while Microsoft is away.
        What was looked at is told as well: ``listening``, ``spool``, ``tokens``, and ``lanes`` with their last login.
        """
        listening = sorted(self._daemon.listeners) if self._daemon.started is not None else []
        reasons = [] if listening else ["not listening yet"]
        spool = await self._spool_fault() if listening else ""
        reasons += [spool] if spool else []
        lanes = self._lanes_at_a_glance()
        return {
            "ok": not reasons,
            "reasons": reasons,
            "warnings": self._warnings(),
            "replica": self._daemon.spool.replica_name or None,
            "listening": listening,
            "spool": {"writable": bool(listening) and not spool, "reason": spool or None},
            "tokens": self._tokens_at_a_glance(),
            "lanes": lanes[:_LANES],
            "lanes_not_shown": max(0, len(lanes) - _LANES),
        }

    async def _spool_fault(self) -> str:
        """Why the spool takes no mail; empty when it does."""
        spool = self._daemon.spool
        try:
            async with asyncio.timeout(_SPOOL_PATIENCE):
                await spool.probe()
                return "" if await spool.has_room(1024) else "the spool is full"
        except TimeoutError:
            return f"the spool has not answered within {_SPOOL_PATIENCE:.0f} s: is its disk stuck?"
        except SpoolError as error:
            return f"the spool cannot be written: {error}"

    def _tokens_at_a_glance(self) -> list[dict[str, Any]]:
        """Each upstream's tokens: held, or why not."""
        now, rows = self._daemon.clock.now(), []
        for name, source in self._daemon.tokens.items():
            told = [_token_glance(name, one, now) for one in source.states()]
            rows += told or [
                {"upstream": name, "resource": None, "held": False, "expires": None, "reason": _NONE_ASKED}
            ]
        return rows

    def _lanes_at_a_glance(self) -> list[dict[str, Any]]:
        """Every mailbox in use, the held ones first: its state and its last login. One without a login is no fault."""
        known = self._health_of_lanes()
        names = [lane_name(one.name, one.from_email) for one in self._daemon.settings.upstreams]
        rows = [
            _glance(name, known.get(name, LaneHealth())) for name in dict.fromkeys([*names, *sorted(known)])
        ]
        return sorted(rows, key=lambda row: row["state"] != "held")

    def _warnings(self) -> list[str]:
        """A database that is away, tokens that are refused, mailboxes that are held or cannot be logged in to."""
        diverted = self._daemon.spool.diverted
        away = [f"new mail goes into this host's local spool: {diverted}"] if diverted else []
        tokens = [
            f"{name}: no {state.resource.value} token: {state.error}"
            for name, source in self._daemon.tokens.items()
            for state in source.states()
            if state.error is not None
        ]
        lanes = [
            f"{lane_parts(name)[1]}: {health.state}: {health.reason}"
            for name, health in self._health_of_lanes().items()
            if health.state == "held" or self._daemon.scheduler.lanes[name].trouble is not None
        ]
        return [*away, *tokens, *lanes]

    async def status(self) -> dict[str, Any]:
        """The report of `relay status`."""
        listeners = [
            {"bind": bind, "connections": one.connections, "accepted": one.accepted, "rejected": one.rejected}
            for bind, one in self._daemon.listeners.items()
        ]
        return await status.report(
            self._daemon.settings,
            self._daemon.spool,
            started=self._daemon.started,
            listeners=listeners,
            health=self._health_of_lanes(),
            tokens={name: tokens.states() for name, tokens in self._daemon.tokens.items()},
            credentials={name: tokens.choice for name, tokens in self._daemon.tokens.items()},
            ends=self._daemon.keeper.ends,
            now=self._daemon.clock.now(),
            choices={
                one.name: choice
                for one in self._daemon.settings.upstreams
                if (choice := self._daemon.courier.choice(one.name))
            },
        )

    def _health_of_lanes(self) -> dict[str, LaneHealth]:
        now, scheduler = self._daemon.clock.now(), self._daemon.scheduler
        return {
            name: self._health_of(lane, now)
            for name, lane in scheduler.lanes.items()
            if scheduler.works(name) or not self._daemon.spool.shared
        }

    def _health_of(self, lane: Lane, now: float) -> LaneHealth:
        upstream = lane.upstream.name
        decided = status.transport_of(self._daemon.settings, upstream, self._daemon.courier.choice(upstream))
        transport = lane.transport if lane.connected and lane.transport else decided
        sent, limit = lane.limiter.sent_last_minute(now), lane.limiter.limit
        hold = lane.the_hold()
        if hold is not None:
            return held_health(
                hold, transport=transport, sent=sent, limit=limit, connections=lane.connected,
                last_login=lane.last_login,
            )  # fmt: skip
        state, reason, remedy, since = self._slowed(lane, now)
        return LaneHealth(
            transport, state, reason, remedy, since, sent, limit, lane.connected, lane.last_login
        )

    def _slowed(self, lane: Lane, now: float) -> tuple[str, str, str, float | None]:
        """State, reason, remedy and since of a lane that is not held."""
        opening = min(lane.opening.values(), default=now)
        backlog = self._daemon.alarms.backlog(lane.name)
        if lane.trouble is not None:
            return "slowed", lane.trouble.reason, lane.trouble.remedy, lane.trouble_since
        if now - opening > _SLOW_DIAL:
            reason = "a connection is being made, and Exchange or Entra ID has not answered yet"
            remedy = "Wait for the time-out, which names the step; is a firewall or proxy in between?"
            return "slowed", reason, remedy, opening
        if lane.limiter.slowed:
            return "slowed", status.SLOWED, "", None
        if lane.limiter.day_is_full(now):
            reason = "the mailbox has reached its limit of recipients in 24 hours"
            remedy = "Spread its mail over a pool (senders: login: [a, b]), or wait: it goes on by itself."
            return "slowed", reason, remedy, None
        if backlog is not None:
            return lane.state(), backlog.reason, backlog.remedy, backlog.since
        return lane.state(), "", "", None
