"""How mail for Exchange Online scales: the real scheduler, router and reply table in simulated time.

Time is an event loop that jumps to its next timer (`benchmarks.simulated.clock`), Exchange is a model that counts its limits by
itself (`benchmarks.simulated.exchange`), the spool is in memory: a day of a mailbox takes seconds. What is measured on this
machine is the processor time of each message. The database and the network are not in it: `benchmarks.shared_spool`.

    python -m benchmarks.simulation                    # about half a minute; a sample of the mailboxes
    python -m benchmarks.simulation --long             # a quarter of an hour: whole pools for two days, and more
    python -m benchmarks.simulation --messages 250000 --external 0.2 --licences 300    # another plan
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks import kit
from benchmarks.kit import RESULTS, Row
from benchmarks.plan import PER_DAY, PER_MINUTE, Demand, external_limit, plan
from benchmarks.simulated import days
from benchmarks.simulated.world import HOUR, Layout

POOL = 20
_STEPS = (10_000, 100_000, 1_000_000, 10_000_000)
_TENANTS = 2
"""Of the scenario in which one is held; the other one must not notice."""


@dataclass(frozen=True)
class Size:
    """How much is simulated."""

    sample: int
    """Mailboxes of one pool."""
    hours: float
    """Of the day; more than 24, so that yesterday's recipients count."""
    minutes: float
    """Of all mailboxes in one process."""


SHORT = Size(sample=1, hours=32, minutes=2)
LONG = Size(sample=POOL, hours=48, minutes=30)


def planned(demand: Demand, licences: int, per_replica: float, pool: int = POOL) -> list[Row]:
    """The arithmetic, for less and for as much as is asked."""
    rows = []
    for messages in sorted({*(one for one in _STEPS if one < demand.messages), demand.messages}):
        step = Demand(messages, demand.recipients, demand.external, demand.peak_share, demand.peak_hours)
        found = plan(step, licences=licences, per_replica=per_replica, pool=pool)
        note = (
            f"{found.by_day} by the day, {found.by_minute} by the minute; {100 * step.external:.0f} % external: {found.tenants}"
            f" tenants of {licences} licences, {found.pools} pools; {step.peak_per_second:.1f} messages/s at the peak:"
            f" {found.replicas} replicas of {per_replica:.0f}/s and 500 connections"
        )
        rows.append(
            Row(f"mailboxes for {messages:,.0f} messages a day", found.mailboxes, None, "", "-", True, note)
        )
    return rows


def _ordinary(size: Size, per_mailbox: float) -> list[Row]:
    layout = Layout(1, 1, size.sample)
    full = days.day(layout, PER_DAY, size.hours)
    usual = days.day(layout, per_mailbox, size.hours)
    what = f"{size.sample} mailbox(es), {size.hours:.0f} h from the peak on"
    return [
        _broken("a usual day", usual),
        Row(
            f"wait, 99 % of a usual day ({per_mailbox:,.0f} a mailbox)", usual.most, None, "s", "<= 5 s", usual.most <= 5,
            f"{what}; median {usual.median:.2f} s, longest queue {usual.longest_queue}",
        ),
        _broken("a day at the limit", full),
        Row(
            f"wait, 99 % at the limit ({PER_DAY:,} a mailbox)", full.most, None, "s", "-", True,
            f"{what}; median {full.median:.2f} s, longest queue {full.longest_queue}: no room for an uneven day",
        ),
    ]  # fmt: skip


