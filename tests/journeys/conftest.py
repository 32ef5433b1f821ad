"""Fixtures of the journeys: a simulated Microsoft 365 and a relay that knows only the eight fields."""

from __future__ import annotations

import pytest

from tests.journeys.kit import Microsoft, Relay, running

FAST = (
    "--messages-per-minute", "0", "--recipients-per-day", "0", "--connections", "8"
)  # fmt: skip

UNLIMITED = """
upstreams:
  - server_name: Microsoft 365
    from_email: notifications@contoso.com
    tenant_id: {RELAY_TENANT_ID}
    client_id: {RELAY_CLIENT_ID}
    client_secret: env:RELAY_CLIENT_SECRET
    batch_size: medium
    limits: {{messages_per_minute: 0, recipients_per_day: 0, connections: 2}}
{upstream}
spool: {{retry: [1s, 2s], url: "sqlite:///{folder}/spool.db"}}
{more}
"""


@pytest.fixture
def microsoft(tmp_path):
    """Exchange with its ordinary limits."""
    folder = tmp_path / "microsoft"
    folder.mkdir()
    one = Microsoft(folder)
    yield one
    one.stop()


@pytest.fixture
def fast(tmp_path):
    """Exchange without limits, for tests that are about something else."""
    folder = tmp_path / "microsoft"
    folder.mkdir()
    one = Microsoft(folder, *FAST)
    yield one
    one.stop()


@pytest.fixture
def relay(tmp_path, microsoft):
    """A relay from the environment alone, started."""
    with running(Relay(tmp_path, microsoft.env)) as one:
        yield one


@pytest.fixture
def make_fast_relay(tmp_path, fast):
    """A relay without limits towards the fast Exchange: from a file, with more keys when asked; not started."""
    made: list[Relay] = []

    def make(more: str = "", upstream: str = "") -> Relay:
        config = tmp_path / "config.yaml"
        config.write_text(UNLIMITED.format(**fast.env, more=more, upstream=upstream, folder=tmp_path))
        one = Relay(tmp_path, fast.env, config)
        made.append(one)
        return one

    yield make
    for one in made:
        one.close()


@pytest.fixture
def fast_relay(make_fast_relay):
    """The same, started."""
    return make_fast_relay().start()
