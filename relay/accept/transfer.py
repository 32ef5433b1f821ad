"""DATA and BDAT: a message from the wire into a draft, in blocks, with memory that does not grow with its size."""

from __future__ import annotations

from aiosmtpd.smtp import Envelope as Letter

from relay.accept import replies
from relay.accept.incoming import Incoming
from relay.accept.intake import Arrival, spool_reply, trouble
from relay.accept.limits import HeaderRoom
from relay.accept.login import LoginChannel
from relay.accept.params import MailParameters
from relay.accept.reader import DotReader, LengthReader
from relay.accept.wire import Gone
from relay.errors import SpoolError
from relay.message import Client, Envelope, Recipient
from relay.spool.contract import Draft

SLACK = 64 * 1024 * 1024
"""Octets read beyond the size limit so that the client can be told 552 in good order; then it is cut off."""

BLOCK = 256 * 1024
"""Octets taken from the buffer at once."""

LF_PATIENCE = 1.0
"""Seconds of silence after LF.LF before the client is told that its line ends are wrong."""


class Transaction(Letter):  # type: ignore[misc, unused-ignore]
    """One message's envelope while it is being said."""

    def __init__(self, sender: str, parameters: MailParameters) -> None:
        super().__init__()
        self.mail_from: str = sender
        self.parameters = parameters
        self.recipients: dict[str, Recipient] = {}
        """By address with the domain in lower case: a recipient named twice gets one copy."""
        self.overshoot = 0
        """Recipients refused because there were too many."""
        self.parcel: Parcel | None = None
        """The chunks of a BDAT message so far."""


class Parcel:
    """Where the content of one message goes while it comes."""

    __slots__ = ("_held", "_room", "draft", "incoming", "lengths")

    def __init__(self, draft: Draft, limit: int, room: HeaderRoom) -> None:
        self._room = room
        self._held = 0
        self.draft = draft
        self.incoming = Incoming(limit)
        self.lengths = LengthReader()

    async def take(self, data: bytes, *, clean: bool = False) -> None:
        """Pass message octets on; awaiting the spool is what slows the client down. Never raises: the message
        must be read to its end, or its rest would be read as commands. ``clean``: see `Incoming.feed`."""
        try:
            body = self.incoming.feed(data, clean=clean)
            self._account(self.incoming.held)
            if body:
                await self.draft.write(body)
        except SpoolError as error:
            self.incoming.refuse(spool_reply(error))
        except Exception as error:
            trouble("accept.transfer", error)
            self.incoming.refuse(replies.INTERNAL)
        if self.incoming.refusal:
            self._account(self.incoming.held)
            await self.draft.discard()

    def settle(self) -> None:
        """The message is stored or given up: its header block needs no room any more."""
        self._account(0)

    def _account(self, held: int) -> None:
        """Keep the listener's count of header octets; a block it has no room for is refused."""
        before, self._held = self._held, held
        if held != before and not self._room.resize(before, held):
            self.incoming.refuse(replies.HEADERS_FULL)


