"""A stored body made to fit the transport: lines within 998 octets, in a stream, for SMTP and Graph alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from relay.errors import SpoolError
from relay.message import Body
from relay.rewrite.longlines import LongLines
from relay.rewrite.refit import Plan, Refit, Survey


@dataclass(frozen=True, slots=True)
class Fitted:
    """Header and body as they can be carried."""

    header: bytes
    body: Body
    notes: tuple[str, ...] = ()
    """What was changed, for the trace."""


async def fit(header: bytes, body: Body) -> Fitted:
    """The same message without over-long lines; the very same objects when there are none.

    ``header`` ends with its closing empty line. Raises SpoolError when the body cannot be read.
    """
    try:
        if not await _has_long_lines(body):
            return Fitted(header, body)
        plan = await _survey(header, body)
        if not plan.changes:
            return Fitted(header, body, plan.notes)
        refitted = RefittedBody(header, body, plan)
        await refitted.measure()
    except OSError as error:
        raise SpoolError(f"The stored message cannot be read: {error.strerror or error}") from error
    return Fitted(refitted.header, refitted, plan.notes)


async def _has_long_lines(body: Body) -> bool:
    watch = LongLines()
    async for block in body.chunks():
        watch.feed(block)
        if watch.found:
            return True
    return watch.finish()


async def _survey(header: bytes, body: Body) -> Plan:
    survey = Survey(header)
    async for block in body.chunks():
        survey.feed(block)
        await asyncio.sleep(0)  # a hostile body of boundaries costs milliseconds for each block
    return survey.finish()


class RefittedBody:
    """`relay.message.Body`: another body, written anew by a plan each time it is read."""

    def __init__(self, header: bytes, body: Body, plan: Plan) -> None:
        self._old_header = header
        self._body = body
        self._plan = plan
        self._size = 0
        self.header = Refit(header, plan).header

    @property
    def size(self) -> int:
        """Length in octets."""
        return self._size

    async def measure(self) -> None:
        """Find the size, which is announced before the body is sent."""
        self._size = 0
        async for block in self.chunks():
            self._size += len(block)

    async def chunks(self, size: int = 65536) -> AsyncIterator[bytes]:
        """The octets from the start, in pieces of at most ``size``."""
        refit = Refit(self._old_header, self._plan)
        async for block in self._body.chunks(size):
            for piece in _pieces(refit.feed(block), size):
                yield piece
            await asyncio.sleep(0)
        for piece in _pieces(refit.finish(), size):
            yield piece


def _pieces(data: bytes, size: int) -> list[bytes]:
    """Encoding makes blocks longer: cut to size again."""
    return [data[start : start + size] for start in range(0, len(data), size)]
