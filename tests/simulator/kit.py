"""What the simulator's tests share: a raw SMTP client, token requests, and a clock that is moved by hand."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

from relay.simulator.app import Simulator

EXCHANGE_SCOPE = "https://outlook.office365.com/.default"
GRAPH_SCOPE = "https://graph.microsoft.com/.default"
PATIENCE = 10.0  # seconds


class Clock:
    """Time as the simulator sees it."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Dialog:
    """A raw SMTP client: every octet is the test's own."""

    def __init__(self, sim: Simulator, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.sim, self.reader, self.writer = sim, reader, writer

    async def read(self) -> str:
        """One reply, several lines joined by newlines; empty when the server has closed."""
        lines = []
        async with asyncio.timeout(PATIENCE):
            while line := (await self.reader.readline()).decode():
                lines.append(line.rstrip("\r\n"))
                if line[3:4] != "-":
                    break
        return "\n".join(lines)

    async def say(self, command: str | bytes) -> str:
        """Send a command (CRLF is added) and read the reply."""
        self.raw((command.encode() if isinstance(command, str) else command) + b"\r\n")
        return await self.read()

    def raw(self, data: bytes) -> None:
        self.writer.write(data)

    async def closed(self) -> bool:
        """Whether the server ends the connection without another octet."""
        async with asyncio.timeout(PATIENCE):
            try:
                return await self.reader.read() == b""
            except ConnectionError:
                return True

    async def starttls(self) -> None:
        assert (await self.say("STARTTLS")).startswith("220 2.0.0")
        await self.writer.start_tls(
            ssl.create_default_context(cafile=self.sim.ca_file), server_hostname="localhost"
        )

    async def auth(self, mailbox: str = "notifications@contoso.com", token: str | None = None) -> str:
        """Form A, with a good token unless one is given."""
        return await self.say(f"AUTH XOAUTH2 {xoauth2(mailbox, token or await fetch_token(self.sim))}")

    async def message(
        self,
        data: bytes,
        sender: str = "notifications@contoso.com",
        recipients: tuple[str, ...] = ("a@b.example",),
    ) -> str:
        """One transaction; the reply to the message, or the first that refuses."""
        for command in (
            f"MAIL FROM:<{sender}>",
            *(f"RCPT TO:<{recipient}>" for recipient in recipients),
            "DATA",
        ):
            reply = await self.say(command)
            if reply[:1] not in ("2", "3"):
                return reply
        return await self.say(data + b"\r\n.")


def xoauth2(mailbox: str, token: str) -> str:
    return base64.b64encode(f"user={mailbox}\x01auth=Bearer {token}\x01\x01".encode()).decode()


async def token_answer(
    sim: Simulator, scope: str = EXCHANGE_SCOPE, **form: str
) -> tuple[int, dict[str, Any]]:
    """(status, JSON) of a token request; form fields override the good ones, an empty one is left out."""
    fields = {
        "grant_type": "client_credentials",
        "client_id": sim.state.client_id,
        "client_secret": sim.options.client_secret,
        "scope": scope,
        **form,
    }
    tenant = fields.pop("tenant", sim.state.tenant_id)
    url = f"{sim.authority}/{tenant}/oauth2/v2.0/token"
    async with http(sim) as session, session.post(url, data={k: v for k, v in fields.items() if v}) as answer:
        return answer.status, await answer.json()


async def fetch_token(sim: Simulator, scope: str = EXCHANGE_SCOPE) -> str:
    status, body = await token_answer(sim, scope)
    assert status == 200, body
    return str(body["access_token"])


def http(sim: Simulator) -> aiohttp.ClientSession:
    context = ssl.create_default_context(cafile=sim.ca_file)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=context), timeout=aiohttp.ClientTimeout(total=PATIENCE)
    )


MESSAGE = (
    b"From: Relay <notifications@contoso.com>\r\nTo: a@b.example\r\nSubject: hello\r\n"
    b"Message-ID: <1@contoso.com>\r\n\r\nbody"
)

Start = Callable[..., Awaitable[Simulator]]
Connect = Callable[..., Awaitable[Dialog]]
