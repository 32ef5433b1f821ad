"""Frames over a socket pair: a bad one costs itself alone, whoever waits hears of it, and nothing is kept for ever."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from relay import events
from relay.errors import SpoolError, SpoolFull
from relay.workers import acceptor as acceptor_module
from relay.workers.acceptor import Acceptor, Owner
from relay.workers.channel import Channel, Frame
from tests.workers.house import until


@dataclass
class Pair:
    """Two ends in one event loop."""

    came: list[Frame] = field(default_factory=list)
    unsent: list[Frame] = field(default_factory=list)
    told: list[dict[str, object]] = field(default_factory=list)
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    mine: Any = None
    its: Any = None

    def take(self, frame: Frame) -> None:
        self.came.append(frame)
        if frame[0] == "breaks":
            raise RuntimeError("not this one")


@contextlib.asynccontextmanager
async def pair() -> AsyncIterator[Pair]:
    this = Pair()
    events.plug(lambda level, event, fields: this.told.append({"event": event, **fields}))
    one, other = socket.socketpair()
    this.mine = Channel(this.take, lambda: None, this.unsent.append)
    this.its = Channel(this.take, this.lost.set)
    await this.mine.open(one)
    await this.its.open(other)
    try:
        yield this
    finally:
        this.mine.close()
        await asyncio.wait_for(this.lost.wait(), 20)
        events.plug(None)


async def test_a_frame_that_cannot_be_packed_is_left_out_and_the_others_go() -> None:
    """It is told, by its word alone; whoever sent it hears of it; the channel goes on."""
    async with pair() as two:
        two.mine.send("first", 1)
        two.mine.send("login", 7, object(), "hidden")
        two.mine.send("second", 2)
        await until(lambda: len(two.came) == 2)
        assert two.came == [("first", 1), ("second", 2)]
        assert [frame[:2] for frame in two.unsent] == [("login", 7)]
        (told,) = two.told
        assert "'login' could not be told" in str(told["what"])
        assert "hidden" not in str(told)
        two.mine.send("third", 3)
        await until(lambda: two.came[-1] == ("third", 3))


async def test_a_frame_that_breaks_its_taker_costs_itself_alone() -> None:
    """Those behind it in the same batch are taken, and the channel stays open."""
    async with pair() as two:
        two.mine.send("breaks")
        two.mine.send("after", 1)
        await until(lambda: ("after", 1) in two.came)
        assert "RuntimeError: not this one" in str(two.told[0]["trace"])
        two.its.send("back", 2)
        await until(lambda: ("back", 2) in two.came)


async def test_a_closed_channel_says_that_nobody_is_there() -> None:
    """What is asked of it then fails at once, and so does what was asked before."""
    async with pair() as two:

        async def room() -> None:
            return None

        owner = Owner(two.mine.send, room)
        before = asyncio.ensure_future(owner.has_room(1))
        await until(lambda: two.came)
        two.mine.close()
        assert not two.mine.send("anything")
        with pytest.raises(SpoolError, match="has ended"):
            await asyncio.wait_for(owner.has_room(1), 20)
        with pytest.raises(SpoolError, match="has ended"):
            await asyncio.wait_for(before, 20)


async def test_a_question_that_cannot_be_handed_over_is_answered() -> None:
    """451 for its client, who would wait for ever otherwise."""
    async with pair() as two:

        async def room() -> None:
            return None

        owner = Owner(two.mine.send, room)
        two.mine._unsent = owner.unasked
        with pytest.raises(SpoolError, match="could not be handed"):
            await asyncio.wait_for(owner.judge("192.0.2.1", object(), "x", ""), 20)  # type: ignore[arg-type]
        asked = asyncio.ensure_future(owner.has_room(1))
        await until(lambda: two.came)
        owner.answer(two.came[0][1], None, ("full", "no room", "make some"))
        with pytest.raises(SpoolFull, match="no room"):
            await asked


async def test_events_are_counted_alone_while_the_daemon_does_not_keep_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A flood of refusals must not fill the helper's memory; a warning still goes, and the count is told afterwards."""
    monkeypatch.setattr(acceptor_module, "REPORT", 0.01)
    helper = Acceptor()
    async with pair() as two:
        helper._channel = two.mine
        two.its._transport.pause_reading()
        filler = "x" * 1_000_000
        while two.mine.waiting <= acceptor_module.MOST_WAITING:
            two.mine.send("filler", filler)
            two.mine.flush()
        before = two.mine.waiting
        for _ in range(1000):
            helper._tell("info", "rejected", {"client": "192.0.2.1"})
        helper._tell("error", "trouble", {"what": "this matters"})
        two.mine.flush()
        assert two.mine.waiting - before < 1000
        two.its._transport.resume_reading()
        report = asyncio.ensure_future(helper._report_often())
        await until(lambda: any(frame[0] == "untold" for frame in two.came))
        report.cancel()
        assert ("untold", {"rejected": 1000}) in two.came
        assert ("event", "error", "trouble", {"what": "this matters"}) in two.came
        assert not any(frame[:3] == ("event", "info", "rejected") for frame in two.came)


async def test_what_a_thread_has_to_say_is_said_by_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library's warning may come from anywhere; the channel is the loop's own."""
    said_by: list[int] = []
    helper = Acceptor()
    monkeypatch.setattr(helper, "_report", lambda: said_by.append(threading.get_ident()))
    async with pair() as two:
        helper._channel = two.mine
        await asyncio.to_thread(helper._tell, "warning", "library", {"what": "from afar"})
        await until(lambda: two.came)
        assert two.came == [("event", "warning", "library", {"what": "from afar"})]
        assert said_by == [threading.get_ident()]
