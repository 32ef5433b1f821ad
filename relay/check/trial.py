"""A message that really travels.

While a relay runs, it goes in by one of its listeners and is followed to its end: that is the way mail really takes.
Without one (or where no listener can be used without a password) it is handed to Exchange by delivery's own code.
The step says which.
"""

from __future__ import annotations

import asyncio
import re
import smtplib
import time
from collections.abc import Mapping
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate, make_msgid

from relay.check import catalogue
from relay.check.bounds import brief, in_thread
from relay.check.contract import Status, Step
from relay.check.listeners import EVERYWHERE
from relay.clock import Clock
from relay.deliver.courier import RelayCourier
from relay.errors import SpoolError
from relay.message import BytesBody, Client, Content, Envelope, Outcome, Recipient, Result, Trouble
from relay.rewrite.route import Router
from relay.settings import Listener, Settings
from relay.spool.contract import Claim, Spool, Trace
from relay.spool.factory import build_spool
from relay.tokens.entra import EntraTokens

PATIENCE = 90.0
"""Seconds that a message may take from the listener to its end."""
LOOK = 0.25
"""Seconds between two looks at what became of it; only while a check waits for it."""
_QUEUED = re.compile(r"queued as (\w+)")


def compose(settings: Settings, to: str) -> EmailMessage:
    """The message. Its text says where it comes from, so that who gets it knows what to do with it: nothing."""
    message = EmailMessage()
    message["From"] = settings.upstreams[0].from_email
    message["To"] = to
    message["Subject"] = "relay check: this message has travelled the whole way"
    message["Date"] = formatdate()
    message["Message-ID"] = make_msgid(domain="relay.invalid")
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(
        "Sent by `relay check --send-to`. If you can read this, mail flows. Nothing needs doing.\n"
    )
    return message


async def send_step(settings: Settings, to: str, *, served: bool, clock: Clock, hostname: str) -> Step:
    """``served``: a relay runs with this configuration."""
    message = compose(settings, to)
    listener = _usable_listener(settings) if served else None
    if listener is not None:
        return await _by_listener(settings, listener, message, to)
    return await _directly(settings, message, to, clock, hostname)


def _usable_listener(settings: Settings) -> Listener | None:
    fitting = [
        one
        for one in settings.listeners
        if one.auth != "required" and one.tls.mode != "implicit" and one.port
    ]
    return fitting[0] if fitting else None


# through the running relay


async def _by_listener(settings: Settings, listener: Listener, message: EmailMessage, to: str) -> Step:
    kind, way = catalogue.SEND, f"handed to the running relay at {listener.bind}"
    try:
        reply = await in_thread(lambda: _submit(listener, message, to), PATIENCE)
    except TimeoutError:
        return kind.step(Status.FAIL, f"{way}: timed out, no answer", "See the relay's log.")
    except smtplib.SMTPResponseException as error:
        said = error.smtp_error
        words = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
        return kind.step(
            Status.FAIL, f"{way}: refused: {error.smtp_code} {words}", "See `allow` and the sender rules."
        )
    except (OSError, smtplib.SMTPException) as error:
        return kind.step(Status.FAIL, f"{way}: {brief(error)}", "See relay status and the relay's log.")
    found = _QUEUED.search(reply)
    if found is None:
        return kind.step(Status.OK, f"{way}, which answered: {reply}")
    return await _follow(settings, found[1], way)


def _submit(listener: Listener, message: EmailMessage, to: str) -> str:
    """Plain SMTP from this machine; the reply to the message. Blocking."""
    host = {**dict.fromkeys(EVERYWHERE, "127.0.0.1"), "::": "::1"}.get(listener.host, listener.host)
    with smtplib.SMTP(host, listener.port, local_hostname="relay-check", timeout=PATIENCE) as smtp:
        smtp.ehlo()
        _expect(smtp.mail(str(message["From"])))
        _expect(smtp.rcpt(to))
        return _expect(smtp.data(message.as_bytes(policy=SMTP)))


def _expect(answer: tuple[int, bytes]) -> str:
    code, reply = answer
    if code != 250:
        raise smtplib.SMTPResponseException(code, reply)
    return reply.decode("utf-8", "replace")


