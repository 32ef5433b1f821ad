"""Fixtures of the group: a real PostgreSQL, hosts, and groups that end whatever happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.fakes.postgres import PostgresServer, running
from tests.group.hosts import Hosts, Loopback, best_hosts
from tests.group.kit import Bounds, Group

server = pytest.fixture(scope="module")(running)

MakeGroup = Callable[..., Group]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Where the replicas of tests with hosts of their own have run."""
    hosts = best_hosts()
    hosts.close()
    terminalreporter.write_line(f"hosts of the relay group: {hosts.kind}")


@pytest.fixture
def make_group(tmp_path, server) -> Iterator[MakeGroup]:
    """A group on an empty database: ``make_group(Bounds(...), simulator options, hosts=.., servers=.., more=..)``."""
    made: list[Group] = []

    def make(
        bounds: Bounds,
        *simulator: str,
        hosts: Hosts | None = None,
        servers: list[PostgresServer] | None = None,
        more: str = "",
    ) -> Group:
        where = hosts or Loopback()
        made.append(Group(tmp_path / "group", where, servers or [server], bounds, *simulator, more=more))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    """A host for each replica, as good as the machine allows."""
    one = best_hosts()
    yield one
    one.close()
