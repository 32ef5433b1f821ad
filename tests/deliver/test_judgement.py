"""Every row of the facts' tables 1.2 and 3.2, their default line, and aiosmtplib's manners: what each decides."""

from __future__ import annotations

import socket
import ssl

import pytest
from aiosmtplib import (
    SMTPConnectError,
    SMTPReadTimeoutError,
    SMTPRecipientRefused,
    SMTPRecipientsRefused,
    SMTPResponseException,
    SMTPServerDisconnected,
)
from hypothesis import given
from hypothesis import strategies as st

from relay.deliver.classify import Fallen, Names, judge, judge_error, judge_fault, reply_of
from relay.deliver.phases import LOGIN, Phase
from relay.deliver.table import ROWS
from relay.deliver.table_faults import FAULTS
from relay.message import Outcome, Reply, Result, Scope

D, H, F = Result.DEFERRED, Result.HELD, Result.FAILED
CONNECT, EHLO, STARTTLS, AUTH, MAIL, RCPT, DATA, BODY = (one for one in Phase if one is not Phase.QUIT)
LANE, UPSTREAM, SENDER, MESSAGE, RECIPIENT = (
    Scope.LANE, Scope.UPSTREAM, Scope.SENDER, Scope.MESSAGE, Scope.RECIPIENT)  # fmt: skip
AUTH_TEXT = "535 5.7.139 Authentication unsuccessful, "
STORE = "554 5.2.0 STOREDRV.Submission.Exception:"

LOGIN_CASES = [
    (AUTH, "535 5.7.3 Authentication unsuccessful [FRAKE.PROD.OUTLOOK.COM 2026]", H, LANE, "authentication-refused"),
    (AUTH, AUTH_TEXT + "SmtpClientAuthentication is disabled for the Tenant. Visit https://aka.ms/smtp_auth_disabled",
     H, UPSTREAM, "smtp-auth-disabled-tenant"),
    (AUTH, AUTH_TEXT + "SmtpClientAuthentication is disabled for the Mailbox.", H, LANE, "smtp-auth-disabled-mailbox"),
    (AUTH, AUTH_TEXT + "basic authentication is disabled.", H, UPSTREAM, "basic-auth-disabled"),
    (AUTH, AUTH_TEXT + "user is locked by your organization's security defaults policy. Contact your administrator.",
     H, UPSTREAM, "security-defaults"),
    (AUTH, AUTH_TEXT + "the request did not meet the criteria to be authenticated successfully. Contact your admin",
     H, UPSTREAM, "conditional-access"),
    (AUTH, AUTH_TEXT + "the user credentials were incorrect.", H, LANE, "credentials-incorrect"),
    (AUTH, AUTH_TEXT + "federated STS is unreachable", H, UPSTREAM, "federated-sign-in"),
    (AUTH, AUTH_TEXT + "something new", H, LANE, "login-policy"),
    (MAIL, "530 5.7.57 Client not authenticated to send mail.", H, LANE, "not-authenticated"),
    (MAIL, "530 5.7.57 Client not authenticated to send mail. Error: 535 5.7.139 Authentication unsuccessful,"
     " SmtpClientAuthentication is disabled for the Tenant.", H, UPSTREAM, "smtp-auth-disabled-tenant"),
    (MAIL, "530 5.7.57 SMTP; Client was not authenticated to send anonymous mail during MAIL FROM Error: 535 5.7.3"
     " Authentication unsuccessful [X]", H, LANE, "authentication-refused"),
    (MAIL, "530 5.7.57 Client not authenticated. Error: 454 4.7.0 Temporary authentication failure", D, LANE,
     "login-temporarily-refused"),
    (AUTH, "550 5.7.30 Basic authentication is not supported for Client Submission.", H, UPSTREAM,
     "basic-auth-retired"),
    (AUTH, "504 5.7.4 Unrecognized authentication type", H, UPSTREAM, "mechanism-refused"),
    (AUTH, "454 4.7.0 Temporary authentication failure", D, LANE, "login-temporarily-refused"),
    (AUTH, "451 4.7.0 Temporary server error. Please try again later. PRX2", D, LANE, "server-busy-at-login"),
    (MAIL, "451 4.7.0 Temporary server error. Please try again later. PRX4", D, MESSAGE, "server-busy"),
    (BODY, "451 4.7.0 Temporary server error. Please try again later. PRX5", D, MESSAGE, "server-busy"),
    (CONNECT, "421 4.7.66 TLS 1.0 and 1.1 are not supported. Please upgrade", H, UPSTREAM, "tls-too-old"),
]  # fmt: skip

