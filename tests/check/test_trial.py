"""A message that really travels: straight to Exchange, or through the running relay, which it says."""

from __future__ import annotations

import asyncio
from pathlib import Path

from relay.check.engine import check_with_lanes, run_check
from relay.check.trial import send_step
from relay.clock import SystemClock
from relay.control import ask
from relay.daemon import Daemon
from relay.settings import Settings
from tests.check.kit import MAILBOX, settings_for, simulator, step

TO = "somebody@example.com"


async def test_straight_to_exchange(tmp_path: Path) -> None:
    """Without a running relay: delivery's own code, the rewrite included."""
    async with simulator(tmp_path) as sim:
        report = await run_check(settings_for(sim, tmp_path), send_to=TO)
        assert [one.recipients for one in sim.messages] == [[TO]]
        assert sim.messages[0].header_from == MAILBOX
    sent = step(report, "send")
    assert sent.status == "ok"
    assert "straight to Exchange" in sent.seen


async def test_a_refused_message_is_a_failed_step(tmp_path: Path) -> None:
    """The reason, and what to do."""
    async with simulator(tmp_path) as sim:
        await sim.change(mailbox_full=[MAILBOX])
        report = await run_check(settings_for(sim, tmp_path), send_to=TO)
    sent = step(report, "send")
    assert sent.status == "fail"
    assert "mailbox" in sent.seen and "5.2.2" in sent.seen
    assert sent.remedy


async def test_not_sent_where_it_cannot_arrive(tmp_path: Path) -> None:
    """After a failed token there is nothing to try."""
    async with simulator(tmp_path) as sim:
        report = await run_check(settings_for(sim, tmp_path, secret="abc~wrong-one"), send_to=TO)
    assert step(report, "send").status == "skipped"


async def started(settings: Settings) -> Daemon:
    daemon = Daemon(settings, lambda: settings)
    await daemon.start()
    return daemon


async def test_through_the_running_relay(tmp_path: Path) -> None:
    """The way mail really takes: in by the listener, followed until Exchange has it."""
    async with simulator(tmp_path) as sim:
        settings = settings_for(sim, tmp_path)
        daemon = await started(settings)
        try:
            report = await run_check(settings, send_to=TO)
        finally:
            await daemon.stop(5.0)
        assert [one.recipients for one in sim.messages] == [[TO]]
    assert step(report, f"listener:{settings.listeners[0].bind}").seen == "the running relay listens here"
    sent = step(report, "send")
    assert sent.status == "ok", sent.seen
    assert f"the running relay at {settings.listeners[0].bind}" in sent.seen
    assert "250 2.0.0 OK" in sent.seen


async def test_held_mail_goes_on_after_a_good_check(tmp_path: Path) -> None:
    """The lanes that were let in are named, and a daemon that is told tries what it holds at once."""
    async with simulator(tmp_path) as sim:
        await sim.change(smtp_auth_disabled_tenant=True)
        settings = settings_for(sim, tmp_path)
        daemon = await started(settings)
        try:
            bad, lanes = await check_with_lanes(settings, send_to=TO)
            assert (lanes, step(bad, "send").status) == ([], "skipped")
            assert (
                await send_step(settings, TO, served=True, clock=SystemClock(), hostname="test")
            ).status == "fail"
            await sim.change(smtp_auth_disabled_tenant=False)
            good, lanes = await check_with_lanes(settings)
            assert good.ok
            assert lanes == [f"Microsoft 365/{MAILBOX}"]
            await asyncio.to_thread(ask, settings, "release", lanes=lanes)
            assert await sim.wait_for_messages(1, 20)
        finally:
            await daemon.stop(5.0)
