"""Submitting: the envelope in one write, bodies whole and unchanged, recipients split, one outcome for each."""

from __future__ import annotations

import asyncio
import hashlib
import tracemalloc

import pytest

from relay.errors import SpoolError
from relay.message import BytesBody, Content, Recipient, Report, Result, Scope
from relay.spool.contract import Claim, lane_name
from tests.deliver.conftest import MakeDesk
from tests.deliver.desk import HEADER, MAILBOX, Begin, Desk, PatternBody, make_claim, make_content
from tests.fakes.exchange import FakeExchange

SENT = Result.SENT


async def submit(desk: Desk, claim: Claim | None = None, content: Content | None = None) -> Report:
    """One message over a connection of its own."""
    connection = await desk.courier.open("M365", MAILBOX)
    report = await connection.submit(claim or make_claim(), content or make_content(), desk.begin)
    await connection.close()
    return report


def mailing(server: FakeExchange) -> list[str]:
    """The commands after the login, without QUIT."""
    lines = server.lines
    after = next(i for i, line in enumerate(lines) if line.startswith("AUTH")) + 1
    return [line for line in lines[after:] if line != "QUIT"]


async def test_message_arrives_as_rewritten(desk: Desk) -> None:
    """Header and body arrive, the outcome is sent, and the trace gets host, TLS, From and the server's words."""
    report = await submit(desk, content=make_content(b"Hello\r\n\r\n.dot\r\n..two\r\nend\r\n"))
    assert report.outcomes["a@x.example"].result is SENT
    assert report.lane_trouble is None
    assert report.moved_to is None
    (message,) = desk.server.messages
    assert message.data.endswith(b"\r\n\r\nHello\r\n\r\n.dot\r\n..two\r\nend\r\n")
    assert report.details["host"] == "127.0.0.1"
    assert report.details["transport"] == "smtp"
    assert report.details["tls"] == "TLSv1.3"
    assert report.details["from_after"] == MAILBOX
    assert report.details["reply"].startswith("250 2.0.0 OK")
    assert (report.details["connection"], report.details["message"]) == ("1", "1")
    assert desk.begin.calls == 1


async def test_pipelined_envelope_is_one_write(desk: Desk) -> None:
    """MAIL, all RCPT and DATA lie at the server before it answers the first."""
    await submit(desk, make_claim("a@x", "b@x", "c@x"))
    assert [line.split(":")[0] for line in mailing(desk.server)] == [
        "MAIL FROM",
        "RCPT TO",
        "RCPT TO",
        "RCPT TO",
        "DATA",
    ]
    assert desk.server.talks[-1].most_waiting == 3, (
        "with the second command in hand the other three lay there already"
    )


async def test_without_pipelining_one_by_one(desk: Desk) -> None:
    """Each command waits for the reply before it."""
    desk.server.script.extensions = ("SIZE", "8BITMIME")
    report = await submit(desk, make_claim("a@x", "b@x"))
    assert {one.result for one in report.outcomes.values()} == {SENT}
    assert desk.server.talks[-1].most_waiting == 0
    assert len(desk.server.messages[0].recipients) == 2


@pytest.mark.parametrize("pipelining", [True, False])
async def test_partial_refusal(desk: Desk, pipelining: bool) -> None:
    """The accepted recipients get the message, the refused one its own outcome."""
    if not pipelining:
        desk.server.script.extensions = ()
    desk.server.script.answers["RCPT"] = [b"250 2.1.5 OK", b"550 5.1.10 RESOLVER.ADR.RecipientNotFound"]
    desk.server.script.choose = lambda talk, line: (
        talk.recipients.append(line) if line.startswith("RCPT") and "bad" not in line else None
    )
    report = await submit(desk, make_claim("good@x", "bad@x"))
    assert report.outcomes["good@x"].result is SENT
    assert (report.outcomes["bad@x"].result, report.outcomes["bad@x"].code) == (
        Result.FAILED,
        "recipient-not-found",
    )
    assert report.lane_trouble is None
    assert desk.server.messages[0].recipients == ["RCPT TO:<good@x>"]