MAIL_CASES = [
    (CONNECT, "432 4.3.2 Concurrent connections limit exceeded. Visit https://aka.ms/concurrent_sending", D, LANE,
     "too-many-connections"),
    (AUTH, "432 4.3.2 Concurrent connections limit exceeded", D, LANE, "too-many-connections"),
    (MAIL, "432 4.3.2 Concurrent connections limit exceeded", D, LANE, "too-many-connections"),
    (BODY, "432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded", D, LANE, "sender-thread-limit"),
    (BODY, "432 4.3.2 STOREDRV.Deliver; recipient thread limit exceeded", D, MESSAGE, "recipient-thread-limit"),
    (BODY, "421 4.4.2 Message submission rate for this client has exceeded the configured limit", D, LANE,
     "submission-rate"),
    (MAIL, "421 4.4.2 Message submission rate for this client has exceeded the configured limit", D, LANE,
     "submission-rate"),
    (MAIL, "421 4.3.2 Service not active", D, LANE, "service-not-available"),
    (CONNECT, "421 4.3.2 Service not available", D, LANE, "service-not-available"),
    (MAIL, "421 4.4.1 Connection timed out. Total session duration: 00:10:00", D, LANE, "session-timed-out"),
    (MAIL, "421 4.7.11 Slow down", D, LANE, "throttled"),
    (MAIL, "451 4.7.500 Server busy. Access denied, please try again later AS77712", D, LANE, "reputation"),
    (RCPT, "451 4.7.699 Access denied, please try again later", D, LANE, "reputation"),
    (CONNECT, "421 4.7.850 Access denied, please try again later", D, UPSTREAM, "ip-reputation"),
    (CONNECT, "451 4.7.899 Access denied, please try again later", D, UPSTREAM, "ip-reputation"),
    (DATA, "421 4.9.9 Something else", D, LANE, "connection-ended"),
    (RCPT, "452 4.5.3 Too many recipients", D, RECIPIENT, "too-many-recipients"),
    (RCPT, "452 5.5.3 Too many recipients", D, RECIPIENT, "too-many-recipients"),
    (MAIL, "452 4.3.1 Insufficient system resources", D, MESSAGE, "insufficient-resources"),
    (AUTH, "452 4.3.1 Insufficient system resources", D, LANE, "insufficient-resources"),
    (MAIL, "501 5.5.4 Invalid arguments", F, MESSAGE, "protocol-error"),
    (DATA, "503 5.5.1 Bad sequence of commands", F, MESSAGE, "protocol-error"),
    (RCPT, "500 5.5.1 Unrecognized command", F, MESSAGE, "protocol-error"),
    (RCPT, "501 5.1.3 Invalid address", F, RECIPIENT, "bad-recipient-address"),
    (MAIL, "501 5.1.7 Invalid address", F, MESSAGE, "bad-sender-address"),
    (BODY, "550 5.1.8 Access denied, bad outbound sender AS(42004)", H, LANE, "sender-blocked"),
    (RCPT, "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found", F, RECIPIENT, "recipient-not-found"),
    (RCPT, "550 5.1.1 User unknown", F, RECIPIENT, "recipient-not-found"),
    (RCPT, "550 5.4.1 Recipient address rejected: Access denied", F, RECIPIENT, "recipient-not-found"),
    (BODY, "554 5.1.20 Multiple From addresses without Sender", F, MESSAGE, "several-from"),
    (BODY, STORE + "SubmissionQuotaExceededException; Failed to process message", H, LANE, "submission-quota"),
    (BODY, STORE + "OutboundSpamException; WASCL UserAction verdict is not None. Actual verdict is RefuseQuota",
     H, LANE, "outbound-spam"),
    (BODY, "554 5.2.252 SendAsDenied; a@x not allowed to send as b@x; STOREDRV.Submission.Exception:"
     "SendAsDeniedException.MapiExceptionSendAsDenied", H, SENDER, "send-as-denied"),
    (BODY, STORE + "SendAsDeniedException.MapiExceptionSendAsDenied; Failed", H, SENDER, "send-as-denied"),
    (BODY, "554 5.7.60 SendAsDenied; a not allowed to send as b", H, SENDER, "send-as-denied"),
    (MAIL, "550 5.7.60 SMTP; Client does not have permissions to send as this sender", H, SENDER, "send-as-denied"),
    (BODY, "550 5.7.60 SMTP; Client does not have permissions to send as this sender", H, SENDER, "send-as-denied"),
    (BODY, "554 5.2.2 mailbox full; STOREDRV.Submission.Exception:QuotaExceededException."
     "MapiExceptionShutoffQuotaExceeded", H, LANE, "mailbox-full"),
    (BODY, STORE + "QuotaExceededException.MapiExceptionQuotaExceeded; mailbox full", H, LANE, "mailbox-full"),
    (BODY, "550 5.2.2 Submission quota exceeded", H, LANE, "submission-quota"),
    (BODY, "550 5.2.251 Sender throttled due to continuous mailbox full errors", H, LANE, "throttled-mailbox-full"),
    (MAIL, "550 5.2.252 Sender throttled due to continuous send as denied errors", H, LANE, "throttled-send-as"),
    (MAIL, "550 5.2.253 Sender throttled due to continuous invalid license errors", H, LANE, "throttled-licence"),
    (MAIL, "550 5.2.254 Sender throttled due to continuous too many recipients errors", H, LANE,
     "throttled-recipient-count"),
    (BODY, "550 5.2.255 Sender throttled due to continuous invalid recipients errors", H, LANE,
     "throttled-bad-recipients"),
    (RCPT, "550 5.2.121 Recipient's hourly limit from this sender", D, RECIPIENT, "recipient-hourly-limit"),
    (RCPT, "450 5.2.122 Recipient's hourly limit", D, RECIPIENT, "recipient-hourly-limit"),
    (MAIL, "552 5.3.4 Message size exceeds fixed maximum message size", F, MESSAGE, "message-too-large"),
    (BODY, "552 5.3.4 Message size exceeds fixed maximum message size", F, MESSAGE, "message-too-large"),
    (BODY, "554 5.2.3 STOREDRV; MessageSubmissionExceededException.MapiExceptionMaxSubmissionExceeded", F, MESSAGE,
     "message-too-large"),
    (BODY, "554 5.4.6 Hop count exceeded - possible mail loop", H, MESSAGE, "routing-loop"),
    (BODY, "554 5.4.14 Hop count exceeded", H, MESSAGE, "routing-loop"),
    (BODY, "550 5.6.11 Invalid characters", H, MESSAGE, "invalid-characters"),
    (RCPT, "550 5.7.1 You can't send to this group", F, RECIPIENT, "recipient-refuses-sender"),
    (RCPT, "550 5.7.12 Sender was not authenticated by organization", F, RECIPIENT, "recipient-refuses-sender"),
    (RCPT, "550 5.7.124 Sender not in allowed-senders list", F, RECIPIENT, "recipient-refuses-sender"),
    (RCPT, "550 5.7.133 Sender not authenticated for group", F, RECIPIENT, "recipient-refuses-sender"),
    (BODY, "550 5.7.136 Sender not authenticated for mail user", F, RECIPIENT, "recipient-refuses-sender"),
    (BODY, "550 5.7.232 Trial tenant external recipient rate limit", D, UPSTREAM, "external-recipient-limit"),
    (BODY, "550 5.7.233 Tenant external recipient rate limit", D, UPSTREAM, "external-recipient-limit"),
    (BODY, "550 5.7.236 onmicrosoft.com sender limit", H, LANE, "onmicrosoft-limit"),
    (CONNECT, "550 5.7.501 Access denied, spam abuse detected", H, LANE, "account-banned"),
    (MAIL, "550 5.7.502 Access denied, banned sender", H, LANE, "account-banned"),
    (BODY, "550 5.7.503 Access denied, banned sender", H, LANE, "account-banned"),
    (RCPT, "550 5.7.511 Access denied, banned sender", H, LANE, "account-banned"),
    (BODY, "550 5.7.800 Banned", H, LANE, "account-banned"),
    (EHLO, "550 5.7.506 Access Denied, Bad HELO", H, UPSTREAM, "bad-helo"),
    (BODY, "550 5.7.509 Access denied, sending domain does not pass DMARC verification", H, SENDER, "dmarc"),
    (BODY, "550 5.7.512 Access denied, message must be RFC 5322 section 3.6.2 compliant", H, MESSAGE,
     "no-from-header"),
    (CONNECT, "550 5.7.606 Access denied, banned sending IP [192.0.2.1]", H, UPSTREAM, "ip-banned"),
    (CONNECT, "550 5.7.649 Access denied, banned sending IP [192.0.2.1]", H, UPSTREAM, "ip-banned"),
    (BODY, "550 5.7.700 Tenant", H, UPSTREAM, "tenant-blocked"),
    (BODY, "550 5.7.705 Access denied, tenant has exceeded threshold", H, UPSTREAM, "tenant-blocked"),
    (BODY, "550 5.7.749 Tenant", H, UPSTREAM, "tenant-blocked"),
    (BODY, "550 5.7.708 Service unavailable. Access denied, traffic not accepted from this IP AS(7230)", H, UPSTREAM,
     "traffic-not-accepted"),
    (BODY, "550 5.7.750 Service unavailable. Client blocked from sending from unregistered domains", H, SENDER,
     "domain-not-registered"),
]  # fmt: skip

