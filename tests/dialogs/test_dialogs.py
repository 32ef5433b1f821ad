"""Every recorded dialogue goes as written: what old and hostile clients send, what they hear, what is stored and what leaves."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import argon2
import pytest

from relay import settings
from relay.accept import channel
from tests.accept.conftest import write_certificate
from tests.accept.support import (
    Bench,
    TestClient,
    all_settings,
    limits,
    listener,
    networks,
    running,
    tls,
    trusting,
)
from tests.dialogs.submitted import Submitted, submitted

FILES = sorted(Path(__file__).parent.glob("*.txt"))
HASH = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash("secret")
SETTING_WORDS = {"true": True, "false": False}
NETWORKS = ("allow", "proxy_protocol_from")


def octets(text: str) -> bytes:
    return text.encode("latin-1", "backslashreplace").decode("unicode_escape").encode("latin-1")


def conditions(lines: list[str], pem: Path) -> tuple[settings.Listener, settings.Settings]:
    conf, policy, changes = listener(), settings.RecipientPolicy(("*",), (), None), {}
    for line in lines:
        if line.startswith("@ "):
            key, value = line[2:].split()
            if key.startswith("limits."):
                changes[key[7:]] = int(value)
            elif key == "tls":
                conf = dataclasses.replace(conf, tls=tls(value, pem))
            elif key in ("deny", "recipients"):
                policy = dataclasses.replace(policy, **{"deny" if key == "deny" else "allow": (value,)})
            elif key in NETWORKS:
                conf = dataclasses.replace(conf, **{key: networks(value)})
            elif key != "only":
                conf = dataclasses.replace(conf, **{key: SETTING_WORDS.get(value, value)})
    user = settings.ClientLogin("scanner-3", settings.Secret(HASH), ("*@scanners.local",))
    config = all_settings(clients=(user,), recipients=policy)
    return dataclasses.replace(conf, limits=limits(**changes)), config


def for_devices(conf: settings.Listener, pem: Path) -> settings.Listener:
    """The same listener with everything on that old devices may need."""
    return dataclasses.replace(conf, newlines="tolerant", auth_in_clear=True, tls=tls("auto", pem, "1.0"))


class Player:
    """Plays one dialogue, line by line."""

    def __init__(self, bench: Bench, client: TestClient) -> None:
        self.bench = bench
        self.client = client
        self.greeted = False
        self.heard = ""

    async def play(self, mark: str, text: str) -> None:
        if mark == "W:":
            self.greeted = True
            assert await self.client.reply() == text
        elif mark in ("C:", "C;", "L:"):
            self.client.send(
                {"C:": octets(text) + b"\r\n", "C;": octets(text)}.get(mark) or self.repeated(text)
            )
            with contextlib.suppress(ConnectionError):  # what the server says before it closes is still read
                await self.client.writer.drain()
        elif mark == "E:":
            self.client.writer.write_eof()
        elif mark == "K:":
            await self.leave()
            self.client, self.greeted = await self.bench.client(), False
        elif mark in ("A:", "A!"):
            assert (text in self.heard) is (mark == "A:"), self.heard
        elif mark == "T:":
            await self.client.start_tls(trusting())
        elif mark == "S:":
            if not self.greeted:
                self.greeted = True
                assert (await self.client.reply()).startswith("220")
            self.heard = answer = await self.client.reply()
            assert answer.startswith(text), f"wanted {text!r}, got {answer!r}"
            assert answer.isascii() and max(map(len, answer.split("\n"))) <= 510
        elif mark == "X:":
            rest = await self.client.closed()
            assert rest in (b"", b"220 relay.test ESMTP\r\n"), rest
        else:
            await self.judge(mark, text)

    async def leave(self) -> None:
        self.client.close()
        with contextlib.suppress(Exception):  # a reset is an end as well
            await self.client.writer.wait_closed()

    @staticmethod
    def repeated(text: str) -> bytes:
        """``n`` letters, or ``n text``: that text so many times."""
        count, _, what = text.partition(" ")
        return (octets(what) or b"x") * int(count)

    async def judge(self, mark: str, text: str) -> None:
        stored: list[Any] = self.bench.spool.stored
        if mark == "Z:":
            assert len(stored) == int(text)
        elif mark == "V:":
            kind, _, what = text.partition(" ")
            assert any(what in str(one) for one in self.bench.events(kind)), self.bench.told
        elif mark in ("O:", "O!", "Q:"):
            self.judge_submitted(mark, text, await submitted(stored[-1]))
        else:
            self.judge_message(mark, text, stored[-1])

    def judge_submitted(self, mark: str, text: str, left: Submitted) -> None:
        if mark == "Q:":
            assert any(text in note for note in left.notes), left.notes
        else:
            assert (octets(text) in left.octets) is (mark == "O:"), left.octets[-3000:]

    def judge_message(self, mark: str, text: str, one: Any) -> None:
        envelope = one.message.envelope
        if mark == "M:":
            shown = f"{envelope.sender} -> {' '.join(r.address for r in envelope.recipients)}"
            assert shown == text
        elif mark == "B:":
            received, _, rest = one.content.partition(b" +0000\r\n")
            assert received.startswith(b"Received: from ")
            assert rest == octets(text)
        elif mark == "H:":
            assert one.content.startswith(octets(text)), one.content[:300]
        elif mark == "N:":
            first = envelope.recipients[0]
            assert f"{envelope.ret} {envelope.envid} {first.notify} {first.orcpt}" == text
        elif mark == "R:":
            assert any(note.startswith(text) for note in one.message.notes), one.message.notes
        elif mark == "U:":
            assert one.message.client.user == text
        else:
            raise AssertionError(f"unknown mark {mark!r}")


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A certificate for the listeners that speak TLS."""
    yield write_certificate(tmp_path_factory.mktemp("pem"), "relay.test")


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def play(lines: list[str], conf: settings.Listener, config: settings.Settings) -> None:
    """One dialogue; afterwards nothing of it is left, nothing broke inside, and what leaves is fit to leave."""
    before = descriptors()
    async with running(conf, config=config) as bench:
        player = Player(bench, await bench.client())
        for line in lines:
            if not line.startswith(("#", "@")):
                await player.play(line[:2], line[3:])
        await player.leave()
        assert bench.events("trouble") == []
        assert all("\n" not in str(value) for _, _, fields in bench.told for value in fields.values())
        for one in bench.spool.stored:
            assert (await submitted(one)).faults() == []
    for _ in range(1000):  # closing takes its time on a busy machine
        if descriptors() <= before and len(asyncio.all_tasks()) == 1:
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"{descriptors()} descriptors, {before} before; {asyncio.all_tasks()}")


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
async def test_dialogue(file: Path, pem: Path) -> None:
    """The conversation in this file goes as recorded, and nothing unexpected happens inside."""
    lines = file.read_text(encoding="utf-8").splitlines()
    await play(lines, *conditions(lines, pem))
    assert len(FILES) > 250


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
async def test_dialogue_with_device_options(file: Path, pem: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With every option for old devices on, all goes the same, but for the dialogues that are about an option."""
    lines = file.read_text(encoding="utf-8").splitlines()
    conf, config = conditions(lines, pem)
    if "@ only default" in lines:
        assert conf.newlines == "strict"
        return
    monkeypatch.setattr(channel, "HELLO_WAIT", 0.005)
    await play(lines, for_devices(conf, pem), config)


@pytest.fixture(scope="module", autouse=True)
def memory_before() -> int:
    """Octets that this process has before the dialogues; the peak is counted from here (proc(5), clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS")


def memory(field: str) -> int:
    """A figure of this process in octets."""
    found = re.search(rf"^{field}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def test_memory_stays_where_it_was(memory_before: int) -> None:
    """All dialogues together, floods and endless lines among them, never took more than 300 MB."""
    assert memory("VmHWM") - memory_before < 300_000_000