@pytest.mark.parametrize("pipelining", [True, False])
async def test_refused_sender(desk: Desk, pipelining: bool) -> None:
    """What MAIL was answered decides for everybody, not the 503s after it."""
    if not pipelining:
        desk.server.script.extensions = ()
    desk.server.script.answers["MAIL"] = [
        b"550 5.7.60 SMTP; Client does not have permissions to send as this sender"
    ]
    connection = await desk.courier.open("M365", MAILBOX)
    report = await connection.submit(make_claim("a@x", "b@x"), make_content(), desk.begin)
    assert {one.code for one in report.outcomes.values()} == {"send-as-denied"}
    assert report.lane_trouble is not None
    assert report.lane_trouble.scope is Scope.SENDER
    assert connection.usable()
    again = await connection.submit(make_claim(), make_content(), desk.begin)
    assert again.outcomes["a@x.example"].result is SENT
    await connection.close()


@pytest.mark.parametrize("refused", ["MAIL", "RCPT"])
async def test_data_accepted_for_nobody_is_ended_with_a_lone_dot(desk: Desk, refused: str) -> None:
    """RFC 2920: a 354 although nothing was accepted; the dot alone ends it, and the next message goes through."""
    script = desk.server.script
    script.answers[refused] = [b"550 5.1.1 no such"]
    script.answers["DATA"] = [b"354 go ahead all the same"]
    connection = await desk.courier.open("M365", MAILBOX)
    report = await connection.submit(make_claim(), make_content(), desk.begin)
    assert report.outcomes["a@x.example"].result is Result.FAILED
    assert desk.server.messages == []
    assert connection.usable()
    again = await connection.submit(make_claim(), make_content(), desk.begin)
    assert again.outcomes["a@x.example"].result is SENT
    assert len(desk.server.messages) == 1
    await connection.close()


@pytest.mark.parametrize("pipelining", [True, False])
async def test_open_transaction_is_reset_before_the_next_message(desk: Desk, pipelining: bool) -> None:
    """All recipients refused leaves a MAIL open on the server; RSET comes before the next one."""
    if not pipelining:
        desk.server.script.extensions = ()
    desk.server.script.answers["RCPT"] = [b"550 5.1.1 no such"]
    connection = await desk.courier.open("M365", MAILBOX)
    await connection.submit(make_claim(), make_content(), desk.begin)
    report = await connection.submit(make_claim(), make_content(), desk.begin)
    assert report.outcomes["a@x.example"].result is SENT
    verbs = [line.split(" ")[0] for line in mailing(desk.server)]
    assert verbs[verbs.index("RSET") + 1] == "MAIL"
    await connection.close()


async def test_refusal_of_data(desk: Desk) -> None:
    """A 4xx to DATA defers the message; the connection stays good."""
    desk.server.script.answers["DATA"] = [b"451 4.7.0 Temporary server error. Please try again later. PRX4"]
    connection = await desk.courier.open("M365", MAILBOX)
    report = await connection.submit(make_claim(), make_content(), desk.begin)
    outcome = report.outcomes["a@x.example"]
    assert (outcome.result, outcome.code, outcome.uncertain) == (Result.DEFERRED, "server-busy", False)
    assert connection.usable()
    await connection.close()


async def test_refusal_after_the_final_dot(desk: Desk) -> None:
    """The reply to the dot is for every accepted recipient, and a lane's fault is told as one."""
    desk.server.script.answers["BODY"] = [
        b"554 5.2.2 mailbox full; STOREDRV.Submission.Exception:QuotaExceededException.MapiExceptionShutoffQuotaExceeded"
    ]
    report = await submit(desk, make_claim("a@x", "b@x"))
    assert {one.code for one in report.outcomes.values()} == {"mailbox-full"}
    assert report.lane_trouble is not None
    assert report.lane_trouble.result is Result.HELD
    assert MAILBOX in report.lane_trouble.remedy


