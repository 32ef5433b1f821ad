"""A second process accepts mail, and from outside nothing is different: replies, limits, passwords, counts, durability."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import os
import re
import resource
import signal
from collections import Counter
from pathlib import Path

import argon2

from relay.settings import ClientLogin, Secret, SenderRule
from relay.workers import acceptance as acceptance_module
from tests.accept.support import TestClient, limits, listener, networks
from tests.workers.house import House, house, until

MAIL = b"From: a@scanners.local\r\nSubject: hello\r\n\r\nbody\r\n.\r\n"
LARGE = b"From: a@scanners.local\r\nSubject: large\r\n\r\n" + b"0123456789abcdef" * 4 * 10_000 + b"\r\n.\r\n"
QUEUED = re.compile(r"250 2\.0\.0 Ok: queued as (\w{13})")


async def test_mail_is_accepted_by_another_process_and_stored_by_this_one(tmp_path: Path) -> None:
    """Small and large; 250 names the id under which it is stored; counts and the log are the daemon's."""
    async with house(tmp_path) as here:
        helper = await here.helper()
        assert helper.pid not in (0, os.getpid())
        async with here.client() as client:
            small = QUEUED.match(await client.deliver(MAIL))
            await client.ask("RSET")
            large = QUEUED.match(await client.deliver(LARGE))
            assert small
            assert large
            assert here.server.roster.channels == set()  # no connection of ours
            await until(lambda: here.server.connections == 1)
        stored = {one.id: one for one in await here.stored()}
        assert set(stored) == {small[1], large[1]}
        content = await here.spool.content(large[1])
        body = b"".join([block async for block in content.body.chunks()])
        assert body == b"0123456789abcdef" * 4 * 10_000 + b"\r\n"
        assert content.header.startswith(b"Received: from client ")
        accepted = here.events("accepted")
        assert [one["id"] for one in accepted] == [small[1], large[1]]
        assert [one["size"] for one in accepted] == [len(MAIL) - 3, len(LARGE) - 3]
        assert here.server.accepted == 2
        await until(lambda: here.server.connections == 0)


async def test_a_refusal_is_counted_and_logged_here(tmp_path: Path) -> None:
    """What a helper refuses reaches the daemon's log and counts."""
    async with house(tmp_path) as here:
        await here.helper()
        async with here.client() as client:
            await client.ask("EHLO client")
            assert (await client.ask("MAIL FROM:<a@b.example> SIZE=999999999")).startswith("552")
        await until(lambda: here.events("rejected"))
        assert here.server.rejected == 1


async def test_killed_under_load_nothing_that_was_answered_is_lost(tmp_path: Path) -> None:
    """SIGKILL in the middle: each 250 is in the spool, no file is left over, and the daemon goes on by itself."""
    async with house(tmp_path) as here:
        helper = await here.helper()
        answered: set[str] = set()
        over = asyncio.Event()

        async def send(data: bytes) -> None:
            try:
                while not over.is_set():
                    client = await TestClient.open(here.server.address)
                    try:
                        await client.reply()
                        found = QUEUED.match(await client.deliver(data))
                        assert found
                        answered.add(found[1])
                    finally:
                        client.close()
            except (EOFError, ConnectionError):
                return

        senders = [asyncio.ensure_future(send(LARGE if n == 0 else MAIL)) for n in range(5)]
        await until(lambda: len(answered) > 30)
        before = len(answered)
        os.kill(helper.pid, signal.SIGKILL)
        await asyncio.wait_for(helper.ended.wait(), 30)
        over.set()
        await asyncio.gather(*senders)
        assert before > 30
        stored = {one.id for one in await here.stored()}
        assert answered <= stored
        files = {entry.name for entry in (tmp_path / "spool.db.bodies").rglob("*") if entry.is_file()}
        assert files <= stored
        await until(lambda: any("ended unexpectedly" in str(one["what"]) for one in here.events("trouble")))
        async with here.client() as client:
            assert (await client.deliver(MAIL)).startswith("250")
        assert here.spool.room() > 0
        assert here.spool._arriving == 0


