"""Connections that break, fall silent or speak out of turn: what is certain, what is not, and who waits."""

from __future__ import annotations

import asyncio

import pytest

from relay.deliver.contract import Connection
from relay.message import Content, Outcome, Report, Result, Scope
from tests.deliver.conftest import MakeDesk
from tests.deliver.desk import HEADER, MAILBOX, Desk, PatternBody, make_claim, make_content
from tests.fakes.exchange import HANG_UP, SILENCE

SENT = Result.SENT


async def submit(desk: Desk, *recipients: str) -> tuple[Connection, Report]:
    """One message over a new connection, which is handed back."""
    connection = await desk.courier.open("M365", MAILBOX)
    return connection, await connection.submit(make_claim(*recipients), make_content(), desk.begin)


def only(report: Report) -> Outcome:
    """The one outcome of a report."""
    (outcome,) = report.outcomes.values()
    return outcome


@pytest.mark.parametrize("pipelining", [True, False])
@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA"])
async def test_cut_before_the_final_dot_is_certain(desk: Desk, verb: str, pipelining: bool) -> None:
    """Nothing was delivered: the message waits without a count, the lane is told, the connection is spent."""
    if not pipelining:
        desk.server.script.extensions = ()
    desk.server.script.answers[verb] = [HANG_UP]
    connection, report = await submit(desk)
    outcome = only(report)
    assert (outcome.result, outcome.scope, outcome.code) == (Result.DEFERRED, Scope.LANE, "connection-lost")
    assert (outcome.counts, outcome.uncertain) == (False, False)
    assert report.lane_trouble == outcome
    assert not connection.usable()
    await connection.close()


async def test_cut_in_the_body_is_certain(desk: Desk) -> None:
    """Half a message is no message."""
    desk.server.script.hang_up_in_body = 200_000
    connection = await desk.courier.open("M365", MAILBOX)
    body = PatternBody(20 * 2**20)
    outcome = only(await connection.submit(make_claim(), Content(HEADER, body), desk.begin))
    assert (outcome.result, outcome.code, outcome.uncertain) == (Result.DEFERRED, "connection-lost", False)
    assert body.handed_out < body.size
    assert not connection.usable()


@pytest.mark.parametrize("pipelining", [True, False])
@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA"])
async def test_what_hangs_before_the_final_dot_can_be_abandoned(
    desk: Desk, verb: str, pipelining: bool
) -> None:
    """Certainly not accepted: the submission ends at once, and neither message nor lane is to blame."""
    if not pipelining:
        desk.server.script.extensions = ()
    asked = asyncio.Event()

    def silent(talk: object, line: str) -> bytes | None:
        if not line.upper().startswith(verb):
            return None
        asked.set()
        return SILENCE

    desk.server.script.choose = silent
    connection = await desk.courier.open("M365", MAILBOX)
    assert not connection.abandon()
    under_way = asyncio.ensure_future(connection.submit(make_claim(), make_content(), desk.begin))
    await asyncio.wait_for(asked.wait(), 5)
    assert connection.abandon()
    report = await asyncio.wait_for(under_way, 2)
    outcome = only(report)
    assert (outcome.result, outcome.scope, outcome.code) == (Result.DEFERRED, Scope.MESSAGE, "abandoned")
    assert (outcome.uncertain, outcome.counts, report.lane_trouble) == (False, False, None)
    assert not connection.usable()
    assert not connection.abandon()
    await connection.close()


async def test_what_hangs_after_the_final_dot_cannot_be_abandoned(make_desk: MakeDesk) -> None:
    """RFC 1047: Exchange may have it, so whoever asks has to wait for the outcome."""
    desk = make_desk(timeout=0.5)
    desk.server.script.answers["BODY"] = [SILENCE]
    connection = await desk.courier.open("M365", MAILBOX)
    under_way = asyncio.ensure_future(connection.submit(make_claim(), make_content(), desk.begin))
    while not under_way.done():
        await asyncio.wait([under_way], timeout=0.02)
        if desk.server.messages:
            assert not connection.abandon()
    assert only(await under_way).uncertain
    await connection.close()


async def test_cut_after_the_final_dot_is_uncertain(desk: Desk) -> None:
    """RFC 1047: it may have been accepted; it counts, and says so."""
    desk.server.script.hang_up_after_body = True
    connection, report = await submit(desk)
    outcome = only(report)
    assert (outcome.result, outcome.code, outcome.uncertain, outcome.counts) == (
        Result.DEFERRED,
        "uncertain",
        True,
        True,
    )
    assert not connection.usable()