async def test_protocol_error_fails_only_the_second_time(desk: Desk) -> None:
    """Facts 3.2: one more try on a clean connection before it bounces."""
    desk.server.script.answers["MAIL"] = [b"501 5.5.4 Invalid arguments"] * 2
    first = await submit(desk, make_claim(attempts=0))
    second = await submit(desk, make_claim(attempts=1))
    assert first.outcomes["a@x.example"].result is Result.DEFERRED
    assert first.outcomes["a@x.example"].counts
    assert second.outcomes["a@x.example"].result is Result.FAILED


async def test_more_recipients_than_one_message_may_have_are_split(make_desk: MakeDesk) -> None:
    """Five with a limit of two: three transactions on one connection, each written down."""
    desk = make_desk(recipients_per_message=2)
    report = await submit(desk, make_claim(*(f"r{n}@x" for n in range(5))))
    assert [len(message.recipients) for message in desk.server.messages] == [2, 2, 1]
    assert {one.result for one in report.outcomes.values()} == {SENT}
    assert len(report.outcomes) == 5
    assert desk.begin.calls == 3


async def test_parts_that_the_limits_leave_no_room_for_are_not_sent(make_desk: MakeDesk) -> None:
    """The limits let two of five go, then one, then none: two are left out of the report, on a whole connection."""
    desk = make_desk(recipients_per_message=3)
    desk.begin.rooms = [2, 1, 0]
    report = await submit(desk, make_claim(*(f"r{n}@x" for n in range(5))))
    assert [len(message.recipients) for message in desk.server.messages] == [2, 1]
    assert set(report.outcomes) == {"r0@x", "r1@x", "r2@x"}
    assert report.details["left"].startswith("2 recipients wait")
    assert desk.server.verbs()[-1] == "QUIT"


async def test_a_list_that_was_too_long_is_told(desk: Desk) -> None:
    """452 4.5.3 after two recipients: it is said how many Exchange takes, and each part asks for room."""
    desk.server.script.choose = lambda talk, line: (
        b"452 4.5.3 Too many recipients" if line.startswith("RCPT") and len(talk.recipients) >= 2 else None
    )
    report = await submit(desk, make_claim(*(f"r{n}@x" for n in range(5))))
    assert {one.result for one in report.outcomes.values()} == {SENT}
    assert desk.begin.most == 2
    assert (desk.begin.asked, desk.begin.taken) == ([5, 2, 1], [2, 2, 1])
    assert desk.begin.sent == [f"r{n}@x" for n in range(5)]
    assert desk.begin.calls == 3


async def test_many_recipients_wait_for_their_replies_before_data(desk: Desk) -> None:
    """Past a bound DATA is not sent along; all are delivered in one transaction all the same."""
    report = await submit(desk, make_claim(*(f"r{n}@x" for n in range(400))))
    assert {one.result for one in report.outcomes.values()} == {SENT}
    assert len(desk.server.messages[0].recipients) == 400


async def test_many_recipients_all_refused_send_no_data(desk: Desk) -> None:
    """Nobody to send to: DATA is not even asked for."""
    desk.server.script.choose = lambda talk, line: b"550 5.1.1 no" if line.startswith("RCPT") else None
    report = await submit(desk, make_claim(*(f"r{n}@x" for n in range(60))))
    assert {one.result for one in report.outcomes.values()} == {Result.FAILED}
    assert "DATA" not in desk.server.verbs()


@pytest.mark.parametrize("refusal", [b"452 4.5.3 Too many recipients", b"452 5.5.3 Too many recipients"])
async def test_server_that_takes_fewer_recipients_gets_the_rest_at_once(desk: Desk, refusal: bytes) -> None:
    """452 4.5.3: the remaining ones follow in messages of the size that was taken."""
    desk.server.script.choose = lambda talk, line: (
        refusal if line.startswith("RCPT") and len(talk.recipients) >= 3 else None
    )
    report = await submit(desk, make_claim(*(f"r{n}@x" for n in range(8))))
    assert [len(message.recipients) for message in desk.server.messages] == [3, 3, 2]
    assert {one.result for one in report.outcomes.values()} == {SENT}


