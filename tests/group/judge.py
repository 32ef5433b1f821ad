"""An outside judge: it knows what clients were promised and what Exchange recorded, and nothing of the relays' insides."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.group.senders import Senders
from tests.journeys.kit import Microsoft, Relay

MINUTE = 60.0


@dataclass(frozen=True)
class Bounds:
    """What a mailbox may do: messages in any 60 s, recipients a day, connections at once; 0: no limit."""

    minute: int = 0
    day: int = 0
    connections: int = 2


@dataclass
class Findings:
    """What Exchange recorded, put beside what clients were promised."""

    arrived: Counter[str] = field(default_factory=Counter)
    """Message-ID -> how often, to the recipient who has most copies: a message may be split."""
    when: dict[str, float] = field(default_factory=dict)
    """Message-ID -> when it arrived first, seconds since 1970."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Message-ID -> octets of the smallest copy."""
    minutes: dict[str, int] = field(default_factory=dict)
    """Mailbox -> the most messages in any 60 s."""
    recipients: Counter[str] = field(default_factory=Counter)
    limits: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The simulator's own account of each mailbox, refused attempts included."""


def look(microsoft: Microsoft) -> Findings:
    """Read the simulator's records."""
    found = Findings(limits=microsoft.call("/limits")["mailboxes"])
    times: defaultdict[str, list[float]] = defaultdict(list)
    copies: Counter[tuple[str, str]] = Counter()
    for one in microsoft.messages():
        name = one["message_id"]
        copies.update((name, person) for person in one["recipients"])
        found.arrived[name] = max(
            found.arrived[name], *(copies[name, person] for person in one["recipients"])
        )
        found.when.setdefault(name, one["received"])
        found.sizes[name] = min(found.sizes.get(name, one["size"]), one["size"])
        found.recipients[one["mailbox"]] += len(one["recipients"])
        times[one["mailbox"]].append(one["received"])
    found.minutes = {mailbox: busiest(when) for mailbox, when in times.items()}
    return found


def busiest(times: Iterable[float]) -> int:
    """The most of them within any 60 seconds."""
    when, most, first = sorted(times), 0, 0
    for last, time in enumerate(when):
        while when[first] <= time - MINUTE:
            first += 1
        most = max(most, last - first + 1)
    return most


def check_limits(found: Findings, bounds: Bounds) -> None:
    """No mailbox exceeded anything, tried to, or heard a throttling reply."""
    for mailbox, account in found.limits.items():
        told = (mailbox, found.minutes.get(mailbox), account)
        assert account["refusals"] == {}, ("Exchange was provoked", *told)
        assert account["connections_tried"] <= bounds.connections, told
        if bounds.minute:
            assert found.minutes.get(mailbox, 0) <= bounds.minute, told
            assert account["messages_per_minute_tried"] <= bounds.minute, told
        if bounds.day:
            assert found.recipients[mailbox] <= bounds.day, told


def check_mail(
    found: Findings, senders: Senders, witness: Relay, waiting: frozenset[str] = frozenset()
) -> None:
    """Everything that got a 250 is whole at Exchange (or ``waiting`` in the queue), and nothing is there twice that the
    group does not report as uncertain, as often as it arrived too much. ``witness`` is a relay that is asked for traces.
    """
    lost = senders.taken() - set(found.arrived) - waiting
    assert not lost, f"{len(lost)} acknowledged messages are lost, one: {traces(witness, min(lost))}"
    strange = set(found.arrived) - senders.taken() - senders.unclear()
    assert not strange, f"messages arrived that clients were refused: {strange}"
    short = [one for one in senders.tries if found.sizes.get(one.message_id, one.size) < one.size]
    assert not short, f"messages arrived without all of their content: {short}"
    for message_id, count in found.arrived.items():
        if count > 1:
            said = [event for trace in traces(witness, message_id) for event in trace["events"]]
            reports = [event for event in said if event["event"] == "uncertain"]
            assert len(reports) >= count - 1, f"{message_id} arrived {count} times: {said}"


def twice(found: Findings) -> list[str]:
    """What arrived more than once."""
    return [message_id for message_id, count in found.arrived.items() if count > 1]


def traces(witness: Relay, message_id: str) -> list[dict[str, Any]]:
    """`relay trace` of one message."""
    found = json.loads(witness.command("trace", message_id.strip("<>"), "--json").stdout)
    return [one for one in found if one["message_id"] == message_id]


def queued(witness: Relay) -> frozenset[str]:
    """Message-IDs that `relay queue list` shows."""
    found = json.loads(witness.command("queue", "list", "--json").stdout)
    return frozenset(one["message_id"] for one in found)
