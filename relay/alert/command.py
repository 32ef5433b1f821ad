"""`alerts.command`: a program of the administrator's own, with the news on stdin and in its environment.

No shell reads the command or the news. The program gets a small, listed part of our environment, since any variable
of ours may be a secret (``client_secret: env:ANY_NAME``).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import shutil
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping

from relay.alert.news import News, WayFailed, clean, fields

TIMEOUT = 30.0
"""Seconds until it is killed, with everything it started."""
_KEPT_WORDS = 500
"""Octets of its stderr that are shown when it fails."""
_REAP = 5.0
"""Seconds that the system gets to bury a killed process."""
_START_REMEDY = "Give the program's full path in `alerts.command`; relay's user must be allowed to run it."
INHERITED = frozenset(
    {"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TMP", "TEMP",
     "SYSTEMROOT", "COMSPEC", "PATHEXT", "SSL_CERT_FILE", "SSL_CERT_DIR",
     "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"}
)  # fmt: skip
"""What a program needs to run and to reach the network; ``LC_*`` besides."""


def environment(news: News, host: str, ours: Mapping[str, str]) -> dict[str, str]:
    """The child's environment: ``INHERITED`` of ours, and ``RELAY_ALERT_...`` for each field of the news."""
    child = {name: value for name, value in ours.items() if name in INHERITED or name.startswith("LC_")}
    for name, value in fields(news, host).items():
        words = str(value).lower() if isinstance(value, bool) else str(value)
        child[f"RELAY_ALERT_{name.upper()}"] = words
    return child


class Command:
    """Runs one command for each piece of news."""

    def __init__(self, command: str, *, host: str, timeout: float = TIMEOUT) -> None:
        self._command, self._host, self._timeout = command, host, timeout

    def check(self) -> None:
        """Raises WayFailed when there is no such program, so that it is known before it is needed."""
        try:
            words = shlex.split(self._command)
        except ValueError as error:
            raise WayFailed(f"alerts.command cannot be read: {error}", remedy=_START_REMEDY) from None
        if not words or shutil.which(words[0]) is None:
            raise WayFailed("alerts.command names no program that can be run", remedy=_START_REMEDY)

    async def tell(self, news: News) -> None:
        """Exit status 0 within ``timeout`` seconds is success. Raises WayFailed otherwise."""
        process = await self._start(news)
        words = bytearray()
        work = [
            asyncio.ensure_future(_feed(process, json.dumps(fields(news, self._host)).encode() + b"\n")),
            asyncio.ensure_future(_gather(process, words)),
            asyncio.ensure_future(process.wait()),
        ]
        try:
            await asyncio.wait(work, timeout=self._timeout)
            status = process.returncode
        finally:
            _kill(process)
            await _let_go(process, work)
        self._judge(status, clean(words.decode("utf-8", "replace"), _KEPT_WORDS))

    async def _start(self, news: News) -> Process:
        try:
            return await asyncio.create_subprocess_exec(
                *shlex.split(self._command),
                stdin=PIPE,
                stdout=DEVNULL,
                stderr=PIPE,
                env=environment(news, self._host, os.environ),
                start_new_session=True,
            )
        except (OSError, ValueError, TypeError) as error:  # TypeError: nothing left after the split
            raise WayFailed(f"alerts.command could not be started: {error}", remedy=_START_REMEDY) from None

    def _judge(self, status: int | None, words: str) -> None:
        said = f": {' '.join(words.split())}" if words else ""
        if status is None:
            raise WayFailed(
                f"alerts.command did not end within {self._timeout:g} s and was killed{said}",
                remedy="Let it hand the alert over and end; what takes longer it should start in the background.",
            )
        if status != 0:
            raise WayFailed(
                f"alerts.command ended with status {status}{said}",
                remedy="Run it by hand as relay's user, with JSON on stdin, and mend what it complains about.",
            )


async def _feed(process: Process, data: bytes) -> None:
    """It need not read its stdin."""
    assert process.stdin is not None
    with contextlib.suppress(ConnectionError):
        process.stdin.write(data)
        await process.stdin.drain()
    process.stdin.close()
    with contextlib.suppress(ConnectionError):
        await process.stdin.wait_closed()


async def _gather(process: Process, words: bytearray) -> None:
    """Reads all of its stderr, so that it never waits for us, and keeps the beginning."""
    assert process.stderr is not None
    while data := await process.stderr.read(4096):
        words += data[: max(0, _KEPT_WORDS - len(words))]


async def _let_go(process: Process, work: list[asyncio.Task[int | None]]) -> None:
    """Close our ends of its pipes: something it left in the background may keep the others open for hours."""
    process._transport.close()  # type: ignore[attr-defined]  # there is no public way
    work[0].cancel()
    work[1].cancel()
    await asyncio.wait(work, timeout=_REAP)
    work[2].cancel()


def _kill(process: Process) -> None:
    """If it still runs; one that ended may leave work in the background."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)  # its own session, so its own group
        else:
            process.kill()
