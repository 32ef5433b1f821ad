"""Changes of many callers that share a few statements: each fares as if it had been made alone."""

from __future__ import annotations

import asyncio

import pytest

from relay.errors import SpoolError
from relay.message import Outcome, Recipient, Result
from relay.spool import upkeep
from relay.spool.contract import Settlement
from relay.spool.sqlite import SqliteSpool
from tests.fakes.clock import ManualClock
from tests.fakes.spool import FAILED, LANE, OTHER, SENT, accept, new_message, spool_settings
from tests.spool.suite import body_of, every, settle

HEADER = new_message().header


@pytest.fixture
async def spool(tmp_path):
    one = SqliteSpool(spool_settings(tmp_path), ManualClock())
    await one.open()
    yield one
    await one.close()


async def test_contents_of_every_kind_stored_together_come_back(spool):
    bodies = [b"", b"\x00\xff\r\n", b"x" * 100_000, b"y" * 300_000, b"last\r\n"]
    ids = await asyncio.gather(*(accept(spool, body) for body in bodies))
    assert [await body_of(spool, one) for one in ids] == [HEADER + body for body in bodies]


async def test_many_large_contents_are_stored_in_portions(spool, monkeypatch):
    monkeypatch.setattr("relay.spool.intake._PORTION", 25_000)
    bodies = [bytes([65 + n]) * 10_000 for n in range(12)]
    ids = await asyncio.gather(*(accept(spool, body) for body in bodies))
    assert [await body_of(spool, one) for one in ids] == [HEADER + body for body in bodies]


async def test_a_text_that_is_no_unicode_fails_alone(spool):
    broken = new_message(subject="\udcff")
    done = await asyncio.gather(
        accept(spool), accept(spool, message=broken), accept(spool), return_exceptions=True
    )
    assert [isinstance(one, SpoolError) for one in done] == [False, True, False]
    assert (await spool.lane(LANE)).queued == 2


async def test_texts_with_marks_of_json_and_sql_stay_as_they_are(spool):
    subject = "\"'\\ [null] ${x} ünï \u2028 end"
    await accept(spool, subject=subject, recipients=('"a\\"b"@x.example', "ü@x.example"))
    (claim,) = await spool.claim(LANE, 1, 0.0)
    assert claim.subject == subject
    assert [one.address for one in claim.envelope.recipients] == ['"a\\"b"@x.example', "ü@x.example"]


async def test_turns_are_as_if_stored_one_by_one(spool):
    for _ in range(2):
        await asyncio.gather(*(accept(spool, source=source) for source in "aaab"), accept(spool, lane=OTHER))
    claims = await spool.claim(LANE, 8, 0.0)
    assert [one.source for one in claims] == ["a", "b", "a", "b", "a", "a", "a", "a"]
    assert len(await spool.claim(OTHER, 8, 0.0)) == 2


async def test_outcomes_written_together_are_each_their_own(spool):
    for _ in range(4):
        await accept(spool, recipients=("a@x", "b@x"))
    one, two, three, four = await spool.claim(LANE, 4, 0.0)
    await asyncio.gather(*(spool.begin(claim.id, 5.0, 2) for claim in (one, two, three)))
    half = {"a@x": SENT}
    split = {"a@x": SENT, "b@x": FAILED}
    done = await asyncio.gather(
        settle(spool, one, SENT, 6.0),
        spool.settle(Settlement(two.id, half), 6.0),
        spool.settle(Settlement(three.id, split), 6.0),
        spool.settle(Settlement("0" * 13, half), 6.0),
        return_exceptions=True,
    )
    assert [isinstance(result, SpoolError) for result in done] == [False, False, False, True]
    await settle(spool, four, SENT, 6.0)
    states = {trace.id: trace.state for trace in await spool.trace("legacy.local")}
    assert states[one.id] == states[four.id] == "sent"
    assert states[three.id] == "partly failed"
    (again,) = await spool.claim(LANE, 9, 7.0)
    assert (again.id, again.envelope.recipients) == (two.id, (Recipient("b@x"),))


async def test_each_attempt_counts_in_its_own_lane(spool):
    await accept(spool)
    await accept(spool)
    await accept(spool, lane=OTHER, recipients=("a@x", "b@x"))
    claims = [*await spool.claim(LANE, 2, 0.0), *await spool.claim(OTHER, 1, 0.0)]
    await asyncio.gather(*(spool.begin(one.id, 60.0, len(one.envelope.recipients)) for one in claims))
    assert (await spool.usage(LANE, 61.0)).recipients_today == ((60.0, 2),)
    assert (await spool.usage(OTHER, 61.0)).recipients_today == ((60.0, 2),)
    assert len((await spool.usage(OTHER, 61.0)).stamps) == 1


async def test_an_attempt_written_down_and_not_made_leaves_nothing(spool, tmp_path):
    """Its message is not called uncertain after a crash, and the mailbox's limits know nothing of it."""
    await accept(spool, recipients=("a@x", "b@x"))
    (claim,) = await spool.claim(LANE, 1, 0.0)
    await spool.begin(claim.id, 60.0, 2)
    await spool.unclaim([claim.id])
    used = await spool.usage(LANE, 61.0)
    assert (used.stamps, [count for _, count in used.recipients_today]) == ((), [0])
    (again,) = await spool.claim(LANE, 1, 61.0)
    assert again == claim
    assert (await spool.recover()).uncertain == ()


async def test_what_is_given_back_takes_the_lanes_turn_along(spool):
    """A quiet source that comes while a long list was claimed and given back is next or next but one."""
    for _ in range(20):
        await accept(spool, source="mailing")
    await spool.unclaim([one.id for one in await spool.claim(LANE, 20, 0.0)])
    await accept(spool, source="quiet")
    assert "quiet" in [one.source for one in await spool.claim(LANE, 2, 0.0)]


async def test_octets_are_counted_along(spool):
    await asyncio.gather(*(accept(spool, b"x" * 1000) for _ in range(5)))
    before = (await spool.stats()).bytes
    assert spool._stored == before > 5000
    claims = await spool.claim(LANE, 5, 0.0)
    await asyncio.gather(*(spool.settle(Settlement(one.id, every(one, SENT)), 1.0) for one in claims))
    assert spool._stored == (await spool.stats()).bytes == 0


async def test_a_mixed_outcome_is_no_plain_one(spool):
    """One that held a recipient keeps the message, whoever shares its transaction."""
    held = Outcome(Result.HELD, reason="denied")
    await accept(spool, recipients=("a@x", "b@x"))
    await accept(spool)
    mixed, plain = await spool.claim(LANE, 2, 0.0)
    await asyncio.gather(
        spool.settle(Settlement(mixed.id, {"a@x": SENT, "b@x": held}), 1.0), settle(spool, plain, SENT, 1.0)
    )
    assert (await spool.lane(LANE)).held == 1


async def test_the_log_is_moved_beside_the_writer_and_starts_anew(spool, tmp_path, monkeypatch):
    monkeypatch.setattr(upkeep, "CHECKPOINT_AFTER", 400_000)
    for _ in range(40):
        await asyncio.gather(*(accept(spool, b"x" * 20_000) for _ in range(10)))
    assert (tmp_path / "spool.db-wal").stat().st_size < 6_000_000 < 400 * 20_000
