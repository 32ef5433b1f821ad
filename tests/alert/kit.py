"""What the tests of the alert room share: causes, a store that can fail, ways that record, a webhook receiver."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from relay.alert.causes import Cause
from relay.alert.news import News
from relay.errors import SpoolFull
from relay.spool.contract import Hold, SpoolStats

NOW = 1_795_000_000.0
LANE = "Microsoft 365/scans@contoso.com"
GB = 1024**3
MB = 1024**2
ROOMY = SpoolStats("sqlite:////var/lib/relay/spool.db", 3, 30_000, 8 * GB)

Logged = list[tuple[str, dict[str, object]]]


def a_hold(scope: str = "lane", key: str = LANE, **more: Any) -> Hold:
    """A hold as the scheduler sets one."""
    values: dict[str, Any] = {
        "code": "smtp-auth-disabled",
        "reason": "SMTP AUTH is switched off for this mailbox.",
        "remedy": "Switch it on: Set-CASMailbox.",
        "evidence": "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox.",
        "since": NOW - 30,
    }
    return Hold(scope, key, **{**values, **more})


def a_cause(key: str = f"hold:lane:{LANE}", **more: Any) -> Cause:
    """A cause in words."""
    values: dict[str, Any] = {
        "title": "Mail of scans@contoso.com is held",
        "reason": "SMTP AUTH is switched off.",
        "remedy": "Switch it on.",
        "evidence": "535 5.7.139 disabled",
        "since": NOW,
        "lane": LANE,
        "messages": 7,
    }
    return Cause(key, **{**values, **more})


class FakeStore:
    """A store in memory; ``broken`` makes it fail as on a full disk."""

    def __init__(self, **texts: str) -> None:
        self.texts = dict(texts)
        self.broken = False

    async def remembered(self) -> dict[str, str]:
        await asyncio.sleep(0)
        if self.broken:
            raise SpoolFull("no space left", remedy="Free some.")
        return dict(self.texts)

    async def remember(self, key: str, value: str | None) -> None:
        await asyncio.sleep(0)
        if self.broken:
            raise SpoolFull("no space left", remedy="Free some.")
        if value is None:
            self.texts.pop(key, None)
        else:
            self.texts[key] = value


class Postmaster:
    """The mail way: records what it was handed; ``reachable`` False is "no lane that works"."""

    def __init__(self) -> None:
        self.got: list[tuple[str, bool]] = []
        self.asked = 0
        self.reachable = True

    async def __call__(self, news: News) -> bool:
        self.asked += 1
        if self.reachable:
            self.got.append((news.cause.key, news.over))
        return self.reachable


class Receiver:
    """A web server that takes alerts. ``answers`` are given in turn, the last one repeating."""

    def __init__(self) -> None:
        self.url = ""
        self.got: list[Any] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.answers: list[Callable[[], web.StreamResponse]] = [lambda: web.Response(text="ok")]
        self.gate: asyncio.Event | None = None

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.paths.append(request.path_qs)
        self.headers.append(dict(request.headers))
        self.got.append(await request.json())
        if self.gate is not None:
            await self.gate.wait()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return answer()

    def status(self, *codes: int, **more: Any) -> None:
        """Answer these statuses in turn."""
        self.answers = [lambda code=code: web.Response(status=code, **more) for code in codes]  # type: ignore[misc]


SECRET_PATH = "/services/T0AAAA/B0BBBB/s3cr3t-k3y-value"


@asynccontextmanager
async def receiving(tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    """A receiver on a port of the system's choice; its address holds a key, as real ones do."""
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/{rest:.*}", receiver.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    scheme, name = ("https", "localhost") if tls else ("http", "127.0.0.1")
    receiver.url = f"{scheme}://{name}:{runner.addresses[0][1]}{SECRET_PATH}?sig=another-s3cr3t"
    yield receiver
    if receiver.gate is not None:
        receiver.gate.set()
    await runner.cleanup()


class Pauses:
    """Instead of sleeping: notes how long a pause would have been."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        await asyncio.sleep(0)
