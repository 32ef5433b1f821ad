"""The whole way out in one process: real spool, real scheduler, real courier, and a scripted Exchange.

Two upstreams at the same server. The first has two lanes that matter here: ``a@contoso.com``, which carries the
senders ``bad@contoso.com`` (the one that Exchange refuses) and ``good@contoso.com``; and ``b@contoso.com``.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from relay.clock import SystemClock
from relay.deliver.courier import RelayCourier
from relay.deliver.phases import Phase
from relay.liverouter import LiveRouter
from relay.message import Envelope, Recipient
from relay.ownmail import OwnMail
from relay.schedule.lane import Lane
from relay.schedule.loop import Scheduler
from relay.settings import SenderRule, Settings
from relay.spool.contract import Filter, Hold, MessageView, Trace, lane_name
from relay.spool.sqlite import SqliteSpool
from tests.deliver.desk import FakeTokens, make_upstream
from tests.fakes.exchange import FakeExchange, Message, Talk
from tests.fakes.settings import settings
from tests.fakes.spool import accept, spool_settings

CONTOSO, FABRIKAM = "Contoso", "Fabrikam"
LANE = lane_name(CONTOSO, "a@contoso.com")
OTHER_LANE = lane_name(CONTOSO, "b@contoso.com")
ELSEWHERE = lane_name(FABRIKAM, "c@fabrikam.com")
BAD, GOOD, OTHER, STRANGER = "bad@contoso.com", "good@contoso.com", "x@b.contoso.com", "x@fabrikam.com"
LANES = {BAD: LANE, GOOD: LANE, OTHER: OTHER_LANE, STRANGER: ELSEWHERE}
OWNER = "owner@sender.org"
"""The envelope sender of all test mail: who gets a notice."""
PERSON = "person@customer.org"
LONG_TOKEN = "eyJ0eXAiOiJKV1Qi" + "Zm9vYmFyYmF6" * 120
PATIENCE = 20.0
"""Seconds after which something that should have happened has not."""


def world(folder: Path, server: FakeExchange, ca_file: Path, **limits: object) -> Settings:
    """The configuration: sender rules that keep From, so that each sender can be refused by itself."""
    base = {"ca_file": ca_file, **limits}
    upstreams = (
        make_upstream(server.port, **base, name=CONTOSO, from_email="notify@contoso.com"),  # type: ignore[arg-type]
        make_upstream(server.port, **base, name=FABRIKAM, from_email="notify@fabrikam.com"),  # type: ignore[arg-type]
    )
    rules = (
        _keep("*@contoso.com", "a@contoso.com", CONTOSO),
        _keep("*@b.contoso.com", "b@contoso.com", CONTOSO),
        _keep("*@fabrikam.com", "c@fabrikam.com", FABRIKAM),
    )
    return settings(folder, upstreams=upstreams, senders=rules, postmaster="it@contoso.com")


def _keep(match: str, mailbox: str, upstream: str) -> SenderRule:
    return SenderRule(match, None, None, None, (mailbox,), "keep", "none", upstream)


class House:
    """Everything from the spool to the wire."""

    def __init__(self, folder: Path, server: FakeExchange, ca_file: Path, **limits: object) -> None:
        token = str(limits.pop("token", "TOKEN"))
        spool_changes = limits.pop("spool", {})
        assert isinstance(spool_changes, Mapping)
        self.server = server
        self.clock = SystemClock()
        self.settings = world(folder, server, ca_file, **limits)
        self.settings = dataclasses.replace(self.settings, spool=spool_settings(folder, **spool_changes))
        self.spool = SqliteSpool(self.settings.spool)
        own = OwnMail(self.settings, "relay.contoso.com")
        router = LiveRouter(self.settings, own)
        self.tokens = FakeTokens(token)
        self.courier = RelayCourier(
            self.settings, {CONTOSO: self.tokens, FABRIKAM: self.tokens}, router, hostname=own.hostname,
            clock=self.clock,
        )  # fmt: skip
        self.scheduler = Scheduler(self.spool, self.courier, self.settings, self.clock, router.identity, own)
        own.lanes = self.scheduler.lanes
        router.scheduler = self.scheduler

    async def open(self) -> None:
        """The spool alone: mail can be accepted, and is not carried yet."""
        await self.spool.open()
        await self.spool.recover()

    async def start(self) -> None:
        """Carry what there is."""
        await self.scheduler.start()

    async def stop(self) -> None:
        await self.scheduler.stop(5.0)
        await self.courier.close()
        await self.spool.close()

    async def accept(self, sender: str = BAD, *to: str, source: str = "", body: bytes = b"hello\r\n") -> str:
        """A message of that sender in its lane; its id."""
        header = f"From: {sender}\r\nTo: {PERSON}\r\nSubject: hello\r\nMessage-ID: <1@sender.org>\r\n\r\n"
        people = tuple(Recipient(one) for one in to or (PERSON,))
        return await accept(
            self.spool, body, lane=LANES[sender], source=source or sender, header_from=(sender,),
            header=header.encode(), envelope=Envelope(OWNER, people), message_id="<1@sender.org>",
        )  # fmt: skip

    @property
    def lane(self) -> Lane:
        return self.scheduler.lanes[LANE]

    async def view(self, message_id: str) -> MessageView:
        (view,) = await self.spool.find(Filter(ids=(message_id,)))
        return view

    async def people(self, message_id: str) -> dict[str, str]:
        """The state of each recipient."""
        return {one.address: str(one.state.value) for one in (await self.view(message_id)).recipients}

    async def trace(self, message_id: str) -> Trace:
        (trace,) = await self.spool.trace(message_id)
        return trace

    async def state(self, message_id: str) -> str:
        """As ``queue show`` says it while it waits, as ``trace`` says it when it is finished."""
        view = await self.view(message_id)
        return (await self.trace(message_id)).state if view.state == "done" else view.state

    async def holds(self) -> list[Hold]:
        return await self.spool.holds()

    async def settles(self, look: Callable[[], Awaitable[object]], wanted: object) -> None:
        """Until what ``look`` sees is as wanted; AssertionError says what it saw last."""
        seen: object = None
        try:
            async with asyncio.timeout(PATIENCE):
                while (seen := await look()) != wanted:
                    await asyncio.sleep(0)
        except TimeoutError:
            raise AssertionError(f"{wanted} was expected, and it is {seen}") from None

    async def comes_to(self, message_id: str, state: str) -> None:
        """Until a message is in that state."""
        await self.settles(lambda: self.state(message_id), state)

    async def offered(self, sender: str, times: int) -> None:
        """Until that sender's mail was offered so often."""

        async def look() -> int:
            return mails_of(self.server, sender)

        await self.settles(look, times)

    async def again(self, message_id: str) -> None:
        """Its next try is due now."""
        await self.spool.operate("retry", Filter(ids=(message_id,)), self.clock.now())
        await self.scheduler.refresh([LANE])

    async def disconnects(self) -> None:
        """Until no connection of the first lane is open any more."""

        async def look() -> int:
            return len(self.lane.carriers)

        await self.settles(look, 0)

    async def told(self, count: int = 1) -> list[Message]:
        """The notices, once there are so many."""

        async def look() -> int:
            return len(self.notices)

        await self.settles(look, count)
        return self.notices

    @property
    def notices(self) -> list[Message]:
        """The notices that Exchange was given for the sender."""
        return [one for one in self.server.messages if b"auto-replied" in one.data.lower()]


