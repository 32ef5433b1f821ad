"""The way from a host's local spool into the shared one: a batch at a time, in order, each removed once it is there.

A crash between the two commits leaves a batch in both; it is given again, and `relay.spool.handover` says why that
changes nothing.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

from relay import events
from relay.clock import Clock
from relay.errors import SpoolError, SpoolFull, SpoolUncertain
from relay.spool import ids
from relay.spool.contract import Filter
from relay.spool.handover import UNCERTAIN, Adopted, Handover, Shared, Stop
from relay.spool.local import Leaving, LocalSpool

_PROBE = "forward:probe"
_TRIES = 3
"""Times that a message is tried alone before it is set aside, and that a large body is put again."""
_ASIDE = 600.0
"""Seconds for which it is left alone then: a newer database or release may take it."""


class Forwarder:
    """Gives the mail of one local spool to the shared one."""

    def __init__(self, local: LocalSpool, shared: Shared, clock: Clock, history: float) -> None:
        """``history``: seconds for which the shared spool remembers what is finished."""
        self._local = local
        self._shared = shared
        self._clock = clock
        self._history = history
        self._gone: frozenset[int] = frozenset()
        self._noted = True
        """The shared spool may hold a note of what we gave (after a crash, nobody here knows)."""
        self.aside: dict[int, float] = {}
        """Messages that the shared spool does not take though it answers, and until when they are left alone."""

    async def waiting(self) -> int:
        """Messages that are to be forwarded just now."""
        now = self._clock.now()
        self.aside = {number: until for number, until in self.aside.items() if until > now}
        return await self._local.waiting(self.aside)

    async def step(self) -> int:
        """Forward the next batch; how many messages left. Raises SpoolError, and what was not done is done next time."""
        found = await self._local.next_batch(self.aside)
        done = await self._give(found)
        if done:
            given = found[:done]
            deleted = await self._local.remove([one.key for one in given])
            self._gone = frozenset(one.row.number for one in given)
            await self._delete([one.row.number for one in given if one.key in set(deleted)])
        return done

    async def finish(self) -> None:
        """Nothing waits any more: no note is needed. Raises SpoolError."""
        if self._noted:
            await self._shared.forget_giver(self._local.name)
            self._noted = False

    async def _give(self, found: Sequence[Leaving]) -> int:
        """How many, from the first on, are in the shared spool now."""
        done = tries = 0
        while done < len(found):
            taken = await self._adopt(found[done:])
            tries = 0 if taken.done else tries + 1
            done += taken.done
            if taken.stop is Stop.REFUSED:
                break
            if tries > _TRIES:
                raise SpoolError("what was put into the database of the spool is gone again")
            if taken.stop is Stop.STRANGER or (
                taken.stop is Stop.PIECES
                and not await self._shared.put_body(found[done].row.number, found[done].body)
            ):
                await self._rename(found[done])
        return done

    async def _adopt(self, some: Sequence[Leaving]) -> Adopted:
        """A batch; when it is refused though the database answers, its first message alone."""
        tries = 0
        while True:
            try:
                self._noted = True
                given = self._handover(some)
                taken = await self._shared.adopt(given)
            except (SpoolFull, SpoolUncertain):
                raise
            except SpoolError as error:
                await self._shared.remember(_PROBE, None)  # raises while the database is away
                tries += 1
                if len(some) == 1 and tries >= _TRIES:
                    self._set_aside(some[0], error)
                    return Adopted(0, Stop.REFUSED)
                some = some[:1]
            else:
                for row in taken.stored:
                    if row.number in given.uncertain:
                        events.uncertain(id=ids.show(row.number), lane=row.message.lane, why=UNCERTAIN)
                return taken

    def _handover(self, some: Sequence[Leaving]) -> Handover:
        forgotten = self._local.doubted(self._clock.now() - self._history)
        return Handover(
            rows=[one.row for one in some],
            giver=self._local.name,
            host=socket.gethostname(),
            gone=self._gone,
            uncertain=frozenset(one.row.number for one in some if one.key in forgotten),
        )

    def _set_aside(self, one: Leaving, error: SpoolError) -> None:
        self.aside[one.key] = self._clock.now() + _ASIDE
        events.trouble(
            where="spool.local",
            what=f"message {ids.show(one.key)} stays in the local spool; the database does not take it: {error}",
            remedy="It is tried again by itself. `relay queue export` saves it, `relay queue delete` takes it out.",
        )

    async def _rename(self, one: Leaving) -> None:
        draft = self._shared.draft()
        await draft.discard()
        number = ids.read(draft.id)
        assert number is not None
        before = ids.show(one.row.number)
        await self._local.rename(one, number)
        events.notice(what=f"message {before} is forwarded as {draft.id}: another one has its id", id=before)

    async def _delete(self, numbers: Sequence[int]) -> None:
        """An operator deleted them here while they were being given."""
        if numbers:
            wanted = Filter(ids=tuple(ids.show(number) for number in numbers))
            await self._shared.operate("delete", wanted, self._clock.now())
