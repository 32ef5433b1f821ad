"""From nothing to an authenticated session: dial, greeting, EHLO, STARTTLS, EHLO, AUTH XOAUTH2 (facts 1.1)."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import re
import ssl
from dataclasses import dataclass

from aiosmtplib import SMTPException, SMTPResponse, SMTPResponseException

from relay.deliver.classify import Fallen, Names, judge_error
from relay.deliver.phases import Phase
from relay.deliver.session import Features, Session, features_of
from relay.deliver.tunnel import proxy_name, tunnel
from relay.deliver.wire import Wire
from relay.errors import TokenError
from relay.message import Outcome, Reply, Result, Scope, Trouble
from relay.settings import Upstream, UserLogin
from relay.tokens.contract import Resource, Token, TokenSource

FRESH_TOKEN_HELPS = frozenset({"authentication-refused"})
"""Only the catch-all 535 may be cured by another token; the others name a switch that no token moves."""
USER_REMEDY = (
    "The user who signed in must be {mailbox} (`relay status` shows who it is; `relay login` changes it) and have allowed"
    " SMTP.Send. In the Microsoft 365 admin center, Users, {mailbox}, Mail, Manage email apps, tick Authenticated SMTP."
)
MOST_CHALLENGES = 3
MOST_WORDS = 300
"""Characters of Entra ID's own words that are kept."""
PIECE = re.compile(r"[A-Za-z0-9+/=._~-]{12,}")
"""What a piece of a token, or of its base64, looks like."""


@dataclass(frozen=True, slots=True)
class Door:
    """What it takes to log in to one upstream."""

    upstream: Upstream
    tokens: TokenSource
    context: ssl.SSLContext
    hostname: str
    """Our name in EHLO."""

    def names(self, mailbox: str) -> Names:
        """What the reply table's sentences call by name."""
        up = self.upstream
        proxy = proxy_name(up.proxy) if up.proxy else "<proxy>"
        return Names(mailbox, up.host, str(up.port), f"{up.timeout:g}", proxy, up.client_id)


async def log_in(door: Door, mailbox: str) -> Session:
    """A session for one mailbox. A refused token is thrown away and tried once more, fresh, on a new connection.

    Raises Trouble; nothing stays open then.
    """
    token = await _token(door)
    try:
        return await Login(door, mailbox).run(token)
    except Trouble as trouble:
        if trouble.outcome.code not in FRESH_TOKEN_HELPS:
            raise
    door.tokens.discard(token)
    try:
        return await Login(door, mailbox).run(await _token(door))
    except Trouble as trouble:
        raise _for_user(trouble, door, mailbox) from trouble


def _for_user(trouble: Trouble, door: Door, mailbox: str) -> Trouble:
    """A user's sign-in needs other grants than an application, and Exchange refuses both in the same words."""
    of_user = isinstance(door.upstream.credential, UserLogin)
    if not of_user or trouble.outcome.code not in FRESH_TOKEN_HELPS:
        return trouble
    return Trouble(dataclasses.replace(trouble.outcome, remedy=USER_REMEDY.format(mailbox=mailbox)))


async def _token(door: Door) -> Token:
    try:
        return await door.tokens.token(Resource.SMTP)
    except TokenError as error:
        raise Trouble(token_outcome(error)) from error


def token_outcome(error: TokenError) -> Outcome:
    """No token: the whole upstream waits, or is held when waiting cannot help.

    Entra ID's own words (its AADSTS number) go along as a reply without a code: they are no SMTP reply.
    """
    result = Result.DEFERRED if error.temporary else Result.HELD
    said = Reply(0, "", error.evidence[:MOST_WORDS]) if error.evidence else None
    return Outcome(result, Scope.UPSTREAM, said, str(error), error.remedy, error.code, counts=False)


def xoauth2(mailbox: str, token: str) -> bytes:
    """The client's string in base64 (facts 1.1)."""
    return base64.b64encode(f"user={mailbox}\x01auth=Bearer {token}\x01\x01".encode())


def without_token(text: str, mailbox: str, token: str) -> str:
    """A reply without any piece of the token that it echoes: a device in between may quote what it did not know."""
    sent = f"{xoauth2(mailbox, token).decode()} {token}"
    return PIECE.sub(lambda found: "(token)" if found[0] in sent else found[0], text)


class Login:
    """One try at one connection, a method per phase; ``_phase`` says where a fault belongs."""

    def __init__(self, door: Door, mailbox: str) -> None:
        self._door = door
        self._upstream = door.upstream
        self._mailbox = mailbox
        self._names = door.names(mailbox)
        self._timeout = door.upstream.timeout
        self._phase = Phase.CONNECT
        self._wire: Wire | None = None

    async def run(self, token: Token) -> Session:
        """All phases in order. Raises Trouble."""
        try:
            wire = await self._connect()
            await self._greeting(wire)
            await self._starttls(wire, await self._ehlo(wire))
            features = await self._ehlo(wire)
            await self._authenticate(wire, features, token)
        except SMTPResponseException as refusal:
            self._drop()
            said = SMTPResponseException(
                refusal.code, without_token(refusal.message, self._mailbox, token.value)
            )
            raise Trouble(judge_error(self._phase, said, self._names)) from said
        except (SMTPException, OSError, Fallen) as error:
            self._drop()
            raise Trouble(judge_error(self._phase, error, self._names)) from error
        except BaseException:
            self._drop()
            raise
        return self._session(wire, features)

    def _session(self, wire: Wire, features: Features) -> Session:
        most = max(1, self._upstream.limits.recipients_per_message)
        return Session(wire, features, self._names, self._timeout, most, wire.tls_version())

    async def _connect(self) -> Wire:
        loop, up = asyncio.get_running_loop(), self._upstream
        async with asyncio.timeout(self._timeout):
            if up.proxy is None:
                _, wire = await loop.create_connection(Wire, up.host, up.port)
            else:
                sock = await tunnel(up.proxy, up.host, up.port)
                _, wire = await loop.create_connection(Wire, sock=sock)
        self._wire = wire
        return wire

    async def _greeting(self, wire: Wire) -> None:
        self._expect(await wire.read_response(self._timeout), 220)

    async def _ehlo(self, wire: Wire) -> Features:
        self._phase = Phase.EHLO
        reply = await wire.command(b"EHLO " + self._door.hostname.encode("ascii", "replace"), self._timeout)
        self._expect(reply, 250)
        return features_of(reply)

    async def _starttls(self, wire: Wire, features: Features) -> None:
        self._phase = Phase.STARTTLS
        if not features.starttls:
            raise Fallen("starttls-not-offered")
        await wire.secure(self._door.context, self._upstream.host, self._timeout)

    async def _authenticate(self, wire: Wire, features: Features, token: Token) -> None:
        self._phase = Phase.AUTH
        if "xoauth2" not in features.logins:
            raise Fallen("xoauth2-not-offered")
        words = xoauth2(self._mailbox, token.value)
        reply = await wire.command(b"AUTH XOAUTH2 " + words, self._timeout)
        for challenge in range(MOST_CHALLENGES):
            if reply.code != 334:
                break
            # Form B asks with an empty challenge; a second one, or one with words, announces a refusal.
            asks = challenge == 0 and not reply.message.strip()
            reply = await wire.command(words if asks else b"", self._timeout)
        self._expect(reply, 235)

    def _expect(self, reply: SMTPResponse, code: int) -> None:
        if reply.code != code:
            raise SMTPResponseException(reply.code, reply.message)

    def _drop(self) -> None:
        if self._wire is not None:
            self._wire.abort()
