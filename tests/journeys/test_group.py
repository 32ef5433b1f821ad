"""Three relays as processes on one PostgreSQL spool, seen from outside: clients, Exchange, and `relay status`."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fakes.postgres import PostgresServer, running
from tests.journeys.kit import Microsoft, Relay, until
from tests.journeys.sending import mail, send
from tests.journeys.test_postgres import all_arrived, load_for

server = pytest.fixture(scope="module")(running)

MAILBOXES = ("notifications", "scans", "billing")
CONFIG = """
upstreams:
  - server_name: Microsoft 365
    from_email: notifications@contoso.com
    tenant_id: {RELAY_TENANT_ID}
    client_id: {RELAY_CLIENT_ID}
    client_secret: env:RELAY_CLIENT_SECRET
    limits: {{{limits}}}
spool: {{retry: [1s, 2s]}}
senders: {senders}
"""
Group = Callable[[Microsoft, str], list[Relay]]


@pytest.fixture
def start_group(tmp_path: Path, server: PostgresServer) -> Iterator[Group]:
    """Three relays with the same configuration, on an empty database."""
    group: list[Relay] = []

    def start(microsoft: Microsoft, limits: str = "") -> list[Relay]:
        url, config = server.database(), tmp_path / "config.yaml"
        senders = [f"{{match: {one}@legacy.local, from: {one}@contoso.com}}" for one in MAILBOXES]
        config.write_text(CONFIG.format(**microsoft.env, limits=limits, senders=f"[{', '.join(senders)}]"))
        for name in ("one", "two", "three"):
            folder = tmp_path / name
            folder.mkdir()
            relay = Relay(folder, microsoft.env, config)
            relay.env |= {"RELAY_SPOOL_URL": url, "RELAY_REPLICA": name}
            group.append(relay)
            relay.start(wait=False)
        for relay in group:
            until(relay._listening, what=f"{relay.folder.name} listens: {relay.log.read_text()[-2000:]}")
        return group

    yield start
    for relay in group:
        relay.close()


@pytest.fixture
def exchange(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Microsoft]:
    """Exchange with every mailbox of the tests; the parameters are its options."""
    folder = tmp_path / "microsoft"
    folder.mkdir()
    one = Microsoft(folder, "--any-mailbox", *request.param)
    yield one
    one.stop()


def send_to_all(group: list[Relay], count: int) -> set[str]:
    """So many messages for each mailbox, accepted by all replicas in turn; their Message-IDs."""
    sent: set[str] = set()
    for n in range(count):
        for which, mailbox in enumerate(MAILBOXES):
            message = mail(n * 10 + which, 200, sender=f"{mailbox}@legacy.local")
            send(group[(n + which) % len(group)].port, message)
            sent.add(message["Message-ID"])
    return sent


def working(relay: Relay, count: int) -> list[dict[str, object]]:
    """The replicas as one of them sees them, once there are so many."""
    return until(
        lambda: (found := relay.status()["replicas"]) and len(found) == count and found,
        60,
        f"{count} replicas take part",
    )


@pytest.mark.parametrize(
    "exchange",
    [("--messages-per-minute", "0", "--recipients-per-day", "0", "--connections", "8")],
    indirect=True,
)
def test_a_group_with_one_killed_under_load_loses_nothing(exchange, start_group):
    group = start_group(exchange, "messages_per_minute: 0, recipients_per_day: 0")
    loads = [load_for(relay, n) for n, relay in enumerate(group)]
    until(lambda: all(len(load.accepted) > 20 for load in loads), what="all replicas accept")
    group[0].kill()
    lost = loads[0].finish()
    working(group[1], 2)
    accepted = lost.union(*(load.finish() for load in loads[1:]))
    all_arrived(exchange, group[1], accepted)
    assert {one["name"] for one in group[1].status()["replicas"]} == {"two", "three"}
    assert group[1].stop() == 0
    assert working(group[2], 1)[0]["name"] == "three"


@pytest.mark.parametrize("exchange", [()], indirect=True)
def test_limits_hold_while_one_is_killed_and_one_stands_still_and_comes_back(exchange, start_group):
    """Thirty a minute and three connections of each mailbox, as Exchange counts them."""
    group = start_group(exchange, "messages_per_minute: 30")
    sent = send_to_all(group, 40)
    lanes = until(
        lambda: (
            (found := group[0].status()["lanes"]) and len({one["replica"] for one in found}) == 3 and found
        ),
        what="each replica works a lane",
    )
    assert {one["mailbox"].split("@")[0] for one in lanes} == set(MAILBOXES)
    until(lambda: len(exchange.messages()) > 30, what="mail is under way")
    group[0].kill()
    frozen = group[1].process
    assert frozen is not None
    os.kill(frozen.pid, signal.SIGSTOP)
    working(group[2], 1)
    os.kill(frozen.pid, signal.SIGCONT)
    working(group[1], 2)
    until(
        lambda: len({one["message_id"] for one in exchange.messages()}) >= len(sent), 150, "all mail arrives"
    )
    report = exchange.call("/limits")["mailboxes"]
    assert len(report) == 3
    for mailbox in report.values():
        assert mailbox["messages_per_minute_tried"] <= 30, report
        assert mailbox["connections_tried"] <= 3, report
        assert mailbox["refusals"] == {}, report
    until(lambda: group[2].status()["spool"]["messages"] == 0, what="all of it is settled")
    all_arrived(exchange, group[2], sent)
