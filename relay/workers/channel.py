"""Frames between the daemon and its own helper processes, over a socket pair.

What is said in one turn of the event loop goes out in one write, as one batch: that is what makes asking another process
cheap. Frames are tuples of plain values (numbers, texts, octets, tuples, lists, dictionaries), packed by `marshal`: both
ends are the same Python and the same release, and nobody else holds either end.
"""

from __future__ import annotations

import asyncio
import marshal
import socket
import struct
import traceback
from collections.abc import Callable
from typing import Any

from relay import events

Frame = tuple[Any, ...]
"""A word that says what it is, and what belongs to it."""
_LENGTH = struct.Struct("<I")
_BATCH = 1024 * 1024
"""Octets of bodies gathered at most before a batch goes out within a turn."""


def _nobody(frame: Frame) -> None:
    return None


class Channel(asyncio.Protocol):
    """One end. ``take`` is called with each frame, in order; ``lost`` once, when the other end is gone.

    A frame that cannot be packed, or that ``take`` fails over, costs itself alone: the others go on.
    """

    def __init__(
        self,
        take: Callable[[Frame], None],
        lost: Callable[[], None],
        unsent: Callable[[Frame], None] = _nobody,
    ) -> None:
        """``unsent`` hears of each frame that could not be packed: whoever waits for its answer must not wait for ever."""
        self._take = take
        self._lost = lost
        self._unsent = unsent
        self.loop = asyncio.get_running_loop()
        self._out: list[Frame] = []
        self._octets = 0
        self._scheduled = False
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._room: asyncio.Event = asyncio.Event()
        self._room.set()
        self.closed = False

    async def open(self, end: socket.socket) -> None:
        """Speak over one end of a socket pair, which the channel owns from now on."""
        end.setblocking(False)
        await asyncio.get_running_loop().create_connection(lambda: self, sock=end)

    def send(self, *frame: Any, octets: int = 0) -> bool:
        """Send a frame with this turn's batch; ``octets``: about how large it is, if it is large. False: nobody is there."""
        if self.closed:
            return False
        self._out.append(frame)
        self._octets += octets
        if self._octets >= _BATCH:
            self.flush()
        elif not self._scheduled:
            self._scheduled = True
            self.loop.call_soon(self.flush)
        return True

    def flush(self) -> None:
        """Send what was said up to now."""
        self._scheduled = False
        if not self._out or self._transport is None:
            return
        frames, self._out, self._octets = self._out, [], 0
        try:
            data = marshal.dumps(frames)
        except Exception:
            data = marshal.dumps([one for one in frames if self._packs(one)])
        self._transport.write(_LENGTH.pack(len(data)) + data)

    def _packs(self, frame: Frame) -> bool:
        """Whether it can be packed; told where not, by its word alone: its values may be secret."""
        try:
            marshal.dumps(frame)
        except Exception as error:
            what = f"{frame[0]!r} could not be told to the other process, and was left out: {error}"
            events.trouble(where="helper process", what=what)
            self._unsent(frame)
            return False
        return True

    @property
    def waiting(self) -> int:
        """Octets that the other end has not taken yet, beyond what the kernel holds."""
        return 0 if self._transport is None or self.closed else self._transport.get_write_buffer_size()

    async def room(self) -> None:
        """Wait while the other end does not keep up."""
        await self._room.wait()

    def close(self) -> None:
        """Send what was said, and hang up."""
        if self.closed:
            return
        self.flush()
        self.closed = True
        if self._transport is not None:
            self._transport.close()

    # asyncio's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= 4:
            (size,) = _LENGTH.unpack_from(self._buffer)
            if len(self._buffer) < 4 + size:
                return
            batch = marshal.loads(memoryview(self._buffer)[4 : 4 + size])  # noqa: S302 (our own process)
            del self._buffer[: 4 + size]
            for frame in batch:
                self._take_one(frame)

    def _take_one(self, frame: Frame) -> None:
        try:
            self._take(frame)
        except Exception as error:
            trace = "".join(traceback.format_exception(error))
            events.trouble(where="helper process", what=f"{frame[0]!r}: {type(error).__name__}", trace=trace)

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        self._room.set()
        self._lost()
