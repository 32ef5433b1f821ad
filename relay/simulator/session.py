"""One SMTP session from banner to goodbye: EHLO, STARTTLS, AUTH and the small verbs.

What is announced follows a recorded session with smtp.office365.com; timers follow Exchange Server's receive
connector (5 minutes idle, 10 minutes in all), since Exchange Online publishes none.
"""

from __future__ import annotations

import asyncio
import base64
import email.utils
import json
import ssl
from collections.abc import Awaitable, Callable

from relay.simulator import logon
from relay.simulator.addresses import valid_hello
from relay.simulator.channel import Channel, Ended, LineTooLong
from relay.simulator.conversation import Conversation, Over
from relay.simulator.mail import MailVerbs
from relay.simulator.options import SERVICE_MESSAGE_SIZE
from relay.simulator.services import Services

HANDSHAKE = 30.0  # seconds for a TLS handshake
COMMAND_LENGTH = 4096  # octets, AUTH excepted
CONCURRENT = "432 4.3.2 STOREDRV.ClientSubmit; Concurrent connections limit exceeded. Visit https://aka.ms/concurrent_sending"
NOT_RECOGNIZED = "504 5.7.4 Unrecognized authentication type"
FOREIGN_HOST = "mailguard.example.net"
FRONTS = {
    "strips-starttls": "220 " + "*" * 60,  # how SMTP inspection of a well-known firewall shows itself
    "foreign-banner": f"220 {FOREIGN_HOST} ESMTP ready",
}
"""Banners of what may stand between: keys are values of the state ``smtp_front``."""

Verb = Callable[[str], Awaitable[None]]


