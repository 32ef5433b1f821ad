"""Every reply of the facts' sections 1.2 and 3.2, played in its phase: what becomes of message, lane and sender."""

from __future__ import annotations

import pytest

from relay.deliver.classify import judge, reply_of
from relay.deliver.table import ROWS
from tests.fakes.exchange import HANG_UP, FakeExchange
from tests.replies.conftest import Build
from tests.replies.kit import (
    BAD,
    CONTOSO,
    LANE,
    LANES,
    OTHER,
    OWNER,
    STRANGER,
    House,
    from_line,
    mails_of,
    refuse,
)
from tests.replies.rows import BREAKS, FACTS, TWICE, UNKNOWN, Row

KEYS = {"sender": f"{LANE}|{BAD}", "lane": LANE, "upstream": CONTOSO}


@pytest.mark.parametrize("row", FACTS, ids=str)
async def test_known_reply(build: Build, server: FakeExchange, row: Row) -> None:
    """What the facts say comes of it, and nobody waits who need not."""
    await _play(await build(), server, row)


@pytest.mark.parametrize("row", UNKNOWN, ids=str)
async def test_unknown_reply(build: Build, server: FakeExchange, row: Row) -> None:
    """The default line: 4xx waits, a refused login is held, a policy is held, the rest goes back to the sender."""
    await _play(await build(), server, row)


@pytest.mark.parametrize("row", BREAKS, ids=lambda row: str(row.phase))
async def test_no_reply(build: Build, server: FakeExchange, row: Row) -> None:
    """A connection that breaks costs no attempt, unless the message may have arrived."""
    await _play(await build(), server, row)


async def _play(house: House, server: FakeExchange, row: Row) -> None:
    refuse(server, row.phase, row.reply)
    await house.start()
    victim = await house.accept(BAD)
    await house.settles(lambda: _seen(house, victim), (row.state, row.lane, [row.hold] if row.hold else []))
    await _check_message(house, victim, row)
    await _check_hold(house, row)
    await _check_others(house, server, row)
    await _check_notice(house, row)


async def _seen(house: House, victim: str) -> tuple[str, str, list[str]]:
    holds = [one.scope for one in await house.holds()]
    return await house.state(victim), house.lane.state(), holds


async def _check_message(house: House, victim: str, row: Row) -> None:
    view = await house.view(victim)
    if row.state != "failed":
        assert view.attempts == int(row.counted)
    if row.state == "deferred":
        assert view.reason
        if row.again:
            low, high = row.again
            assert low <= view.next_attempt - house.clock.now() <= high
    if row.state == "queued":
        assert house.lane.trouble.reason
        assert house.lane.resting_until > house.clock.now()
    if row.state == "held":
        assert view.reason
        assert view.remedy


async def _check_hold(house: House, row: Row) -> None:
    if not row.hold:
        return
    (hold,) = await house.holds()
    if row.hold == "message":
        assert hold.key.startswith(f"{LANE}|{hold.code}")
    else:
        assert hold.key == KEYS[row.hold]
    assert (hold.reason, hold.remedy, hold.code) != ("", "", "")
    assert hold.evidence == row.reply
    low, high = row.again
    assert low <= hold.next_probe - house.clock.now() <= high


async def _check_others(house: House, server: FakeExchange, row: Row) -> None:
    """Those that must wait are given first, so that they had every chance when the others have gone."""
    order = sorted(LANES.keys() - {BAD}, key=lambda one: one in row.goes)
    tries = mails_of(server, BAD)
    ids = {sender: await house.accept(sender) for sender in order}
    for sender in row.goes:
        await house.comes_to(ids[sender], "sent")
    for sender in ids.keys() - row.goes:
        wanted = "held" if row.hold else "queued"
        await house.comes_to(ids[sender], wanted)
        assert mails_of(server, sender) == 0
    assert mails_of(server, BAD) == tries
    if row.hold == "upstream" or (row.lane == "slowed" and OTHER not in row.goes):
        assert {house.scheduler.lanes[LANES[one]].state() for one in (BAD, OTHER)} == {row.lane}
        assert house.scheduler.lanes[LANES[STRANGER]].state() == "open"


async def _check_notice(house: House, row: Row) -> None:
    if row.state != "failed":
        assert house.notices == []
        return

    (notice,) = await house.told()
    assert notice.recipients == [f"RCPT TO:<{OWNER}> NOTIFY=NEVER"]
    assert row.reply.split(" ")[1 if row.reply[4].isdigit() else 0].encode() in notice.data


@pytest.mark.parametrize("row", TWICE, ids=str)
async def test_a_broken_dialogue_is_believed_on_a_clean_connection_only(
    build: Build, server: FakeExchange, row: Row
) -> None:
    """The second try goes over a new connection; refused there too, it goes back to its sender."""
    house = await build()
    refuse(server, row.phase, row.reply)
    await house.start()
    victim = await house.accept(BAD)
    await house.comes_to(victim, "deferred")
    await house.again(victim)
    await house.comes_to(victim, "failed")
    assert mails_of(server, BAD) == 2
    assert [
        len([line for line in talk.lines if line.startswith(from_line(BAD))]) for talk in server.talks[:2]
    ] == [1, 1]


async def test_an_uncertain_message_goes_again_with_the_same_message_id(
    build: Build, server: FakeExchange
) -> None:
    """Connection lost after the final dot: the trace says so, and the copy can be recognised."""
    house = await build()
    refuse(server, BREAKS[-1].phase, HANG_UP.decode())
    await house.start()
    victim = await house.accept(BAD)
    await house.comes_to(victim, "deferred")
    server.script.choose = None
    await house.again(victim)
    await house.comes_to(victim, "sent")
    assert "uncertain" in [one.event for one in (await house.trace(victim)).events]
    assert b"Message-ID: <1@sender.org>" in server.messages[0].data


async def test_an_uncertain_message_can_be_held_instead(build: Build, server: FakeExchange) -> None:
    """spool.on_uncertain: hold."""
    house = await build(spool={"on_uncertain": "hold"})
    refuse(server, BREAKS[-1].phase, HANG_UP.decode())
    await house.start()
    victim = await house.accept(BAD)
    await house.comes_to(victim, "held")
    assert mails_of(server, BAD) == 1
    assert "arrived" in (await house.view(victim)).remedy
    assert await house.holds() == []


def test_every_row_of_the_reply_table_is_played() -> None:
    """No row of `relay.deliver.table` without a reply here that it decides."""
    played = {
        judge(row.phase, reply_of(int(row.reply[:3]), row.reply[4:])).code
        for row in FACTS + UNKNOWN
        if row.reply[0].isdigit()
    }
    assert {row.code for row in ROWS} == played