async def test_connections_per_client_hold_across_processes(tmp_path: Path) -> None:
    """Two are allowed: one to the daemon and one to the helper are two; when one of them leaves, another may come."""
    conf = listener(limits=limits(connections_per_client=2))
    async with house(tmp_path, [conf], workers="never") as here:
        async with here.client():
            await here.acceptance.update(dataclasses.replace(here.settings, workers="always"))
            await here.helper()
            async with here.client() as second:
                async with here.client("421"):
                    pass
                await here.acceptance.renew()  # the helper keeps its client, the daemon lets in again
                await until(lambda: here.server.roster.gate.open == 2)
                assert (await second.ask("NOOP")).startswith("250")
            await until(lambda: here.server.roster.gate.open == 1)
        await here.helper()
        async with here.client(), here.client(), here.client("421"):
            pass


async def test_messages_per_minute_hold_across_processes(tmp_path: Path) -> None:
    """A client's minute is one minute, whoever counts."""
    conf = listener(limits=limits(messages_per_minute_per_client=3))
    async with house(tmp_path, [conf], workers="never") as here:
        async with here.client() as client:
            assert (await client.deliver(MAIL)).startswith("250")
        await here.acceptance.update(dataclasses.replace(here.settings, workers="always"))
        await here.helper()
        async with here.client() as client:
            assert (await client.deliver(MAIL)).startswith("250")
            await client.ask("RSET")
            assert (await client.deliver(MAIL)).startswith("250")
            assert (await client.ask("MAIL FROM:<a@scanners.local>")).startswith("451 4.7.1")
        await here.acceptance.update(dataclasses.replace(here.settings, workers="never"))
        async with here.client() as client:
            await client.ask("EHLO client")
            assert (await client.ask("MAIL FROM:<a@scanners.local>")).startswith("451 4.7.1")


async def test_passwords_are_judged_by_the_daemon(tmp_path: Path) -> None:
    """Right and wrong ones; the helper never has the hash, and guesses count for both processes."""
    hasher = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    user = ClientLogin("scanner", Secret(hasher.hash("right")), ("*@scanners.local",))
    async with house(tmp_path, [listener(auth="required")], clients=(user,)) as here:
        await here.helper()
        async with here.client() as client:
            await client.ask("EHLO client")
            assert (await client.ask("AUTH PLAIN " + plain("scanner", "wrong"))).startswith("535")
            assert (await client.ask("AUTH PLAIN " + plain("scanner", "right"))).startswith("235")
            assert (await client.ask("MAIL FROM:<a@elsewhere.example>")).startswith("550")
            assert (await client.deliver(MAIL)).startswith("250")
        (view,) = await here.stored()
        assert view.client.endswith("(scanner)")
        judge = here.acceptance._desk.logins()
        for _ in range(10):
            await judge.judge("127.0.0.1", "guess", "x", "")
        async with here.client() as client:
            await client.ask("EHLO client")
            assert (await client.ask("AUTH PLAIN " + plain("guess", "x"))).startswith("421")


def plain(user: str, password: str) -> str:
    return base64.b64encode(f"\0{user}\0{password}".encode()).decode()


async def test_a_full_spool_refuses_through_the_helper(tmp_path: Path) -> None:
    """`spool.max_size` is asked of the owner where it is near."""
    async with house(tmp_path, max_size=1024 * 1024) as here:
        await here.helper()
        async with here.client() as client:
            await client.ask("EHLO client")
            assert (await client.ask("MAIL FROM:<a@b.example> SIZE=2000000")).startswith("452 4.3.1")
            assert (await client.deliver(MAIL)).startswith("250")


