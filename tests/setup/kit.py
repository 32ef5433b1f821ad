"""What the tests of the set-up share: a simulator in a thread of its own, and a command run against a pseudo-terminal."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import re
import select
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from relay.simulator.app import Simulator
from relay.simulator.options import SimulatorOptions

PATIENCE = 40.0
"""Seconds that a test waits for something that takes a moment on an idle machine."""


@contextlib.contextmanager
def running_simulator(folder: Path, **options: object) -> Iterator[Simulator]:
    """A tenant that answers while commands run in this thread or in another process."""
    loop = asyncio.new_event_loop()
    sim = Simulator(SimulatorOptions(directory=folder / "sim", **options))  # type: ignore[arg-type]
    ready = threading.Event()

    def serve() -> None:
        loop.run_until_complete(sim.start())
        ready.set()
        loop.run_forever()
        loop.run_until_complete(sim.stop())
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()

    thread = threading.Thread(target=serve)
    thread.start()
    assert ready.wait(PATIENCE)
    try:
        yield sim
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE)


def told_by(sim: Simulator, folder: Path) -> Path:
    """The file with what `relay simulator` prints."""
    file = folder / "simulator.json"
    file.write_text(json.dumps({"env": sim.environment()}) + "\n")
    return file


class Conversation:
    """`relay WORDS...` on a pseudo-terminal: read until it asks, then answer."""

    def __init__(self, folder: Path, *words: str) -> None:
        env = {name: value for name, value in os.environ.items() if not name.startswith("RELAY_")}
        self.shown = ""
        self._read = 0
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "relay", *words], stdin=slave, stdout=slave, stderr=slave, cwd=folder,
            env={**env, "TERM": "dumb", "COLUMNS": "200", "PYTHONPATH": str(Path.cwd())}, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # so that Ctrl-C reaches it
        )  # fmt: skip
        os.close(slave)

    def expect(self, words: str) -> None:
        """Wait until these words have been shown, after what was expected before."""
        deadline = time.monotonic() + PATIENCE
        while words not in self.shown[self._read :]:
            left = deadline - time.monotonic()
            assert left > 0, f"{words!r} was not shown; shown was: {self.shown[-1500:]}"
            if not self._more(left):
                raise AssertionError(f"it ended before {words!r}; shown was: {self.shown[-1500:]}")
        self._read = self.shown.index(words, self._read) + len(words)

    def answer(self, text: str) -> None:
        """Type a line."""
        os.write(self._master, text.encode() + b"\n")

    def press(self, key: bytes) -> None:
        """Type a key, such as Ctrl-C."""
        os.write(self._master, key)

    def end(self) -> int:
        """Read to the end; the exit status."""
        while self._more(PATIENCE):
            pass
        status = self.process.wait(PATIENCE)
        os.close(self._master)
        return status

    def kill(self) -> None:
        """For a test that failed: leave nothing running."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE)

    def _more(self, seconds: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], seconds)
        if not ready:
            return False
        try:
            octets = os.read(self._master, 65536)
        except OSError:  # Linux's way of saying that the other side has closed
            return False
        self.shown += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", octets.decode("utf-8", "replace")).replace(
            "\r\n", "\n"
        )
        return bool(octets)


@contextlib.contextmanager
def conversation(folder: Path, *words: str) -> Iterator[Conversation]:
    """A `Conversation` that is over afterwards, come what may."""
    talk = Conversation(folder, *words)
    try:
        yield talk
    finally:
        talk.kill()
