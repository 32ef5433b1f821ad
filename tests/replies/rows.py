"""The rows of the facts' sections 1.2 and 3.2 that can come as a reply, and the default line, as expectations.

Written from the facts sheet, not from the reply table: what an administrator would see of the message, of its lane
and of everybody else's mail.
"""

from __future__ import annotations

from dataclasses import dataclass

from relay.deliver.phases import Phase
from tests.fakes.exchange import HANG_UP
from tests.replies.kit import GOOD, OTHER, STRANGER

CONNECT, EHLO, STARTTLS, AUTH, MAIL, RCPT, DATA, BODY = (one for one in Phase if one is not Phase.QUIT)
ALL = frozenset({GOOD, OTHER, STRANGER})
BESIDE = frozenset({OTHER, STRANGER})
"""The mailbox waits: other mailboxes do not."""
ELSEWHERE = frozenset({STRANGER})
"""The upstream waits: the other one does not."""
SOON, MINUTE, QUARTER, HOUR = (5, 33), (54, 67), (840, 1000), (3500, 4000)
"""Seconds until the next try, jitter included."""


@dataclass(frozen=True, slots=True)
class Row:
    """One reply and what must come of it."""

    phase: Phase
    reply: str
    state: str
    """Of the message: sent, deferred, held, queued, failed."""
    lane: str = "open"
    hold: str = ""
    """Scope of the hold: message, sender, lane or upstream; empty: none."""
    counted: bool = False
    goes: frozenset[str] = ALL
    """Whose mail still goes: another sender's of the lane, another lane's, another upstream's."""
    again: tuple[int, int] | None = None
    """Bounds of the wait for the next try (deferred) or the next probe (hold)."""

    def __str__(self) -> str:
        return f"{self.phase}-{self.reply[:60]}"


def bounced(phase: Phase, reply: str) -> Row:
    """For good: the sender is told once, nobody else notices."""
    return Row(phase, reply, "failed")


def retried(phase: Phase, reply: str, again: tuple[int, int] = MINUTE, *, counted: bool = True) -> Row:
    """A matter of this message alone, and temporary."""
    return Row(phase, reply, "deferred", counted=counted, again=again)


def slowed(phase: Phase, reply: str, again: tuple[int, int] | None, goes: frozenset[str] = BESIDE) -> Row:
    """The lane waits, and the message was not to blame."""
    return Row(phase, reply, "deferred", "slowed", goes=goes, again=again)


def undialled(phase: Phase, reply: str) -> Row:
    """No login just now: the message was never tried."""
    return Row(phase, reply, "queued", "slowed", goes=BESIDE)


def lane_held(phase: Phase, reply: str, again: tuple[int, int] = HOUR) -> Row:
    """The mailbox is held, its mail kept, its clock standing still."""
    return Row(phase, reply, "held", "held", "lane", goes=BESIDE, again=again)


def upstream_held(phase: Phase, reply: str, again: tuple[int, int] = HOUR) -> Row:
    """The tenant is held."""
    return Row(phase, reply, "held", "held", "upstream", goes=ELSEWHERE, again=again)


def sender_held(phase: Phase, reply: str) -> Row:
    """That sender's mail is held, and nobody else's."""
    return Row(phase, reply, "held", "open", "sender", again=HOUR)


def message_held(phase: Phase, reply: str) -> Row:
    """That message waits for somebody to look at it."""
    return Row(phase, reply, "held", "open", "message", again=(54, 4000))


NO = "535 5.7.139 Authentication unsuccessful, "
STORE = "554 5.2.0 STOREDRV.Submission.Exception:"
LATER = "Access denied, please try again later"

