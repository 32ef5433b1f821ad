"""A message that arrives at a shared spool with a local one beside it, and is safe in one of them at its 250.

A small body stays in memory until it is complete, and goes where new mail goes then. A large one is written to the
local disk as it comes, and to the shared spool too while that takes it: whichever fails, the other has all of it.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from relay.errors import SpoolError, SpoolUncertain
from relay.spool import ids
from relay.spool.contract import Draft, NewMessage
from relay.spool.draft import OneUse
from relay.spool.intake import BODY_IN_DATABASE, SqliteDraft

if TYPE_CHECKING:
    from relay.spool.buffered import BufferedSpool

PATIENCE = 5.0
"""Seconds for the shared spool to store something: a database that hangs is as good as away, and clients wait."""


class BufferedDraft(OneUse):
    """See `relay.spool.contract.Draft`."""

    __slots__ = ("_full", "_lost", "_ours", "_parts", "_spool", "_theirs", "id", "number", "size")

    def __init__(self, spool: BufferedSpool, number: int) -> None:
        super().__init__()
        self._spool = spool
        self._theirs: Draft | None = None
        self._ours: SqliteDraft | None = None
        self.number = number
        self.id = ids.show(number)
        self.size = 0
        self._parts: list[bytes] = []
        self._full: SpoolError | None = None
        """Why the local disk does not take it."""
        self._lost: SpoolError | None = None
        """Why the shared spool does not, if it was to."""

    # a body that comes

    async def write(self, data: bytes) -> None:
        data = bytes(data)
        self.size += len(data)
        self._parts.append(data)
        if not self._is_small:
            await self._pass_on()

    async def _pass_on(self) -> None:
        """What has gathered, to both spools. Raises when neither takes it."""
        data = b"".join(self._parts)
        self._parts.clear()
        if self.size == len(data):  # for the first time
            self._ours = self._spool.local.draft_as(self.number)
            if self._spool.switch.direct:
                self._theirs = self._spool.draft_there(self.number)
        await self._pass_ours(data)
        await self._pass_theirs(data)
        if self._ours is None and self._theirs is None:
            raise self._nowhere()

    async def _pass_ours(self, data: bytes) -> None:
        if self._ours is not None:
            try:
                await self._ours.write(data)
            except SpoolError as error:
                self._full = error
                await self._drop_ours()

    async def _pass_theirs(self, data: bytes) -> None:
        if self._theirs is not None:
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._theirs.write(data)
            except (SpoolError, TimeoutError) as error:
                self._lost = _as_spool_error(error)
                await self._drop_theirs()

    async def _drop_ours(self) -> None:
        ours, self._ours = self._ours, None
        if ours is not None:
            await ours.discard()

    async def _drop_theirs(self) -> None:
        theirs, self._theirs = self._theirs, None
        if theirs is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    await theirs.discard()

    # its end

    @property
    def _is_small(self) -> bool:
        """All of its body is in memory."""
        return self.size <= BODY_IN_DATABASE

    async def commit(self, message: NewMessage) -> None:
        """Runs to its end even when the caller goes away: see the contract."""
        await asyncio.shield(asyncio.ensure_future(self._commit(message)))

    async def _commit(self, message: NewMessage) -> None:
        self._use()
        try:
            direct = await self._spool.switch.settled()
            if direct and self._is_small:
                self._theirs = self._spool.draft_there(self.number)
            if message.direct:
                await self._store_for_an_answer(message, direct=direct)
            elif not direct or self._theirs is None:
                with self._spool.switch.enter():
                    await self._store_here(message, self._lost)
            else:
                await self._store_there_or_here(message)
        finally:
            self._parts.clear()
            await self._drop_ours()
            await self._drop_theirs()

    async def _store_for_an_answer(self, message: NewMessage, *, direct: bool) -> None:
        """``answer_after: upstream``: nobody can ask Exchange about what is only here."""
        if not direct or self._theirs is None:
            raise SpoolError(
                "the database of the spool is away, and a listener with answer_after: upstream cannot do without it",
                remedy="Its clients hear 451 and try again; `answer_after: spool` accepts mail meanwhile.",
            )
        await self._feed(self._theirs)
        await self._theirs.commit(message)

    async def _store_there_or_here(self, message: NewMessage) -> None:
        try:
            await self._store_there(message)
        except SpoolError as error:
            with self._spool.switch.enter():
                if isinstance(error, SpoolUncertain):
                    await self._spool.local.doubt(self.number)
                await self._store_here(message, error)

    async def _store_there(self, message: NewMessage) -> None:
        """Raises SpoolUncertain when no answer came in time: the commit goes on, and may yet succeed."""
        theirs = self._theirs
        assert theirs is not None
        await self._feed(theirs)
        committing = asyncio.ensure_future(theirs.commit(message))
        done, _ = await asyncio.wait({committing}, timeout=PATIENCE)
        if not done:
            self._theirs = None
            committing.add_done_callback(_no_matter)
            raise SpoolUncertain(f"the database of the spool has not answered within {PATIENCE:.0f} s")
        committing.result()

    async def _store_here(self, message: NewMessage, error: SpoolError | None = None) -> None:
        """In the local spool, because of ``error`` if it was tried there before. Raises what says more."""
        await self._drop_theirs()  # before the message is here and forwarded: its pieces go by its id
        if self._ours is None:
            if not self._is_small:
                raise self._nowhere()
            self._ours = self._spool.local.draft_as(self.number)
        try:
            await self._feed(self._ours)
            await self._ours.commit(message)
        except SpoolError as own:
            raise own from error
        self._spool.stored_here(error)

    def _nowhere(self) -> SpoolError:
        return self._full or self._lost or SpoolError("the message can be stored nowhere")

    async def _feed(self, draft: Draft) -> None:
        """A small body, which was kept until it was known where it goes. It stays, for the other spool."""
        for part in self._parts:
            await draft.write(part)

    async def discard(self) -> None:
        if not self._drop():
            return
        self._parts.clear()
        await self._drop_ours()
        await self._drop_theirs()


def _as_spool_error(error: Exception) -> SpoolError:
    if isinstance(error, SpoolError):
        return error
    return SpoolError(f"the database of the spool has not answered within {PATIENCE:.0f} s")


def _no_matter(done: asyncio.Future[None]) -> None:
    """It is here as well, under the same id: forwarding finds out what became of the other."""
    if not done.cancelled():
        done.exception()