async def test_a_disk_that_fills_refuses_with_452_and_recovers(tmp_path: Path) -> None:
    """For small mail the daemon finds out, for large the helper that writes the file: neither says 451, nothing is left."""
    async with house(tmp_path) as here:
        helper = await here.helper()
        before = resource.prlimit(helper.pid, resource.RLIMIT_FSIZE)
        pages = await here.spool._read(lambda c: c.execute("PRAGMA page_count").fetchone()[0])
        await here.spool._writer.run(lambda c: c.execute(f"PRAGMA max_page_count = {pages}").fetchone())
        resource.prlimit(helper.pid, resource.RLIMIT_FSIZE, (200_000, before[1]))
        async with here.client() as client:
            answer = await client.deliver(MAIL[:-3] + b"x" * 90_000 + b"\r\n.\r\n")
            assert answer.startswith("452 4.3.1")
            await client.ask("RSET")
            assert (await client.deliver(LARGE)).startswith("452 4.3.1")
            assert not any(one.is_file() for one in (tmp_path / "spool.db.bodies").rglob("*"))
            await here.spool._writer.run(lambda c: c.execute("PRAGMA max_page_count = 1000000").fetchone())
            resource.prlimit(helper.pid, resource.RLIMIT_FSIZE, before)
            await client.ask("RSET")
            assert (await client.deliver(LARGE)).startswith("250")
        assert len(await here.stored()) == len(here.events("accepted"))
        await until(lambda: here.spool._arriving == 0)


async def test_a_pools_turns_are_taken_in_one_place(tmp_path: Path) -> None:
    """The member that carries a message is chosen when the daemon stores it."""
    rule = SenderRule("*", None, None, "a@contoso.com", ("a@contoso.com", "b@contoso.com"), "keep", "original",
                      "Microsoft 365")  # fmt: skip
    async with house(tmp_path, senders=(rule,)) as here:
        await here.helper()
        async with here.client() as client:
            assert (await client.deliver(MAIL)).startswith("250")
        (view,) = await here.stored()
        assert view.lane == "Microsoft 365/b@contoso.com"
        assert here.members == [("Microsoft 365/a@contoso.com", "Microsoft 365/b@contoso.com")]
        assert here.events("accepted")[0]["lane"] == view.lane


async def test_a_balancers_word_is_believed_by_the_helper_too(tmp_path: Path) -> None:
    """PROXY protocol: the stated address is the one that is counted and stored."""
    conf = listener(proxy_protocol_from=networks("127.0.0.0/8"), limits=limits(connections_per_client=1))
    async with house(tmp_path, [conf]) as here:
        await here.helper()
        client = await TestClient.open(here.server.address)
        client.send(b"PROXY TCP4 192.0.2.7 127.0.0.1 4711 25\r\n")
        assert (await client.reply()).startswith("220")
        second = await TestClient.open(here.server.address)
        second.send(b"PROXY TCP4 192.0.2.7 127.0.0.1 4712 25\r\n")
        assert (await second.reply()).startswith("421")
        assert (await client.deliver(MAIL)).startswith("250")
        (view,) = await here.stored()
        assert view.client == "192.0.2.7"
        client.close()
        second.close()


async def test_a_stop_lets_a_message_finish_and_sends_idle_clients_away(tmp_path: Path) -> None:
    """As without helpers: 421 between messages, 250 for the one that is under way."""
    async with house(tmp_path) as here:
        helper = await here.helper()
        async with here.client() as idle, here.client() as busy:
            await busy.envelope()
            assert (await busy.ask("DATA")).startswith("354")
            stopping = asyncio.ensure_future(here.acceptance.stop(20.0))
            assert (await idle.reply()).startswith("421 4.3.2")
            busy.send(MAIL)
            assert (await busy.reply()).startswith("250")
            await asyncio.wait_for(stopping, 25)
        assert len(await here.stored()) == 1
        assert helper.ended.is_set()
        assert not helper.fault


