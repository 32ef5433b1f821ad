"""The SMTP service before and at login: what it offers, whose certificate it shows, and whether it lets us in.

The dialogue is delivery's own (`relay.deliver.login`): what works here works in the daemon.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass

from aiosmtplib import SMTPException

from relay.check import certificates
from relay.check.bounds import brief, dialogue_bound
from relay.check.certificates import Facts
from relay.check.network import INSPECTION
from relay.deliver.classify import Fallen, judge_error
from relay.deliver.login import Door, Login
from relay.deliver.phases import Phase
from relay.deliver.session import Features
from relay.deliver.wire import Wire
from relay.message import Outcome, Trouble
from relay.settings import Upstream
from relay.tokens.contract import Token

GREETING = "Microsoft ESMTP MAIL Service"
"""What Exchange Online's banner holds (facts 4)."""
HIDES = (
    "A firewall with SMTP inspection removes what it does not know (Cisco calls it `inspect esmtp`, others an SMTP "
    "proxy or application gateway). Switch it off for {host} port {port}."
)


@dataclass(frozen=True, slots=True)
class Offer:
    """What the service showed, without a login."""

    words: str
    trouble: Outcome | None = None
    remedy: str = ""
    doubt: bool = False


class Look(Login):
    """Delivery's dialogue as far as the second EHLO, with an eye on what is offered."""

    def __init__(self, door: Door) -> None:
        super().__init__(door, "")
        self.greeting = ""
        self.offers: Features | None = None
        self.facts: Facts | None = None
        self.tls = ""

    async def look(self) -> None:
        """Raises Trouble, like a login. The connection is always dropped."""
        try:
            wire = await self._connect()
            reply = await wire.read_response(self._timeout)
            self.greeting = reply.message
            self._expect(reply, 220)
            await self._starttls(wire, await self._ehlo(wire))
            self._note(wire)
            self.offers = await self._ehlo(wire)
            self._phase = Phase.AUTH
            if "xoauth2" not in self.offers.logins:
                raise Fallen("xoauth2-not-offered")
        except (SMTPException, OSError, Fallen) as error:
            raise Trouble(judge_error(self._phase, error, self._names)) from error
        finally:
            self._drop()

    async def peek(self) -> Facts | None:
        """The certificate that was refused, read over a connection on which nothing more is said."""
        try:
            wire = await self._connect()
            self._expect(await wire.read_response(self._timeout), 220)
            await self._ehlo(wire)
            await wire.secure(certificates.unverified_context(), self._upstream.host, self._timeout)
            self._note(wire)
        except (SMTPException, OSError, Fallen):
            return None  # only a hint
        finally:
            self._drop()
        return self.facts

    def _note(self, wire: Wire) -> None:
        found = wire.transport.get_extra_info("ssl_object") if wire.transport is not None else None
        self.facts = certificates.shown_in(found)
        self.tls = wire.tls_version()


def _hides(upstream: Upstream) -> str:
    return HIDES.format(host=upstream.host, port=upstream.port)


async def look(door: Door) -> Offer:
    """STARTTLS, certificate, and what EHLO offers. Bounded by the dialogue's time."""
    seen = Look(door)
    try:
        async with asyncio.timeout(dialogue_bound(door.upstream)):
            try:
                await seen.look()
            except Trouble as trouble:
                return await _refused(door, seen, trouble)
    except TimeoutError:
        outcome = judge_error(Phase.EHLO, TimeoutError(), door.names(""))
        return _silent(seen, door.upstream, outcome, dialogue_bound(door.upstream))
    return _good(door, seen)


def _good(door: Door, seen: Look) -> Offer:
    shown = f", {seen.facts.words}" if seen.facts else ""
    words = f"{seen.tls}{shown}; offers XOAUTH2"
    if seen.facts and certificates.stranger(door.upstream.host, seen.facts):
        return Offer(words, remedy=INSPECTION.format(host=door.upstream.host), doubt=True)
    if "***" in seen.greeting:
        remedy = _hides(door.upstream)
        return Offer(f"{words}; but the greeting is masked: {seen.greeting[:80]}", remedy=remedy, doubt=True)
    if GREETING not in seen.greeting:
        remedy = f"Something in between answers in Exchange's place. {_hides(door.upstream)}"
        return Offer(
            f"{words}; but the greeting is not Exchange Online's: {seen.greeting[:80]}",
            remedy=remedy,
            doubt=True,
        )
    return Offer(words)


async def _refused(door: Door, seen: Look, trouble: Trouble) -> Offer:
    outcome, up = trouble.outcome, door.upstream
    said = f" (it said: {outcome.reply})" if outcome.reply is not None else ""
    words = f"{outcome.reason}{said}"
    if isinstance(trouble.__cause__, ssl.SSLCertVerificationError):
        facts = await Look(door).peek()
        shown = f" It shows a {facts.words}." if facts else ""
        words = f"{words.rstrip('.')}.{shown}"
        return Offer(
            words, outcome, f"{INSPECTION.format(host=up.host)} If nothing is in between, check `host`."
        )
    if outcome.code in ("connect-timed-out", "timed-out", "connection-lost"):
        return _silent(seen, up, outcome, up.timeout)
    if outcome.code in ("starttls-not-offered", "xoauth2-not-offered", "malformed-reply", "unexpected-reply"):
        greeting = f" Its greeting: {brief(Exception(seen.greeting))}." if seen.greeting else ""
        return Offer(words + greeting, outcome, f"{_hides(up)} {outcome.remedy}")
    return Offer(words, outcome, outcome.remedy)


def _silent(seen: Look, upstream: Upstream, outcome: Outcome, seconds: float) -> Offer:
    """It takes connections, and then does not speak as a mail server does."""
    when = "after its greeting" if seen.greeting else "before a greeting"
    ended = outcome.code == "connection-lost"
    how = "the connection ended" if ended else f"timed out after {seconds:g} s of silence"
    words = f"{upstream.host} port {upstream.port} took the connection; {when} {how}"
    return Offer(words, outcome, _hides(upstream))


async def log_in(door: Door, mailbox: str, token: Token) -> Outcome | None:
    """One login, once: what refused it, or None. A repeated mistake would get the mailbox throttled (facts 0.6)."""
    try:
        async with asyncio.timeout(dialogue_bound(door.upstream)):
            session = await Login(door, mailbox).run(token)
    except Trouble as trouble:
        return trouble.outcome
    except TimeoutError:
        return judge_error(Phase.AUTH, TimeoutError(), door.names(mailbox))
    try:
        async with asyncio.timeout(5.0):
            await session.wire.command(b"QUIT", 5.0)
    except (SMTPException, OSError, TimeoutError):
        pass  # the login is what counts
    finally:
        session.wire.abort()
    return None
