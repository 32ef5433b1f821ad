"""The simulation is worth believing: its time is exact, its Exchange sees what is wrong, the scheduler does nothing wrong."""

from __future__ import annotations

import asyncio
import time

import pytest

from benchmarks.simulated import days, exchange
from benchmarks.simulated.clock import EPOCH, SimulatedClock, run
from benchmarks.simulated.world import HOUR, Layout, peak
from relay.schedule import loop, pace


def test_simulated_time_jumps_to_the_next_timer_and_keeps_the_order():
    seen: list[tuple[str, float]] = []

    async def wait(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        seen.append((name, SimulatedClock().now() - EPOCH))

    async def work() -> None:
        await asyncio.gather(wait("a day", 86_400), wait("a moment", 0.25), wait("an hour", 3600))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(7200):
                await asyncio.Event().wait()

    began = time.monotonic()
    run(work())
    assert time.monotonic() - began < 10
    assert [name for name, _ in seen] == ["a moment", "an hour", "a day"]
    assert [at for _, at in seen] == pytest.approx([0.25, 3600, 86_400], abs=0.001)


def test_waiting_for_what_can_never_come_is_an_error_and_not_a_hang():
    async def work() -> None:
        await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match="could ever happen"):
        run(work())
    assert pace.time is time  # the machine's clock is back


def test_a_window_counts_what_is_in_it_and_nothing_else():
    window = exchange.Window(60.0)
    assert [window.add(at, 1) for at in (0.0, 30.0, 59.9, 60.0, 89.9)] == [1, 2, 3, 3, 4]
    assert window.most == 4


def test_the_simulated_exchange_sees_one_message_a_minute_too_many():
    assert days.burst(Layout(1, 1, 1, messages_per_minute=31), 93).broken > 0
    assert days.burst(Layout(1, 1, 1), 93).broken == 0


def test_the_simulated_exchange_sees_one_recipient_a_day_too_many(monkeypatch):
    monkeypatch.setattr(exchange, "RECIPIENTS", 100)
    assert days.burst(Layout(1, 1, 1, recipients_per_day=101), 101).broken > 0
    assert days.burst(Layout(1, 1, 1, recipients_per_day=100), 101).broken == 0


def test_the_simulated_exchange_sees_a_tenant_with_too_much_external_mail():
    layout = Layout(1, 1, 2, recipients_per_day=100)
    assert days.day(layout, 150, 20, external_limit=199).broken > 0
    assert days.day(layout, 150, 20, external_limit=200).broken == 0


def test_a_fourth_connection_is_seen_and_refused():
    house = exchange.Exchange()
    box = house.mailbox("tenant", "box")
    assert [house.dialled(box) is None for _ in range(4)] == [True, True, True, False]
    assert house.violations == {"connections": 1}


def test_a_day_goes_out_within_the_limits_and_a_sliding_day_is_kept_over_midnight():
    seen = days.day(Layout(1, 1, 1), 400, 30)
    assert seen.broken == 0
    assert seen.messages > 400
    assert seen.median < 2


def test_a_curve_holds_the_whole_day():
    curve = peak(1000, share=0.6, hours=8, begins=8)
    by_hour = [curve(hour * HOUR) for hour in range(24)]
    assert sum(by_hour) == pytest.approx(1000)
    assert sum(by_hour[8:16]) == pytest.approx(600)


def test_the_end_of_a_tenants_hold_costs_its_pools_little():
    seen = days.held(Layout(1, 2, 10), 300, HOUR / 2)
    assert seen.broken == 0
    assert seen.noticed <= 5
    assert seen.lookups <= 5 * 20


def test_more_mailboxes_than_connections_share_them_and_none_waits_long(monkeypatch):
    monkeypatch.setattr(loop, "_CONNECTIONS", 10)
    seen = days.wide(Layout(1, 5, 10), 8_333, 5)
    assert seen.most_open <= 10
    assert seen.broken == 0
    assert seen.median < 15


def test_a_throttled_mailbox_is_left_alone_and_comes_back():
    seen = days.squeezed(Layout(1, 1, 2), 2_000, 300)
    assert 0 < seen.provoked <= 20
    assert seen.broken == 0
