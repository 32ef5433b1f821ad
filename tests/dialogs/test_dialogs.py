"""Every recorded dialogue goes as written: what old clients send, and what stock aiosmtpd would get wrong."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import argon2
import pytest

from relay import settings
from tests.accept.support import Bench, TestClient, all_settings, limits, listener, running

FILES = sorted(Path(__file__).parent.glob("*.txt"))
HASH = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash("secret")


def octets(text: str) -> bytes:
    return text.encode("latin-1", "backslashreplace").decode("unicode_escape").encode("latin-1")


def conditions(lines: list[str]) -> tuple[settings.Listener, settings.Settings]:
    conf, deny, changes = listener(), (), {}
    for line in lines:
        if line.startswith("@ "):
            key, value = line[2:].split()
            if key.startswith("limits."):
                changes[key[7:]] = int(value)
            elif key == "deny":
                deny = (value,)
            else:
                conf = dataclasses.replace(conf, **{key: value})
    user = settings.ClientLogin("scanner-3", settings.Secret(HASH), ("*@scanners.local",))
    config = all_settings(clients=(user,), recipients=settings.RecipientPolicy(("*",), deny, None))
    return dataclasses.replace(conf, limits=limits(**changes)), config


class Player:
    """Plays one dialogue, line by line."""

    def __init__(self, bench: Bench, client: TestClient) -> None:
        self.bench = bench
        self.client = client
        self.greeted = False

    async def play(self, mark: str, text: str) -> None:
        if mark == "W:":
            self.greeted = True
            assert await self.client.reply() == text
        elif mark in ("C:", "C;", "L:"):
            self.client.send({"C:": octets(text) + b"\r\n", "C;": octets(text)}.get(mark) or b"x" * int(text))
            await self.client.writer.drain()
        elif mark == "E:":
            self.client.writer.write_eof()
        elif mark == "S:":
            if not self.greeted:
                self.greeted = True
                assert (await self.client.reply()).startswith("220")
            answer = await self.client.reply()
            assert answer.startswith(text), f"wanted {text!r}, got {answer!r}"
        elif mark == "X:":
            rest = await self.client.closed()
            assert rest in (b"", b"220 relay.test ESMTP\r\n"), rest
        else:
            self.judge(mark, text)

    def judge(self, mark: str, text: str) -> None:
        stored: list[Any] = self.bench.spool.stored
        if mark == "Z:":
            assert len(stored) == int(text)
        elif mark == "V:":
            kind, _, what = text.partition(" ")
            assert any(what in str(one) for one in self.bench.events(kind)), self.bench.told
        else:
            self.judge_message(mark, text, stored[-1])

    def judge_message(self, mark: str, text: str, one: Any) -> None:
        envelope = one.message.envelope
        if mark == "M:":
            assert (
                f"{envelope.sender} -> {' '.join(r.address for r in envelope.recipients)}"
                == text.removeprefix("")
            )
        elif mark == "B:":
            received, _, rest = one.content.partition(b" +0000\r\n")
            assert received.startswith(b"Received: from ")
            assert rest == octets(text)
        elif mark == "N:":
            first = envelope.recipients[0]
            assert f"{envelope.ret} {envelope.envid} {first.notify} {first.orcpt}" == text
        elif mark == "R:":
            assert any(note.startswith(text) for note in one.message.notes), one.message.notes
        elif mark == "U:":
            assert one.message.client.user == text
        else:
            raise AssertionError(f"unknown mark {mark!r}")


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
async def test_dialogue(file: Path) -> None:
    """The conversation in this file goes as recorded, and nothing unexpected happens inside."""
    lines = file.read_text(encoding="utf-8").splitlines()
    conf, config = conditions(lines)
    async with running(conf, config=config) as bench:
        client = await bench.client()
        player = Player(bench, client)
        for line in lines:
            if not line.startswith(("#", "@")):
                await player.play(line[:2], line[3:])
        client.close()
        assert bench.events("trouble") == []
        assert len(FILES) > 50