DEFAULT_CASES = [
    (CONNECT, "499 Odd", D, UPSTREAM, "temporary-at-connect"),
    (EHLO, "450 4.9.9 Odd", D, UPSTREAM, "temporary-at-connect"),
    (STARTTLS, "450 4.9.9 Odd", D, UPSTREAM, "temporary-at-connect"),
    (AUTH, "450 4.9.9 Odd", D, LANE, "temporary-at-login"),
    (MAIL, "450 4.9.9 Odd", D, MESSAGE, "temporary"),
    (RCPT, "450 4.9.9 Odd", D, RECIPIENT, "temporary-recipient"),
    (DATA, "450 Odd", D, MESSAGE, "temporary"),
    (BODY, "450 Odd", D, MESSAGE, "temporary"),
    (CONNECT, "554 Go away", H, LANE, "login-refused"),
    (EHLO, "550 5.0.0 Go away", H, LANE, "login-refused"),
    (STARTTLS, "550 5.0.0 Go away", H, LANE, "login-refused"),
    (AUTH, "550 5.1.1 Go away", H, LANE, "login-refused"),
    (AUTH, "501 5.5.4 Bad base64", H, LANE, "login-refused"),
    (MAIL, "550 5.7.999 Policy", H, LANE, "policy"),
    (DATA, "550 5.7.999 Policy", H, MESSAGE, "message-policy"),
    (BODY, "550 5.7.999 Policy", H, MESSAGE, "message-policy"),
    (RCPT, "550 5.7.999 Policy", H, RECIPIENT, "recipient-policy"),
    (RCPT, "550 Odd", F, RECIPIENT, "recipient-refused"),
    (MAIL, "550 Odd", F, MESSAGE, "message-refused"),
    (DATA, "554 Odd", F, MESSAGE, "message-refused"),
    (BODY, "554 5.9.9 Odd", F, MESSAGE, "message-refused"),
]

