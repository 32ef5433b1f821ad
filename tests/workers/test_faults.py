"""What goes wrong between the two processes: the daemon accepts again at once, and no client waits for an answer in vain."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import os
import signal
import socket
import threading
from pathlib import Path
from typing import Any

import argon2
import pytest

from relay.accept.listener import ListenerServer
from relay.settings import ClientLogin, Secret, SenderRule
from relay.workers import acceptance as acceptance_module
from relay.workers import deputy as deputy_module
from relay.workers.deputy import Deputy
from tests.accept.support import listener
from tests.workers.house import House, house, until

MAIL = b"From: a@scanners.local\r\nSubject: hello\r\n\r\nbody\r\n.\r\n"


async def accepts(here: House) -> None:
    """Somebody lets clients in and stores their mail."""
    async with here.client() as client:
        assert (await client.deliver(MAIL)).startswith("250")


async def always(here: House) -> None:
    await here.acceptance.update(dataclasses.replace(here.settings, workers="always"))


async def test_a_helper_that_cannot_listen_says_so_and_the_daemon_accepts(tmp_path: Path) -> None:
    """Its duty has begun, and nobody would let clients in: the daemon does at once, and tries another one later."""
    async with house(tmp_path, workers="never") as here:
        right = here.server.copies
        wrong = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM)]
        here.server.copies = lambda: [wrong.pop()] if wrong else right()  # type: ignore[method-assign]
        await always(here)
        (trouble,) = await until(lambda: here.events("trouble"))
        assert "A Stream Socket was expected" in str(trouble["what"])
        await accepts(here)
        await here.helper()
        await accepts(here)


async def test_a_helper_that_cannot_read_its_orders_says_so_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only after the time that a start may take."""
    monkeypatch.setattr(acceptance_module, "without_secrets", lambda settings: "no settings")
    async with house(tmp_path) as here:
        (trouble,) = await until(lambda: here.events("trouble"))
        assert "cannot: 'str' object has no attribute" in str(trouble["what"])
        await accepts(here)


async def test_orders_that_cannot_be_packed_leave_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault is told, the process is gone."""
    monkeypatch.setattr(acceptance_module, "without_secrets", lambda settings: threading.Lock())
    started: list[Deputy] = []
    run = Deputy._run

    def noted(self: Deputy) -> socket.socket:
        started.append(self)
        return run(self)

    monkeypatch.setattr(Deputy, "_run", noted)
    async with house(tmp_path) as here:
        (trouble,) = await until(lambda: here.events("trouble"))
        assert "cannot pickle" in str(trouble["what"])
        process = started[0]._process
        assert process is not None
        assert process.returncode == -signal.SIGKILL
        await accepts(here)


async def test_a_helper_that_dies_between_ready_and_go_leaves_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The listeners are paused just then: the daemon takes them back without waiting for the process to be reaped."""
    reaped = threading.Event()
    reap = Deputy._reap

    def slowly(self: Deputy) -> int:
        reaped.wait(30)
        return reap(self)

    pause = ListenerServer.pause_all

    async def paused(servers: Any) -> None:
        await pause(servers)
        deputy = here.acceptance._starting
        assert deputy is not None
        os.kill(deputy.pid, signal.SIGKILL)
        await until(lambda: deputy.closed)

    monkeypatch.setattr(Deputy, "_reap", slowly)
    monkeypatch.setattr(ListenerServer, "pause_all", paused)
    async with house(tmp_path) as here:
        try:
            await until(lambda: here.acceptance.helpers and here.acceptance.helpers[0].gone.is_set())
            assert here.acceptance.on_duty is None
            await accepts(here)
        finally:
            reaped.set()
        monkeypatch.setattr(ListenerServer, "pause_all", pause)
        assert "killed by signal 9" in str((await until(lambda: here.events("trouble")))[0]["what"])


