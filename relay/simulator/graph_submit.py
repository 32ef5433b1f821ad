"""Submitting a message through Graph: who may send it, the limits of the mailbox, and its way into the store."""

from __future__ import annotations

from relay.simulator import graph_errors as refusal
from relay.simulator.graph_gate import Caller
from relay.simulator.graph_mail import Mail, from_json, from_mime
from relay.simulator.graph_store import Draft, GraphStore
from relay.simulator.services import Services
from relay.simulator.store import Incoming


class Submission:
    """Turns MIME and drafts into mail, and takes it over."""

    def __init__(self, services: Services, drafts: GraphStore) -> None:
        self._services = services
        self._state = services.state
        self._drafts = drafts

    def read_mime(self, mailbox: str, content: bytes) -> Mail:
        """A base64 MIME request. Raises GraphError."""
        known = self._drafts.known_headers.get(mailbox, set())
        names = self._state.display_name
        return from_mime(content, mailbox, names(mailbox), known, names)

    def mail(self, draft: Draft) -> Mail:
        """The draft as a message; its custom headers become known to the mailbox. Raises GraphError."""
        if draft.mime is not None:
            return draft.mime
        known = self._drafts.known_headers.setdefault(draft.mailbox, set())
        known.update(item["name"].lower() for item in draft.message.get("internetMessageHeaders", []))
        return from_json(draft.message, draft.mailbox, self._state.display_name, draft.attachments)

    def submit(self, caller: Caller, mail: Mail, *, saved: bool) -> None:
        """Take the message over. Raises GraphError."""
        mailbox = caller.mailbox
        self._judge(caller, mail)
        incoming = self._services.store.incoming()
        try:
            self._write(incoming, mail)
            if not self._services.ledger.recipients_add(mailbox, len(mail.recipients)):
                raise refusal.quota_exceeded()
            self._services.store.accept(
                incoming,
                mailbox=mailbox,
                mail_from=mail.author,
                recipients=mail.recipients,
                transport="graph",
                header_from=mail.author,
                subject=mail.subject,
                message_id=mail.message_id,
                mail_params={"saveToSentItems": "true" if saved else "false"},
                has_bcc=mail.has_bcc,
            )
        finally:
            incoming.discard()

    def _judge(self, caller: Caller, mail: Mail) -> None:
        """Send As counts for a user alone: an app has to call the address of the mailbox it sends from."""
        state, mailbox = self._state, caller.mailbox
        for address in filter(None, mail.senders):
            if address.lower() != mailbox and not (caller.user and state.may_send_as(mailbox, address)):
                raise refusal.send_as_denied()
        if not mail.recipients:
            raise refusal.invalid_recipients("No recipients are specified. At least one is needed.")
        limit = state.limits.recipients_per_message
        if limit and len(mail.recipients) > limit:
            raise refusal.invalid_recipients("The message has too many recipients.")
        if mailbox in state.mailbox_full:
            raise refusal.mailbox_full()
        rate = state.limits.graph_messages_per_minute
        if self._services.ledger.message_begin(mailbox, rate) is None:
            raise refusal.throttled("The mailbox is over its submission rate.", 60)

    def _write(self, incoming: Incoming, mail: Mail) -> None:
        bound = self._state.limits.message_size
        for piece in mail.pieces():
            incoming.write(piece)
            if bound and incoming.size > bound:
                raise refusal.message_too_large()