CASES = LOGIN_CASES + MAIL_CASES + DEFAULT_CASES


def reply(line: str) -> Reply:
    """A reply line as it comes off the wire."""
    return reply_of(int(line[:3]), line[4:])


@pytest.mark.parametrize(("phase", "line", "result", "scope", "code"), CASES, ids=lambda one: str(one)[:48])
def test_reply_table(phase: Phase, line: str, result: Result, scope: Scope, code: str) -> None:
    """Each known reply, and each default, decides as the facts say, with a reason and the server's own words."""
    outcome = judge(phase, reply(line))
    assert (outcome.result, outcome.scope, outcome.code) == (result, scope, code)
    assert outcome.reply is not None
    assert outcome.reply.code == int(line[:3])
    assert outcome.reason.endswith(".")
    assert outcome.remedy or outcome.result is D
    assert not outcome.uncertain


def test_every_row_has_a_case() -> None:
    """No row without a reply that reaches it: none is dead, none untested."""
    assert {row.code for row in ROWS} == {code for *_, code in CASES}
    reached = {id(next(row for row in ROWS if row.matches(phase, reply(line)))) for phase, line, *_ in CASES
               if "Error: " not in line}  # fmt: skip
    assert [row for row in ROWS if id(row) not in reached] == []


@pytest.mark.parametrize(("phase", "line"), [
    (CONNECT, "432 4.3.2 Concurrent connections limit exceeded"),
    (BODY, "432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded"),
    (MAIL, "421 4.4.2 Message submission rate for this client has exceeded the configured limit"),
    (MAIL, "421 4.7.11 Slow down"),
    (MAIL, "451 4.7.500 Access denied, please try again later"),
    (BODY, "550 5.7.233 Tenant limit"),
])  # fmt: skip
def test_throttling_slows_the_lane_and_never_counts(phase: Phase, line: str) -> None:
    """Design section 5: a throttling reply slows the lane, not the message's own retry count."""
    outcome = judge(phase, reply(line))
    assert (outcome.result, outcome.slow, outcome.counts) == (D, True, False)
    assert outcome.wait
    assert outcome.scope in (LANE, UPSTREAM)


