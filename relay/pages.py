"""The admin page in the daemon: what it shows of the running rooms, where its password is kept, its server's life."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import ssl
import tempfile
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from relay import events, logs
from relay.check.contract import CheckReport, Progress
from relay.clock import Clock
from relay.config.edit import change, read, store
from relay.config.faults import ConfigError
from relay.config.secrets import ARGON2
from relay.errors import RelayError
from relay.message import Client
from relay.rewrite.contract import Refused
from relay.rewrite.route import Router
from relay.settings import Secret, Settings, Upstream, Web
from relay.spool.contract import Spool
from relay.web.desk import MINUTES, News, Preview

if TYPE_CHECKING:
    from relay.metrics import Metrics
    from relay.web.server import WebServer

KEPT = 300
"""Events that Activity can look back on; as many warnings and errors are kept beside them."""
_FIELD = 500
"""Characters of one field of an event that are kept."""
_HIDDEN = frozenset({"error", "traceback"})


class Recent:
    """The last events, and each lane's deliveries by the minute. A watcher of `relay.events`: quick, never raises."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._all: deque[News] = deque(maxlen=KEPT)
        self._grave: deque[News] = deque(maxlen=KEPT)
        self._rates: dict[str, Counter[int]] = defaultdict(Counter)

    def __call__(self, level: str, event: str, fields: Mapping[str, object]) -> None:
        if event == "delivered":
            self._count(str(fields.get("lane", "")))
        if level == "debug" or "link" in fields:  # the one-time link is for who reads the log
            return
        shown = {
            name: logs.without_secrets(str(value))[:_FIELD]
            for name, value in fields.items()
            if name not in _HIDDEN and value not in (None, "")
        }
        news = News(next(self._numbers), time.time(), level, event, shown)
        self._all.append(news)
        if level in ("warning", "error"):
            self._grave.append(news)

    def _count(self, lane: str) -> None:
        minute = int(time.time() // 60)
        rates = self._rates[lane]
        rates[minute] += 1
        if len(rates) > 2 * MINUTES:
            for old in [one for one in rates if one <= minute - MINUTES]:
                del rates[old]

    def rates(self, lane: str, now: float) -> list[int]:
        """Deliveries in each of the last minutes, the present one last."""
        minute, rates = int(now // 60), self._rates.get(lane, Counter())
        return [rates[one] for one in range(minute - MINUTES + 1, minute + 1)]

    def news(self, after: int = 0) -> list[News]:
        """Newest first, of those beyond a number."""
        return [one for one in islice(reversed(self._all), KEPT) if one.number > after]

    def troubles(self) -> list[News]:
        """Warnings and errors, newest first."""
        return list(reversed(self._grave))


class Kept:
    """The page's password where the configuration cannot hold it: a file beside the spool, mode 0600.

    For relays that only the environment configures, and for files that relay may not write.
    """

    def __init__(self, settings: Settings) -> None:
        url = settings.spool.url
        self._file = (
            Path(url.removeprefix("sqlite:///") + ".web-password") if url.startswith("sqlite:///") else None
        )

    def read(self) -> Secret | None:
        """The hash, if there is one and it is one."""
        if self._file is None:
            return None
        try:
            text = self._file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            return None
        return Secret(text, f"file:{self._file}") if ARGON2.fullmatch(text) else None

    def write(self, hashed: str) -> str:
        """Keep it; where. Raises RelayError."""
        if self._file is None:
            raise RelayError(
                "there is no place to keep the password: no configuration file that relay may write, and no spool on disk",
                remedy="Make a hash with `relay password` and set RELAY_WEB_PASSWORD to it.",
            )
        try:
            handle, name = tempfile.mkstemp(prefix=".web-password.", dir=self._file.parent)
            with os.fdopen(handle, "w", encoding="ascii") as opened:
                opened.write(hashed + "\n")
                opened.flush()
                os.fsync(opened.fileno())
            Path(name).replace(self._file)
        except OSError as error:
            raise RelayError(f"the password cannot be kept in {self._file}: {error.strerror}") from error
        return str(self._file)

    def forget(self) -> None:
        """The configuration holds it now."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.unlink()


def _seen(web: Web | None) -> tuple[int, ...] | None:
    """When the page's certificate and key were last changed; None without."""
    try:
        return tuple(one.stat().st_mtime_ns for one in (web.certificate, web.key) if one) if web else None
    except OSError:
        return None


def _cannot_use(error: Exception) -> None:
    events.trouble(
        where="web",
        what=f"the page's certificate cannot be used: {error}",
        remedy="Mend web.tls and reload; the old one is in use until then.",
    )


def _server_class() -> type[WebServer]:
    """With its libraries: only where there is a page, and not in the event loop, since that takes a while."""
    from relay.web.server import WebServer

    return WebServer


class Rules(Protocol):
    """The router of the moment."""

    @property
    def rules(self) -> Router:
        """The sender rules in force."""
        ...


class Running(Protocol):
    """What the page needs of the daemon."""

    settings: Settings

    @property
    def spool(self) -> Spool: ...

    @property
    def router(self) -> Rules: ...

    @property
    def clock(self) -> Clock: ...

    async def status(self) -> dict[str, Any]: ...

    async def health(self) -> dict[str, Any]: ...

    async def reload(self) -> None: ...

    async def answer(self, do: str, payload: dict[str, Any]) -> dict[str, Any]: ...


class Pages:
    """The page's server while the daemon runs, and the desk it asks (`relay.web.desk.Desk`)."""

    def __init__(self, daemon: Running) -> None:
        self._daemon = daemon
        self._recent = Recent()
        self._unwatch: Callable[[], None] | None = None
        self._server: WebServer | None = None
        self._metrics: Metrics | None = None
        self._certificate: tuple[int, ...] | None = None
        self._kept = Kept(daemon.settings)
        self._password = self._kept.read()

    # life

    def watch(self) -> None:
        """Remember events from now on, if there is to be a page: also what is said while the daemon starts."""
        if self._unwatch is None and self._daemon.settings.web is not None:
            self._unwatch = events.watch(self._recent)
            from relay.metrics import Metrics  # a library that only a page needs

            self._metrics = Metrics()
            self._metrics.watch()

    async def start(self) -> None:
        """Serve the page, when one is configured. What fails is said, and mail goes on without it."""
        if self._daemon.settings.web is not None:
            await self._serve()

    async def update(self) -> None:
        """After a reload."""
        web = self.settings.web
        if self._server is not None and web is not None and self._server.serves(web):
            try:
                self._server.update(web)
            except (OSError, ssl.SSLError) as error:
                _cannot_use(error)
            return
        before, self._server = self._server, None
        if web is not None:
            if before is not None and before.settings.bind == web.bind:
                await before.stop()
                before = None
            await self._serve()
        if before is not None:
            await before.stop()

    def renew(self) -> None:
        """Use a certificate whose files have changed."""
        seen = _seen(self.settings.web)
        before, self._certificate = self._certificate, seen
        if self._server is None or seen == before or before is None:
            return
        try:
            self._server.renew()
        except (OSError, ssl.SSLError) as error:
            _cannot_use(error)

    async def stop(self) -> None:
        """Close it."""
        if self._unwatch is not None:
            self._unwatch()
        if self._metrics is not None:
            self._metrics.stop()
        if self._server is not None:
            await self._server.stop()
            self._server = None

    @property
    def url(self) -> str:
        """Where the page is; empty while there is none."""
        return self._server.url if self._server is not None else ""

    async def _serve(self) -> None:
        web = self.settings.web
        assert web is not None
        self.watch()
        try:
            server = (await asyncio.to_thread(_server_class))(self, web)
            await server.start()
        except (OSError, ssl.SSLError) as error:
            events.trouble(
                where="web",
                what=f"the admin page cannot listen on {web.bind}: {error}",
                remedy="Choose another web.bind, or end what uses it; then reload. Mail is not affected.",
            )
            return
        self._server = server
        events.notice(what="admin page", url=server.url)

    # the desk

    @property
    def settings(self) -> Settings:
        """Those in force; the page's password may be one that is kept beside the spool."""
        settings = self._daemon.settings
        if settings.web is None or settings.web.password is not None or self._password is None:
            return settings
        return dataclasses.replace(settings, web=dataclasses.replace(settings.web, password=self._password))

    @property
    def spool(self) -> Spool:
        """The open spool."""
        return self._daemon.spool.last_seen()

    def now(self) -> float:
        """Wall time."""
        return self._daemon.clock.now()

    async def status(self) -> dict[str, Any]:
        """The report of `relay status`."""
        return await self._daemon.status()

    async def health(self) -> dict[str, Any]:
        """Live and ready?"""
        return await self._daemon.health()

    async def metrics(self) -> bytes:
        """The figures of now."""
        assert self._metrics is not None
        return await self._metrics.page(self._daemon)

    async def reload(self) -> None:
        """Read the configuration again."""
        await self._daemon.reload()

    async def look_again(self, lanes: Iterable[str], *, probe: bool = False) -> None:
        """An operator changed the spool, or a check found things in order."""
        await self._daemon.answer("release" if probe else "wake", {"lanes": list(lanes), "probe": probe})

    def rates(self, lane: str) -> Sequence[int]:
        """Deliveries by the minute."""
        return self._recent.rates(lane, self.now())

    def news(self, after: int = 0) -> Sequence[News]:
        """The last events."""
        return self._recent.news(after)

    def troubles(self) -> Sequence[News]:
        """The last warnings and errors."""
        return self._recent.troubles()

    def preview(self, sender: str, header_from: str, address: str, user: str | None) -> Preview:
        """Today's rules for this sender and client."""
        client = Client(address=address, user=user)
        try:
            route = self._daemon.router.rules.route(sender, (header_from,), client)
        except Refused as refused:
            return Preview(refused=str(refused.reply))
        return Preview(
            refused="",
            rule=route.rule,
            upstream=route.upstream,
            mailboxes=route.mailboxes,
            from_address=route.from_address,
            name=route.name,
            reply_to=route.reply_to,
        )

    async def check(self, upstream: Upstream, progress: Progress, *, whole: bool) -> CheckReport:
        """Try an upstream's settings step by step."""
        from relay.check.engine import check_upstream
        from relay.check.logins import mailboxes_of

        mailboxes = mailboxes_of(self.settings, upstream) if whole else ()
        return await check_upstream(upstream, mailboxes=mailboxes, progress=progress)

    async def store_password(self, hashed: str) -> str:
        """Into the configuration file, or beside the spool where that cannot be; then in force at once."""
        variables = dict(self.settings.variables)
        if "web.password" in variables:
            raise RelayError(
                f"the password is set by the environment variable {variables['web.password']}",
                remedy="Make a hash with `relay password`, change the variable, and restart relay.",
            )
        where = await asyncio.to_thread(self._store_in_file, hashed)
        if where:
            await self._daemon.reload()
            return where
        where = await asyncio.to_thread(self._kept.write, hashed)
        self._password = self._kept.read()
        web = self.settings.web
        if self._server is not None and web is not None:
            self._server.update(web)
        return where

    def _store_in_file(self, hashed: str) -> str:
        """The file that has it now; empty when there is none that relay may write."""
        file = self._daemon.settings.file
        if file is None:
            return ""
        try:
            store(file, change(read(file), {("web", "password"): hashed}))
        except ConfigError as error:
            events.advice(where="web", what=f"the password does not go into {file}: {error.faults[0].problem}",
                          remedy="It is kept beside the spool instead.")  # fmt: skip
            return ""
        self._kept.forget()
        return str(file)
