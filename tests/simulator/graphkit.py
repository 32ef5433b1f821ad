"""What the tests of the simulated Graph share: a client with one token, and good messages."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

import aiohttp

from relay.simulator.app import Simulator

MAILBOX = "notifications@contoso.com"
SEND = f"/v1.0/users/{MAILBOX}/sendMail"
DRAFTS = f"/v1.0/users/{MAILBOX}/messages"
MIME = (
    b"From: Some Name <notifications@contoso.com>\r\nTo: a@b.example\r\nBcc: Hidden@c.example, A@B.example\r\n"
    b"Subject: hello\r\nMessage-ID: <1@contoso.com>\r\nX-Custom: 1\r\nAuto-Submitted: auto-generated\r\n"
    b"Content-Type: text/plain\r\n\r\nbody\r\n"
)

FILE = {"@odata.type": "#microsoft.graph.fileAttachment", "name": "a.txt", "contentBytes": "eA=="}


class GraphClient:
    """Requests with one token; the last answer's status and headers are kept."""

    def __init__(self, sim: Simulator, session: aiohttp.ClientSession, token: str) -> None:
        self.sim, self.session, self.token = sim, session, token
        self.status = 0
        self.headers: Any = {}

    async def ask(self, method: str, path: str, **given: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.token}", **given.pop("headers", {})}
        headers = {key: value for key, value in headers.items() if value}
        url = path if path.startswith("https") else self.sim.graph_url + path
        async with self.session.request(method, url, headers=headers, **given) as answer:
            self.status, self.headers = answer.status, answer.headers
            return await answer.json() if "json" in answer.content_type else await answer.read()

    async def code(self, method: str, path: str, **given: Any) -> tuple[int, str]:
        """(status, error code)."""
        body = await self.ask(method, path, **given)
        return self.status, body["error"]["code"]

    async def send_mime(self, mime: bytes) -> Any:
        return await self.ask(
            "POST", SEND, data=base64.encodebytes(mime), headers={"Content-Type": "text/plain"}
        )


def slow_post(graph: GraphClient, held: asyncio.Event) -> asyncio.Future[aiohttp.ClientResponse]:
    """A sendMail whose body ends only when ``held`` is set; then it is 400, for it says nothing."""

    async def body() -> AsyncIterator[bytes]:
        yield b"{"
        await held.wait()
        yield b"}"

    headers = {"Authorization": f"Bearer {graph.token}", "Content-Type": "application/json"}
    return asyncio.ensure_future(graph.session.post(graph.sim.graph_url + SEND, data=body(), headers=headers))


def message(**changes: Any) -> dict[str, Any]:
    return {
        "subject": "Grüße",
        "body": {"contentType": "html", "content": "<p>hé</p>"},
        "toRecipients": [{"emailAddress": {"address": "a@b.example", "name": "Ä"}}],
        **changes,
    }


def encoded(mime: bytes) -> dict[str, Any]:
    """A MIME request's body and header."""
    return {"data": base64.encodebytes(mime), "headers": {"Content-Type": "text/plain"}}
