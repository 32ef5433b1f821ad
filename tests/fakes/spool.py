"""Builders for the spool's words, shared by tests of several rooms."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from relay.message import Client, Envelope, Outcome, Recipient, Reply, Result
from relay.settings import SpoolSettings
from relay.spool.contract import NewMessage, Spool
from relay.spool.factory import build_spool

LANE = "Microsoft 365/notifications@contoso.com"
OTHER = "Microsoft 365/scans@contoso.com"

SENT = Outcome(Result.SENT, reply=Reply(250, "2.0.0", "OK"))
DEFERRED = Outcome(Result.DEFERRED, reply=Reply(451, "4.7.0", "later"), reason="Exchange asked to try later")
FAILED = Outcome(Result.FAILED, reply=Reply(550, "5.1.10", "no such recipient"), reason="no such recipient")


def spool_settings(path: Path, **changes: object) -> SpoolSettings:
    """Settings with the defaults of the design, on a file below ``path``."""
    values: dict[str, object] = {
        "url": f"sqlite:///{path / 'spool.db'}",
        "max_size": 10 * 1024**3,
        "retry": (60.0, 120.0, 300.0),
        "max_age": 5 * 86_400.0,
        "max_held": 30 * 86_400.0,
        "on_uncertain": "resend",
        "delay_notice": 4 * 3600.0,
        "history": 30 * 86_400.0,
    }
    return SpoolSettings(**{**values, **changes})  # type: ignore[arg-type]


def new_message(
    lane: str = LANE,
    source: str = "client",
    recipients: tuple[str, ...] = ("anna@example.net",),
    **changes: object,
) -> NewMessage:
    """A small message, ready to commit."""
    values: dict[str, object] = {
        "envelope": Envelope("app@legacy.local", tuple(Recipient(one) for one in recipients)),
        "client": Client("127.0.0.1", 4711, "legacy", None, None, "127.0.0.1:25"),
        "header": b"From: app@legacy.local\r\nSubject: hello\r\n\r\n",
        "lane": lane,
        "source": source,
        "header_from": ("app@legacy.local",),
        "message_id": "<1@legacy.local>",
        "subject": "hello",
    }
    return NewMessage(**{**values, **changes})  # type: ignore[arg-type]


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Spool]:
    """A real spool on a file below ``path``, open."""
    spool = build_spool(spool_settings(path))
    await spool.open()
    try:
        yield spool
    finally:
        await spool.close()


async def accept(
    spool: Spool, body: bytes = b"hello\r\n", message: NewMessage | None = None, **changes: object
) -> str:
    """Store one message as the listener would; its id."""
    draft = spool.draft()
    for start in range(0, len(body), 65536):
        await draft.write(body[start : start + 65536])
    await draft.commit(message or new_message(**changes))  # type: ignore[arg-type]
    return draft.id
