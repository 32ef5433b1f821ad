"""The local spool in front of a shared one: accepted while the database is away, forwarded once and in order.

On a real PostgreSQL server. What a crash or a lost answer leaves is made by stopping between two steps, not by chance.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from relay.errors import SpoolBusy, SpoolError, SpoolFull, SpoolUncertain
from relay.spool import ids
from relay.spool.beside import AWAY
from relay.spool.buffered import BufferedSpool
from relay.spool.contract import Filter, Settlement
from relay.spool.factory import build_spool
from relay.spool.postgres import PostgresSpool
from tests.fakes.spool import LANE, SENT, accept, new_message, spool_settings
from tests.spool.postgres_kit import Maker as PostgresMaker
from tests.spool.postgres_kit import ask, server
from tests.spool.suite import SpoolSuite, body_of, claim_one, every, settle

__all__ = ["server"]


class Maker(PostgresMaker):
    """Opens buffered spools on a database and a folder of their own."""

    away = False

    def closed(self, **settings: object) -> BufferedSpool:
        """One that is not open yet."""
        local = f"sqlite:///{self.folder / 'local.db'}"
        spool = build_spool(
            spool_settings(self.folder, **{"url": self.url, "local": local, **settings}), self.clock
        )
        assert isinstance(spool, BufferedSpool)
        return spool

    async def __call__(self, **settings: object) -> BufferedSpool:
        spool: BufferedSpool = await super().__call__(**settings)
        if not self.away and not spool.reached:  # a server on a busy machine, which was slow to answer
            await asyncio.wait_for(spool.reach(), 30)
            await spool.recover()
        return spool

    def stop(self) -> None:
        """The database goes away, as in a crash."""
        self.server.stop()
        self.away = True

    def start(self) -> None:
        """It is back."""
        self.server.start()
        self.away = False


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Look often, so that the tests need not wait for it."""
    monkeypatch.setattr("relay.spool.buffered._LOOK_EVERY", 0.05)
    monkeypatch.setattr("relay.spool.postgres._LOOK_EVERY", 0.05)
    monkeypatch.setattr("relay.spool.postgres_writer._AGAIN", 0.05)


@pytest.fixture
async def make(server, tmp_path) -> AsyncIterator[Maker]:
    maker = Maker(server, tmp_path)
    yield maker
    if maker.away:
        maker.start()
    for spool in maker.opened:
        await spool.close()


class TestBuffered(SpoolSuite):
    """The common suite: while the database answers, the local spool changes nothing."""


async def until(condition: Callable[[], Awaitable[object] | object], seconds: float = 30.0) -> None:
    """Wait for it."""
    async with asyncio.timeout(seconds):
        while True:
            found = condition()
            if await found if isinstance(found, Awaitable) else found:
                return
            await asyncio.sleep(0.01)


async def all_forwarded(spool: BufferedSpool) -> None:
    await until(lambda: spool.switch.since is None)
    assert await spool.local.waiting() == 0


def no_forwarding(spool: BufferedSpool) -> None:
    """The test itself takes the steps."""
    spool._tasks[0].cancel()


async def numbers(spool: BufferedSpool) -> list[str]:
    """Subjects in the order in which the lane would send them."""
    claims = await spool.claim(LANE, 10_000, 0.0)
    await spool.unclaim([one.id for one in claims])
    return [one.subject for one in claims]


async def test_mail_goes_to_the_database_while_it_answers(make):
    spool = await make()
    message_id = await accept(spool)
    assert await ask(make, "SELECT id FROM message") == [(ids.read(message_id),)]
    assert (await spool.stats()).local.messages == 0


async def test_what_is_accepted_while_the_database_is_away_is_forwarded_in_order(make, monkeypatch):
    monkeypatch.setattr("relay.spool.local.BATCH", 10)
    monkeypatch.setattr("relay.spool.buffered.BATCH", 10)
    spool = await make()
    await accept(spool, subject="0")
    make.stop()
    bodies = {}
    for n in range(1, 26):
        bodies[await accept(spool, b"body %d" % n, subject=str(n))] = b"body %d" % n
    local = (await spool.stats()).local
    assert (local.messages, local.since) == (25, make.clock.now())
    assert "cannot be used" in local.reason
    make.start()
    await all_forwarded(spool)
    assert await numbers(spool) == [str(n) for n in range(26)]
    for message_id, body in bodies.items():
        assert (await body_of(spool, message_id)).endswith(body)
    assert await ask(make, "SELECT count(*) FROM memory WHERE key LIKE 'forwarded:%'") == [(0,)]