class Session(Conversation):
    """Serves one connection; `run` returns when it is over."""

    def __init__(
        self, services: Services, channel: Channel, host: str, number: int, context: ssl.SSLContext
    ) -> None:
        super().__init__(services, channel, host, number)
        self._context = context
        self._mail = MailVerbs(self)
        self._verbs: dict[str, Verb] = {
            "EHLO": self._ehlo,
            "HELO": self._helo,
            "STARTTLS": self._starttls,
            "AUTH": self._auth,
            "MAIL": self._mail.mail,
            "RCPT": self._mail.rcpt,
            "DATA": self._mail.data,
            "BDAT": self._mail.bdat,
            "RSET": self._rset,
            "NOOP": self._noop,
            "HELP": self._help,
            "VRFY": self._vrfy,
            "QUIT": self._quit,
        }

    async def run(self) -> None:
        """Speak until one side has had enough."""
        limits = self.services.state.limits
        self.channel.idle = limits.idle
        if limits.session:
            self.channel.ends = asyncio.get_running_loop().time() + limits.session
        try:
            await self._greet()
            while True:
                await self._command()
        except Over:
            await self.channel.close()
        except (Ended, ssl.SSLError, OSError) as error:
            await self._lost(error)
        finally:
            self._mail.reset()
            if self.mailbox is not None:
                self.services.ledger.connection_close(self.mailbox)

    async def _lost(self, error: Exception) -> None:
        """A timeout is said aloud (RFC 5321 section 3.8); a connection that broke is only closed."""
        if isinstance(error, TimeoutError):
            self.services.store.counters["timeouts"] += 1
            self.reply("421 4.4.1 Connection timed out")
            await self.channel.close()
        else:
            self.channel.abort()

    async def _greet(self) -> None:
        if await self.fault("connect") or await self.fault("banner"):
            raise Over
        front = self.services.state.smtp_front
        if front in FRONTS:
            self.reply(FRONTS[front])
        else:
            date = email.utils.format_datetime(email.utils.localtime())
            self.reply(f"220 {self.host} Microsoft ESMTP MAIL Service ready at {date}")

    async def _command(self) -> None:
        try:
            line = await self.channel.line()
        except LineTooLong:
            return self.error("500 5.5.2 Line too long")
        verb, _, argument = self._readable(line).partition(" ")
        handler = self._verbs.get(verb.upper())
        if handler is None or (len(line) > COMMAND_LENGTH and verb.upper() != "AUTH"):
            return self.error(
                "500 5.3.3 Unrecognized command" if handler is None else "500 5.5.2 Line too long"
            )
        return await handler(argument.rstrip(" \t") if verb.upper() != "AUTH" else argument)

    def _readable(self, line: bytes) -> str:
        """A command is UTF-8 without control characters and ends in CRLF; anything else is no command."""
        try:
            text = line[:-1].decode() if line.endswith(b"\r") else ""
        except UnicodeDecodeError:
            return ""
        return text if text.isprintable() or not any(ord(character) < 32 for character in text) else ""

    async def _ehlo(self, argument: str) -> None:
        if await self.fault("ehlo"):
            return
        if not self._hello(argument, extended=True):
            return
        lines = [
            f"{self.host} Hello [{self.channel.peer}]",
            f"SIZE {SERVICE_MESSAGE_SIZE}",
            "PIPELINING",
            "DSN",
        ]
        lines += ["ENHANCEDSTATUSCODES", "AUTH LOGIN XOAUTH2" if self.channel.tls else "STARTTLS"]
        lines += ["8BITMIME", "BINARYMIME", "CHUNKING", "SMTPUTF8"]
        lines = self._seen_through_front(lines)
        for line in lines[:-1]:
            self.reply(f"250-{line}")
        self.reply(f"250 {lines[-1]}")

    def _seen_through_front(self, lines: list[str]) -> list[str]:
        """What a firewall's SMTP inspection leaves of the answer: keywords it does not know are crossed out."""
        front = self.services.state.smtp_front
        if front == "foreign-banner":
            return [f"{FOREIGN_HOST} Hello [{self.channel.peer}]", *lines[1:]]
        if front == "strips-starttls":
            return ["XXXXXXXA" if line == "STARTTLS" else line for line in lines]
        return lines

    async def _helo(self, argument: str) -> None:
        if not await self.fault("ehlo") and self._hello(argument, extended=False):
            self.reply(f"250 {self.host} Hello [{self.channel.peer}]")

    def _hello(self, argument: str, *, extended: bool) -> bool:
        if not valid_hello(argument.strip()):
            self.error("501 5.5.4 Invalid domain name")
            return False
        self._mail.reset()
        self.hello, self.extended = argument.strip(), extended
        return True

    async def _starttls(self, argument: str) -> None:
        if self.services.state.smtp_front == "strips-starttls":
            return self.error("500 5.3.3 Unrecognized command")
        if self.channel.tls:
            return self.error("503 5.5.2 Only one STARTTLS command can be issued per session")
        if argument or not self.extended:
            return self.error("501 5.5.4 Invalid arguments" if argument else "503 5.5.2 Send hello first")
        if await self.fault("starttls"):
            return None
        self._mail.reset()
        self.reply("220 2.0.0 SMTP server ready")
        await self.channel.start_tls(self._context, HANDSHAKE)
        self.services.store.counters["tls_handshakes"] += 1
        self.hello, self.extended = "", False  # the client has to say EHLO again: RFC 3207 section 4.2
        return None

    async def _auth(self, argument: str) -> None:
        """AUTH (RFC 4954 section 4): XOAUTH2 with or without an initial response; LOGIN only to be refused."""
        mechanism, _, initial = argument.partition(" ")
        mechanism = mechanism.upper()
        if not self.extended:
            return self.error("503 5.5.2 Send hello first")
        if self.mailbox is not None or self._mail.open:
            return self.error("503 5.5.2 AUTH is not possible here")
        if not self.channel.tls or mechanism not in ("XOAUTH2", "LOGIN"):
            return self.error(NOT_RECOGNIZED)
        self.services.store.counters["auths"] += 1
        if mechanism == "LOGIN":
            return await self._auth_login(initial)
        answer = initial.encode() if initial else await self._ask("")
        if answer == b"*":
            return await self._auth_failed(logon.UNSUCCESSFUL)
        return await self._auth_xoauth2(answer)

    async def _ask(self, challenge: str) -> bytes:
        """Send a 334 and read the answer; a line that is too long or badly ended reads as nothing."""
        self.reply(f"334 {challenge}")
        try:
            line = await self.channel.line()
        except LineTooLong:
            return b""
        return line[:-1] if line.endswith(b"\r") else b""

    async def _auth_login(self, initial: str) -> None:
        if not initial and await self._ask("VXNlcm5hbWU6") == b"*":
            return await self._auth_failed(logon.UNSUCCESSFUL)
        if await self._ask("UGFzc3dvcmQ6") == b"*":
            return await self._auth_failed(logon.UNSUCCESSFUL)
        return await self._auth_failed(logon.BASIC_DISABLED)

    async def _auth_xoauth2(self, answer: bytes) -> None:
        read = logon.read_xoauth2(answer)
        user, token = read or ("", "")
        if await self.fault("auth", mailbox=user):
            return None
        refusal = logon.refusal(self.services.state, user, token) if read else logon.UNSUCCESSFUL
        if refusal is not None:
            if self.services.state.second_334:
                await self._second_challenge()
            return await self._auth_failed(refusal)
        if not self.services.ledger.connection_open(user.lower()):
            return await self.refuse("auth", f"{CONCURRENT} {self.bracket()}")
        self.mailbox = user.lower()
        return self.reply("235 2.7.0 Authentication successful")

    async def _second_challenge(self) -> None:
        """Google's way of failing: a challenge with the error, to be answered by an empty line."""
        error = json.dumps({"status": "401", "schemes": "bearer", "scope": "https://outlook.office365.com"})
        await self._ask(base64.b64encode(error.encode()).decode())

    async def _auth_failed(self, reply: str) -> None:
        self.services.store.counters["auth_failures"] += 1
        self.logon_failures += 1
        self.auth_error = f"{reply} {self.bracket()}"
        limit = self.services.state.limits.logon_failures
        await self.refuse("auth", self.auth_error)
        if limit and self.logon_failures >= limit:
            self.reply("421 4.7.0 Too many errors on this connection, closing transmission channel")
            raise Over

    async def _rset(self, argument: str) -> None:
        if argument:
            return self.error("501 5.5.4 Invalid arguments")
        self._mail.reset()
        return self.reply("250 2.0.0 Resetting")

    async def _noop(self, argument: str) -> None:
        self.reply("250 2.0.0 OK")

    async def _help(self, argument: str) -> None:
        self.reply("214 2.0.0 This server supports: " + " ".join(self._verbs))

    async def _vrfy(self, argument: str) -> None:
        self.reply("252 2.1.5 Cannot VRFY user")

    async def _quit(self, argument: str) -> None:
        self.reply("221 2.0.0 Service closing transmission channel")
        raise Over
