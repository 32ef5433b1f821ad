"""Alive, ready, and why not: over HTTP and by command."""

from __future__ import annotations

import asyncio
import json

from typer.testing import CliRunner

from relay.cli.app import build_app
from relay.errors import SpoolError
from tests.monitor.test_metrics import send
from tests.web.client import Site


async def test_ready_says_so_and_warns_of_what_keeps_mail_from_leaving(site):
    """Entra ID is nowhere: mail is taken all the same, and the warning names the reason."""
    answer = await site.get("/readyz")
    assert (answer.status, json.loads(answer.text)["ok"]) == (200, True)
    await asyncio.to_thread(send, site)
    async with asyncio.timeout(30):
        while not (shown := json.loads((await site.get("/readyz")).text))["warnings"]:
            await asyncio.sleep(0.05)
    assert shown["ok"] is True
    assert any("token" in one for one in shown["warnings"])
    strict = await site.get("/readyz?strict=1")
    assert (strict.status, json.loads(strict.text)["ok"]) == (503, False)
    assert (await site.get("/readyz?strict=0")).status == 200


async def test_a_spool_that_fails_or_is_full_or_hangs_is_not_ready(site, monkeypatch):
    async def fails(*_):
        raise SpoolError("disk I/O error")

    async def full(*_):
        return False

    async def hangs(*_):
        await asyncio.Event().wait()

    monkeypatch.setattr("relay.answering._SPOOL_PATIENCE", 0.05)
    for name, fault, words in (
        ("remember", fails, "disk I/O error"), ("has_room", full, "full"), ("remember", hangs, "not answered"),
    ):  # fmt: skip
        with monkeypatch.context() as patch:
            patch.setattr(site.daemon.spool, name, fault)
            answer = await site.get("/readyz")
            assert answer.status == 503
            assert words in json.loads(answer.text)["reasons"][0]
            assert (await site.get("/healthz")).status == 200  # alive: a restart mends no disk
    assert (await site.get("/readyz")).status == 200


async def test_a_stranger_learns_the_status_and_no_reason(site):
    answer = await site.get("/readyz", X_Forwarded_For="192.0.2.1")
    assert json.loads(answer.text) == {"ok": True}


async def test_the_command_says_the_same(site):
    """Exit 0 while mail is taken; with --strict 1 while it cannot leave; no message is made."""
    await asyncio.to_thread(send, site)
    async with asyncio.timeout(30):
        while not (await site.daemon.health())["warnings"]:
            await asyncio.sleep(0.05)
    before = (await site.daemon.spool.stats()).messages

    def run(*words: str):
        return CliRunner().invoke(build_app("health"), ["health", "--config", str(site.config), *words])

    plain = await asyncio.to_thread(run)
    assert plain.exit_code == 0, plain.output
    assert "live and ready" in plain.output
    assert "but " in plain.output
    strict = await asyncio.to_thread(run, "--strict", "--json")
    assert strict.exit_code == 1
    assert json.loads(strict.stdout)["ok"] is False
    assert (await site.daemon.spool.stats()).messages == before


async def test_a_relay_that_takes_no_mail_is_alive(site, monkeypatch):
    """What restarts a relay that hangs must not restart one whose spool is full; the reason is told all the same."""

    async def full(*_):
        return False

    def run(*words: str):
        return CliRunner().invoke(build_app("health"), ["health", "--config", str(site.config), *words])

    monkeypatch.setattr(site.daemon.spool, "has_room", full)
    assert (await asyncio.to_thread(run)).exit_code == 1
    alive = await asyncio.to_thread(run, "--live")
    assert (alive.exit_code, "live, not ready: " in alive.output, "full" in alive.output) == (0, True, True)
    await site.stop()
    assert (await asyncio.to_thread(run, "--live")).exit_code == 1


async def test_a_relay_that_is_starting_is_waited_for(tmp_path):
    """The command is asked before there is a relay, and answers as soon as there is one; without --wait, at once."""
    site = Site(tmp_path)

    def run(*words: str):
        return CliRunner().invoke(build_app("health"), ["health", "--config", str(site.config), *words])

    assert (await asyncio.to_thread(run)).exit_code == 1
    assert (await asyncio.to_thread(run, "--wait", "0.3")).exit_code == 1
    waiting = asyncio.ensure_future(asyncio.to_thread(run, "--wait", "30"))
    await site.start()
    try:
        assert (await waiting).exit_code == 0
    finally:
        await site.stop()