async def test_everything_about_a_message_comes_over(make):
    spool = await make()
    make.stop()
    message = new_message(pool=(LANE, "Microsoft 365/b@x"), notes=("bare LF made CRLF",), subject="ünï\0")
    envelope = dataclasses.replace(message.envelope, smtputf8=True, ret="HDRS", envid="Q", long_lines=False)
    people = tuple(
        dataclasses.replace(one, notify="FAILURE", orcpt="rfc822;x") for one in envelope.recipients
    )
    message = dataclasses.replace(message, envelope=dataclasses.replace(envelope, recipients=people))
    make.clock.advance(3.5)
    received = make.clock.now()
    message_id = await accept(spool, message=message)
    make.start()
    await all_forwarded(spool)
    claim = await claim_one(spool, make.clock.now())
    assert (claim.id, claim.envelope, claim.client) == (message_id, message.envelope, message.client)
    assert (claim.pool, claim.source, claim.header_from) == (message.pool, "client", message.header_from)
    assert claim.received == pytest.approx(received, abs=0.002)
    (trace,) = await spool.trace(message_id)
    assert [one.event for one in trace.events][:2] == ["accepted", "forwarded"]
    assert trace.events[0].fields["repairs"] == "bare LF made CRLF"


async def test_a_large_body_comes_over_in_pieces(make):
    spool = await make()
    make.stop()
    body = bytes(range(256)) * 12_000
    message_id = await accept(spool, body)
    assert [file for file in (make.folder / "local.db.bodies").rglob("*") if file.is_file()]
    assert await body_of(spool, message_id) == new_message().header + body
    make.start()
    await all_forwarded(spool)
    assert await body_of(spool, message_id) == new_message().header + body
    assert not [file for file in (make.folder / "local.db.bodies").rglob("*") if file.is_file()]
    assert (await ask(make, "SELECT max(length(data)) <= 262144 FROM chunk")) == [(True,)]


async def test_a_large_message_survives_the_database_going_away_while_it_comes(make):
    spool = await make()
    draft = spool.draft()
    body = bytes(range(256)) * 8_000
    await draft.write(body[:1_000_000])
    make.stop()
    await draft.write(body[1_000_000:])
    await draft.commit(new_message())
    assert (await spool.stats()).local.messages == 1
    make.start()
    await all_forwarded(spool)
    assert await body_of(spool, draft.id) == new_message().header + body


async def test_a_large_message_that_began_while_the_database_was_away_comes_over_as_well(make):
    spool = await make()
    make.stop()
    await accept(spool)
    draft = spool.draft()
    await draft.write(b"x" * 600_000)
    make.start()
    await all_forwarded(spool)
    await draft.commit(new_message())
    assert "had begun to come" in spool.switch.reason
    await all_forwarded(spool)
    assert (await body_of(spool, draft.id)).endswith(b"x" * 600_000)


async def test_a_small_message_that_began_while_the_database_was_away_goes_straight(make):
    spool = await make()
    make.stop()
    await accept(spool)
    draft = spool.draft()
    await draft.write(b"small")
    make.start()
    await all_forwarded(spool)
    await draft.commit(new_message())
    assert spool.switch.since is None
    assert len(await spool.claim(LANE, 9, make.clock.now())) == 2


async def test_a_large_message_that_goes_straight_leaves_nothing_on_the_local_disk(make):
    spool = await make()
    await accept(spool, b"x" * 600_000)
    gone = spool.draft()
    await gone.write(b"y" * 600_000)
    await gone.discard()
    assert not [file for file in (make.folder / "local.db.bodies").rglob("*") if file.is_file()]
    assert await ask(make, "SELECT count(DISTINCT message) FROM chunk") == [(1,)]
    assert spool.local._arriving == spool._shared._arriving == 0


