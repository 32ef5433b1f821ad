"""What an administrator of a group sees: who did what, who differs, and that the database is away."""

from __future__ import annotations

import asyncio
import dataclasses
import re
import time

from relay import events
from relay.likeness import differing, digests, others_differ
from relay.settings import ClientSecret, Secret, SenderRule
from relay.spool import postgres
from relay.spool.contract import Filter
from relay.spool.postgres import PostgresSpool
from relay.spool.records import event_times
from tests.fakes.settings import settings
from tests.fakes.spool import SENT, accept, spool_settings
from tests.spool.postgres_kit import make, server
from tests.spool.suite import claim_one, settle

__all__ = ["make", "server"]


async def happens(condition, seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


async def test_a_trace_names_who_accepted_a_message_and_who_delivered_it(make, monkeypatch):
    monkeypatch.setenv("RELAY_REPLICA", "north")
    north = await make()
    monkeypatch.setenv("RELAY_REPLICA", 'so"uth')
    south = await make()
    message_id = await accept(north)
    await settle(south, await claim_one(south, make.clock.now()), SENT, make.clock.now())
    [trace] = await south.trace(message_id)
    assert [(one.event, one.fields["replica"]) for one in trace.events] == [
        ("accepted", "north"),
        ("delivered", 'so"uth'),
    ]


async def test_replicas_know_of_one_another_whose_configuration_differs(make, tmp_path):
    ours, theirs = settings(tmp_path), settings(tmp_path, postmaster="it@contoso.com")
    one, two = make.closed(), make.closed()
    one.declare(digests(ours))
    two.declare(digests(theirs))
    for spool in (one, two):
        await spool.open()
        make.opened.append(spool)
    other = next(found for found in await one.replicas() if not found.me)
    assert differing(digests(ours), other.config) == ["postmaster"]
    assert others_differ(ours, await one.replicas()).endswith(": postmaster")
    two.declare(digests(ours))
    async with asyncio.timeout(30):
        while others_differ(ours, await one.replicas()):
            await asyncio.sleep(0.02)


def test_neither_secrets_nor_what_differs_from_host_to_host_make_a_configuration_another(tmp_path):
    ours = settings(tmp_path)
    here = dataclasses.replace(
        ours.upstreams[0], credential=ClientSecret(Secret("another", "env:OTHER")), proxy="http://proxy:3128"
    )
    there = dataclasses.replace(ours, listeners=(), upstreams=(here,))
    assert digests(there) == digests(ours)


def test_two_long_patterns_that_end_differently_are_not_the_same(tmp_path):
    rules = [
        SenderRule(re.compile("a" * 300 + end), None, None, None, (), "keep", "none", "Microsoft 365")
        for end in ("b", "c")
    ]
    one, two = (digests(settings(tmp_path, senders=(rule,))) for rule in rules)
    assert differing(one, two) == ["senders"]


async def test_what_a_command_writes_is_by_the_servers_clock(make, monkeypatch):
    """The command's host is an hour behind: the trace of what it did is in order all the same."""
    relay = await make()
    message_id = await accept(relay)
    monkeypatch.setattr(event_times, "offset", 0.0)
    now = time.time
    monkeypatch.setattr("relay.clock.time.time", lambda: now() - 3600)
    command = PostgresSpool(spool_settings(make.folder, url=make.url))
    await command.open(owner=False)
    try:
        assert abs(command.clock.now() - now()) < 60
        await command.operate("hold", Filter((message_id,)), command.clock.now())
    finally:
        await command.close()


async def test_the_log_says_once_that_the_database_is_away_and_once_that_it_is_back(make, monkeypatch):
    monkeypatch.setattr(postgres, "_LOOK_EVERY", 0.1)
    said: list[str] = []
    stop = events.watch(lambda level, event, fields: said.append(str(fields.get("what", ""))))
    try:
        spool = await make()
        make.server.stop(mode="fast")
        await happens(lambda: [what for what in said if "no mail is taken" in what])
        await happens(lambda: spool._database.trouble)
        make.server.start()
        await happens(lambda: [what for what in said if "answers again" in what])
    finally:
        stop()
    assert len([what for what in said if "no mail is taken" in what]) == 1
