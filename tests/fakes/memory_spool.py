"""The smallest spool that the accept room needs: drafts kept in memory, and faults on request."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from relay.spool.contract import NewMessage


@dataclass
class Stored:
    """One committed message."""

    id: str
    message: NewMessage
    body: bytes

    @property
    def content(self) -> bytes:
        return self.message.header + self.body


class MemoryDraft:
    """A message that is arriving."""

    def __init__(self, spool: MemorySpool, id: str) -> None:
        self._spool = spool
        self._id = id
        self.parts: list[bytes] = []
        self.size = 0
        self.discarded = False

    @property
    def id(self) -> str:
        return self._id

    async def write(self, data: bytes) -> None:
        self._spool.raise_fault("write")
        await self._spool.writable.wait()
        self.size += len(data)
        if self._spool.keep:
            self.parts.append(data)

    async def commit(self, message: NewMessage) -> None:
        self._spool.committing.set()
        await self._spool.committable.wait()
        self._spool.raise_fault("commit")
        if self._spool.keep:
            self._spool.stored.append(Stored(self._id, message, b"".join(self.parts)))
        self._spool.commits += 1
        self._spool.committed.set()
        self._spool.open_drafts.pop(self._id, None)

    async def discard(self) -> None:
        if self._spool.open_drafts.pop(self._id, None):
            self.discarded = True
            self._spool.discarded.set()


@dataclass
class MemorySpool:
    """Draft and has_room of the spool contract."""

    keep: bool = True
    room: bool = True
    faults: dict[str, Exception] = field(default_factory=dict)
    """Raised by ``write``, ``commit`` or ``has_room`` while it is there."""
    stored: list[Stored] = field(default_factory=list)
    open_drafts: dict[str, MemoryDraft] = field(default_factory=dict)
    asked: list[int] = field(default_factory=list)
    commits: int = 0
    drafts: int = 0
    committing: asyncio.Event = field(default_factory=asyncio.Event)
    committed: asyncio.Event = field(default_factory=asyncio.Event)
    discarded: asyncio.Event = field(default_factory=asyncio.Event)
    committable: asyncio.Event = field(default_factory=asyncio.Event)
    writable: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.committable.set()
        self.writable.set()

    def raise_fault(self, where: str) -> None:
        if where in self.faults:
            raise self.faults[where]

    def draft(self) -> MemoryDraft:
        self.drafts += 1
        draft = MemoryDraft(self, f"M{self.drafts:012d}")
        self.open_drafts[draft.id] = draft
        return draft

    async def has_room(self, size: int) -> bool:
        self.raise_fault("has_room")
        self.asked.append(size)
        return self.room