def test_waits_that_the_facts_give() -> None:
    """432: 5 to 30 s; submission rate 60 s; reputation 15 min; quota an hour; login probes 10 to 15 min."""
    assert 5 <= (judge(MAIL, reply("432 4.3.2 Concurrent")).wait or 0) <= 30
    assert judge(MAIL, reply("421 4.4.2 submission rate")).wait == 60
    assert judge(MAIL, reply("451 4.7.500 Access denied")).wait == 900
    assert judge(BODY, reply("554 5.2.0 X:SubmissionQuotaExceededException")).wait == 3600
    assert 600 <= (judge(AUTH, reply("535 5.7.3 No")).wait or 0) <= 900


@given(
    st.sampled_from(sorted(LOGIN)),
    st.integers(300, 999),
    st.from_regex(r"([45]\.\d{1,3}\.\d{1,3} )?\w*", fullmatch=True),
)
def test_no_reply_before_mail_is_ever_a_messages_fault(phase: Phase, code: int, text: str) -> None:
    """Whatever the server says at connect, EHLO, STARTTLS or AUTH: nothing bounces, nothing counts."""
    outcome = judge(phase, reply_of(code, text))
    assert outcome.result in (D, H)
    assert outcome.scope in (LANE, UPSTREAM)
    assert not outcome.counts


@given(st.sampled_from([MAIL, RCPT, DATA, BODY]), st.integers(0, 999), st.text(max_size=60))
def test_no_reply_fails_more_than_its_message(phase: Phase, code: int, text: str) -> None:
    """Judgement is total, and a failure never reaches beyond the message (never bounces a whole lane)."""
    outcome = judge(phase, reply_of(code, text))
    if outcome.result is F:
        assert outcome.scope in (MESSAGE, RECIPIENT)
        assert code >= 500
    if 400 <= code < 500:
        assert outcome.result in (D, H)


def test_two_hundred_after_the_final_dot_is_sent() -> None:
    """The one success."""
    outcome = judge(BODY, reply("250 2.0.0 OK <id> [Hostname=X]"))
    assert outcome == Outcome(Result.SENT, MESSAGE, Reply(250, "2.0.0", "OK <id> [Hostname=X]"))


@pytest.mark.parametrize(("message", "enhanced", "text"), [
    ("2.1.0 Sender OK", "2.1.0", "Sender OK"),
    ("5.7.1 one\n5.7.1 two", "5.7.1", "one two"),
    ("no code\n5.1.1 later", "5.1.1", "no code later"),
    ("5.7.1", "5.7.1", ""),
    ("10.0.0.1 is not one", "", "10.0.0.1 is not one"),
    ("bad\x00\x1b[31m words\udcff", "", "bad [31m words"),
])  # fmt: skip
def test_replies_are_read(message: str, enhanced: str, text: str) -> None:
    """Enhanced codes of RFC 2034, lines joined with a blank, control characters and raw octets taken out."""
    assert reply_of(550, message) == Reply(550, enhanced, text)


