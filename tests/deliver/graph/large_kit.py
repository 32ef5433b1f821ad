"""What the tests of large mail share: a simulated tenant, plain HTTP to it, messages that never exist as a whole."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json as jsons
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from relay.deliver.graph.content import Attachment
from relay.deliver.graph.contract import Answer, BodySource, Lost
from relay.deliver.graph.convert import Converted, convert
from relay.deliver.graph.large import LargeResult, send_large
from relay.deliver.parcel import Parcel
from relay.message import Body, BytesBody, Recipient
from relay.simulator.app import Simulator
from relay.simulator.options import SimulatorOptions
from tests.deliver.desk import Begin, make_upstream
from tests.simulator.kit import GRAPH_SCOPE, fetch_token, http

MAILBOX = "notifications@contoso.com"
BOTH = frozenset({"Mail.Send", "Mail.ReadWrite"})


class SimHttp:
    """The contract's `Http` over aiohttp, straight to the simulator; every request is noted down."""

    def __init__(self, sim: Simulator, session: aiohttp.ClientSession, token: str) -> None:
        self.sim, self.session, self.token = sim, session, token
        self.requests: list[tuple[str, str, int]] = []
        self.authorized_uploads = 0

    async def call(
        self,
        method: str,
        target: str,
        *,
        json: Mapping[str, Any] | None = None,
        body: BodySource | None = None,
        length: int | None = None,
        content_type: str | None = None,
        headers: Mapping[str, str] | None = None,
        authorized: bool = True,
    ) -> Answer:
        url = target if target.startswith("https:") else f"{self.sim.graph_url}/v1.0{target}"
        sent = dict(headers or {})
        if authorized:
            sent["Authorization"] = f"Bearer {self.token}"
            self.authorized_uploads += "/upload/" in url
        if json is not None or content_type:
            sent["Content-Type"] = content_type or "application/json"
        data = jsons.dumps(json).encode() if json is not None else body
        try:
            async with self.session.request(method, url, data=data, headers=sent) as reply:
                answer = await read_answer(reply)
        except (aiohttp.ClientError, TimeoutError) as error:
            self.requests.append((method, target, 0))
            raise Lost(str(error), complete=True) from error
        self.requests.append((method, target, answer.status))
        return answer

    def steps(self, kind: str) -> list[int]:
        """The answers (0: none) to requests whose target ends in, or holds, these words."""
        return [status for method, target, status in self.requests if kind in f"{method} {target}"]


async def read_answer(reply: aiohttp.ClientResponse) -> Answer:
    content = await reply.json() if "json" in reply.content_type else {}
    error = content.get("error", {})
    return Answer(
        reply.status,
        reply.headers,
        error.get("code", ""),
        error.get("message", ""),
        {} if error else content,
    )


@dataclass
class Office:
    """A simulated tenant and the way to it."""

    sim: Simulator
    http: SimHttp
    begin: Begin = field(default_factory=Begin)

    async def send(self, parcel: Parcel, **changes: Any) -> LargeResult:
        """`send_large` as the transport calls it."""
        given = {"http": self.http, "mailbox": MAILBOX, "begin": self.begin, **changes}
        return await send_large(
            given["http"],
            given["mailbox"],
            parcel,
            parcel.recipients,
            given["begin"],
            make_upstream(587, None),
        )

    @property
    def left_behind(self) -> list[str]:
        """Drafts, upload sessions and their files that are still there."""
        store = self.sim._graph._drafts
        files = [path.name for path in (self.sim.directory / "drafts").iterdir()]
        return [*store.drafts, *store.uploads, *files]


@contextlib.asynccontextmanager
async def open_office(
    folder: Path, permissions: Iterable[str] = BOTH, **options: Any
) -> AsyncIterator[Office]:
    options = {"directory": folder / "sim", "permissions": set(permissions), **options}
    async with Simulator(SimulatorOptions(**options)) as sim, http(sim) as session:
        session._retry_connection = False  # a break shall be seen, not mended by aiohttp
        yield Office(sim, SimHttp(sim, session, await fetch_token(sim, GRAPH_SCOPE)))


def make_parcel(raw: bytes | tuple[bytes, Body], *recipients: str) -> Parcel:
    """A message (whole, or header block and body) for these recipients."""
    if isinstance(raw, bytes):
        head, blank, rest = raw.partition(b"\r\n\r\n")
        raw = (head + blank, BytesBody(rest))
    header, body = raw
    to = tuple(Recipient(one) for one in recipients or ("a@b.example",))
    return Parcel(MAILBOX, to, header, body, len(header) + body.size, False, False, False)


@dataclass
class Seen:
    """A conversion, with the files read."""

    message: dict[str, Any]
    files: tuple[Attachment, ...]
    octets: list[bytes]
    notes: tuple[str, ...]

    @property
    def text(self) -> str:
        return str(self.message["body"]["content"])

    @property
    def names(self) -> list[str]:
        return [file.name for file in self.files]

    def noted(self, words: str) -> bool:
        return any(words in note for note in self.notes)


async def converted(raw: bytes, *recipients: str) -> Seen:
    """Convert a message and read all of it."""
    async with convert(
        make_parcel(raw, *recipients), MAILBOX, make_parcel(raw, *recipients).recipients
    ) as made:
        octets = [await made.read(file, 0, file.size) for file in made.attachments]
        return seen(made, octets)


def seen(made: Converted, octets: list[bytes]) -> Seen:
    return Seen(made.message, made.attachments, octets, made.notes)


class ScanBody:
    """A multipart body made up on the fly: a text and files of pseudo-random octets in base64."""

    LINE = 57

    def __init__(self, *sizes: int, boundary: bytes = b"=_scan") -> None:
        self.sizes = sizes
        self.boundary = boundary
        self.header = (
            b"From: notifications@contoso.com\r\nTo: a@b.example\r\nSubject: scan\r\nMessage-ID: <scan@contoso.com>\r\n"
            b'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="' + boundary + b'"\r\n\r\n'
        )
        block = hashlib.sha256(b"scan").digest() * (57 * 32)
        self.block = block  # 57 * 1024 octets
        self.encoded = base64.encodebytes(block).replace(b"\n", b"\r\n")
        self.size = sum(len(piece) for piece in self._pieces())

    def file(self, size: int) -> bytes:
        """The octets of a file of that size."""
        return (self.block * (size // len(self.block) + 1))[:size]

    def _pieces(self) -> Iterable[bytes]:
        yield b"--" + self.boundary + b"\r\nContent-Type: text/plain\r\n\r\nsee the scan\r\n"
        for number, size in enumerate(self.sizes):
            name = f"scan-{number}.pdf".encode()
            yield b"--" + self.boundary + b'\r\nContent-Type: application/pdf; name="' + name + b'"\r\n'
            yield b"Content-Transfer-Encoding: base64\r\n\r\n"
            for _ in range(size // len(self.block)):
                yield self.encoded
            yield base64.encodebytes(self.block[: size % len(self.block)]).replace(b"\n", b"\r\n")
        yield b"--" + self.boundary + b"--\r\n"

    async def chunks(self, size: int = 65536) -> AsyncIterator[bytes]:
        held = b""
        for piece in self._pieces():
            held += piece
            while len(held) >= size:
                yield held[:size]
                held = held[size:]
        if held:
            yield held


def make_scan(*sizes: int) -> tuple[ScanBody, Parcel]:
    body = ScanBody(*sizes)
    return body, make_parcel((body.header, body))