def from_line(sender: str) -> str:
    return f"MAIL FROM:<{sender}>"


def mails_of(server: FakeExchange, sender: str) -> int:
    """How often a message of that sender was offered to Exchange."""
    wanted = from_line(sender)
    return sum(line.startswith(wanted) for talk in server.talks for line in talk.lines)


def refuse(server: FakeExchange, phase: Phase, reply: str) -> None:
    """Exchange answers so in that phase: the first connection, every login of the mailbox, or the bad sender."""
    test = _TESTS.get(phase, _of_bad_sender)
    verb = {Phase.CONNECT: "GREETING", Phase.BODY: "BODY"}.get(phase, phase.value.upper())

    def choose(talk: Talk, line: str) -> bytes | None:
        if line.split(" ")[0].upper() != verb or not test(talk, line):
            return None
        return reply.encode()

    server.script.choose = choose


def _first_connection(talk: Talk, line: str) -> bool:
    return talk is talk.server.talks[0]


def _login_of_a(talk: Talk, line: str) -> bool:
    return b"user=a@contoso.com" in base64.b64decode(line.split(" ")[2])


def _of_bad_sender(talk: Talk, line: str) -> bool:
    return from_line(BAD) in (talk.mail or line)


_TESTS = {
    Phase.CONNECT: _first_connection,
    Phase.EHLO: _first_connection,
    Phase.STARTTLS: _first_connection,
    Phase.AUTH: _login_of_a,
}