async def test_server_that_takes_no_recipient_at_all_is_not_asked_for_ever(desk: Desk) -> None:
    """Too many, although none was taken: deferred."""
    desk.server.script.choose = lambda talk, line: b"452 4.5.3 Too many" if line.startswith("RCPT") else None
    report = await submit(desk, make_claim("a@x", "b@x"))
    assert {(one.result, one.code) for one in report.outcomes.values()} == {
        (Result.DEFERRED, "too-many-recipients")
    }
    assert len(mailing(desk.server)) == 4


async def test_mail_from_is_the_from_that_goes_out(desk: Desk) -> None:
    """Facts 5: the rule's From, although another mailbox logs in; kept ones keep theirs; nothing left: the mailbox."""
    desk.router.answer = _route("M365", (MAILBOX,), "alias@contoso.com")
    await submit(desk)
    desk.router.answer = _route("M365", (MAILBOX,), None)
    await submit(desk)
    null = make_claim(sender="")
    object.__setattr__(null, "header_from", ())
    await submit(desk, null)
    senders = [message.mail.split(" ")[1] for message in desk.server.messages]
    assert senders == ["FROM:<alias@contoso.com>", "FROM:<old@scanners.local>", f"FROM:<{MAILBOX}>"]


def _route(upstream: str, mailboxes: tuple[str, ...], from_address: str | None):
    from relay.rewrite.contract import Route

    return Route(upstream, mailboxes, from_address, "keep", "original")


async def test_mail_parameters_where_offered(desk: Desk) -> None:
    """SIZE, BODY and DSN's RET, ENVID, NOTIFY and ORCPT; SMTPUTF8 only when needed."""
    recipient = Recipient("a@x", "SUCCESS,FAILURE", "rfc822;a@x")
    claim = make_claim(recipient, sender=MAILBOX, eight_bit=True, ret="HDRS", envid="QQ314159")
    report = await submit(desk, claim)
    assert report.details["dsn"] == "passed on"
    (message,) = desk.server.messages
    words = message.mail.split(" ")
    assert words[0:2] == ["MAIL", f"FROM:<{MAILBOX}>"]
    assert words[3:] == ["BODY=8BITMIME", "RET=HDRS", "ENVID=QQ314159"]
    assert words[2] == f"SIZE={message.size}"
    assert message.recipients == ["RCPT TO:<a@x> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;a@x"]


@pytest.mark.parametrize(("wish", "passed"), [("SUCCESS,FAILURE", "FAILURE"), ("SUCCESS", "NEVER")])
async def test_a_notice_of_success_is_not_asked_for_where_another_mailbox_would_get_it(
    desk: Desk, wish: str, passed: str
) -> None:
    """The return path was rewritten: Exchange's report would go to a mailbox that never asked."""
    report = await submit(desk, make_claim(Recipient("a@x", wish), sender="old@scanners.local"))
    (message,) = desk.server.messages
    assert message.recipients == [f"RCPT TO:<a@x> NOTIFY={passed}"]
    assert "dsn" not in report.details


async def test_mail_parameters_not_offered_are_not_sent(desk: Desk) -> None:
    """A bare server gets a bare MAIL and RCPT."""
    desk.server.script.extensions = ()
    await submit(desk, make_claim(Recipient("a@x", "NEVER", "rfc822;a@x"), ret="FULL", envid="1"))
    assert mailing(desk.server) == [f"MAIL FROM:<{MAILBOX}>", "RCPT TO:<a@x>", "DATA"]


async def test_smtputf8_for_addresses_beyond_ascii(desk: Desk) -> None:
    """RFC 6531: the parameter is given, and the address travels in UTF-8."""
    report = await submit(desk, make_claim("jürgen@x.example", smtputf8=True))
    assert report.outcomes["jürgen@x.example"].result is SENT
    assert "SMTPUTF8" in desk.server.messages[0].mail.split(" ")
    assert desk.server.messages[0].recipients == ["RCPT TO:<jürgen@x.example>"]


