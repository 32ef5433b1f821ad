"""The database's primary is lost, and a standby takes its place: several hosts in the URL."""

from __future__ import annotations

import time

import pytest

from tests.fakes.postgres import PostgresServer
from tests.group.kit import until
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