@pytest.mark.parametrize("reply", [SILENCE, b"what?", b"354 go on"])
async def test_no_usable_reply_to_the_final_dot_is_uncertain(make_desk: MakeDesk, reply: bytes) -> None:
    """Silence, a garbled line or nonsense after the dot: nobody knows."""
    desk = make_desk(timeout=0.3)
    desk.server.script.answers["BODY"] = [reply]
    connection, report = await submit(desk)
    assert only(report).uncertain
    assert not connection.usable()
    await connection.close()


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA"])
async def test_silence_before_the_final_dot_ends_in_time(make_desk: MakeDesk, verb: str) -> None:
    """Each step is bounded by the upstream's timeout; the outcome has no reply."""
    desk = make_desk(timeout=0.2)
    desk.server.script.answers[verb] = [SILENCE]
    connection, report = await submit(desk)
    outcome = only(report)
    assert (outcome.result, outcome.code, outcome.uncertain, outcome.reply) == (
        Result.DEFERRED, "timed-out", False, None)  # fmt: skip
    assert not connection.usable()


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA"])
async def test_garbled_reply_ends_the_connection(desk: Desk, verb: str) -> None:
    """aiosmtplib's code -1: the message waits, and the dialogue is not trusted again."""
    desk.server.script.answers[verb] = [b"no smtp here"]
    connection, report = await submit(desk)
    assert (only(report).code, only(report).result) == ("malformed-reply", Result.DEFERRED)
    assert not connection.usable()


async def test_positive_reply_that_does_not_fit(desk: Desk) -> None:
    """250 to DATA is neither a yes nor a no."""
    desk.server.script.answers["DATA"] = [b"250 2.0.0 nice"]
    connection, report = await submit(desk)
    assert (only(report).code, only(report).result) == ("unexpected-reply", Result.DEFERRED)
    assert not connection.usable()


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA", "BODY"])
async def test_throttling_421_slows_the_lane_and_ends_the_connection(desk: Desk, verb: str) -> None:
    """421 4.4.2 wherever it comes: DEFERRED, slow, not counted, certain."""
    text = b"421 4.4.2 Message submission rate for this client has exceeded the configured limit"
    desk.server.script.answers[verb] = [text]
    connection, report = await submit(desk, "a@x", "b@x")
    assert {one.code for one in report.outcomes.values()} == {"submission-rate"}
    trouble = report.lane_trouble
    assert trouble is not None
    assert (trouble.slow, trouble.counts, trouble.uncertain, trouble.wait) == (True, False, False, 60)
    assert not connection.usable()
    await connection.close()


async def test_421_between_messages_only_spends_the_connection(desk: Desk) -> None:
    """An idle connection that Exchange ends is no error at all."""
    connection, report = await submit(desk)
    assert only(report).result is SENT
    talk = desk.server.talks[-1]
    talk.writer.write(b"421 4.4.1 Connection timed out\r\n")
    await talk.writer.drain()
    while connection.usable():
        await asyncio.sleep(0)
    assert not connection.usable()
    await connection.close()


@pytest.mark.parametrize(
    "cut", [b"421 4.4.1 Connection timed out. Total session duration: 00:10:00", HANG_UP]
)
async def test_stale_connection_found_at_the_next_mail_blames_nobody(desk: Desk, cut: bytes) -> None:
    """The server let go while we were about to speak: the message goes again at once, the lane is not troubled."""
    connection, first = await submit(desk)
    assert only(first).result is SENT
    desk.server.script.answers["MAIL"] = [cut]
    report = await connection.submit(make_claim(), make_content(), desk.begin)
    outcome = only(report)
    assert (outcome.result, outcome.scope, outcome.wait, outcome.counts) == (
        Result.DEFERRED,
        Scope.MESSAGE,
        0.0,
        False,
    )
    assert report.lane_trouble is None
    assert not connection.usable()


async def test_server_that_hangs_up_while_idle(desk: Desk) -> None:
    """An end of file between messages: not usable, and closing is quiet."""
    connection, _ = await submit(desk)
    desk.server.talks[-1].writer.transport.abort()
    while connection.usable():
        await asyncio.sleep(0)
    await connection.close()
    assert not connection.usable()


async def test_refusal_in_mid_body_is_heard(desk: Desk) -> None:
    """The server speaks before the dot and closes: its words decide, and nothing is uncertain."""
    desk.server.script.speak_in_body = (100_000, b"552 5.3.4 Message size exceeds fixed maximum message size")
    connection = await desk.courier.open("M365", MAILBOX)
    report = await connection.submit(make_claim(), Content(HEADER, PatternBody(30 * 2**20)), desk.begin)
    outcome = only(report)
    assert (outcome.result, outcome.code, outcome.uncertain) == (Result.FAILED, "message-too-large", False)
    assert not connection.usable()


