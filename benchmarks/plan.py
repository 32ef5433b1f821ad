"""How many mailboxes, pools, tenants and replicas so many messages a day need: arithmetic over Microsoft's limits.

Sources, as docs/scaling.md names them: 30 messages a minute and 10,000 recipients in 24 h of a mailbox, internal ones
included; 500 x licences^0.7 + 9,500 external recipients in 24 h of a tenant.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

PER_MINUTE = 30
PER_DAY = 10_000
CONNECTIONS = 500
"""Connections that one process of relay has open at most (`relay.schedule.loop`); more mailboxes share them, and wait."""


@dataclass(frozen=True)
class Demand:
    """What has to be sent."""

    messages: float
    """A day."""
    recipients: float = 1.0
    """Of one message."""
    external: float = 1.0
    """Share of recipients outside the tenants."""
    peak_share: float = 0.6
    """Of the day's messages, within ``peak_hours``."""
    peak_hours: float = 8.0
    fill: float = 5 / 6
    """Share of Microsoft's limits that is planned for; the rest is for held mailboxes and uneven days."""

    @property
    def peak_per_second(self) -> float:
        """Messages."""
        return self.messages * self.peak_share / (self.peak_hours * 3600)


@dataclass(frozen=True)
class Plan:
    """What it takes; all whole numbers, rounded up."""

    by_day: int
    """Mailboxes, by recipients a day."""
    by_minute: int
    """Mailboxes, by messages a minute at the peak."""
    mailboxes: int
    tenants: int
    """By external recipients, each with the licences asked about; 1 at least."""
    pools: int
    """Within the tenants: a pool never reaches beyond one."""
    replicas: int
    """By messages a second at the peak, and so that each mailbox can keep a connection; one more may be away."""


def external_limit(licences: int) -> int:
    """External recipients that a tenant may have in 24 h."""
    return round(500 * licences**0.7 + 9_500)


def licences_for(external: float) -> int:
    """Licences that one tenant needs for so many external recipients in 24 h."""
    return max(1, math.ceil(((external - 9_500) / 500) ** (1 / 0.7))) if external > 10_000 else 1


def plan(demand: Demand, *, licences: int, per_replica: float, pool: int = 20) -> Plan:
    """``licences``: of each tenant. ``per_replica``: messages a second that one replica was measured to carry.

    ``pool``: mailboxes of a pool at most; with few in each tenant, all of them.
    """
    recipients = demand.messages * demand.recipients
    by_day = math.ceil(recipients / (PER_DAY * demand.fill))
    by_minute = math.ceil(demand.peak_per_second * 60 / (PER_MINUTE * demand.fill))
    mailboxes = max(1, by_day, by_minute)
    tenants = max(1, math.ceil(recipients * demand.external / (external_limit(licences) * demand.fill)))
    by_rate, by_connections = demand.peak_per_second / per_replica, mailboxes / CONNECTIONS
    replicas = max(1, math.ceil(by_rate), math.ceil(by_connections))
    pools = tenants * math.ceil(math.ceil(mailboxes / tenants) / pool)
    return Plan(by_day, by_minute, max(mailboxes, tenants), tenants, pools, replicas)
