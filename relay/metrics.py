"""What a monitoring system sees: counters and durations from `relay.events`, states from the report of `relay status`.

Prometheus' text format. Every set of labels is bounded: causes and replies come from our own tables and are capped all
the same, since part of them is another server's words; mailboxes are capped, the busiest first.
"""

from __future__ import annotations

import asyncio
import datetime
import platform
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from relay import events
from relay.clock import Clock
from relay.settings import Settings
from relay.spool.contract import lane_parts

disable_created_metrics()  # type: ignore[no-untyped-call]  # series of creation times: they double the page, and the start is shown once

FRESH = 1.0
"""Seconds that the page is not put together again: anybody on this machine may ask."""
LABELS = 200
"""Different label values of one counter; whatever comes beyond is counted as ``other``."""
LANES = 500
"""Mailboxes that are shown one by one: those that are held, then those with the largest backlog."""
OTHER = "other"

QUICK = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SLOW = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
WAITS = (0.01, 0.1, 0.5, 1.0, 5.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)
DURATIONS: dict[str, tuple[str, Sequence[float]]] = {
    "accept": ("From a message's last octet to its 250.", QUICK),
    "wait": ("From a message's arrival to the start of its first submission.", WAITS),
    "submit": ("One submission, from the message's first command to Exchange's answer.", SLOW),
    "token": ("One request for a token, answered or not.", SLOW),
    "commit": ("One transaction of the spool, its sync to disk included; many messages may share it.", QUICK),
}
"""What `relay.events.took` measures -> help and upper bounds of the buckets, in seconds."""
STATES = ("open", "slowed", "held")
EVENTS = frozenset(
    {
        "accepted",
        "rejected",
        "delivered",
        "deferred",
        "held",
        "released",
        "failed",
        "uncertain",
        "notified",
        "trouble",
    }
)
"""What `relay_events_total` counts."""


class Running(Protocol):
    """What the page is made of: the running daemon."""

    settings: Settings

    @property
    def clock(self) -> Clock: ...

    async def status(self) -> dict[str, Any]: ...

    async def health(self) -> dict[str, Any]: ...


class Bounded:
    """A counter whose combinations of label values are no more than `LABELS`."""

    def __init__(
        self, name: str, text: str, labels: Sequence[str], registry: CollectorRegistry, most: int = LABELS
    ) -> None:
        self._counter = Counter(name, text, labels, registry=registry)
        self._known: set[tuple[str, ...]] = set()
        self._rest = tuple(OTHER for _ in labels)
        self._most = most

    def add(self, *values: object) -> None:
        """Count one."""
        key = tuple(str(value or OTHER)[:120] for value in values)
        if key not in self._known:
            if len(self._known) >= self._most:
                key = self._rest
            self._known.add(key)
        self._counter.labels(*key).inc()


class Metrics:
    """Everything that `/metrics` says about one running relay."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry(auto_describe=True)
        self._unwatch: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._reading = asyncio.Lock()
        self._page: tuple[float, bytes] | None = None
        self._states = _States()
        registry.register(self._states)
        ProcessCollector(registry=registry)
        self._accepted = Counter("relay_accepted", "Messages accepted from clients.", registry=registry)
        self._uncertain = Counter(
            "relay_uncertain",
            "Messages that may have been delivered twice, or not at all.",
            registry=registry,
        )
        self._events = Counter(
            "relay_events", "Events of the log, whatever its level.", ("event",), registry=registry
        )
        for event in EVENTS:
            self._events.labels(event)  # there from the start: what appears with 1 shows no increase
        self._counters = self._bounded(registry)
        self._durations = {
            what: Histogram(f"relay_{what}_seconds", text, buckets=buckets, registry=registry)
            for what, (text, buckets) in DURATIONS.items()
        }

    @staticmethod
    def _bounded(registry: CollectorRegistry) -> dict[str, tuple[Bounded, tuple[str, ...]]]:
        """Event -> its counter, and the fields of the event that become labels."""

        def make(
            name: str, text: str, labels: Sequence[str], *fields: str
        ) -> tuple[Bounded, tuple[str, ...]]:
            return Bounded(name, text, labels, registry), fields

        return {
            "rejected": make("relay_rejected", "Connections, logins, senders, recipients and messages refused.",
                             ("phase", "code"), "phase", "reply"),
            "delivered": make("relay_submitted", "Submissions that Exchange accepted.", ("upstream", "mailbox"), "lane"),
            "deferred": make("relay_deferred", "Submissions refused for now.", ("cause",), "code"),
            "held": make("relay_held", "Times that a message, sender, mailbox or upstream was held.",
                         ("scope", "cause"), "scope", "code"),
            "failed": make("relay_failed", "Messages refused for good, or given up.", ("cause",), "code"),
            "notified": make("relay_notices", "Notices about messages sent.", ("kind",), "kind"),
            "trouble": make("relay_troubles", "Faults of the relay's own, by the part that met them.",
                            ("where",), "where"),
        }  # fmt: skip

    # what happens

    def watch(self) -> None:
        """Count from now on."""
        if not self._unwatch:
            self._unwatch = [events.watch(self._event), events.meter(self._took)]

    def stop(self) -> None:
        """Count no more."""
        for unwatch in self._unwatch:
            unwatch()
        self._unwatch = []

    def _event(self, level: str, event: str, fields: Mapping[str, object]) -> None:
        if event in EVENTS:
            self._events.labels(event).inc()
        if event == "accepted":
            self._accepted.inc()
        elif event == "uncertain":
            self._uncertain.inc()
        elif event in self._counters:
            counter, names = self._counters[event]
            counter.add(*_labels(event, fields, names))

    def _took(self, what: str, seconds: float) -> None:
        """From any thread."""
        self._durations[what].observe(max(0.0, seconds))

    # what is shown

    async def page(self, relay: Running) -> bytes:
        """The page of now; whoever asks within `FRESH` seconds is shown the same."""
        async with self._reading:
            if self._page is None or not 0 <= time.monotonic() - self._page[0] < FRESH:
                report, health = await relay.status(), await relay.health()
                limit, now = relay.settings.spool.max_size, relay.clock.now()
                text = await asyncio.to_thread(
                    self.text, report, ready=bool(health["ok"]), limit=limit, now=now
                )
                self._page = time.monotonic(), text
            return self._page[1]

    def text(self, report: Mapping[str, Any], *, ready: bool, limit: int, now: float) -> bytes:
        """The page, given the report of `relay status`, the spool's ``max_size`` and wall time. Not for the event loop."""
        with self._lock:
            self._states.show(report, ready=ready, limit=limit, now=now)
            return generate_latest(self._registry)


