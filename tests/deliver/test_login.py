"""Logging in: STARTTLS verified, XOAUTH2 in each form, and every refusal a Trouble that says how far it reaches."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import pytest

from relay.deliver.courier import tls_context
from relay.deliver.login import xoauth2
from relay.errors import TokenError
from relay.message import Outcome, Result, Scope, Trouble
from relay.settings import UserLogin
from tests.deliver.conftest import MakeDesk
from tests.deliver.desk import MAILBOX, Desk, FakeTokens, make_claim, make_content, make_settings
from tests.fakes.exchange import HANG_UP, SILENCE


async def trouble_of(desk: Desk) -> Outcome:
    """The outcome of a login that must fail."""
    with pytest.raises(Trouble) as caught:
        await desk.courier.open("M365", MAILBOX)
    return caught.value.outcome


def test_xoauth2_string_is_that_of_the_facts() -> None:
    """The test vector of facts 1.1."""
    assert xoauth2("relay@contoso.example", "TOKEN") == (
        b"dXNlcj1yZWxheUBjb250b3NvLmV4YW1wbGUBYXV0aD1CZWFyZXIgVE9LRU4BAQ=="
    )


async def test_login_in_form_a(desk: Desk) -> None:
    """EHLO with our name, STARTTLS, EHLO again, AUTH with an initial response: nothing more."""
    connection = await desk.courier.open("M365", MAILBOX)
    assert desk.server.verbs() == ["EHLO", "STARTTLS", "EHLO", "AUTH"]
    assert desk.server.lines[0] == "EHLO relay.contoso.com"
    assert desk.server.logins == [(MAILBOX, "TOKEN")]
    assert connection.usable()
    assert connection.transport == "smtp"
    await connection.close()
    assert desk.server.verbs()[-1] == "QUIT"


async def test_login_in_form_b(desk: Desk) -> None:
    """A server that asks with an empty challenge gets the string on a line of its own."""
    desk.server.script.auth_form = "B"
    connection = await desk.courier.open("M365", MAILBOX)
    assert connection.usable()
    assert desk.server.logins == [(MAILBOX, "TOKEN")]
    await connection.close()


@pytest.mark.parametrize("form", ["A", "B"])
async def test_second_challenge_gets_an_empty_line_and_the_refusal_is_read(desk: Desk, form: str) -> None:
    """A 334 that announces the refusal is answered with an empty line; the 535 after it decides."""
    desk.server.script.auth_form = form
    desk.server.script.refuse_with_challenge = True
    desk.tokens.values = ["WRONG"]
    outcome = await trouble_of(desk)
    assert (outcome.code, outcome.reply.code if outcome.reply else 0) == ("authentication-refused", 535)
    assert desk.server.lines[-1] == ""


async def test_refused_token_is_renewed_once(desk: Desk) -> None:
    """535 5.7.3: the token is thrown away, a fresh one is tried on a new connection, and that is all it takes."""
    desk.tokens.values = ["OLD", "TOKEN"]
    connection = await desk.courier.open("M365", MAILBOX)
    assert connection.usable()
    assert desk.tokens.discarded == ["OLD"]
    assert [token for _, token in desk.server.logins] == ["OLD", "TOKEN"]
    await connection.close()


async def test_a_users_refused_login_is_not_sent_to_an_applications_grants(
    make_desk: MakeDesk, tmp_path: Path
) -> None:
    """The same 535 for another reason: whose sign-in it is, and whether that mailbox may use SMTP."""
    desk = make_desk(credential=UserLogin(tmp_path / "user.json", MAILBOX, None))
    desk.tokens.values = ["OLD", "ALSO OLD"]
    outcome = await trouble_of(desk)
    assert outcome.code == "authentication-refused"
    assert f"The user who signed in must be {MAILBOX}" in outcome.remedy
    assert "SendAsApp" not in outcome.remedy


async def test_token_refused_twice_holds_the_lane(desk: Desk) -> None:
    """Two refusals are an administrator's mistake; the remedy names the mailbox."""
    desk.tokens.values = ["OLD", "ALSO OLD"]
    outcome = await trouble_of(desk)
    assert (outcome.result, outcome.scope) == (Result.HELD, Scope.LANE)
    assert len(desk.server.logins) == 2
    assert MAILBOX in outcome.remedy


async def test_switched_off_smtp_auth_is_not_tried_twice(desk: Desk) -> None:
    """No token helps against a switch, and Exchange is not provoked."""
    text = b"535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant."
    desk.server.script.answers["AUTH"] = [text, text]
    outcome = await trouble_of(desk)
    assert (outcome.code, outcome.scope) == ("smtp-auth-disabled-tenant", Scope.UPSTREAM)
    assert desk.tokens.discarded == []
    assert len(desk.server.talks) == 1


