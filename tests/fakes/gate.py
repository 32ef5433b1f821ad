"""A gate in the network: it passes a TCP service on, and can cut it off, hold everything back, and let it through again."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
_PIECE = 65_536


class Gate:
    """Listens on an address of its own and forwards to a Unix socket or a TCP address, in a thread of its own."""

    def __init__(
        self,
        target: Path | tuple[str, int],
        address: str = "127.0.0.1",
        enter: Callable[[], None] = lambda: None,
    ) -> None:
        """``enter`` is called in the gate's thread before it opens anything: it may go into a network namespace."""
        self._target = target
        self._enter = enter
        self.address, self.port = address, 0
        self._loop = asyncio.new_event_loop()
        self._reserved: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._open = asyncio.Event()
        self._open.set()
        threading.Thread(target=self._run, daemon=True).start()
        self._do(self._listen())

    def _run(self) -> None:
        self._enter()
        self._loop.run_forever()
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    async def _listen(self) -> None:
        if self._reserved is None:
            # bound and never listening: while the gate is cut, connections are refused and the port stays ours
            self._reserved = socket.socket()
            self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._reserved.bind((self.address, 0))
            self.port = self._reserved.getsockname()[1]
        self._server = await asyncio.start_server(self._serve, self.address, self.port)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        there: asyncio.StreamWriter | None = None
        with contextlib.suppress(OSError, asyncio.CancelledError):  # cancelled only at the end
            await self._open.wait()
            answers, there = await self._dial()
            self._writers.add(there)
            await asyncio.gather(self._pump(reader, there), self._pump(answers, writer))
        for one in (writer, there):
            if one is not None:
                self._writers.discard(one)
                one.close()

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._target, Path):
            return await asyncio.open_unix_connection(self._target)
        return await asyncio.open_connection(*self._target)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """What is held back arrives once the gate opens, as with a network that lost packets for a while."""
        with contextlib.suppress(OSError):
            while data := await reader.read(_PIECE):
                await self._open.wait()
                writer.write(data)
                await writer.drain()
            await self._open.wait()
        writer.close()

    def cut(self) -> None:
        """End all connections, what is on its way in them is lost, and refuse new ones."""
        self._do(self._cut())

    async def _cut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()

    def stall(self) -> None:
        """Take connections and octets, and pass nothing on."""
        self._do(self._set_open(False))

    async def _set_open(self, on: bool) -> None:
        if on:
            self._open.set()
        else:
            self._open.clear()

    def restore(self) -> None:
        """Work again."""
        self._do(self._set_open(True))
        if self._server is None:
            self._do(self._listen())

    def close(self) -> None:
        """For good."""
        self._do(self._cut())
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        if self._reserved is not None:
            self._reserved.close()

    async def _end(self) -> None:
        serving = asyncio.all_tasks() - {asyncio.current_task()}
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