LOGIN = (
    lane_held(AUTH, "535 5.7.3 Authentication unsuccessful [FRAKE.PROD.OUTLOOK.COM 2026-11-23]", QUARTER),
    upstream_held(AUTH, NO + "SmtpClientAuthentication is disabled for the Tenant. Visit"
                  " https://aka.ms/smtp_auth_disabled", QUARTER),
    lane_held(AUTH, NO + "SmtpClientAuthentication is disabled for the Mailbox.", QUARTER),
    upstream_held(AUTH, NO + "basic authentication is disabled.", QUARTER),
    upstream_held(AUTH, NO + "user is locked by your organization's security defaults policy. Contact your"
                  " administrator.", QUARTER),
    upstream_held(AUTH, NO + "the request did not meet the criteria to be authenticated successfully. Contact your"
                  " administrator.", QUARTER),
    lane_held(AUTH, NO + "the user credentials were incorrect.", QUARTER),
    upstream_held(AUTH, NO + "federated STS unreachable", QUARTER),
    lane_held(AUTH, NO + "something never seen before", QUARTER),
    lane_held(MAIL, "530 5.7.57 Client not authenticated to send mail.", QUARTER),
    lane_held(MAIL, "530 5.7.57 Client not authenticated to send mail. Error: 535 5.7.3 Authentication unsuccessful",
              QUARTER),
    upstream_held(MAIL, "530 5.7.57 Client not authenticated to send mail. Error: " + NO
                  + "SmtpClientAuthentication is disabled for the Tenant.", QUARTER),
    slowed(MAIL, "530 5.7.57 Client not authenticated to send mail. Error: 454 4.7.0 Temporary authentication failure",
           MINUTE),
    upstream_held(AUTH, "550 5.7.30 Basic authentication is not supported for Client Submission.", QUARTER),
    upstream_held(MAIL, "550 5.7.30 Basic authentication is not supported for Client Submission.", QUARTER),
    upstream_held(AUTH, "504 5.7.4 Unrecognized authentication type", QUARTER),
    undialled(AUTH, "454 4.7.0 Temporary authentication failure"),
    undialled(AUTH, "451 4.7.0 Temporary server error. Please try again later. PRX2"),
    upstream_held(EHLO, "421 4.7.66 TLS 1.0 and 1.1 are not supported. Please upgrade", QUARTER),
)  # fmt: skip

THROTTLING = (
    undialled(CONNECT, "432 4.3.2 Concurrent connections limit exceeded. Visit https://aka.ms/concurrent_sending"),
    undialled(AUTH, "432 4.3.2 Concurrent connections limit exceeded"),
    slowed(MAIL, "432 4.3.2 Concurrent connections limit exceeded", SOON),
    slowed(BODY, "432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded", SOON),
    retried(BODY, "432 4.3.2 STOREDRV.Deliver; recipient thread limit exceeded"),
    slowed(BODY, "421 4.4.2 Message submission rate for this client has exceeded the configured limit", MINUTE),
    slowed(MAIL, "421 4.4.2 Message submission rate for this client has exceeded the configured limit", MINUTE),
    undialled(CONNECT, "421 4.3.2 Service not active"),
    undialled(AUTH, "421 4.3.2 Service not available"),
    slowed(MAIL, "421 4.3.2 Service not active", SOON),
    slowed(BODY, "421 4.3.2 Service not available", SOON),
    slowed(MAIL, "421 4.4.1 Connection timed out. Total session duration: 00:10:00.1", None),
    slowed(RCPT, "421 4.7.11 Slow down", (60, 900)),
    undialled(CONNECT, "421 4.7.11 Slow down"),
    retried(MAIL, "451 4.7.0 Temporary server error. Please try again later. PRX4"),
    retried(DATA, "451 4.7.0 Temporary server error. Please try again later. PRX2"),
    retried(BODY, "451 4.7.0 Temporary server error. Please try again later. PRX5"),
    slowed(MAIL, f"451 4.7.500 Server busy. {LATER} AS77712", QUARTER),
    slowed(RCPT, f"451 4.7.699 {LATER} AS78901", QUARTER),
    undialled(CONNECT, f"421 4.7.850 {LATER}"),
    undialled(CONNECT, f"451 4.7.899 {LATER}"),
    retried(RCPT, "452 4.5.3 Too many recipients"),
    retried(RCPT, "452 5.5.3 Too many recipients"),
    retried(MAIL, "452 4.3.1 Insufficient system resources"),
    retried(BODY, "452 4.3.1 Insufficient system resources"),
    undialled(AUTH, "452 4.3.1 Insufficient system resources"),
    retried(RCPT, "450 5.2.121 Recipient's hourly receive limit from this sender", HOUR),
    retried(BODY, "550 5.2.122 Recipient's hourly receive limit", HOUR),
    slowed(BODY, "550 5.7.232 Trial tenant has exceeded its external recipient limit", HOUR, ELSEWHERE),
    slowed(RCPT, "550 5.7.233 Tenant has exceeded its external recipient limit", HOUR, ELSEWHERE),
)  # fmt: skip