def _labels(event: str, fields: Mapping[str, object], names: tuple[str, ...]) -> tuple[object, ...]:
    if event == "delivered":
        return lane_parts(str(fields.get("lane", "")))
    if event == "rejected":
        return fields.get("phase"), _code(str(fields.get("reply", "")))
    if event == "trouble":
        return (str(fields.get("where", "")).split(" ", 1)[0],)  # `message ID`, `lane NAME`
    return tuple(fields.get(name) for name in names)


def _code(reply: str) -> str:
    """``550 5.7.1`` of a reply's text."""
    words = reply.split(" ", 2)
    return " ".join(words[:2]) if len(words) > 1 and words[1].count(".") == 2 else words[0]


class _States(Collector):
    """The gauges, made from the last report."""

    def __init__(self) -> None:
        self._families: list[Any] = []

    def describe(self) -> list[Any]:
        return []

    def collect(self) -> Iterator[Any]:
        yield from self._families

    def show(self, report: Mapping[str, Any], *, ready: bool, limit: int, now: float) -> None:
        self._families = [
            _build(report),
            _gauge("relay_ready", "1 while mail is taken: listening, and the spool can be written.", [((), ready)]),
            _gauge(
                "relay_start_time_seconds", "When the relay had started, in seconds since 1970.",
                [((), _seconds(report.get("started")))],
            ),
            _gauge(
                "relay_connections", "Clients connected now.",
                [((one["bind"],), one["connections"]) for one in report["listeners"]], "listener",
            ),
            *_lanes(report["lanes"], now),
            *_replicas(report),
            *_spool(report["spool"], limit, now),
            *_ends(report),
            _holds(report["holds"]),
        ]  # fmt: skip


def _build(report: Mapping[str, Any]) -> InfoMetricFamily:
    values = {"version": str(report["version"]), "python": platform.python_version()}
    return InfoMetricFamily("relay_build", "What runs.", value=values)


Row = tuple[tuple[str, ...], float | None]