@pytest.mark.parametrize(
    ("extensions", "claim", "code"),
    [
        (("PIPELINING", "8BITMIME"), make_claim("jürgen@x.example", smtputf8=True), "smtputf8-not-offered"),
        (("PIPELINING", "SMTPUTF8"), make_claim(eight_bit=True), "8bitmime-not-offered"),
    ],
)
async def test_extension_that_is_needed_and_not_offered_holds_the_message(
    desk: Desk, extensions: tuple[str, ...], claim: Claim, code: str
) -> None:
    """Exchange offers both, so somebody hides them: an administrator's matter, never a bounce. Nothing is sent."""
    desk.server.script.extensions = extensions
    report = await submit(desk, claim)
    (outcome,) = report.outcomes.values()
    assert (outcome.result, outcome.scope, outcome.code) == (Result.HELD, Scope.MESSAGE, code)
    assert outcome.remedy
    assert mailing(desk.server) == []
    assert desk.begin.calls == 0


async def test_headers_beyond_ascii_are_encoded_when_smtputf8_is_not_offered(desk: Desk) -> None:
    """Only an address makes SMTPUTF8 indispensable; a header can be encoded."""
    desk.server.script.extensions = ("PIPELINING", "8BITMIME")
    header = HEADER.replace(b"hello", "grüße".encode())
    claim = make_claim(smtputf8=True, eight_bit=True)
    report = await submit(desk, claim, Content(header, BytesBody("grüße\r\n".encode())))
    assert report.outcomes["a@x.example"].result is SENT
    assert desk.server.messages[0].data.split(b"\r\n\r\n")[0].isascii()


@pytest.mark.parametrize("extension", ["SIZE 600", "SIZE"])
async def test_message_too_large(make_desk: MakeDesk, extension: str) -> None:
    """Larger than EHLO's SIZE, or than limits.message_size: failed with 5.3.4 and a hint, before MAIL."""
    desk = make_desk(message_size=2000 if extension == "SIZE 600" else 600)
    desk.server.script.extensions = (extension, "PIPELINING")
    report = await submit(desk, content=make_content(b"x" * 70 + b"\r\n" + b"y" * 600))
    outcome = report.outcomes["a@x.example"]
    assert (outcome.result, outcome.scope, outcome.code) == (
        Result.FAILED,
        Scope.MESSAGE,
        "message-too-large",
    )
    assert outcome.reply is not None
    assert (outcome.reply.code, outcome.reply.enhanced) == (552, "5.3.4")
    assert "MaxSendSize" in outcome.remedy
    assert mailing(desk.server) == []


async def test_address_that_would_be_a_command_is_refused(desk: Desk) -> None:
    """Nothing from an envelope ever starts a command of its own."""
    report = await submit(desk, make_claim("a@x>\r\nDATA\r\n"))
    (outcome,) = report.outcomes.values()
    assert outcome.result is Result.FAILED
    assert mailing(desk.server) == []


async def test_message_of_another_lane_by_todays_rules_is_moved(desk: Desk) -> None:
    """Mended configuration applies to queued mail; nothing is sent or written."""
    connection = await desk.courier.open("M365", MAILBOX)
    desk.router.answer = _route("Other", ("x@contoso.com", "y@contoso.com"), "x@contoso.com")
    report = await connection.submit(make_claim(), make_content(), desk.begin)
    assert report.moved_to == lane_name("Other", "x@contoso.com")
    assert (report.outcomes, desk.begin.calls, mailing(desk.server)) == ({}, 0, [])
    assert desk.router.asked[-1] == ("old@scanners.local", ("old@scanners.local",))
    await connection.close()


async def test_message_that_todays_rules_refuse_is_held(desk: Desk) -> None:
    """Never bounced: the rules are the administrator's."""
    desk.router.refusal = "Sender matches no rule"
    report = await submit(desk)
    outcome = report.outcomes["a@x.example"]
    assert (outcome.result, outcome.scope, outcome.code) == (Result.HELD, Scope.MESSAGE, "sender-refused")
    assert "Sender matches no rule" in outcome.reason