HOLDS = (
    lane_held(BODY, "550 5.1.8 Access denied, bad outbound sender AS(42004)"),
    lane_held(BODY, STORE + "SubmissionQuotaExceededException; Failed to process message"),
    lane_held(BODY, STORE + "OutboundSpamException; WASCL UserAction verdict is not None. Actual verdict is RefuseQuota"),
    lane_held(BODY, "550 5.2.2 Submission quota exceeded"),
    sender_held(BODY, "554 5.2.252 SendAsDenied; a@contoso.com not allowed to send as bad@contoso.com;"
                " STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSendAsDenied"),
    sender_held(BODY, STORE + "SendAsDeniedException.MapiExceptionSendAsDenied; Failed to process message"),
    sender_held(BODY, "554 5.7.60 SendAsDenied; a@contoso.com not allowed to send as bad@contoso.com"),
    sender_held(MAIL, "550 5.7.60 SMTP; Client does not have permissions to send as this sender"),
    sender_held(BODY, "550 5.7.60 SMTP; Client does not have permissions to send as this sender"),
    lane_held(BODY, "554 5.2.2 mailbox full; STOREDRV.Submission.Exception:QuotaExceededException."
              "MapiExceptionShutoffQuotaExceeded; Failed to process message"),
    lane_held(BODY, STORE + "QuotaExceededException.MapiExceptionQuotaExceeded; mailbox full"),
    lane_held(BODY, "550 5.2.251 Sender throttled due to continuous mailbox full errors"),
    lane_held(MAIL, "550 5.2.251 Sender throttled due to continuous mailbox full errors"),
    lane_held(MAIL, "550 5.2.252 Sender throttled due to continuous send as denied errors"),
    lane_held(BODY, "550 5.2.252 Sender throttled due to continuous send as denied errors"),
    lane_held(MAIL, "550 5.2.253 Sender throttled due to continuous invalid license errors"),
    lane_held(BODY, "550 5.2.254 Sender throttled due to continuous too many recipients errors"),
    lane_held(MAIL, "550 5.2.255 Sender throttled due to continuous invalid recipients errors"),
    lane_held(BODY, "550 5.7.236 onmicrosoft.com sender limit exceeded"),
    lane_held(MAIL, "550 5.7.501 Access denied, spam abuse detected"),
    lane_held(CONNECT, "550 5.7.502 Access denied, banned sender"),
    lane_held(RCPT, "550 5.7.503 Access denied, banned sender"),
    lane_held(BODY, "550 5.7.511 Access denied, banned sender"),
    lane_held(BODY, "550 5.7.800 Account banned"),
    upstream_held(EHLO, "550 5.7.506 Access Denied, Bad HELO"),
    sender_held(BODY, "550 5.7.509 Access denied, sending domain does not pass DMARC verification"),
    upstream_held(CONNECT, "550 5.7.606 Access denied, banned sending IP [192.0.2.1]"),
    upstream_held(CONNECT, "550 5.7.649 Access denied, banned sending IP [192.0.2.1]"),
    upstream_held(BODY, "550 5.7.705 Access denied, tenant has exceeded threshold"),
    upstream_held(BODY, "550 5.7.708 Service unavailable. Access denied, traffic not accepted from this IP AS(7230)"),
    upstream_held(BODY, "550 5.7.749 Tenant blocked"),
    sender_held(BODY, "550 5.7.750 Client blocked from sending from unregistered domains"),
    message_held(BODY, "554 5.4.6 Hop count exceeded - possible mail loop"),
    message_held(BODY, "554 5.4.14 Hop count exceeded - possible mail loop"),
    message_held(BODY, "550 5.6.11 Invalid characters"),
    message_held(BODY, "550 5.7.512 Access denied, message must be RFC 5322 section 3.6.2 compliant"),
)  # fmt: skip

