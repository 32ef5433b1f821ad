"""The page over HTTP: a real daemon in this process and an aiohttp client."""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import aiohttp
from argon2 import PasswordHasher

from relay import events, logs
from relay.config.load import load
from relay.daemon import Daemon
from relay.spool.contract import lane_name
from tests.web.stage import PASSWORD, token_of

LANE = lane_name("Microsoft 365", "notifications@contoso.com")
CONFIG = """\
# by hand
upstreams:
  - server_name: Microsoft 365  # so the guide
    from_email: notifications@contoso.com
    tenant_id: 11111111-2222-4333-8444-555555555555
    client_id: 66666666-7777-4888-9999-aaaaaaaaaaaa
    client_secret: a-secret-nobody-may-see
    authority: https://127.0.0.1:9
    host: 127.0.0.1
listeners:
  - bind: 127.0.0.1:0
senders:
  - match: "*@scanners.local"  # second floor
    from: scans@contoso.com
  - {{match: erp@legacy.local, client: 10.0.0.0/8, from: reports@contoso.com}}
spool: {{url: "sqlite:///{folder}/spool.db"}}
web:
  bind: 127.0.0.1:0
  names: [relay.example.com]
"""


@cache
def hashed() -> str:
    """The hash of the password, cheap to check."""
    return PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)


class Answer:
    """One answer, read."""

    def __init__(self, response: aiohttp.ClientResponse, body: bytes) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = body
        self.text = body.decode("utf-8", "replace")
        self.location = response.headers.get("Location", "")


class Site:
    """A running relay and a browser's worth of cookies."""

    def __init__(
        self,
        folder: Path,
        *,
        password: bool = True,
        config: str = CONFIG,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        self.folder = folder
        self.config = folder / "config.yaml"
        self.config.touch(mode=0o600)
        self.config.write_text(
            config.format(folder=folder) + (f"  password: {hashed()}\n" if password else "")
        )
        self._password = password
        self._trust = trust
        self.said: list[tuple[str, Mapping[str, Any]]] = []
        self.csrf = ""

    async def start(self) -> None:
        """Start, and sign in where there is a password."""
        self._unwatch = events.watch(lambda _level, event, fields: self.said.append((event, fields)))
        self.daemon = Daemon(load(self.config, {}), lambda: load(self.config, {}))
        await self.daemon.start()
        self.url = self.daemon.pages.url.rstrip("/")
        self.client = self.visitor()
        if self._password:
            await self.sign_in()

    def visitor(self) -> aiohttp.ClientSession:
        """A browser with no cookies."""
        connector = aiohttp.TCPConnector(ssl=self._trust or True)
        return aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True), connector=connector)

    async def stop(self) -> None:
        """End it."""
        await self.client.close()
        await self.daemon.stop(0.0)
        self._unwatch()
        logs.close()  # a reload has plugged the log in

    @property
    def link(self) -> str:
        """The last one-time link that was said."""
        return next(str(fields["link"]) for _, fields in reversed(self.said) if "link" in fields)

    async def sign_in(self, password: str = PASSWORD) -> Answer:
        """Through the form, as a browser does it."""
        page = await self.get("/login")
        answer = await self.post("/login", {"password": password}, token_of(page.text))
        if answer.status == 303:
            self.csrf = token_of((await self.get("/settings")).text)
        return answer

    async def get(self, path: str, **headers: str) -> Answer:
        """One page; redirects are not followed."""
        return await self._ask("GET", path, headers, None)

    async def post(
        self,
        path: str,
        fields: Mapping[str, Any] | list[tuple[str, str]],
        csrf: str | None = None,
        **headers: str,
    ) -> Answer:
        """One form, with this session's token when no other is given."""
        pairs = list(fields.items()) if isinstance(fields, Mapping) else list(fields)
        token = self.csrf if csrf is None else csrf
        return await self._ask("POST", path, headers, [*pairs, *([("csrf", token)] if token else [])])

    async def _ask(self, method: str, path: str, headers: Mapping[str, str], data: Any) -> Answer:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        url = path if path.startswith("http") else self.url + path
        form = aiohttp.FormData(data) if data is not None else None
        async with self.client.request(
            method, url, headers=names, data=form, allow_redirects=False
        ) as response:
            return Answer(response, await response.read())

    async def saved(self, answer: Answer) -> Answer:
        """Follow a save until it is over; its last page."""
        assert answer.status == 303, answer.text
        while True:
            page = await self.get(answer.location)
            if "Checking, step by step" not in page.text:
                return page
            await self.daemon.clock.sleep(0.05)


def plain(html: str) -> str:
    """The text of a page, tags taken out: good enough to look for words."""
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())