@pytest.mark.parametrize("temporary", [True, False])
async def test_no_token(desk: Desk, temporary: bool) -> None:
    """A missing token is the upstream's trouble: it waits, or is held with the tokens room's reason and remedy."""
    desk.tokens.error = TokenError(
        "The secret has expired.", code="secret-expired", remedy="Make one.", temporary=temporary
    )
    outcome = await trouble_of(desk)
    assert outcome.result is (Result.DEFERRED if temporary else Result.HELD)
    assert (outcome.scope, outcome.code, outcome.counts) == (Scope.UPSTREAM, "secret-expired", False)
    assert (outcome.reason, outcome.remedy) == ("The secret has expired.", "Make one.")
    assert desk.server.talks == []


async def test_what_entra_said_goes_along(desk: Desk) -> None:
    """Microsoft's own words, with their AADSTS number, are the outcome's reply: shortened, and without an SMTP code."""
    said = "AADSTS7000222: The provided client secret keys for app '1' are expired. " + "More words. " * 40
    desk.tokens.error = TokenError("The secret has expired.", code="secret-expired", evidence=said)
    outcome = await trouble_of(desk)
    assert outcome.reply is not None
    assert str(outcome.reply) == said[:300]
    assert outcome.reply.code == 0


async def test_no_words_make_no_reply(desk: Desk) -> None:
    """A token fault that nobody said anything about has no reply."""
    desk.tokens.error = TokenError("No network.", code="dns-failure", temporary=True)
    assert (await trouble_of(desk)).reply is None


async def test_untrusted_certificate_holds_the_upstream_and_no_token_travels(make_desk: MakeDesk) -> None:
    """Without the CA in ca_file the handshake fails; nothing can switch that off."""
    desk = make_desk(ca_file=None)
    outcome = await trouble_of(desk)
    assert (outcome.code, outcome.result, outcome.scope) == (
        "certificate-not-trusted",
        Result.HELD,
        Scope.UPSTREAM,
    )
    assert "ca_file" in outcome.remedy
    assert desk.server.logins == []


async def test_certificate_for_another_name_is_refused(make_desk: MakeDesk) -> None:
    """The host name is checked: the certificate names localhost and 127.0.0.1, not 127.0.0.2."""
    desk = make_desk(host="127.0.0.2")
    desk.server._server.close()  # type: ignore[union-attr]
    listening = await asyncio.start_server(desk.server._serve, "127.0.0.2", desk.server.port, limit=2**20)
    outcome = await trouble_of(desk)
    listening.close()
    assert outcome.code == "certificate-not-trusted"


async def test_host_by_name_is_verified(make_desk: MakeDesk) -> None:
    """localhost is in the certificate as a name."""
    desk = make_desk(host="localhost")
    connection = await desk.courier.open("M365", MAILBOX)
    assert connection.usable()
    await connection.close()


def test_tls_is_verified_and_modern(certificates: tuple[Path, Path]) -> None:
    """System CAs and ca_file, host name checked, TLS 1.2 or newer."""
    context = tls_context(certificates[0])
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert any("Fake CA" in str(ca["subject"]) for ca in context.get_ca_certs())


async def test_unreadable_ca_file_holds_the_upstream(make_desk: MakeDesk, tmp_path: Path) -> None:
    """It says which file, and another try reads it again."""
    desk = make_desk(ca_file=tmp_path / "missing.pem")
    outcome = await trouble_of(desk)
    assert (outcome.code, outcome.result) == ("ca-file", Result.HELD)
    assert "missing.pem" in outcome.reason
    (tmp_path / "missing.pem").write_bytes(b"")
    assert (await trouble_of(desk)).code == "ca-file"


async def test_server_without_starttls_gets_no_token(desk: Desk) -> None:
    """Tokens travel only over TLS."""
    desk.server.script.starttls = False
    outcome = await trouble_of(desk)
    assert (outcome.code, outcome.result) == ("starttls-not-offered", Result.HELD)
    assert desk.server.verbs() == ["EHLO"]


async def test_server_without_xoauth2(desk: Desk) -> None:
    """Held, since only another host or transport helps."""
    desk.server.script.mechanisms = "LOGIN"
    assert (await trouble_of(desk)).code == "xoauth2-not-offered"


async def test_text_slipped_in_before_tls_ends_it(desk: Desk) -> None:
    """RFC 3207 section 5: what came before the handshake is not to be believed, nor is who sent it."""
    desk.server.script.slip_in = b"250 2.0.0 injected\r\n"
    outcome = await trouble_of(desk)
    assert outcome.code == "starttls-injected"
    assert desk.server.logins == []