async def test_a_reload_reaches_new_clients_and_open_ones_keep_theirs(tmp_path: Path) -> None:
    """A new helper has the new settings; the old one ends with its last client."""
    async with house(tmp_path) as here:
        old = await here.helper()
        async with here.client() as client:
            changed = dataclasses.replace(
                here.settings,
                recipients=dataclasses.replace(here.settings.recipients, deny=("*@example.com",)),
            )
            here.server.update(here.settings.listeners[0], new_intake(here, changed))
            await here.acceptance.update(changed)
            new = await until(lambda: here.acceptance.on_duty is not old and here.acceptance.on_duty)
            async with here.client() as other:
                await other.ask("EHLO client")
                await other.ask("MAIL FROM:<a@scanners.local>")
                assert (await other.ask("RCPT TO:<b@example.com>")).startswith("550")
            assert (await client.deliver(MAIL)).startswith("250")
            assert not old.ended.is_set()
        await asyncio.wait_for(old.ended.wait(), 30)
        assert not old.fault
        assert here.acceptance.on_duty is new


def new_intake(here: House, changed):  # type: ignore[no-untyped-def]
    from relay.accept.intake import Intake
    from relay.rewrite.route import Router

    return Intake(spool=here.spool, router=Router(changed), settings=changed, clock=here.server._intake.clock,
                  hostname="relay.test")  # fmt: skip


async def test_a_helper_comes_with_the_load_and_goes_with_it(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """None while it is quiet; one when clients keep the event loop busy; none again after a quiet time."""
    monkeypatch.setattr(acceptance_module, "cores", lambda: 2)
    monkeypatch.setattr(acceptance_module, "CHECK", 0.2)
    monkeypatch.setattr(acceptance_module, "QUIET_TIME", 0.4)
    async with house(tmp_path, workers="auto") as here:
        async with here.client() as client:
            assert (await client.deliver(MAIL)).startswith("250")
        assert here.acceptance.helpers == []
        monkeypatch.setattr(acceptance_module, "BUSY", 0.0)
        monkeypatch.setattr(acceptance_module, "BURST", 1)
        while here.acceptance.on_duty is None:
            async with here.client():
                pass
        helper = await here.helper()
        await asyncio.wait_for(helper.ended.wait(), 30)
        assert not helper.fault
        async with here.client() as client:
            assert (await client.deliver(MAIL)).startswith("250")
        assert (
            Counter(str(one["what"]) for one in here.events("notice"))["a helper process accepts mail"] >= 1
        )


async def test_one_processor_has_no_helpers(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """There, another process would only cost."""
    monkeypatch.setattr(acceptance_module, "cores", lambda: 1)
    async with house(tmp_path, workers="auto") as here:
        assert here.acceptance._watch is None


async def test_a_listener_that_waits_for_exchange_stays_with_the_daemon(tmp_path: Path) -> None:
    """`answer_after: upstream` needs the scheduler at hand; the other listener is handed over all the same."""
    waiting = listener(bind="127.0.0.1:1", answer_after="upstream")
    async with house(tmp_path, [waiting, listener()]) as here:
        await here.helper()
        assert not here.servers["127.0.0.1:1"].paused
        assert here.servers["127.0.0.1:0"].paused


async def test_a_stuck_helper_is_ended_and_the_daemon_accepts(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """A process that lives and does nothing would leave every client waiting in the kernel's queue."""
    monkeypatch.setattr(acceptance_module, "CHECK", 0.7)
    monkeypatch.setattr(acceptance_module, "SILENT", 2)
    async with house(tmp_path) as here:
        helper = await here.helper()
        os.kill(helper.pid, signal.SIGSTOP)
        async with here.client() as client:
            assert QUEUED.match(await client.deliver(MAIL))
        trouble = await until(lambda: here.events("trouble"))
        assert helper.fault == "it does not answer"
        assert "`workers: never`" in str(trouble)