async def test_success_in_mid_body_is_not_believed(desk: Desk) -> None:
    """250 before the dot: out of step, certainly not delivered."""
    desk.server.script.speak_in_body = (100_000, b"250 2.0.0 OK")
    connection = await desk.courier.open("M365", MAILBOX)
    report = await connection.submit(make_claim(), Content(HEADER, PatternBody(30 * 2**20)), desk.begin)
    outcome = only(report)
    assert (outcome.result, outcome.code, outcome.uncertain) == (Result.DEFERRED, "connection-lost", False)


async def test_split_message_that_breaks_half_way(make_desk: MakeDesk) -> None:
    """The first chunk was sent, the second is uncertain, the third certainly waits."""
    desk = make_desk(recipients_per_message=1)
    desk.server.script.answers["BODY"] = [b"250 2.0.0 OK", HANG_UP]
    connection, report = await submit(desk, "a@x", "b@x", "c@x")
    results = [
        (report.outcomes[name].result, report.outcomes[name].uncertain) for name in ("a@x", "b@x", "c@x")
    ]
    assert results == [(SENT, False), (Result.DEFERRED, True), (Result.DEFERRED, False)]
    assert not report.outcomes["c@x"].counts
    assert not connection.usable()


async def test_split_message_stops_at_trouble_of_the_lane(make_desk: MakeDesk) -> None:
    """Exchange is not asked again for the other recipients once it throttles; they wait with the lane."""
    desk = make_desk(recipients_per_message=1)
    desk.server.script.answers["BODY"] = [b"432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded"]
    _, report = await submit(desk, "a@x", "b@x", "c@x")
    assert {one.code for one in report.outcomes.values()} == {"sender-thread-limit"}
    assert desk.server.verbs().count("MAIL") == 1


async def test_server_that_refuses_rset_blames_no_message(desk: Desk) -> None:
    """The next message goes over another connection."""
    desk.server.script.answers["RCPT"] = [b"550 5.1.1 no such"]
    desk.server.script.answers["RSET"] = [b"502 5.5.1 not here"]
    connection, _ = await submit(desk)
    outcome = only(await connection.submit(make_claim(), make_content(), desk.begin))
    assert (outcome.result, outcome.scope, outcome.wait) == (Result.DEFERRED, Scope.MESSAGE, 0.0)
    assert not connection.usable()


async def test_login_error_wrapped_in_a_reply_to_mail_holds_by_the_inner_one(desk: Desk) -> None:
    """530 5.7.57 with the true cause inside (facts 1.2)."""
    desk.server.script.answers["MAIL"] = [
        b"530 5.7.57 Client not authenticated to send mail. Error: 535 5.7.139 Authentication unsuccessful,"
        b" SmtpClientAuthentication is disabled for the Mailbox."
    ]
    _, report = await submit(desk)
    assert only(report).code == "smtp-auth-disabled-mailbox"
    assert report.lane_trouble is not None
    assert report.lane_trouble.scope is Scope.LANE


async def test_cancelled_submission_drops_the_connection(desk: Desk) -> None:
    """A half-sent message is never ended by the next one."""
    desk.server.script.answers["DATA"] = [SILENCE]
    connection = await desk.courier.open("M365", MAILBOX)
    submitting = asyncio.ensure_future(connection.submit(make_claim(), make_content(), desk.begin))
    while "DATA" not in desk.server.verbs():
        await desk.server.heard.wait()
        desk.server.heard.clear()
    submitting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await submitting
    assert not connection.usable()


@pytest.mark.parametrize("answer", [HANG_UP, b"garbled", b"421 4.3.2 Service not active"])
async def test_close_is_quiet_whatever_the_server_does(desk: Desk, answer: bytes) -> None:
    """QUIT may be answered with anything."""
    connection, report = await submit(desk)
    desk.server.script.answers["QUIT"] = [answer]
    await connection.close()
    await connection.close()
    assert only(report).result is SENT
    assert not connection.usable()


async def test_close_does_not_wait_for_ever(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """QUIT is bounded (5 s; less here)."""
    connection, _ = await submit(desk)
    monkeypatch.setattr("relay.deliver.smtp.FAREWELL", 0.1)
    desk.server.script.answers["QUIT"] = [SILENCE]
    async with asyncio.timeout(3):
        await connection.close()
    assert not connection.usable()