async def test_a_crash_between_the_two_commits_leaves_one_message(make, monkeypatch):
    """The database has it, the local spool too: the next start gives it again, and that changes nothing."""
    spool = await make()
    make.stop()
    small, large = await accept(spool, subject="small"), await accept(spool, b"x" * 600_000, subject="large")
    make.start()
    no_forwarding(spool)
    monkeypatch.setattr(spool.local, "remove", crash)
    with pytest.raises(asyncio.CancelledError):
        await until_answering(spool._forwarder.step)
    assert await ask(make, "SELECT count(*) FROM message") == [(2,)]
    again = await make.reopen(spool)
    await all_forwarded(again)
    assert {one.id for one in await again.find(Filter())} == {small, large}
    assert (await body_of(again, large)).endswith(b"x" * 600_000)


async def crash(*args: object) -> None:
    """As if the process had ended here."""
    raise asyncio.CancelledError


async def until_answering(attempt: Callable[[], Awaitable[object]], seconds: float = 30.0) -> None:
    """Try until it raises no SpoolError."""
    async with asyncio.timeout(seconds):
        while True:
            try:
                await attempt()
            except SpoolError:
                await asyncio.sleep(0.05)
            else:
                return


@pytest.mark.parametrize("history", [0.0, 86_400.0])
async def test_a_message_given_twice_is_not_sent_twice_though_it_was_finished_and_forgotten(
    make, monkeypatch, history
):
    spool = await make(history=history)
    make.stop()
    message_id = await accept(spool)
    make.start()
    no_forwarding(spool)
    with monkeypatch.context() as patch:
        patch.setattr(spool.local, "remove", crash)
        with pytest.raises(asyncio.CancelledError):
            await until_answering(spool._forwarder.step)
    await settle(spool, await claim_one(spool, make.clock.now()), SENT, make.clock.now())
    make.clock.advance(60.0)
    while await spool._shared.tend(make.clock.now()) < 1:
        pass
    assert await ask(make, "SELECT count(*) FROM message") == [(1 if history else 0,)]
    again = await make.reopen(spool)
    await all_forwarded(again)
    assert await again.claim(LANE, 1, make.clock.now()) == []
    assert [one.id for one in await again.trace(message_id)] == ([message_id] if history else [])


async def test_a_lost_answer_of_the_forwarding_commit_changes_nothing(make, monkeypatch):
    spool = await make()
    make.stop()
    await accept(spool)
    make.start()
    adopt, lost = PostgresSpool.adopt, []

    async def losing(self, given):
        taken = await adopt(self, given)
        if not lost:
            lost.append(taken)
            raise SpoolUncertain("the answer was lost")
        return taken

    monkeypatch.setattr(PostgresSpool, "adopt", losing)
    await all_forwarded(spool)
    assert len(lost) == 1
    assert len(await spool.claim(LANE, 9, make.clock.now())) == 1


@pytest.mark.parametrize("took_place", [True, False])
@pytest.mark.parametrize("size", [10, 600_000])
async def test_a_lost_answer_at_acceptance_is_one_message(make, monkeypatch, took_place, size):
    """Nobody knows whether the database has it: it is kept here, and the same id makes it one."""
    spool = await make()
    keep = PostgresSpool.keep

    async def uncertain(self, row):
        if took_place:
            await keep(self, row)
        raise SpoolUncertain("the answer was lost")

    with monkeypatch.context() as patch:
        patch.setattr(PostgresSpool, "keep", uncertain)
        message_id = await accept(spool, b"x" * size)
    await all_forwarded(spool)
    (claim,) = await spool.claim(LANE, 9, make.clock.now())
    assert claim.id == message_id
    assert (await body_of(spool, message_id)).endswith(b"x" * size)
    assert await spool.local.remembered("local:doubt:") == {}


