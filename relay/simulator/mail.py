"""The verbs of a mail transaction: MAIL, RCPT, DATA, BDAT, RSET, as Exchange Online answers them on port 587."""

from __future__ import annotations

import uuid

from relay.simulator import verdict
from relay.simulator.addresses import (
    MAIL_PARAMETERS,
    RCPT_PARAMETERS,
    SyntaxRefused,
    read_parameters,
    read_path,
)
from relay.simulator.body import Body, Header, read_chunk, read_data
from relay.simulator.conversation import Conversation, Over
from relay.simulator.options import SERVICE_MESSAGE_SIZE
from relay.simulator.verdict import Envelope

BAD_SENDER_ADDRESS = "501 5.1.7 Invalid address"
BAD_RECIPIENT_ADDRESS = "501 5.1.3 Invalid address"
NEED_SMTPUTF8 = "553 5.6.7 The address needs SMTPUTF8"
NULL_SENDER = "550 5.7.60 SMTP; Client does not have permissions to send as this sender"
RATE = "421 4.4.2 Message submission rate for this client has exceeded the configured limit"
TOO_MANY_RECIPIENTS = "452 4.5.3 Too many recipients"
NOT_AUTHENTICATED = "530 5.7.57 Client not authenticated to send mail."


class MailVerbs:
    """One session's mail transactions, one after another."""

    def __init__(self, conversation: Conversation) -> None:
        self._talk = conversation
        self._services = conversation.services
        self._envelope: Envelope | None = None
        self._body: Body | None = None  # set while BDAT chunks come in

    def reset(self) -> None:
        """Forget the transaction; a message without its data was not submitted."""
        if self._body is not None:
            self._body.incoming.discard()
        if self._envelope is not None and self._talk.mailbox is not None:
            self._services.ledger.message_undo(self._talk.mailbox, self._envelope.stamp)
        self._envelope = self._body = None

    @property
    def open(self) -> bool:
        """Whether MAIL has been accepted and not yet finished."""
        return self._envelope is not None

    async def mail(self, argument: str) -> None:
        """MAIL FROM (RFC 5321 section 4.1.1.2)."""
        talk = self._talk
        if not talk.hello:
            return talk.error("503 5.5.2 Send hello first")
        if talk.mailbox is None:
            inner = f" Error: {talk.auth_error}" if talk.auth_error else f" {talk.bracket()}"
            return await talk.refuse("mail", NOT_AUTHENTICATED + inner)
        if self._envelope is not None:
            return talk.error("503 5.5.2 Sender already specified")
        try:
            sender, text = read_path(argument, "FROM:", BAD_SENDER_ADDRESS)
            parameters = read_parameters(text, MAIL_PARAMETERS)
        except SyntaxRefused as error:
            return talk.error(error.reply)
        return await self._begin(talk.mailbox, sender, parameters)

    def _largest(self) -> int:
        """The largest message of this mailbox, in octets."""
        return min(self._services.state.limits.message_size or SERVICE_MESSAGE_SIZE, SERVICE_MESSAGE_SIZE)

    async def _begin(self, mailbox: str, sender: str, parameters: dict[str, str]) -> None:
        talk = self._talk
        if await talk.fault("mail"):
            return None
        if not sender:
            return await talk.refuse("mail", f"{NULL_SENDER} {talk.bracket()}")
        if not sender.isascii() and "SMTPUTF8" not in parameters:
            return await talk.refuse("mail", NEED_SMTPUTF8)
        if int(parameters.get("SIZE", 0)) > self._largest():
            return await talk.refuse("mail", verdict.TOO_LARGE)
        stamp = self._services.ledger.message_begin(mailbox)
        if stamp is None:
            return await talk.refuse("mail", f"{RATE} {talk.bracket()}")
        self._envelope = Envelope(sender, parameters, stamp)
        return talk.reply("250 2.1.0 Sender OK")

    async def rcpt(self, argument: str) -> None:
        """RCPT TO (RFC 5321 section 4.1.1.3)."""
        talk, envelope = self._talk, self._envelope
        if envelope is None:
            return talk.error("503 5.5.2 Need mail command")
        try:
            recipient, text = read_path(argument, "TO:", BAD_RECIPIENT_ADDRESS)
            read_parameters(text, RCPT_PARAMETERS)
        except SyntaxRefused as error:
            if error.reply == BAD_RECIPIENT_ADDRESS:
                return await self._refuse_recipient(envelope, "invalid-recipients", error.reply)
            return talk.error(error.reply)
        if await talk.fault("rcpt", recipients=[recipient]):
            return None
        if not recipient:
            return await self._refuse_recipient(envelope, "invalid-recipients", BAD_RECIPIENT_ADDRESS)
        if not recipient.isascii() and "SMTPUTF8" not in envelope.parameters:
            return await talk.refuse("rcpt", NEED_SMTPUTF8)
        limit = self._services.state.limits.recipients_per_message
        if limit and len(envelope.recipients) >= limit:
            return await self._refuse_recipient(envelope, "too-many-recipients", TOO_MANY_RECIPIENTS)
        envelope.recipients.append(recipient)
        return talk.reply("250 2.1.5 Recipient OK")

    async def _refuse_recipient(self, envelope: Envelope, mistake: str, reply: str) -> None:
        """Refuse, and count the mistake once for each message: Exchange throttles who repeats it."""
        if mistake not in envelope.marked and self._talk.mailbox is not None:
            envelope.marked.add(mistake)
            self._services.ledger.mistake(self._talk.mailbox, mistake)
        await self._talk.refuse("rcpt", reply)

    async def data(self, argument: str) -> None:
        """DATA (RFC 5321 section 4.1.1.4)."""
        talk, envelope = self._talk, self._envelope
        if argument:
            return talk.error("501 5.5.4 Invalid arguments")
        if not self._ready(envelope) or envelope is None:
            return None
        if self._body is not None or envelope.parameters.get("BODY", "").upper() == "BINARYMIME":
            return talk.error("503 5.5.2 Use BDAT")
        if await talk.fault("data", recipients=envelope.recipients):
            return None
        talk.reply("354 Start mail input; end with <CRLF>.<CRLF>")
        body = self._new_body()
        try:
            await read_data(talk.channel, body, self._body_begun)
            await self._finish(envelope, body)
        finally:
            body.incoming.discard()
        return None

    def _ready(self, envelope: Envelope | None) -> bool:
        if envelope is None:
            self._talk.error("503 5.5.2 Need mail command")
        elif not envelope.recipients:
            self._talk.error("503 5.5.2 Need rcpt command")
        return envelope is not None and bool(envelope.recipients)

    def _new_body(self) -> Body:
        header_size = self._services.state.limits.header_size
        return Body(self._services.store.incoming(), header_size, self._largest())

    async def _body_begun(self) -> None:
        """A fault in the middle of the body can only cut or slow the connection: there is no reply to give."""
        recipients = self._envelope.recipients if self._envelope else []
        fault = self._talk.take_fault("body", recipients=recipients)
        if fault is not None:
            if fault.action == "reply":
                self._talk.reply(fault.reply)
                raise Over
            await self._talk.carry_out(fault, "body")

    async def bdat(self, argument: str) -> None:
        """BDAT (RFC 3030 section 2): the octets follow at once, whatever the answer will be."""
        talk, envelope = self._talk, self._envelope
        size, _, last = argument.partition(" ")
        if not (size.isascii() and size.isdigit()) or last.strip().upper() not in ("", "LAST"):
            talk.reply("501 5.5.4 Invalid arguments")  # where the next command begins is unknown
            raise Over
        if envelope is None or not envelope.recipients:
            await read_chunk(talk.channel, None, int(size))
            self._ready(envelope)
            return None
        body = self._body = self._body or self._new_body()
        await read_chunk(talk.channel, body, int(size))
        if not last.strip():
            return talk.reply(f"250 2.6.0 CHUNK received OK, {size} octets")
        body.finish()
        try:
            await self._finish(envelope, body)
        finally:
            body.incoming.discard()
        return None

    async def _finish(self, envelope: Envelope, body: Body) -> None:
        """Judge the whole message and answer; the transaction is over either way."""
        talk, mailbox = self._talk, self._talk.mailbox
        assert mailbox is not None
        self._envelope = self._body = None
        fault = talk.take_fault("end-of-data", recipients=envelope.recipients)
        uncertain = fault is not None and fault.action == "drop-after-accept"
        if fault is not None and not uncertain and await talk.carry_out(fault, "end-of-data"):
            return None
        header = body.header()
        reply = verdict.refusal(self._services, mailbox, envelope, body, header)
        if reply is not None:
            return await talk.refuse("end-of-data", f"{reply} {talk.bracket()}")
        self._accept(mailbox, envelope, body, header)
        if uncertain:
            talk.channel.abort()
            raise Over
        reference = header.text("message-id") or f"<{uuid.uuid4()}@{talk.host}>"
        return talk.reply(f"250 2.0.0 OK {reference[:400]} [Hostname={talk.host}]")

    def _accept(self, mailbox: str, envelope: Envelope, body: Body, header: Header) -> None:
        self._services.store.accept(
            body.incoming,
            mailbox=mailbox,
            mail_from=envelope.sender,
            recipients=list(envelope.recipients),
            transport="smtp",
            header_from=header.addresses("from")[0],
            subject=header.text("subject"),
            message_id=header.text("message-id"),
            mail_params=envelope.parameters,
            connection=self._talk.number,
            has_bcc=bool(header.all("bcc")),
        )