async def test_the_watch_over_the_load_goes_on_after_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told once; when whatever failed works again, so does the watch."""
    monkeypatch.setattr(acceptance_module, "AGAIN", (0.01, 0.01))
    monkeypatch.setattr(acceptance_module, "CHECK", 0.05)
    monkeypatch.setattr(acceptance_module, "SILENT", 1000)
    failed = [0]

    class Broken(acceptance_module.Busy):
        def since(self) -> float:
            if failed[0] < 5:
                failed[0] += 1
                raise ValueError("schedstat reads oddly")
            return super().since()

    monkeypatch.setattr(acceptance_module, "Busy", Broken)
    async with house(tmp_path) as here:
        await until(lambda: failed[0] == 5)
        helper = await here.helper()
        assert [one["what"] for one in here.events("trouble")] == [
            "watching the load failed, and goes on: ValueError: schedstat reads oddly"
        ]
        monkeypatch.setattr(acceptance_module, "AGAIN", (0.01,))
        os.kill(helper.pid, signal.SIGKILL)
        await until(lambda: here.acceptance.on_duty not in (helper, None))


async def test_a_reload_does_not_wait_for_a_helper_that_is_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The start is called off, which is no fault of the helper's; the next one has the new settings."""
    started = asyncio.Event()
    run = Deputy._run

    def stopped(self: Deputy) -> socket.socket:
        mine = run(self)
        os.kill(self.pid, signal.SIGSTOP)
        started.set()
        return mine

    monkeypatch.setattr(Deputy, "_run", stopped)
    async with house(tmp_path) as here:
        await asyncio.wait_for(started.wait(), 20)
        monkeypatch.setattr(Deputy, "_run", run)
        await asyncio.wait_for(always(here), 10)
        await here.helper()
        assert here.events("trouble") == []
        await accepts(here)


async def test_a_helper_that_is_never_ready_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log says what it was, and the daemon accepts all the time."""
    monkeypatch.setattr(acceptance_module, "START_TIME", 0.2)
    run = Deputy._run

    def stopped(self: Deputy) -> socket.socket:
        mine = run(self)
        os.kill(self.pid, signal.SIGSTOP)
        return mine

    monkeypatch.setattr(Deputy, "_run", stopped)
    async with house(tmp_path) as here:
        (trouble,) = await until(lambda: here.events("trouble"))
        assert "not ready within 0.2 s" in str(trouble["what"])
        await until(lambda: here.acceptance.helpers == [])
        await accepts(here)


async def test_a_retired_helper_that_is_stuck_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its clients would count against the limits for ever."""
    monkeypatch.setattr(acceptance_module, "CHECK", 0.7)
    monkeypatch.setattr(acceptance_module, "SILENT", 2)
    async with house(tmp_path) as here:
        helper = await here.helper()
        async with here.client():
            await here.acceptance.update(dataclasses.replace(here.settings, workers="never"))
            assert here.server.roster.gate.open == 1
            os.kill(helper.pid, signal.SIGSTOP)
            await asyncio.wait_for(helper.ended.wait(), 30)
            assert helper.fault == "it does not answer"
            assert here.server.roster.gate.open == 0


def login() -> tuple[ClientLogin, ...]:
    hasher = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    return (ClientLogin("scanner", Secret(hasher.hash("right")), ("*",)),)


def breaks(*_: object, **__: object) -> Any:
    raise ValueError("broken, with a secret-looking word")


async def test_auth_is_answered_when_the_judge_breaks(tmp_path: Path) -> None:
    """451, and the fault in the daemon's log; the client may try again on the same connection."""
    async with house(tmp_path, [listener(auth="required")], clients=login()) as here:
        await here.helper()
        judge = here.acceptance._desk.logins()
        plain = "AUTH PLAIN " + base64.b64encode(b"\0scanner\0right").decode()
        async with here.client() as client:
            await client.ask("EHLO client")
            judge.judge = breaks  # type: ignore[method-assign]
            assert (await client.ask(plain)).startswith("451 4.3.0")
            assert "ValueError: broken" in str(here.events("trouble")[0]["trace"])
            del judge.judge  # type: ignore[attr-defined]
            assert (await client.ask(plain)).startswith("235")