def _gauge(name: str, text: str, rows: Sequence[Row], *labels: str) -> GaugeMetricFamily:
    """One gauge; a row without a value is left out."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, number in rows:
        if number is not None:
            family.add_metric(list(values), float(number))
    return family


def _seconds(moment: str | None) -> float | None:
    return datetime.datetime.fromisoformat(moment.replace("Z", "+00:00")).timestamp() if moment else None


def _age(moment: str | None, now: float) -> float:
    then = _seconds(moment)
    return max(0.0, now - then) if then is not None else 0.0


def _shown(lanes: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(lanes, key=lambda one: (one["state"] != "held", -one["backlog"]))[:LANES]


def _lanes(lanes: Sequence[Mapping[str, Any]], now: float) -> list[GaugeMetricFamily]:
    shown = _shown(lanes)
    named = [((str(one["upstream"]), str(one["mailbox"])), one) for one in shown]
    labels = ("upstream", "mailbox")
    states = [((*key, state), one["state"] == state) for key, one in named for state in STATES]
    figures = {
        "relay_lane_backlog": ("Messages of the mailbox that wait.", "backlog"),
        "relay_lane_sent_last_minute": ("Messages submitted in the last 60 seconds.", "sent_last_minute"),
        "relay_lane_limit_per_minute": (
            "Messages allowed in any 60 seconds; 0: no limit.",
            "limit_per_minute",
        ),
        "relay_lane_connections": ("Connections to Exchange open for the mailbox.", "connections"),
    }
    return [
        _gauge("relay_lane_state", "1 for the state that the mailbox's lane is in.", states, *labels, "state"),
        *(_gauge(n, text, [(key, one[of]) for key, one in named], *labels) for n, (text, of) in figures.items()),
        _gauge("relay_lane_last_login_timestamp_seconds",
               "When Exchange last let the mailbox in, in seconds since 1970; none: not since the start.",
               [(key, _seconds((one["last_login"] or {}).get("time"))) for key, one in named], *labels),
        _gauge("relay_lane_oldest_age_seconds", "Age of the oldest message of the mailbox that waits; 0: none does.",
               [(key, _age(one["oldest"], now)) for key, one in named], *labels),
        _gauge("relay_lanes_not_shown", "Mailboxes beyond those that are shown one by one.",
               [((), len(lanes) - len(shown))]),
    ]  # fmt: skip


def _replicas(report: Mapping[str, Any]) -> list[GaugeMetricFamily]:
    """The group that shares the spool, and who works what; nothing where one relay has it alone."""
    group = list(report.get("replicas", ()))[:LABELS]
    worked = [
        ((str(one["upstream"]), str(one["mailbox"]), str(one["replica"])), 1.0)
        for one in _shown(report["lanes"])
        if one.get("replica")
    ]
    return [
        _gauge("relay_replica", "1 for each relay of the group that shares the spool.",
               [((str(one["name"]), str(one["version"]), str(one["state"])), 1.0) for one in group],
               "replica", "version", "state"),
        _gauge("relay_replica_lanes", "Mailboxes that the replica works just now.",
               [((str(one["name"]),), one["lanes"]) for one in group], "replica"),
        _gauge("relay_replica_seen_timestamp_seconds", "When the replica was last heard of, in seconds since 1970.",
               [((str(one["name"]),), _seconds(one["seen"])) for one in group], "replica"),
        _gauge("relay_lane_replica", "1 for the replica that works the mailbox.", worked, "upstream", "mailbox", "replica"),
    ]  # fmt: skip


def _spool(spool: Mapping[str, Any], limit: int, now: float) -> list[GaugeMetricFamily]:
    local = [one] if (one := spool.get("local")) else []
    return [
        _gauge("relay_local_spool_active", "1 while new mail goes into this host's local spool.",
               [((), one["since"] is not None) for one in local]),
        _gauge("relay_local_spool_messages", "Messages in the local spool that are to be forwarded.",
               [((), one["messages"]) for one in local]),
        _gauge("relay_local_spool_bytes", "Octets that the local spool takes.", [((), one["bytes"]) for one in local]),
        _gauge("relay_local_spool_free_bytes", "Octets that the local spool can still take.",
               [((), one["free"]) for one in local]),
        _gauge("relay_local_spool_oldest_age_seconds", "Age of the oldest message in the local spool; 0: there is none.",
               [((), _age(one["oldest"], now)) for one in local]),
        _gauge("relay_spool_messages", "Messages in the spool.", [((), spool["messages"])]),
        _gauge("relay_spool_bytes", "Octets that the spool takes.", [((), spool["bytes"])]),
        _gauge("relay_spool_free_bytes", "Octets that it can still take.", [((), spool["free"])]),
        _gauge("relay_spool_limit_bytes", "Octets that it may take (spool.max_size).", [((), limit)]),
    ]  # fmt: skip


def _ends(report: Mapping[str, Any]) -> list[GaugeMetricFamily]:
    tokens = [((one["upstream"], one["resource"]), _seconds(one["expires"])) for one in report["tokens"]]
    credentials = [
        ((one["upstream"], one["slot"], one["kind"]), _seconds(one["expires"]))
        for one in report["credentials"]
    ]
    faults = [((one["upstream"], one["resource"]), one["error"] is not None) for one in report["tokens"]]
    return [
        _gauge("relay_token_expiry_seconds", "When the access token ends, in seconds since 1970.",
               tokens, "upstream", "resource"),
        _gauge("relay_token_failing", "1 while Entra ID refuses a token.", faults, "upstream", "resource"),
        _gauge("relay_credential_expiry_seconds",
               "When a secret, certificate or sign-in ends, in seconds since 1970, where that is known.",
               credentials, "upstream", "slot", "kind"),
    ]  # fmt: skip


def _holds(holds: Sequence[Mapping[str, Any]]) -> GaugeMetricFamily:
    scopes = ("message", "sender", "lane", "upstream")
    rows: list[Row] = [((one,), sum(hold["scope"] == one for hold in holds)) for one in scopes]
    return _gauge("relay_holds", "Holds in force.", rows, "scope")
