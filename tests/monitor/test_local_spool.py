"""What an administrator sees of a relay that takes mail into its local spool, since its database is away."""

from __future__ import annotations

import asyncio
import json

import pytest

from relay.answering import Answering
from relay.errors import SpoolError
from tests.monitor.test_metrics import send, values
from tests.web.client import CONFIG, Site


@pytest.fixture
async def site(tmp_path):
    """Started while its database is away; it stays away."""
    shared = f'spool: {{{{url: "postgresql://relay@/relay?host={tmp_path}", local: "sqlite:///{{folder}}/local.db"}}}}'
    one = Site(tmp_path, config=CONFIG.replace('spool: {{url: "sqlite:///{folder}/spool.db"}}', shared))
    await one.start()
    yield one
    await one.stop()


async def test_it_is_ready_and_says_where_mail_goes_and_why(site):
    await asyncio.to_thread(send, site)
    answer = json.loads((await site.get("/readyz")).text)
    assert answer["ok"] is True
    assert "local spool: the database of the spool cannot be used" in answer["warnings"][0]
    got = values((await site.get("/metrics")).text)
    assert (got["relay_local_spool_active"], got["relay_local_spool_messages"]) == (1, 1)
    assert got["relay_local_spool_bytes"] > 0
    assert got["relay_local_spool_free_bytes"] > 0
    assert got["relay_local_spool_oldest_age_seconds"] >= 0
    assert got["relay_ready"] == 1
    page = await site.get("/")
    assert "Local spool" in page.text
    local = (await site.daemon.status())["spool"]["local"]
    assert local["url"].endswith("local.db")
    assert "cannot be used" in local["reason"]


async def test_a_local_disk_that_fails_is_not_ready(site, monkeypatch):
    async def fails(*_):
        raise SpoolError("disk I/O error")

    monkeypatch.setattr(site.daemon.spool.local, "remember", fails)
    answer = await Answering(site.daemon).health()
    assert answer["ok"] is False
    assert "disk I/O error" in answer["reasons"][0]


async def test_the_administrator_is_told_after_a_minute_and_once(site, monkeypatch):
    """What was told is remembered on this host's disk: the database is what is away."""
    told = []

    async def tell(self, news):
        told.append((news.cause.key, news.cause.messages, news.over))
        return self.names

    monkeypatch.setattr("relay.alert.ways.Ways.tell", tell)
    await asyncio.to_thread(send, site)
    alarms = site.daemon.alarms
    await alarms.look_here()
    assert told == []
    monkeypatch.setattr("relay.alert.causes.LOCAL_BEGINS", 0.0)
    await alarms.look_here()
    await alarms.look_here()
    await alarms._here.idle()
    assert told == [("local-spool", 1, False)]
    assert list(await site.daemon.spool.local.remembered("alert:alert:")) == ["alert:alert:local-spool"]
    monkeypatch.setattr(site.daemon.spool.switch, "since", None)
    await alarms.look_here()
    await alarms._here.idle()
    assert told[1:] == [("local-spool", 1, True)]


async def test_the_queue_page_shows_what_waits_here(site):
    await asyncio.to_thread(send, site)
    page = await site.get("/queue")
    assert page.status == 200
    assert "local spool: the database is away" in page.text
