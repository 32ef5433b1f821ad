"""The relay of the demo: a process of its own, watched through its log."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from relay.errors import RelayError

Event = dict[str, Any]
STOP = 15.0
"""Seconds that a stop may take before the process is killed."""


class RelayProcess:
    """`relay run --config FILE`; each line of its JSON log is handed to ``tell``."""

    def __init__(self, config: Path, tell: Callable[[Event], None]) -> None:
        self._config = config
        self._tell = tell
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._started = asyncio.Event()
        self._ended = asyncio.Event()
        self._last: deque[str] = deque(maxlen=15)

    async def start(self, seconds: float) -> None:
        """Start, and wait until it listens. Raises RelayError with its last words when it does not."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "relay", "run", "--config", str(self._config),
            stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE, env=_environment(),
            limit=1024 * 1024,
        )  # fmt: skip
        self._reader = asyncio.create_task(self._read())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._started.wait()
        if not self._started.is_set() or self._ended.is_set():
            raise RelayError("the relay did not start:\n" + "\n".join(self._last))

    async def _read(self) -> None:
        assert self._process is not None and self._process.stderr is not None
        try:
            async for line in self._process.stderr:
                self._take(line.decode("utf-8", "replace").rstrip())
        finally:
            self._ended.set()
            self._started.set()

    def _take(self, line: str) -> None:
        self._last.append(line)
        try:
            event = json.loads(line)
        except ValueError:
            return
        if isinstance(event, dict):
            if event.get("event") == "notice" and event.get("what") == "started":
                self._started.set()
            self._tell(event)

    async def stop(self) -> int:
        """SIGTERM, as a service manager does it; the exit status."""
        if self._process is None:
            return 0
        if self._process.returncode is None:
            self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), STOP)
            except TimeoutError:
                self._process.kill()
        status = await self._process.wait()
        if self._reader is not None:
            await self._reader
        return status


def _environment() -> dict[str, str]:
    """This environment without what would configure the relay: the demo's file alone decides."""
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith("RELAY_")}
    return {**kept, "NO_PROXY": "localhost,127.0.0.1", "no_proxy": "localhost,127.0.0.1"}