class TransferChannel(LoginChannel):
    """A channel that takes messages."""

    __slots__ = ("_errors", "_idle_commands", "_letter")
    _letter: Transaction | None
    _errors: int
    _idle_commands: int

    def _open_parcel(self) -> Parcel:
        draft = self._setup.intake.spool.draft()
        return Parcel(draft, self._setup.limits.message_size, self._roster.header_room)

    def _transfer_refusal(self) -> bytes | None:
        """Why no content can follow now."""
        if self._letter is None:
            return self._login_missing() or replies.NEED_MAIL
        return None if self._letter.recipients else replies.NEED_RCPT

    # DATA

    async def _transfer_data(self, letter: Transaction) -> None:
        """From 354 to the final reply."""
        self._say(replies.GO_AHEAD)
        parcel = letter.parcel = self._open_parcel()
        reader = DotReader(self._setup.tolerant)
        self._patience.begin_transfer(self._setup.clock.monotonic())
        await self._read_data(reader, parcel)
        self._patience.end_transfer(self._setup.clock.monotonic())
        await self._conclude(letter, parcel, reader.bare_lf)

    async def _read_data(self, reader: DotReader, parcel: Parcel) -> None:
        budget = self._setup.limits.message_size + SLACK
        while True:
            while self._buffer and not reader.done:
                block = self._take(BLOCK)
                budget -= len(block)
                await parcel.take(reader.feed(block), clean=reader.clean)
            if reader.done:
                self._buffer[:0] = reader.rest
                return
            if budget < 0:
                self._cut_off(replies.TOO_BIG)
            if not reader.lf_end:
                await self._more()
            elif not await self._more_within(LF_PATIENCE):
                self._cut_off(replies.LF_ONLY)

    def _cut_off(self, reply: bytes) -> None:
        self._note_refusal("message", reply)
        self._hang_up(reply)
        raise Gone

    # BDAT

    async def _transfer_chunk(self, size: int, last: bool) -> None:
        """One chunk (RFC 3030 section 2). Its octets are read whatever is wrong, so they never become commands."""
        if size > self._setup.limits.message_size + SLACK:
            self._cut_off(replies.TOO_BIG)
        refusal = self._transfer_refusal()
        parcel = None
        if self._letter is not None and refusal is None:
            parcel = self._letter.parcel = self._letter.parcel or self._open_parcel()
        self._patience.begin_transfer(self._setup.clock.monotonic())
        await self._read_chunk(size, parcel)
        self._patience.end_transfer(self._setup.clock.monotonic())
        if parcel is None or self._letter is None:
            self._say(refusal or replies.NEED_RCPT)
        elif last:
            await parcel.take(parcel.lengths.finish())
            await self._conclude(self._letter, parcel, parcel.lengths.bare_lf)
        else:
            self._say(parcel.incoming.refusal or b"250 2.0.0 %d octets received\r\n" % size)

    async def _read_chunk(self, size: int, parcel: Parcel | None) -> None:
        while size:
            if not self._buffer:
                await self._more()
            block = self._take(min(size, BLOCK))
            size -= len(block)
            if parcel is not None:
                await parcel.take(parcel.lengths.feed(block), clean=parcel.lengths.clean)

    # both

    async def _conclude(self, letter: Transaction, parcel: Parcel, bare_lf: bool) -> None:
        """Hand the whole message to the intake and answer. Not cancelled by a client that leaves meanwhile."""
        parcel.incoming.finish()
        self._letter = None
        gone = self._watch_departure() if self._setup.patience is not None else None
        arrival = Arrival(
            draft=parcel.draft,
            incoming=parcel.incoming,
            envelope=_envelope(letter, parcel.incoming),
            client=self._client(),
            extended=self.session.extended_smtp,
            notes=parcel.incoming.notes(bare_lf),
            patience=self._setup.patience,
            gone=gone,
        )
        answer = await self._setup.intake.finish(arrival)
        parcel.settle()
        self._departure = None
        if answer.stored:
            self._roster.accepted += 1
            self._errors = self._idle_commands = 0
        else:
            self._roster.rejected += 1
        self._say(answer.line)

    async def _drop_letter(self) -> None:
        """Forget the message under way and what it wrote."""
        letter, self._letter = self._letter, None
        if letter is not None and letter.parcel is not None:
            letter.parcel.settle()
            await letter.parcel.draft.discard()

    def _client(self) -> Client:
        return Client(
            address=self._address,
            port=self._port,
            helo=self.session.host_name or "",
            user=self._user,
            tls=self._tls,
            listener=self._setup.listener.bind,
        )


def _envelope(letter: Transaction, incoming: Incoming) -> Envelope:
    said = letter.parameters
    return Envelope(
        sender=letter.mail_from,
        recipients=tuple(letter.recipients.values()),
        eight_bit=said.eight_bit or incoming.eight_bit,
        smtputf8=said.smtputf8,
        ret=said.ret,
        envid=said.envid,
        long_lines=incoming.long_lines,
    )
