"""What is said on a connection: the SMTP commands (RFC 5321 section 4.1), judged and answered.

Commands are taken from the buffer one after another and answered together; only MAIL (room in the spool), AUTH,
STARTTLS and the message itself ever wait. While the task waits for a command, those that need not wait are answered
right where the octets arrive, which saves most of the trips through the event loop.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine
from typing import Any

from relay.accept import replies
from relay.accept.addresses import BadAddress, parse_path
from relay.accept.intake import trouble
from relay.accept.params import BadParameter, UnknownParameter, mail_parameters, rcpt_parameters
from relay.accept.setup import Roster
from relay.accept.transfer import Transaction, TransferChannel
from relay.accept.wire import Gone
from relay.message import Recipient, Reply

ERRORS = 10
"""Junk commands, wrong orders and syntax errors after which the connection is closed (Postfix: 20)."""
IDLE_COMMANDS = 1000
"""Commands without a message in between; mailers that keep a connection open with NOOP stay far below."""

OVERSHOOT = 20_000
"""Recipients beyond the limit that one message may name: each is answered with 452, but not for ever."""

TURN = 100
"""Commands handled before other connections get their turn."""

_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_MAIL = re.compile(r"FROM\s*(?::|\s(?=\s*\S))\s*(.*)", re.IGNORECASE)
_RCPT = re.compile(r"TO\s*(?::|\s(?=\s*\S))\s*(.*)", re.IGNORECASE)
_BDAT = re.compile(r"([0-9]{1,18})(?:[ \t]+(LAST))?", re.IGNORECASE)
_HTTP = {b"GET", b"POST", b"PUT", b"HEAD", b"DELETE", b"OPTIONS", b"CONNECT", b"TRACE", b"PATCH", b"PRI"}
_AFTER_CHUNK = {b"BDAT", b"RSET", b"NOOP", b"QUIT"}

Pending = Coroutine[Any, Any, None] | None


class Connection(TransferChannel):
    """One client's session."""

    __slots__ = ("_chunked", "_pending")

    def __init__(self, roster: Roster) -> None:
        super().__init__(roster)
        self._user = None
        self._failures = self._errors = self._idle_commands = 0
        self._letter = None
        self._chunked = False
        self._pending: Pending = None

    # the loop

    async def _converse(self) -> None:
        """Commands until the end of the connection."""
        handled = 0
        while not self._closing:
            pending, self._pending = self._pending, None
            if pending is None:
                line = self._take_line()
                if line is None:
                    await self._wait_for_line()
                    continue
                pending = self._command(line)
            if pending is not None:
                await self._guarded(pending)
            handled += 1
            if handled % TURN == 0:
                await self._drained()
                await asyncio.sleep(0)

    async def _wait_for_line(self) -> None:
        """Wait until there is something to do that `_attend` could not."""
        self._patience.since = self._setup.clock.monotonic()
        if self._roster.draining and self._letter is None:
            self._hang_up(replies.CLOSE_STOPPING)
        self._listening = True
        try:
            await self._more()
        finally:
            self._listening = False

    def _attend(self) -> None:
        """Answer what need not wait; wake the task for the rest. Octets of half a line win the client no time."""
        if self._choked:
            return  # first the client must read what it was told
        handled = 0
        while handled < TURN and not self._closing:
            line = self._take_line()
            if line is None:
                break
            handled += 1
            if not self._settle(line):
                self._wake()
                return
        if handled:
            self._patience.since = self._setup.clock.monotonic()
        if handled == TURN or self._closing or self._roster.draining:
            self._wake()
        else:
            self._flush()

    def _settle(self, line: bytes) -> bool:
        """One line; False when its command must wait, and the task has to go on with it."""
        try:
            self._pending = self._command(line)
        except Exception as error:
            trouble("accept.session", error)
            self._hang_up(replies.INTERNAL)
        return self._pending is None

    async def _guarded(self, pending: Coroutine[Any, Any, None]) -> None:
        """An unexpected error costs this command, not the daemon; inside a message it costs the connection,
        since the rest of the message must not be read as commands."""
        try:
            await pending
        except Gone:
            raise
        except Exception as error:
            trouble("accept.session", error)
            if self._patience.transfer:
                self._hang_up(replies.INTERNAL)
            else:
                self._say(replies.INTERNAL)

    async def _tidy(self) -> None:
        if self._pending is not None:
            self._pending.close()
        await self._drop_letter()

    def _resting(self) -> bool:
        return self._letter is None

    def _command(self, line: bytes) -> Pending:
        """Judge one line; what must wait comes back as a coroutine."""
        verb, _, argument = line.strip().replace(b"\t", b" ").partition(b" ")
        verb = verb.upper()
        handler = _VERBS.get(verb)
        if _CONTROL.search(line):
            return self._mistake(replies.TOO_LONG if line == b"\0" else replies.CONTROL)
        if handler is None:
            return self._unknown(verb)
        if self._chunked and not self._in_order(verb):
            return None
        try:
            text = argument.decode("utf-8")
        except UnicodeDecodeError:
            if verb not in (b"EHLO", b"HELO"):
                return self._mistake(replies.NOT_ASCII)
            text = argument.decode("ascii", "replace")
        return handler(self, text.strip())

    def _in_order(self, verb: bytes) -> bool:
        """After a chunk that was not the last, other commands are wrong, and perhaps payload: 503 and close."""
        if verb in _AFTER_CHUNK:
            return True
        if self._letter is not None and self._letter.parcel is not None:
            self._hang_up(replies.IN_BDAT)
            return False
        self._chunked = False
        return True

    def _unknown(self, verb: bytes) -> Pending:
        if verb in _HTTP:
            self._note_refusal("connection", replies.CLOSE_HTTP)
            self._hang_up(replies.CLOSE_HTTP)
        elif self._chunked:
            self._note("not a command after BDAT: the size was wrong")
            self._hang_up(replies.IN_BDAT)
        elif self._count_error():
            self._say(replies.UNKNOWN)
        return None

    def _mistake(self, line: bytes, phase: str = "") -> Pending:
        """Answer with an error that counts; with a ``phase`` it goes into the log: a device may never get further."""
        if phase:
            self._note_refusal(phase, line)
        if self._count_error():
            self._say(line)
        return None

    def _count_error(self) -> bool:
        """Whether the client has errors left; closes the connection when not."""
        self._errors += 1
        if self._errors <= ERRORS:
            return True
        self._note("too many errors")
        self._hang_up(replies.CLOSE_ERRORS)
        return False

    def _without_message(self, line: bytes) -> None:
        """Answer a command that moves nothing."""
        self._idle_commands += 1
        if self._idle_commands > IDLE_COMMANDS:
            self._note("too many commands without a message")
            self._hang_up(replies.CLOSE_IDLE_COMMANDS)
        else:
            self._say(line)

    def _refuse(self, phase: str, line: bytes, reason: str) -> None:
        """Answer with a refusal by policy: logged, and no error, but nothing that goes on for ever either."""
        self._note_refusal(phase, line, reason)
        self._without_message(line)

    # greetings

    def _helo(self, text: str) -> Pending:
        return self._introduce(text, False, self._setup.helo)

    def _ehlo(self, text: str) -> Pending:
        auth = self._may_authenticate() and self._user is None
        return self._introduce(text, True, self._setup.ehlo(secure=self._tls is not None, auth=auth))

    def _introduce(self, name: str, extended: bool, answer: bytes) -> Pending:
        """Any name will do, none too: what it is worth is said by the Received field."""
        self.session.host_name = name[:255]
        self.session.extended_smtp = extended
        self._without_message(answer)
        return self._drop_letter() if self._letter else None

    # the envelope

    async def _mail(self, text: str) -> None:
        found = _MAIL.match(text)
        refusal = self._login_missing() or (replies.NESTED if self._letter else None)
        if refusal or not found:
            self._mistake(refusal or replies.MAIL_SYNTAX, "mail")
            return
        try:
            path = parse_path(found[1])
            parameters = mail_parameters(path.rest)
        except (BadAddress, BadParameter, UnknownParameter) as error:
            self._mistake(_syntax_reply(error, "5.1.7", "sender"), "mail")
            return
        if not path.address.isascii() and not parameters.smtputf8:
            self._mistake(replies.NEED_UTF8, "mail")
            return
        refusal = self._sender_refusal(path.address, parameters.size)
        refusal = refusal or await self._setup.intake.has_room(parameters.size)
        if refusal:
            self._refuse("mail", refusal, f"sender {path.address}")
            return
        self._letter = Transaction(path.address, parameters)
        self._say(replies.SENDER_OK)

    def _sender_refusal(self, address: str, size: int) -> bytes | None:
        limits = self._setup.limits
        if size > limits.message_size:
            return replies.TOO_BIG
        if self._user is not None and not self._setup.intake.authenticator.may_send_as(self._user, address):
            return replies.SENDER_DENIED
        now = self._setup.clock.monotonic()
        wait = self._roster.gate.message(self._address, limits.messages_per_minute_per_client, now)
        if wait:
            setting = "listeners: limits.messages_per_minute_per_client"
            return replies.encode(
                Reply(451, "4.7.1", f"Too many messages; try again in {wait:.0f} s ({setting})")
            )
        return None

    def _rcpt(self, text: str) -> None:
        found = _RCPT.match(text)
        if self._letter is None or not found:
            self._mistake((self._login_missing() or replies.NEED_MAIL) if found else replies.RCPT_SYNTAX)
            return
        try:
            path = parse_path(found[1], local_only=("postmaster",))
            parameters = rcpt_parameters(path.rest)
            if not path.address:
                raise BadAddress("the null path cannot receive")
        except (BadAddress, BadParameter, UnknownParameter) as error:
            self._mistake(_syntax_reply(error, "5.1.3", "recipient"), "rcpt")
            return
        self._add_recipient(self._letter, path.address, parameters.notify, parameters.orcpt)

    def _add_recipient(
        self, letter: Transaction, address: str, notify: str | None, orcpt: str | None
    ) -> None:
        if "@" not in address:
            address = self._setup.intake.settings.postmaster or ""
        if not address.isascii() and not letter.parameters.smtputf8:
            self._mistake(replies.NEED_UTF8, "rcpt")
            return
        if len(letter.recipients) >= self._setup.limits.recipients:
            self._overshoot(letter)
            return
        refusal = self._recipient_refusal(address)
        if refusal:
            self._refuse("rcpt", refusal, f"recipient {address}")
            return
        local, _, domain = address.rpartition("@")
        letter.recipients.setdefault(f"{local}@{domain.lower()}", Recipient(address, notify, orcpt))
        self._say(replies.RECIPIENT_OK)

    def _overshoot(self, letter: Transaction) -> None:
        """One recipient too many: said each time, logged once."""
        letter.overshoot += 1
        if letter.overshoot > OVERSHOOT:
            self._hang_up(replies.CLOSE_ERRORS)
            return
        if letter.overshoot == 1:
            self._note_refusal("rcpt", replies.TOO_MANY_RECIPIENTS)
        self._say(replies.TOO_MANY_RECIPIENTS)

    def _recipient_refusal(self, address: str) -> bytes | None:
        return self._setup.intake.recipient_refusal(address) if address else replies.NO_POSTMASTER

    # the message

    def _data(self, text: str) -> Pending:
        refusal = self._transfer_refusal() or (replies.NO_ARGUMENT if text else None)
        if refusal or self._letter is None:
            return self._mistake(refusal or replies.NEED_MAIL)
        return self._transfer_data(self._letter)

    def _bdat(self, text: str) -> Pending:
        found = _BDAT.fullmatch(text)
        if not found:
            self._hang_up(replies.BDAT_SYNTAX)
            return None
        self._chunked = True
        if self._transfer_refusal() and not self._count_error():
            return None
        return self._transfer_chunk(int(found[1]), bool(found[2]))

    # the rest

    async def _auth(self, text: str) -> None:
        line = replies.AUTH_IN_MAIL if self._letter else await self._log_in(text)
        if line in (replies.AUTH_OK, replies.AUTH_FAILED):
            self._say(line)
        else:
            self._mistake(line)

    async def _starttls(self, text: str) -> None:
        if self._tls is not None:
            self._mistake(replies.TLS_TWICE)
        elif not self._setup.starttls or self._setup.tls is None:
            self._mistake(replies.TLS_OFF)
        elif text:
            self._mistake(replies.NO_ARGUMENT)
        else:
            await self._drop_letter()
            self._buffer.clear()  # sent before TLS: never executed after it (CVE-2024-34083)
            self._scanned = 0
            self._user = None
            self._say(replies.TLS_READY)
            await self._upgrade(early=False)

    def _rset(self, text: str) -> Pending:
        self._without_message(replies.OK)
        return self._drop_letter() if self._letter else None

    def _noop(self, text: str) -> None:
        self._without_message(replies.OK)

    def _vrfy(self, text: str) -> None:
        self._without_message(replies.VRFY)

    def _help(self, text: str) -> None:
        self._without_message(replies.HELP)

    def _not_implemented(self, text: str) -> None:
        self._mistake(replies.NOT_IMPLEMENTED)

    def _quit(self, text: str) -> None:
        self._say(replies.BYE)
        self._hang_up(linger=False)


def _syntax_reply(error: Exception, code: str, whose: str) -> bytes:
    if isinstance(error, BadAddress):
        return replies.encode(Reply(501, code, f"Bad {whose} address: {error}"))
    return replies.UNKNOWN_PARAMETER if isinstance(error, UnknownParameter) else replies.WRONG_PARAMETER


_VERBS: dict[bytes, Callable[[Connection, str], Pending]] = {
    b"HELO": Connection._helo,
    b"EHLO": Connection._ehlo,
    b"MAIL": Connection._mail,
    b"RCPT": Connection._rcpt,
    b"DATA": Connection._data,
    b"BDAT": Connection._bdat,
    b"RSET": Connection._rset,
    b"NOOP": Connection._noop,
    b"VRFY": Connection._vrfy,
    b"HELP": Connection._help,
    b"EXPN": Connection._not_implemented,
    b"TURN": Connection._not_implemented,
    b"AUTH": Connection._auth,
    b"STARTTLS": Connection._starttls,
    b"QUIT": Connection._quit,
}
