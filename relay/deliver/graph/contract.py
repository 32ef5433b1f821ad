"""What the parts of the Graph transport ask of one another: one HTTP exchange, and an answer that can be judged."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

BodySource = bytes | AsyncIterator[bytes]
WriteDown = Callable[[], Awaitable[None]]
"""Puts the submission on disk (`relay.deliver.contract.Begin`), awaited before a request can be complete."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer of Graph."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    """Names compared without case (aiohttp's mapping)."""
    code: str = ""
    """``error.code`` of the answer's JSON, such as ``ErrorAccessDenied``; empty when there was none."""
    text: str = ""
    """``error.message``, or the first few hundred characters of what came instead of JSON."""
    content: dict[str, Any] = field(default_factory=dict)
    """The JSON object of a successful answer; empty when there was none."""


class Http(Protocol):
    """Requests for one mailbox: token, time-outs, proxy, the app's and the mailbox's share of requests at once."""

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
        """One exchange; any HTTP status is an answer, not an error.

        ``target`` is a path below ``{graph_url}/v1.0`` (``/users/a@b/sendMail``) or a whole https URL. ``length`` is the
        size of a streamed ``body`` in octets. ``authorized``: send the bearer token (never to an upload URL). A 401 is
        tried once more with a fresh token when the body can be sent again (``json`` or ``bytes``).
        Raises `Lost` when no answer came.
        """
        ...


class Lost(Exception):
    """The exchange broke. ``complete``: the whole request had been written, so it may have been carried out."""

    def __init__(self, reason: str, *, complete: bool, code: str = "connection-lost") -> None:
        super().__init__(reason)
        self.reason = reason
        self.complete = complete
        self.code = code