BOUNCES = (
    bounced(RCPT, "501 5.1.3 Invalid address"),
    bounced(MAIL, "501 5.1.7 Invalid address"),
    bounced(RCPT, "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found"),
    bounced(RCPT, "550 5.1.1 User unknown"),
    bounced(RCPT, "550 5.4.1 Recipient address rejected: Access denied"),
    bounced(BODY, "550 5.1.20 Multiple From addresses without Sender"),
    bounced(MAIL, "552 5.3.4 Message size exceeds fixed maximum message size"),
    bounced(BODY, "552 5.3.4 Message size exceeds fixed maximum message size"),
    bounced(BODY, "554 5.2.3 STOREDRV.Submission.Exception:MessageSubmissionExceededException."
            "MapiExceptionMaxSubmissionExceeded"),
    bounced(RCPT, "550 5.7.1 Delivery not authorized, message refused"),
    bounced(RCPT, "550 5.7.12 Sender was not authenticated by organization"),
    bounced(RCPT, "550 5.7.124 Sender not in allowed-senders list"),
    bounced(RCPT, "550 5.7.133 Sender not authenticated for group"),
    bounced(RCPT, "550 5.7.136 Sender not authenticated for mail user"),
)  # fmt: skip

TWICE = (
    Row(MAIL, "501 5.5.4 Invalid arguments", "deferred", counted=True, again=MINUTE),
    Row(RCPT, "500 5.5.1 Unrecognized command", "deferred", counted=True, again=MINUTE),
    Row(DATA, "503 5.5.1 Bad sequence of commands", "deferred", counted=True, again=MINUTE),
)
"""Believed only after a second try, on a clean connection."""

BREAKS = (
    undialled(CONNECT, HANG_UP.decode()),
    undialled(AUTH, HANG_UP.decode()),
    slowed(MAIL, HANG_UP.decode(), MINUTE),
    slowed(RCPT, HANG_UP.decode(), MINUTE),
    slowed(DATA, HANG_UP.decode(), MINUTE),
    retried(BODY, HANG_UP.decode()),
)
"""No reply at all; after the final dot nobody knows, and it counts."""

UNKNOWN = (
    undialled(CONNECT, "450 4.9.9 Odd"),
    undialled(EHLO, "450 4.9.9 Odd"),
    undialled(STARTTLS, "450 4.9.9 Odd"),
    undialled(AUTH, "450 4.9.9 Odd"),
    retried(MAIL, "450 4.9.9 Odd"),
    retried(RCPT, "450 4.9.9 Odd"),
    retried(DATA, "450 Odd, without an enhanced code"),
    retried(BODY, "450 4.9.9 Odd"),
    lane_held(CONNECT, "554 Odd", QUARTER),
    lane_held(EHLO, "550 5.9.9 Odd", QUARTER),
    lane_held(STARTTLS, "550 5.9.9 Odd", QUARTER),
    lane_held(AUTH, "550 5.9.9 Odd", QUARTER),
    lane_held(AUTH, "501 5.5.4 Bad base64", QUARTER),
    lane_held(MAIL, "550 5.7.999 Odd policy", QUARTER),
    message_held(RCPT, "550 5.7.999 Odd policy"),
    message_held(DATA, "550 5.7.999 Odd policy"),
    message_held(BODY, "550 5.7.999 Odd policy"),
    slowed(DATA, "421 4.9.9 Odd", SOON),
    bounced(RCPT, "550 5.9.9 Odd"),
    bounced(MAIL, "550 5.9.9 Odd"),
    bounced(DATA, "554 5.9.9 Odd"),
    bounced(BODY, "554 Odd, without an enhanced code"),
    bounced(BODY, STORE + "SomethingNewException; Failed to process message"),
)

FACTS = LOGIN + THROTTLING + HOLDS + BOUNCES + TWICE
