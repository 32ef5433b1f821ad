"""The last login of each mailbox: in health, status and metrics; a mailbox that needed none is not unready."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from tests.journeys.conftest import FAST
from tests.journeys.kit import Microsoft
from tests.monitor.test_metrics import send, values
from tests.web.client import CONFIG, Site

MAILBOX = "notifications@contoso.com"
SERIES = f"relay_lane_last_login_timestamp_seconds{{mailbox={MAILBOX},upstream=Microsoft 365}}"


@pytest.fixture
async def connected(tmp_path):
    """A relay with a page, and a simulated Microsoft 365 that lets it in."""
    (tmp_path / "microsoft").mkdir()
    microsoft = await asyncio.to_thread(Microsoft, tmp_path / "microsoft", *FAST)
    env = microsoft.env
    config = (
        CONFIG.replace("11111111-2222-4333-8444-555555555555", env["RELAY_TENANT_ID"])
        .replace("66666666-7777-4888-9999-aaaaaaaaaaaa", env["RELAY_CLIENT_ID"])
        .replace("a-secret-nobody-may-see", env["RELAY_CLIENT_SECRET"])
        .replace("https://127.0.0.1:9", env["RELAY_AUTHORITY"])
        .replace(
            "host: 127.0.0.1",
            f"host: {env['RELAY_HOST']}\n    port: {env['RELAY_PORT']}\n    graph_url: {env['RELAY_GRAPH_URL']}\n"
            f"    ca_file: {env['RELAY_CA_FILE']}",
        )
    )
    site = Site(tmp_path, config=config)
    await site.start()
    yield site
    await site.stop()
    await asyncio.to_thread(microsoft.stop)


async def ready(site: Site) -> dict:
    """What `/readyz` says."""
    answer = await site.get("/readyz")
    return {"http": answer.status, **json.loads(answer.text)}


async def test_it_is_told_with_time_and_transport_once_a_mailbox_was_let_in(connected):
    before = await ready(connected)
    (lane,) = before["lanes"]
    assert (before["http"], before["warnings"]) == (200, [])
    assert (lane["last_login"], lane["mailbox"]) == (None, MAILBOX)
    assert "no mail has needed one" in lane["reason"]
    assert SERIES not in values((await connected.get("/metrics")).text)
    assert before["listening"] == list(connected.daemon.listeners)
    assert before["spool"] == {"writable": True, "reason": None}
    assert [one["held"] for one in before["tokens"]] == [False]
    began = time.time()
    await asyncio.to_thread(send, connected)
    async with asyncio.timeout(30):
        while not (after := await ready(connected))["lanes"][0]["last_login"]:
            await asyncio.sleep(0.05)
    assert after["lanes"][0]["last_login"]["transport"] == "smtp"
    assert after["lanes"][0]["reason"] is None
    assert any(one["held"] and one["reason"] is None for one in after["tokens"])
    (shown,) = [one for one in (await connected.daemon.status())["lanes"] if one["mailbox"] == MAILBOX]
    assert shown["last_login"] == after["lanes"][0]["last_login"]
    async with asyncio.timeout(10):  # the figures are put together once a second
        while SERIES not in (got := values((await connected.get("/metrics")).text)):
            await asyncio.sleep(0.1)
    assert began - 1 <= got[SERIES] <= time.time() + 1


async def test_a_mailbox_that_is_not_let_in_says_why_and_stays_without_a_login(site):
    """Its Entra ID is nowhere: mail is taken all the same."""
    await asyncio.to_thread(send, site)
    async with asyncio.timeout(30):
        while "sign-in server could not be reached" not in (told := await ready(site))["lanes"][0]["reason"]:
            await asyncio.sleep(0.05)
    assert told["warnings"]
    (lane,) = told["lanes"]
    assert (told["http"], lane["last_login"]) == (200, None)
    assert [(one["held"], bool(one["reason"])) for one in told["tokens"]] == [(False, True)]


async def test_a_stuck_spool_is_told_beside_what_is_well(site, monkeypatch):
    async def full(*_):
        return False

    monkeypatch.setattr(site.daemon.spool, "has_room", full)
    told = await ready(site)
    assert told["http"] == 503
    assert told["spool"] == {"writable": False, "reason": "the spool is full"}
    assert told["listening"]