@pytest.mark.parametrize(
    ("verb", "reply", "code", "scope"),
    [
        ("GREETING", b"432 4.3.2 Concurrent connections limit exceeded", "too-many-connections", Scope.LANE),
        ("GREETING", b"421 4.3.2 Service not available", "service-not-available", Scope.LANE),
        ("GREETING", b"554 5.7.606 Access denied, banned sending IP", "ip-banned", Scope.UPSTREAM),
        ("GREETING", b"this is no SMTP", "malformed-reply", Scope.UPSTREAM),
        ("GREETING", HANG_UP, "connection-lost", Scope.UPSTREAM),
        ("EHLO", b"550 5.7.506 Access Denied, Bad HELO", "bad-helo", Scope.UPSTREAM),
        ("EHLO", HANG_UP, "connection-lost", Scope.UPSTREAM),
        ("STARTTLS", b"454 4.7.0 TLS not available", "login-temporarily-refused", Scope.LANE),
        ("STARTTLS", HANG_UP, "connection-lost", Scope.UPSTREAM),
        ("AUTH", b"454 4.7.0 Temporary authentication failure", "login-temporarily-refused", Scope.LANE),
        ("AUTH", b"599 5.0.0 never heard of", "login-refused", Scope.LANE),
        ("AUTH", HANG_UP, "connection-lost", Scope.LANE),
    ],
)  # fmt: skip
async def test_refusals_before_mail(desk: Desk, verb: str, reply: bytes, code: str, scope: Scope) -> None:
    """Each phase's refusal, silence or cut is told with its reach, and never counts against a message."""
    desk.server.script.answers[verb] = [reply]
    outcome = await trouble_of(desk)
    assert (outcome.code, outcome.scope, outcome.counts) == (code, scope, False)
    assert outcome.result in (Result.DEFERRED, Result.HELD)
    assert outcome.reason


@pytest.mark.parametrize("verb", ["GREETING", "EHLO", "AUTH"])
async def test_silent_server_is_left_in_time(make_desk: MakeDesk, verb: str) -> None:
    """A time-out carries no code; the outcome has no reply and names the step's fault."""
    desk = make_desk(timeout=0.2)
    desk.server.script.answers[verb] = [SILENCE]
    outcome = await trouble_of(desk)
    assert outcome.code in ("timed-out", "connect-timed-out")
    assert (outcome.result, outcome.reply, outcome.counts) == (Result.DEFERRED, None, False)


async def test_nobody_listens(make_desk: MakeDesk) -> None:
    """Refused: the upstream waits, and the remedy speaks of the firewall and the port."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        desk = make_desk(port=taken.getsockname()[1])
        outcome = await trouble_of(desk)
    assert (outcome.code, outcome.result, outcome.scope) == (
        "connection-refused",
        Result.DEFERRED,
        Scope.UPSTREAM,
    )
    assert str(desk.upstream.port) in outcome.remedy


async def test_unknown_name(make_desk: MakeDesk) -> None:
    """A name that cannot exist (RFC 6761) is the resolver's answer, told as such."""
    outcome = await trouble_of(make_desk(host="smtp.invalid"))
    assert (outcome.code, outcome.result, outcome.scope) == (
        "name-not-found",
        Result.DEFERRED,
        Scope.UPSTREAM,
    )


async def test_upstream_that_is_gone_from_the_configuration(desk: Desk) -> None:
    """Queued mail of a removed upstream is held, and says why."""
    with pytest.raises(Trouble) as caught:
        await desk.courier.open("Other", MAILBOX)
    assert (caught.value.outcome.code, caught.value.outcome.result) == ("upstream-missing", Result.HELD)


async def test_cancelled_login_leaves_nothing_open(desk: Desk) -> None:
    """Cancelling during AUTH drops the connection."""
    desk.server.script.answers["AUTH"] = [SILENCE]
    opening = asyncio.ensure_future(desk.courier.open("M365", MAILBOX))
    while "AUTH" not in (desk.server.verbs() if desk.server.talks else []):
        await desk.server.heard.wait()
        desk.server.heard.clear()
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    while not desk.server.closed:
        await asyncio.sleep(0)
    assert desk.server.closed == 1


async def test_reload_retires_logins_of_a_changed_upstream(make_desk: MakeDesk) -> None:
    """A connection made with yesterday's settings is not used again; one of an unchanged upstream is."""
    desk = make_desk()
    connection = await desk.courier.open("M365", MAILBOX)
    desk.courier.update(make_settings(make_desk().upstream), desk.router, {"M365": desk.tokens})
    assert connection.usable()
    desk.courier.update(make_settings(make_desk(batch_size=5).upstream), desk.router, {"M365": FakeTokens()})
    assert not connection.usable()
    await connection.close()
    await desk.courier.close()


async def test_one_context_serves_many_logins(desk: Desk) -> None:
    """CAs are read once per upstream."""
    connections = await asyncio.gather(*(desk.courier.open("M365", MAILBOX) for _ in range(3)))
    assert len(desk.courier._contexts) == 1
    assert len({id(one._session.wire.transport.get_extra_info("sslcontext")) for one in connections}) == 1
    await asyncio.gather(*(one.close() for one in connections))
    assert (await make_report(desk)).outcomes["a@x.example"].result is Result.SENT


async def make_report(desk: Desk):
    connection = await desk.courier.open("M365", MAILBOX)
    report = await connection.submit(make_claim(), make_content(), desk.begin)
    await connection.close()
    return report