async def test_reload_reaches_open_connections(desk: Desk) -> None:
    """The next message on an open connection goes by the new rules."""
    connection = await desk.courier.open("M365", MAILBOX)
    strict = type(desk.router)()
    strict.refusal = "not any more"
    desk.courier.update(desk.courier._settings, strict, {"M365": desk.tokens})
    report = await connection.submit(make_claim(), make_content(), desk.begin)
    assert report.outcomes["a@x.example"].code == "sender-refused"
    await connection.close()


async def test_large_body_streams_in_bounded_memory(desk: Desk) -> None:
    """25 MB arrive whole; neither side of the relay ever holds more than a few blocks."""
    body = PatternBody(25 * 2**20)
    expected = hashlib.sha256()
    async for block in body.chunks(2**20):
        expected.update(block)
    connection = await desk.courier.open("M365", MAILBOX)
    tracemalloc.start()
    report = await connection.submit(make_claim(), Content(HEADER, body), desk.begin)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    await connection.close()
    assert report.outcomes["a@x.example"].result is SENT
    (message,) = desk.server.messages
    assert message.size > body.size
    assert peak < 12 * 2**20


async def test_attempt_is_written_before_the_final_dot(desk: Desk) -> None:
    """The body may travel while the attempt is being written, the dot may not."""
    written, asked = asyncio.Event(), asyncio.Event()

    async def begin() -> None:
        asked.set()
        await written.wait()

    connection = await desk.courier.open("M365", MAILBOX)
    submitting = asyncio.ensure_future(connection.submit(make_claim(), make_content(), Begin(begin)))
    await asked.wait()
    while "DATA" not in desk.server.verbs():
        await desk.server.heard.wait()
        desk.server.heard.clear()
    for _ in range(50):
        await asyncio.sleep(0)
    assert desk.server.messages == []
    assert not submitting.done()
    written.set()
    assert (await submitting).outcomes["a@x.example"].result is SENT
    await connection.close()


async def test_attempt_that_cannot_be_written_sends_nothing(desk: Desk) -> None:
    """A full disk: the message is not ended, the connection is dropped, and the spool's error is told."""

    async def begin() -> None:
        raise SpoolError("disk full")

    connection = await desk.courier.open("M365", MAILBOX)
    with pytest.raises(SpoolError):
        await connection.submit(make_claim(), make_content(), Begin(begin))
    assert not connection.usable()
    assert desk.server.messages == []
    await connection.close()


async def test_body_that_cannot_be_read_sends_nothing(desk: Desk) -> None:
    """A disk fault is the spool's, never the connection's: the half message is not ended."""

    class BrokenBody(PatternBody):
        async def chunks(self, size: int = 65536):
            yield b"first\r\n"
            raise OSError(5, "Input/output error")

    connection = await desk.courier.open("M365", MAILBOX)
    with pytest.raises(SpoolError):
        await connection.submit(make_claim(), Content(HEADER, BrokenBody(100)), desk.begin)
    assert not connection.usable()
    assert desk.server.messages == []


async def test_batch_is_bounded(make_desk: MakeDesk) -> None:
    """After batch_size messages the connection is spent; one login carried them all."""
    desk = make_desk(batch_size=3)
    connection = await desk.courier.open("M365", MAILBOX)
    for number in range(3):
        assert connection.usable()
        report = await connection.submit(make_claim(), make_content(), desk.begin)
        assert report.details["message"] == str(number + 1)
    assert not connection.usable()
    assert "3 carried" in repr(connection)
    assert len(desk.server.logins) == 1
    await connection.close()


async def test_idle_and_old_connections_are_spent(desk: Desk) -> None:
    """Idle over 60 s, or 8 minutes old even while busy."""
    idle = await desk.courier.open("M365", MAILBOX)
    desk.clock.advance(60)
    assert idle.usable()
    desk.clock.advance(1)
    assert not idle.usable()
    busy = await desk.courier.open("M365", MAILBOX)
    for _ in range(9):
        desk.clock.advance(50)
        assert busy.usable()
        await busy.submit(make_claim(), make_content(), desk.begin)
    desk.clock.advance(30)
    assert not busy.usable()
    await asyncio.gather(idle.close(), busy.close())