async def test_a_doubt_that_outlived_the_history_is_told_as_uncertain(make, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr("relay.events.uncertain", lambda *, id, lane, why: said.append(id))
    spool = await make(history=3600.0)
    no_forwarding(spool)
    with monkeypatch.context() as patch:
        patch.setattr(PostgresSpool, "keep", raising(SpoolUncertain("the answer was lost")))
        message_id = await accept(spool)
    make.clock.advance(7200.0)
    assert await spool._forwarder.step() == 1
    assert said == [message_id]
    (trace,) = await spool.trace(message_id)
    assert "uncertain" in [one.event for one in trace.events]


def raising(error: Exception) -> Callable[..., Awaitable[None]]:
    """A coroutine function that does nothing else."""

    async def raise_it(*args: object) -> None:
        raise error

    return raise_it


async def test_a_database_that_hangs_is_as_good_as_away(make, monkeypatch):
    """The commit that goes on meanwhile, and succeeds, is the same message."""
    monkeypatch.setattr("relay.spool.buffered_draft.PATIENCE", 0.05)
    spool = await make()
    keep, hanging = PostgresSpool.keep, asyncio.Event()

    async def slow(self, row):
        await hanging.wait()
        await keep(self, row)

    with monkeypatch.context() as patch:
        patch.setattr(PostgresSpool, "keep", slow)
        message_id = await accept(spool)
        assert "has not answered" in spool.switch.reason
    hanging.set()
    await all_forwarded(spool)
    assert [one.id for one in await spool.claim(LANE, 9, make.clock.now())] == [message_id]


async def test_a_start_without_the_database_accepts_and_later_forwards_what_the_last_run_left_first(make):
    spool = await make()
    make.stop()
    await accept(spool, subject="1")
    again = await make.reopen(spool)
    assert not again.reached
    assert await again.has_room(1000)
    await accept(again, subject="2")
    with pytest.raises(SpoolError, match="cannot be used"):
        await again.lanes()
    reaching = asyncio.ensure_future(again.reach())
    make.start()
    await asyncio.wait_for(reaching, 30)
    await accept(again, subject="3")  # not recovered yet: still behind the others
    assert await again.local.waiting() == 3
    assert (await again.recover()).uncertain == ()
    await all_forwarded(again)
    assert await numbers(again) == ["1", "2", "3"]


async def test_a_start_with_mail_of_the_last_run_forwards_it_before_new_mail(make):
    spool = await make()
    make.stop()
    for n in range(5):
        await accept(spool, subject=str(n))
    await make.close(spool)
    make.start()
    again = await make()
    await accept(again, subject="5")
    await all_forwarded(again)
    assert await numbers(again) == [str(n) for n in range(6)]


async def test_a_sources_mail_keeps_its_order_while_it_is_sent_throughout(make):
    """Eight clients that never stop: each one's messages are in the database in the order of their 250."""
    spool = await make()
    sent: dict[str, list[str]] = {f"client {n}": [] for n in range(8)}
    stop = asyncio.Event()

    async def client(source: str) -> None:
        while not stop.is_set():
            sent[source].append(await accept(spool, source=source))

    clients = [asyncio.ensure_future(client(source)) for source in sent]
    for _ in range(2):
        before = len(sent["client 0"])
        await until(lambda before=before: len(sent["client 0"]) > before + 5)
        await asyncio.to_thread(make.stop)
        await until(lambda before=before: spool.switch.since and len(sent["client 0"]) > before + 10)
        make.start()  # from this thread: the server ends with the one that started it
        await all_forwarded_meanwhile(spool)
    stop.set()
    await asyncio.gather(*clients)
    await all_forwarded(spool)
    claims = await spool.claim(LANE, 100_000, make.clock.now())
    for source, ids_ in sent.items():
        assert [one.id for one in claims if one.source == source] == ids_


async def all_forwarded_meanwhile(spool: BufferedSpool) -> None:
    """Though new mail comes all the time, the local spool is done with at some moment, and mail goes straight again."""
    await until(lambda: spool.switch.since is None, 60)


async def test_an_older_clock_does_not_change_the_order(make):
    spool = await make()
    make.stop()
    await accept(spool, subject="1")
    make.clock.advance(-3600)
    await accept(spool, subject="2")
    again = await make.reopen(spool)
    await accept(again, subject="3")
    again.trouble = None
    reaching = asyncio.ensure_future(again.reach())
    make.start()
    await reaching
    await again.recover()
    await all_forwarded(again)
    assert await numbers(again) == ["1", "2", "3"]


async def test_the_order_is_that_of_the_250_and_not_of_the_first_octet(make):
    spool = await make()
    make.stop()
    slow = spool.draft()
    await slow.write(b"slow")
    await accept(spool, subject="quick")
    await slow.commit(new_message(subject="slow"))
    make.start()
    await all_forwarded(spool)
    assert await numbers(spool) == ["quick", "slow"]


async def test_a_full_local_spool_refuses_and_loses_nothing(make):
    spool = await make(max_size=200_000)
    make.stop()
    kept = await accept(spool, b"x" * 100_000)
    assert not await spool.has_room(150_000)
    assert await spool.has_room(10_000)
    make.start()
    await all_forwarded(spool)
    assert (await body_of(spool, kept)).endswith(b"x" * 100_000)


async def test_a_full_local_disk_is_said_and_the_message_is_not_accepted(make, monkeypatch):
    spool = await make()
    make.stop()
    monkeypatch.setattr(spool.local.bodies, "create", no_space)
    draft = spool.draft()
    with pytest.raises(SpoolFull):
        await draft.write(b"x" * 600_000)
    await draft.discard()
    assert (await spool.stats()).local.messages == 0
    assert spool.local._arriving == 0


def no_space(number: int) -> None:
    """As a full disk."""
    raise OSError(28, "No space left on device")


async def test_a_full_local_disk_does_not_matter_while_the_database_answers(make, monkeypatch):
    spool = await make()
    monkeypatch.setattr(spool.local.bodies, "create", no_space)
    message_id = await accept(spool, b"x" * 600_000)
    assert (await body_of(spool, message_id)).endswith(b"x" * 600_000)
    assert spool.switch.since is None


async def test_a_client_that_waits_for_exchange_is_refused_while_the_database_is_away(make):
    spool = await make()
    make.stop()
    with pytest.raises(SpoolError):
        await accept(spool, message=new_message(direct=True))
    await accept(spool)
    with pytest.raises(SpoolError, match="answer_after: upstream"):
        await accept(spool, message=new_message(direct=True))
    assert (await spool.stats()).local.messages == 1


async def test_operators_see_find_and_delete_what_waits_here(make):
    spool = await make()
    far = await accept(spool)
    make.stop()
    near, large = await accept(spool, subject="near"), await accept(spool, b"x" * 600_000)
    beside = make.closed()
    await beside.open(owner=False)
    try:
        assert beside.trouble is not None
        (first, second) = await beside.find(Filter())
        assert (first.id, first.state, first.reason) == (near, "queued", AWAY)
        assert second.id == large
        assert [one.id for one in await beside.find(Filter(reason="LOCAL SPOOL"))] == [near, large]
        assert await beside.find(Filter(reason="quota")) == []
        (trace,) = await beside.trace(near)
        assert trace.events[-1].fields == {"reason": AWAY}
        octets = b"".join([chunk async for chunk in beside.raw(near)])
        assert octets.endswith(b"hello\r\n")
        assert (await beside.operate("delete", Filter(ids=(near,)), make.clock.now())).changed == 1
        with pytest.raises(SpoolError):
            await beside.operate("retry", Filter(), make.clock.now())
    finally:
        await beside.close()
    make.start()
    await all_forwarded(spool)
    assert [one.id for one in await spool.find(Filter())] == [far, large]


async def test_what_is_deleted_while_it_is_being_forwarded_is_deleted_there_as_well(make, monkeypatch):
    spool = await make()
    make.stop()
    message_id = await accept(spool)
    make.start()
    no_forwarding(spool)
    remove = spool.local.remove

    async def deleted_first(numbers):
        assert (await spool.local.operate("delete", Filter(), make.clock.now())).changed == 1
        return await remove(numbers)

    monkeypatch.setattr(spool.local, "remove", deleted_first)
    await until_answering(spool._forwarder.step)
    assert await spool.claim(LANE, 1, make.clock.now()) == []
    assert [one.state for one in await spool.trace(message_id)] == ["deleted"]


async def test_a_message_that_the_database_never_takes_is_set_aside_and_others_pass(make, monkeypatch):
    said: list[str] = []
    spool = await make()
    make.stop()
    bad, good = await accept(spool, subject="bad"), await accept(spool, subject="good")
    make.start()
    monkeypatch.setattr("relay.events.trouble", lambda *, what, **more: said.append(what))
    adopt = PostgresSpool.adopt

    async def refusing(self, given):
        if ids.read(bad) in {row.number for row in given.rows}:
            raise SpoolError("the spool failed: it is cursed")
        return await adopt(self, given)

    with monkeypatch.context() as patch:
        patch.setattr(PostgresSpool, "adopt", refusing)
        await until(lambda: spool.switch.since is None)
        assert [one.id for one in await spool.claim(LANE, 9, make.clock.now())] == [good]
        assert [text for text in said if bad in text and "cursed" in text]
        assert (await spool.stats()).local.messages == 1
    make.clock.advance(601)
    await accept(spool)  # any mail
    await until(lambda: gone_from_here(spool))
    assert len(await spool.claim(LANE, 9, make.clock.now())) == 2


async def gone_from_here(spool: BufferedSpool) -> bool:
    return await spool.local.waiting() == 0


@pytest.mark.parametrize("size", [10, 600_000])
async def test_another_message_of_the_same_id_is_not_taken_for_it(make, size):
    """Two hosts that started without the database may give out the same id: both messages arrive."""
    spool = await make()
    make.stop()
    message_id = await accept(spool, b"m" * size, subject="mine")
    make.start()
    no_forwarding(spool)
    await until_answering(lambda: spool._shared.has_room(1))
    other = spool._shared.draft_as(ids.read(message_id))
    await other.write(b"o" * size)
    await other.commit(new_message(subject="theirs", message_id="<2@legacy.local>"))
    await until_answering(spool._forwarder.step)
    claims = {one.subject: one.id for one in await spool.claim(LANE, 9, make.clock.now())}
    assert claims["theirs"] == message_id != claims["mine"]
    assert (await body_of(spool, claims["mine"])).endswith(b"m" * size)
    assert (await body_of(spool, claims["theirs"])).endswith(b"o" * size)


async def test_pieces_that_upkeep_took_meanwhile_are_put_again(make, monkeypatch):
    """A message that came a day ago looks like one whose client went away."""
    spool = await make()
    make.stop()
    message_id = await accept(spool, b"x" * 600_000)
    make.start()
    put, taken = PostgresSpool.put_body, []

    async def swept(self, number, body):
        done = await put(self, number, body)
        if not taken:
            taken.append(number)
            await self.drop_chunks(number)
        return done

    monkeypatch.setattr(PostgresSpool, "put_body", swept)
    await all_forwarded(spool)
    assert taken == [ids.read(message_id)]
    assert (await body_of(spool, message_id)).endswith(b"x" * 600_000)


async def test_a_second_relay_on_the_same_local_spool_is_refused_with_the_remedy(make):
    await make()
    with pytest.raises(SpoolBusy, match=r"spool\.local: another relay") as caught:
        await make.closed().open()
    assert "spool.local of its own" in caught.value.remedy


async def test_beginning_and_end_are_told_once(make, monkeypatch):
    said: list[tuple[str, str]] = []
    monkeypatch.setattr("relay.events.trouble", lambda *, where, what, **_: said.append((where, what)))
    monkeypatch.setattr("relay.events.notice", lambda *, what, **_: said.append(("", what)))
    spool = await make()
    make.stop()
    for _ in range(3):
        await accept(spool)
    make.start()
    await all_forwarded(spool)
    (began, ended) = said
    assert began[0] == "spool.local"
    assert "New mail is accepted into this host's local spool" in began[1]
    assert ended[1].endswith("forwarded from the local spool: 3")


async def test_delivery_goes_on_as_the_shared_spool_says(make):
    """What is not about accepting passes through, and fails with the reason while the database is away."""
    spool = await make()
    await accept(spool)
    claim = await claim_one(spool, make.clock.now())
    await spool.last_seen().lanes()
    make.stop()
    with pytest.raises(SpoolError, match="cannot be used"):
        await spool.settle(Settlement(claim.id, every(claim, SENT)), make.clock.now())
    assert [one.active for one in await spool.last_seen().lanes()] == [1]
    make.start()
    await until_answering(lambda: spool.settle(Settlement(claim.id, every(claim, SENT)), make.clock.now()))
    assert (await spool.stats()).messages == 0