def _queue(mailboxes: int, million: int = 1_000_000) -> list[Row]:
    """Each lane's queue drains by itself, so ten mailboxes show how a thousand do."""
    share = million // mailboxes
    seen = days.burst(Layout(1, 1, 10), share * 10)
    best = (-(-share // PER_MINUTE) - 1) * 60  # the first minute's messages go at once
    return [
        _broken("a queue at once", seen),
        Row(
            f"a queue of {million:,} on {mailboxes:,} mailboxes is gone", seen.drained / 60, None, "min",
            "98 % of 30 a minute", best >= 0.98 * seen.drained, f"10 mailboxes with {share} each; at best {best / 60:.1f} min",
        ),
    ]  # fmt: skip


def _faults(per_mailbox: float) -> list[Row]:
    held = days.held(Layout(_TENANTS, 1, 2), per_mailbox, HOUR)
    squeezed = days.squeezed(Layout(1, 1, 10), per_mailbox, 600)
    wide = days.held(Layout(1, 5, POOL), per_mailbox / 10, HOUR)
    return [
        _broken("a tenant held for an hour at the peak", held),
        Row(
            "its queue is gone after it was mended", held.drained / 60, None, "min", "<= 60 min", held.drained <= HOUR,
            f"{_TENANTS} tenants of 2 mailboxes, one held: median wait of all {held.median:.2f} s; first message after"
            f" {held.noticed:.0f} s",
        ),
        Row(
            "statements to let its 5 pools of 20 go again", wide.lookups, None, "", "<= 10 a mailbox",
            wide.lookups <= 1000, "while the hold ends; 10 % of the mail",
        ),
        _broken("a mailbox throttled for ten minutes", squeezed),
        Row(
            "it is back at 30 a minute after", squeezed.drained / 60, None, "min", "<= 35 min", squeezed.drained <= 2100,
            f"one of 10; asked {squeezed.provoked} times meanwhile; median wait of the pool {squeezed.median:.2f} s, 99 %"
            f" {squeezed.most:.0f} s, longest queue {squeezed.longest_queue}",
        ),
    ]  # fmt: skip


def _tenant_limit() -> list[Row]:
    """The smallest tenant's limit, divided among its mailboxes, and a fifth more mail than that."""
    limit = external_limit(1)
    seen = days.day(Layout(1, 1, 2, recipients_per_day=limit // 2), limit / 2 * 1.2, 30, external_limit=limit)
    return [
        Row(
            "limits exceeded: a tenant with too much external mail", seen.broken, None, "", "0", not seen.broken,
            f"{limit:,} external recipients a day divided by recipients_per_day: {limit // 2}; {seen.left} messages waited"
            " after 30 h",
        )
    ]  # fmt: skip


def _all_in_one(size: Size, mailboxes: int, per_mailbox: float, pool: int) -> list[Row]:
    narrow = days.burst(Layout(1, 1, 10), 3000)
    seen = days.wide(Layout(1, -(-mailboxes // pool), pool), per_mailbox, size.minutes)
    sample = f"pools of {pool}, all {mailboxes:,} mailboxes for {size.minutes:.0f} min at the peak: {seen.messages:,} messages"
    return [
        _broken("all mailboxes in one process", seen),
        Row(
            f"wait, median, {mailboxes:,} mailboxes in one process", seen.median, None, "s", "<= 15 s", seen.median <= 15,
            f"{sample}; 99 % {seen.most:.0f} s; {seen.most_open} connections at most, {seen.logins} logins",
        ),
        Row(
            "processor time for each message, all mailboxes", seen.processor, narrow.processor, "us", "<= 2.5 x",
            seen.processor <= 2.5 * narrow.processor,
            f"scheduler, router and simulated Exchange; load {os.getloadavg()[0]:.1f}; {seen.megabytes} MB at most",
            "a burst on 10",
        ),
    ]  # fmt: skip


def _broken(what: str, seen: days.Seen) -> Row:
    return Row(
        f"limits exceeded: {what}", seen.broken, None, "", "0", not seen.broken,
        f"{seen.messages:,} messages in {seen.seconds:.1f} s, {seen.processor:.0f} us of processor time each",
    )  # fmt: skip


def measure(demand: Demand, licences: int, per_replica: float, size: Size, pool: int = POOL) -> list[Row]:
    """The plan, and what the simulation says about it."""
    mailboxes = plan(demand, licences=licences, per_replica=per_replica).mailboxes
    per_mailbox = demand.messages / mailboxes
    return [
        *planned(demand, licences, per_replica, pool),
        *_ordinary(size, per_mailbox),
        *_queue(mailboxes),
        *_faults(per_mailbox),
        *_tenant_limit(),
        *_all_in_one(size, mailboxes, per_mailbox, pool),
    ]


def main() -> int:
    """For the exit status see `benchmarks.kit.finish`."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.simulation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )  # fmt: skip
    parser.add_argument("--messages", type=int, default=10_000_000, help="a day")
    parser.add_argument("--recipients", type=float, default=1.0, help="of one message, for the plan")
    parser.add_argument("--external", type=float, default=1.0, help="share of recipients outside the tenants")
    parser.add_argument("--licences", type=int, default=1000, help="of each tenant")
    parser.add_argument(
        "--peak-share", type=float, default=0.6, help="of the day's messages, within --peak-hours"
    )
    parser.add_argument("--peak-hours", type=float, default=8.0)
    parser.add_argument(
        "--per-replica", type=float, default=150.0, help="messages a second, by benchmarks.shared_spool"
    )
    parser.add_argument("--pool", type=int, default=POOL, help="mailboxes of one, at most")
    parser.add_argument(
        "--long", action="store_true", help="a whole pool for two days, half an hour of all mailboxes"
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "simulation.json", help="where the JSON goes")
    kit.offer_strict(parser)
    options = parser.parse_args()
    demand = Demand(
        options.messages, options.recipients, options.external, options.peak_share, options.peak_hours
    )
    size = LONG if options.long else SHORT
    rows = measure(demand, options.licences, options.per_replica, size, options.pool)
    kit.show(rows, options.out)
    return kit.finish(rows, strict=options.strict)


if __name__ == "__main__":
    sys.exit(main())
