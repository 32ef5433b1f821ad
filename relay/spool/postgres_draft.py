"""A message that arrives at a PostgreSQL spool: in memory up to a bound, beyond it stored piece by piece as it comes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from relay.errors import SpoolUncertain
from relay.spool import ids
from relay.spool.contract import NewMessage
from relay.spool.draft import OneUse
from relay.spool.intake import NewRow
from relay.spool.postgres_rows import BODY_IN_ROW, CHUNK

if TYPE_CHECKING:
    from relay.spool.postgres import PostgresSpool


class PostgresDraft(OneUse):
    """See `relay.spool.contract.Draft`."""

    __slots__ = ("_chunks", "_parts", "_pending", "_spool", "number", "size")

    def __init__(self, spool: PostgresSpool, number: int) -> None:
        super().__init__()
        self._spool = spool
        self.number = number
        self._parts: list[bytes] = []
        self._pending = 0
        self._chunks = 0
        self.size = 0

    @property
    def id(self) -> str:
        return ids.show(self.number)

    async def write(self, data: bytes) -> None:
        self._parts.append(bytes(data))
        self.size += len(data)
        self._pending += len(data)
        self._spool.reserve(len(data))
        while self._pending >= CHUNK:
            await self._spill()

    async def _spill(self) -> None:
        """One full piece (the last one may be shorter) to the database."""
        gathered = b"".join(self._parts)
        piece, rest = gathered[:CHUNK], gathered[CHUNK:]
        self._parts = [rest] if rest else []
        self._pending = len(rest)
        self._chunks += 1
        await self._spool.add_chunk(self.number, self._chunks - 1, piece)

    async def commit(self, message: NewMessage) -> None:
        """Runs to its end even when the caller goes away: see the contract."""
        await asyncio.shield(asyncio.ensure_future(self._commit(message)))

    async def _commit(self, message: NewMessage) -> None:
        self._use()
        try:
            body: bytes | None = None
            if self._chunks or self.size > BODY_IN_ROW:
                while self._pending:
                    await self._spill()
            else:
                body = b"".join(self._parts)
            await self._spool.keep(NewRow(self.number, self._spool.now(), message, body, self.size))
        except SpoolUncertain:
            raise  # it may be stored, and then needs its pieces; upkeep finds them when it is not
        except BaseException:
            await self._forget()
            raise
        finally:
            self._spool.reserve(-self.size)
            self._parts.clear()

    async def discard(self) -> None:
        if not self._drop():
            return
        self._spool.reserve(-self.size)
        await self._forget()

    async def _forget(self) -> None:
        self._parts.clear()
        if self._chunks:
            await self._spool.drop_chunks(self.number)
