"""AUTH PLAIN and LOGIN in every form old clients use (RFC 4954, RFC 4616)."""

from __future__ import annotations

from relay.accept import proxy, replies
from relay.accept.auth import BadCredentials, decode, plain_parts
from relay.accept.channel import Channel

WRONG_PASSWORDS = 3
"""Failed logins after which the connection is closed."""


class Cancelled(Exception):
    """The client answered a challenge with ``*``."""


class LoginChannel(Channel):
    """A channel whose client may say who it is."""

    __slots__ = ("_failures", "_user")
    _user: str | None
    _failures: int

    def _may_authenticate(self) -> bool:
        """Whether AUTH is offered on this channel: with TLS, on loopback, or where the listener allows it in clear."""
        listener = self._setup.listener
        if listener.auth == "none":
            return False
        return self._tls is not None or listener.auth_in_clear or proxy.is_loopback(self._address)

    def _login_missing(self) -> bytes | None:
        """The reply that asks for AUTH first, where the listener requires it."""
        if self._user is not None or self._setup.listener.auth != "required":
            return None
        return replies.AUTH_REQUIRED if self._may_authenticate() else replies.AUTH_REQUIRED_TLS

    def _auth_refusal(self, mechanism: str) -> bytes | None:
        if self._setup.listener.auth == "none":
            return replies.AUTH_OFF
        if not self._may_authenticate():
            return replies.AUTH_NEEDS_TLS
        if self._user is not None:
            return replies.AUTH_TWICE
        return None if mechanism in ("PLAIN", "LOGIN") else replies.AUTH_MECHANISM

    async def _log_in(self, argument: str) -> bytes:
        """One AUTH command to its end; the final reply."""
        mechanism, _, initial = argument.strip().partition(" ")
        refusal = self._auth_refusal(mechanism.upper())
        if refusal:
            return refusal
        try:
            if mechanism.upper() == "PLAIN":
                identity, user, password = await self._ask_plain(initial.strip())
            else:
                identity, user, password = "", *await self._ask_login(initial.strip())
        except Cancelled:
            return replies.AUTH_CANCELLED
        except BadCredentials:
            return replies.AUTH_SYNTAX
        return await self._judge(identity, user, password)

    async def _ask_plain(self, initial: str) -> tuple[str, str, str]:
        return plain_parts(initial or await self._ask(replies.ASK_EMPTY))

    async def _ask_login(self, initial: str) -> tuple[str, str]:
        user = decode(initial or await self._ask(replies.ASK_USER))
        return user, decode(await self._ask(replies.ASK_PASSWORD))

    async def _ask(self, challenge: bytes) -> str:
        """Send a challenge, read the answer. Raises Cancelled."""
        self._say(challenge)
        self._patience.since = self._setup.clock.monotonic()
        while (line := self._take_line()) is None:
            await self._more()
        answer = line.decode("ascii", "replace").strip()
        if answer == "*":
            raise Cancelled
        return answer

    async def _judge(self, identity: str, user: str, password: str) -> bytes:
        verdict = await self._setup.intake.logins.judge(self._address, user, password, identity)
        if verdict.blocked:
            self._note_refusal("auth", replies.CLOSE_GUESSING)
            self._hang_up(replies.CLOSE_GUESSING)
            return replies.AUTH_FAILED
        if verdict.right:
            self._user = user
            self.session.authenticated = True
            return replies.AUTH_OK
        self._failures += 1
        self._note_refusal("auth", replies.AUTH_FAILED, f"wrong user name or password for {user}")
        await self._setup.clock.sleep(verdict.wait)
        if self._failures >= WRONG_PASSWORDS:
            self._say(replies.AUTH_FAILED)
            self._hang_up(replies.CLOSE_ERRORS)
        return replies.AUTH_FAILED
