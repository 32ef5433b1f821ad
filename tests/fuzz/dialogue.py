"""A real session on a real socket, one step at a time, for whatever a fuzzer thinks of."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from relay import settings
from tests.accept.support import Bench, TestClient, all_settings, limits, listener, running
from tests.dialogs.test_dialogs import HASH

REPLY = re.compile(r"(?:[2-5][0-5][0-9]-[ -~]{0,505}\n)*[2-5][0-5][0-9] [ -~]{0,505}")
"""Well formed: lines of printable ASCII with one code (RFC 5321 section 4.2)."""


class Dialogue:
    """A listener and one client; a connection that the server closes is followed by another."""

    def __init__(self, **options: Any) -> None:
        self.loop = asyncio.new_event_loop()
        user = settings.ClientLogin("scanner-3", settings.Secret(HASH), ("*",))
        conf = listener(
            auth="optional", limits=limits(recipients=5, message_size=5000, connections_per_client=1000)
        )
        self._running = running(conf, config=all_settings(clients=(user,), **options))
        self.bench: Bench = self.loop.run_until_complete(self._running.__aenter__())
        self.client: TestClient | None = None
        self.accepted = 0
        self.mode = "command"
        """``data`` after 354, ``answer`` after 334."""

    def close(self) -> None:
        """End everything; nothing may be left."""
        if self.client is not None:
            self.client.close()
        self.loop.run_until_complete(self._running.__aexit__(None, None, None))
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()

    def say(self, octets: bytes, cuts: int = 0) -> str:
        """Octets that are owed exactly one reply; the reply."""
        answer = self.loop.run_until_complete(self._say(octets, cuts))
        assert REPLY.fullmatch(answer), repr(answer)
        self.accepted += "queued as" in answer
        self.mode = {"354": "data", "334": "answer"}.get(answer[:3], "command")
        if answer[:3] in ("221", "421", "521"):
            self.hang_up()
        return answer

    async def _say(self, octets: bytes, cuts: int) -> str:
        if self.client is None:
            self.client = await self.bench.client()
            assert (await self.client.reply()).startswith("220 ")
        step = max(1, len(octets) // (cuts + 1))
        for start in range(0, len(octets), step):
            self.client.send(octets[start : start + step])
            if cuts:
                await asyncio.sleep(0)
        try:
            return await self.client.reply()
        except EOFError:
            return "421 closed"

    def hang_up(self) -> None:
        """Leave without a word."""
        if self.client is not None:
            self.client.close()
            self.client = None
        self.mode = "command"

    def check(self) -> None:
        """What must always hold: every 250 is stored, nothing else is, and nothing broke inside."""
        assert len(self.bench.spool.stored) == self.accepted
        assert self.bench.events("trouble") == []
