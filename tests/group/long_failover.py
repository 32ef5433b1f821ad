"""The database's primary is lost, and a standby takes its place: several hosts in the URL."""

from __future__ import annotations

import time

import pytest

from tests.fakes.postgres import PostgresServer
from tests.group.kit import FROZEN_CONNECTIONS, until
from tests.group.load import STRICT, strict_load, strict_verdict


@pytest.fixture
def pair():
    """A primary, and a standby that is part of every commit."""
    primary = PostgresServer()
    primary.database()
    standby = primary.standby()
    yield [primary, standby]
    standby.remove()
    primary.remove()


def test_nothing_that_was_acknowledged_is_lost_with_the_primary(make_group, pair):
    primary, standby = pair
    group = make_group(STRICT, "--latency", "0.05", servers=pair)
    replicas = group.start("one", "two", "three")
    senders = strict_load(group)
    until(lambda: len(group.received()) >= 40, what="mail is delivered")
    primary.stop()
    until(lambda: [one for one in senders.failures() if one.answer == "451"], what="clients are told")
    standby.ask("SELECT pg_promote()")
    promoted = time.monotonic()
    until(
        lambda: any(one.taken and one.began > promoted for one in senders.tries), 20, "mail is accepted again"
    )
    strict_verdict(group, senders)
    assert [one.process.poll() for one in replicas] == [None] * 3


def test_an_old_primary_that_comes_back_is_written_to_by_nobody(make_group, pair):
    """It stands first in every URL, and takes changes as if nothing had happened."""
    primary, standby = pair
    group = make_group(STRICT, "--latency", "0.05", servers=pair)
    replicas = group.start("one", "two", "three")
    senders = strict_load(group)
    until(lambda: len(group.received()) >= 40, what="mail is delivered")
    primary.ask("ALTER SYSTEM RESET synchronous_standby_names")
    primary.stop()
    standby.ask("SELECT pg_promote()")
    before = len(senders.taken())
    until(lambda: len(senders.taken()) > before + 5, 20, "mail is accepted again")
    primary.start()
    state = contents(primary)
    for one in replicas[:2]:  # a new process has never seen the new primary
        one.kill()
        one.start(wait=False)
    away = time.monotonic()
    replicas[2].databases[1].cut()  # and an old one that can only reach the old primary waits
    until(
        lambda: [
            one
            for one in senders.failures()
            if one.door == "three" and one.answer == "451" and one.began > away
        ]
    )
    replicas[2].databases[1].restore()
    for one in replicas:
        group.ready(one)
    strict_verdict(group, senders, FROZEN_CONNECTIONS)
    assert contents(primary) == state


def contents(server: PostgresServer) -> list[tuple[object, ...]]:
    """What a relay would have changed there."""
    return server.ask("SELECT (SELECT count(*) FROM relay.message), (SELECT sum(seen) FROM relay.replica)")