async def _follow(settings: Settings, message_id: str, way: str) -> Step:
    """Until it is sent, or something keeps it."""
    spool = build_spool(settings.spool)
    try:
        await spool.open(owner=False)
        try:
            return await _followed(spool, message_id, way)
        finally:
            await spool.close()
    except SpoolError as error:
        return catalogue.SEND.step(
            Status.WARN, f"{way}; what became of it cannot be seen: {error}", error.remedy
        )


async def _followed(spool: Spool, message_id: str, way: str) -> Step:
    kind, ends = catalogue.SEND, time.monotonic() + PATIENCE
    while time.monotonic() < ends:
        for trace in await spool.trace(message_id, limit=1):
            if trace.state == "sent":
                return kind.step(
                    Status.OK, f"{way} as {message_id}, and taken by Exchange: {_last_reply(trace)}"
                )
            if trace.state in ("failed", "held", "deferred"):
                remedy = f"relay trace {message_id} tells more; relay status shows what is held and why."
                seen = f"{way} as {message_id}, and it is {trace.state}: {_last_reply(trace)}"
                return kind.step(Status.FAIL, seen, remedy)
        await asyncio.sleep(LOOK)
    remedy = f"relay status shows whether its mailbox is held; relay trace {message_id} tells more."
    return kind.step(Status.WARN, f"{way} as {message_id}, and still on its way (timed out waiting)", remedy)


def _last_reply(trace: Trace) -> str:
    for event in reversed(trace.events):
        for name in ("reply", "reason", "text", "why"):
            if event.fields.get(name):
                return event.fields[name]
    return trace.events[-1].event if trace.events else "no word about it"


# straight to Exchange


async def _directly(settings: Settings, message: EmailMessage, to: str, clock: Clock, hostname: str) -> Step:
    tokens = {one.name: EntraTokens(one, clock=clock) for one in settings.upstreams}
    router = Router(settings)
    courier = RelayCourier(settings, tokens, router, hostname=hostname, clock=clock)
    try:
        async with asyncio.timeout(PATIENCE):
            outcome, transport = await _carry(settings, courier, router, message, to, clock)
    except TimeoutError:
        return catalogue.SEND.step(
            Status.FAIL, "handed straight to Exchange: timed out", "See the steps above."
        )
    finally:
        await courier.close()
        for one in tokens.values():
            await one.close()
    return _told(outcome, transport)


async def _carry(
    settings: Settings, courier: RelayCourier, router: Router, message: EmailMessage, to: str, clock: Clock
) -> tuple[Outcome, str]:
    sender = settings.upstreams[0].from_email
    header, _, body = message.as_bytes(policy=SMTP).partition(b"\r\n\r\n")
    content = Content(header + b"\r\n\r\n", BytesBody(body))
    client = Client(address="127.0.0.1", helo="relay-check")
    route = router.route(sender, (sender,), client)
    recipient = settings.recipients.redirect_all_to or to
    claim = Claim(
        "check", route.lanes[0], Envelope(sender, (Recipient(recipient),)), client, clock.now(), content.size, 0,
        header_from=(sender,),
    )  # fmt: skip
    try:
        connection = await courier.open(route.upstream, route.mailboxes[0])
    except Trouble as trouble:
        return trouble.outcome, ""
    try:
        report = await connection.submit(claim, content, OneMessage())
    finally:
        await connection.close()
    return next(iter(report.outcomes.values())), connection.transport


class OneMessage:
    """`relay.deliver.contract.Begin` of the one message: no spool entry whose attempt could be written down."""

    def room(self, recipients: int) -> int:
        """All of them: there is one."""
        return recipients

    def took(self, recipients: int, sent: Mapping[str, Outcome]) -> None:
        """Nothing is kept."""

    def crowded(self, most: int) -> None:
        """One recipient is never too many."""

    async def __call__(self) -> None:
        """Nothing to write down."""


def _told(outcome: Outcome, transport: str) -> Step:
    way = (
        "handed straight to Exchange (no relay runs, or none of its listeners can be used without a password)"
    )
    said = f": {outcome.reply}" if outcome.reply is not None else ""
    if outcome.result is Result.SENT:
        by = f" over {transport}" if transport else ""
        return catalogue.SEND.step(
            Status.OK, f"{way}{by}, and taken{said}. Whether it arrives, its mailbox shows."
        )
    return catalogue.SEND.step(
        Status.FAIL, f"{way}: {outcome.reason} [{outcome.code}]{said}", outcome.remedy or "Run it again."
    )