def test_long_replies_are_cut() -> None:
    """At most a few hundred characters are kept."""
    assert len(reply_of(550, "x" * 5000).text) == 400


def test_placeholders_are_filled() -> None:
    """The remedy names the mailbox and can be pasted."""
    outcome = judge(
        AUTH, reply(AUTH_TEXT + "SmtpClientAuthentication is disabled for the Mailbox."), Names("a@b.c")
    )
    assert "Set-CASMailbox a@b.c -SmtpClientAuthenticationDisabled $false" in outcome.remedy
    assert "a@b.c" in outcome.reason


@pytest.mark.parametrize(("phase", "error", "code", "scope"), [
    (MAIL, SMTPResponseException(-1, "Malformed SMTP response line: hi"), "malformed-reply", LANE),
    (CONNECT, SMTPResponseException(-1, "Response too long"), "malformed-reply", UPSTREAM),
    (CONNECT, TimeoutError(), "connect-timed-out", UPSTREAM),
    (CONNECT, SMTPReadTimeoutError("Timed out"), "connect-timed-out", UPSTREAM),
    (AUTH, SMTPReadTimeoutError("Timed out"), "timed-out", LANE),
    (EHLO, TimeoutError(), "timed-out", UPSTREAM),
    (MAIL, SMTPServerDisconnected("Connection lost"), "connection-lost", LANE),
    (STARTTLS, ConnectionResetError(104, "reset"), "connection-lost", UPSTREAM),
    (CONNECT, ConnectionRefusedError(111, "Connection refused"), "connection-refused", UPSTREAM),
    (CONNECT, OSError(101, "Network is unreachable"), "unreachable", UPSTREAM),
    (CONNECT, socket.gaierror(-2, "Name or service not known"), "name-not-found", UPSTREAM),
    (CONNECT, SMTPConnectError("no"), "connection-lost", UPSTREAM),
    (STARTTLS, ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER]"), "tls-failed", UPSTREAM),
    (STARTTLS, ssl.SSLCertVerificationError("certificate verify failed"), "certificate-not-trusted", UPSTREAM),
    (CONNECT, Fallen("proxy-failed", "502 Bad Gateway"), "proxy-failed", UPSTREAM),
    (BODY, OSError(5, "Input/output error"), "connection-lost", LANE),
    (MAIL, SMTPRecipientsRefused([SMTPRecipientRefused(550, "5.1.1 no", "a@b")]), "connection-lost", LANE),
])  # fmt: skip
def test_faults_without_a_reply(phase: Phase, error: Exception, code: str, scope: Scope) -> None:
    """aiosmtplib's manners: -1 for a malformed reply, no code for time-outs and cuts. None is a message's fault."""
    if isinstance(error, ssl.SSLCertVerificationError):
        error.verify_message = "self-signed certificate"
    outcome = judge_error(phase, error)
    assert (outcome.code, outcome.scope, outcome.counts, outcome.uncertain) == (code, scope, False, False)
    assert outcome.result in (D, H)
    assert outcome.reason


def test_a_reply_in_an_exception_is_judged_as_a_reply() -> None:
    """aiosmtplib raises some refusals; code and text decide all the same."""
    assert judge_error(BODY, SMTPResponseException(552, "5.3.4 too large")).code == "message-too-large"


def test_an_error_that_is_no_fault_of_the_network_is_raised() -> None:
    """A bug stays a bug."""
    with pytest.raises(ZeroDivisionError):
        judge_error(MAIL, ZeroDivisionError())


@pytest.mark.parametrize("code", sorted(FAULTS))
def test_faults_never_bounce(code: str) -> None:
    """Each waits or is held; only the uncertain one counts as an attempt."""
    outcome = judge_fault(code, Names("m@x", "host.example", "587", "120", "proxy:1"), "why")
    assert outcome.result in (D, H)
    assert outcome.uncertain is (code == "uncertain")
    assert outcome.counts is (code == "uncertain")
    assert "<" not in outcome.reason + outcome.remedy
    assert outcome.reason.endswith(": why")