async def test_mail_is_answered_when_the_spools_room_cannot_be_told(tmp_path: Path) -> None:
    """451 for MAIL, not silence."""
    async with house(tmp_path, max_size=1024 * 1024) as here:
        await here.helper()
        here.spool.has_room = breaks  # type: ignore[method-assign]
        async with here.client() as client:
            await client.ask("EHLO client")
            assert (await client.ask("MAIL FROM:<a@b.example>")).startswith("451 4.3.0")


@pytest.mark.parametrize("what", ["choose", "unpack", "take_in"])
async def test_a_message_is_answered_when_it_cannot_be_stored(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """451, whatever broke; nothing is stored, and the next message is."""
    pool = SenderRule("*", None, None, "a@contoso.com", ("a@contoso.com", "b@contoso.com"), "keep", "original",
                      "Microsoft 365")  # fmt: skip
    async with house(tmp_path, senders=(pool,)) as here:
        await here.helper()
        with monkeypatch.context() as broken:
            if what == "choose":
                desk = dataclasses.replace(here.acceptance._desk, choose=breaks)
                broken.setattr(here.acceptance.on_duty, "_desk", desk)
            elif what == "unpack":
                broken.setattr(deputy_module, "unpack", breaks)
            else:
                broken.setattr(here.spool, "take_in", breaks)
            async with here.client() as client:
                assert (await client.deliver(MAIL)).startswith("451 4.3.0")
        assert await here.stored() == []
        await accepts(here)
        assert len(await here.stored()) == 1


async def test_a_helper_that_dies_while_it_starts_is_told_and_another_waits_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No process after process without a pause, each of which dies at once."""
    monkeypatch.setattr(acceptance_module, "AGAIN", (30.0,))
    run, started = Deputy._run, [0]

    def killed(self: Deputy) -> socket.socket:
        mine = run(self)
        os.kill(self.pid, signal.SIGKILL)
        started[0] += 1
        return mine

    monkeypatch.setattr(Deputy, "_run", killed)
    async with house(tmp_path) as here:
        (trouble,) = await until(lambda: here.events("trouble"))
        assert "ended unexpectedly (killed by signal 9)" in str(trouble["what"])
        await accepts(here)
        await asyncio.wait_for(here.acceptance._try_to_begin(), 20)
        assert started == [1]


async def test_a_message_is_answered_once_it_is_stored_and_not_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the helper hands over is all there, the file of a large body too; it waits for the daemon's word."""
    async with house(tmp_path) as here:
        await here.helper()
        loop = asyncio.get_running_loop()
        held: list[tuple[Any, asyncio.Future[None]]] = []
        take_in = here.spool.take_in

        def hold(row: Any) -> asyncio.Future[None]:
            held.append((row, loop.create_future()))
            return held[-1][1]

        monkeypatch.setattr(here.spool, "take_in", hold)
        large = MAIL[:-3] + b"x" * 70 + b"\r\n" + (b"y" * 70 + b"\r\n") * 5000 + b".\r\n"
        async with here.client() as client, here.client() as other:
            waiting = asyncio.ensure_future(client.deliver(large))
            await until(lambda: held)
            row, future = held[0]
            assert here.spool.bodies.path(row.number).stat().st_size == row.body_size
            assert (await other.ask("NOOP")).startswith("250")
            assert not waiting.done()
            await take_in(row)
            assert (await other.ask("NOOP")).startswith("250")
            assert not waiting.done()
            future.set_result(None)
            assert (await waiting).startswith("250")


async def test_listeners_are_taken_back_whatever_goes_wrong_at_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else accepts on them: it is tried until it works."""
    monkeypatch.setattr(acceptance_module, "AGAIN", (0.01,))
    async with house(tmp_path) as here:
        await here.helper()
        start, failed = here.server.start, [0]

        async def starts() -> None:
            failed[0] += 1
            if failed[0] < 3:
                raise RuntimeError("not just now")
            await start()

        monkeypatch.setattr(here.server, "start", starts)
        await asyncio.wait_for(
            here.acceptance.update(dataclasses.replace(here.settings, workers="never")), 30
        )
        assert [one["what"] for one in here.events("trouble")] == ["RuntimeError: not just now"] * 2
        await accepts(here)
