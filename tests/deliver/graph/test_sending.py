"""sendMail as the simulator judges it: what arrives, for whom, and what every refusal and break comes to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay.deliver.graph.contract import Answer, Lost
from relay.deliver.graph.large import LargeResult
from relay.message import Result, Scope, Trouble
from relay.simulator.faults import Fault
from tests.deliver.graph.kit import HEADER, tenant


async def test_a_text_mail_arrives_as_it_was_written(tmp_path: Path) -> None:
    async with tenant(tmp_path, "Mail.Send") as one:
        report = await one.report(body=b"Hello\r\n.\r\n..dots\r\n")
        outcome = report.outcomes["anna@x.example"]
        assert (outcome.result, outcome.reply.code if outcome.reply else 0) == (Result.SENT, 202)
        assert one.begin.calls == 1
        message = one.sim.messages[0]
        assert (message.transport, message.recipients) == ("graph", ["anna@x.example"])
        assert message.bytes().endswith(b"\r\n\r\nHello\r\n.\r\n..dots\r\n")
        assert b"Message-ID: <1@x>" in message.bytes()
        assert report.details["transport"] == "graph"
        assert report.details["request_id"]
        assert report.details["client_request_id"]


async def test_two_megabytes_go_as_mime_in_base64_of_the_very_octets(tmp_path: Path) -> None:
    line = b"0123456789abcdef" * 4 + b"\r\n"
    body = line * (2_900_000 // len(line)) + b"odd"
    async with tenant(tmp_path, "Mail.Send") as one:
        assert (await one.send(body=body)).result is Result.SENT
        assert one.sim.messages[0].bytes().endswith(b"\r\n\r\n" + body)


async def test_connections_are_reused_and_tokens_too(tmp_path: Path) -> None:
    async with tenant(tmp_path, "Mail.Send") as one:
        connection = await one.open()
        for _ in range(3):
            assert (await one.send(connection=connection)).result is Result.SENT
        assert connection.usable()
        await connection.close()
        assert not connection.usable()
        assert one.sim.store.counters["graph_requests"] == 3
        assert one.sim.store.counters["token_requests"] == 2  # one to read SMTP's rights in, one to send with


async def test_a_batch_is_a_batch(tmp_path: Path) -> None:
    async with tenant(tmp_path, "Mail.Send", batch_size=2) as one:
        connection = await one.open()
        await one.send(connection=connection)
        assert connection.usable()
        await one.send(connection=connection)
        assert not connection.usable()
        await connection.close()


async def test_envelope_only_recipients_are_hidden_and_strangers_get_nothing(tmp_path: Path) -> None:
    header = HEADER.replace(b"To: anna@x.example", b"To: anna@x.example, Bob <bob@other.example>")
    async with tenant(tmp_path, "Mail.Send") as one:
        await one.send("anna@x.example", "carl@x.example", header=header)
        message = one.sim.messages[0]
        assert sorted(message.recipients) == ["anna@x.example", "carl@x.example"]
        assert b"carl" not in message.bytes()
        assert b'"Bob (bob at other.example)":;' in message.bytes()


async def test_many_recipients_are_split_into_requests(tmp_path: Path) -> None:
    people = [f"p{number}@x.example" for number in range(5)]
    async with tenant(tmp_path, "Mail.Send", recipients_per_message=2) as one:
        report = await one.report(*people)
        assert {outcome.result for outcome in report.outcomes.values()} == {Result.SENT}
        assert [message.recipients for message in one.sim.messages] == [people[:2], people[2:4], people[4:]]
        assert one.begin.calls == 3
        assert one.begin.taken == [2, 2, 1]
        assert one.begin.sent == people


async def test_recipients_that_the_limits_leave_no_room_for_are_left_out_of_the_report(
    tmp_path: Path,
) -> None:
    people = [f"p{number}@x.example" for number in range(5)]
    async with tenant(tmp_path, "Mail.Send", recipients_per_message=2) as one:
        one.begin.rooms = [2, 1, 0]
        report = await one.report(*people)
        assert list(report.outcomes) == people[:3]
        assert [message.recipients for message in one.sim.messages] == [people[:2], people[2:3]]


REFUSALS = [
    ("429 TooManyRequests slow", Result.DEFERRED, Scope.LANE, "throttled"),
    ("503 ErrorServerBusy busy", Result.DEFERRED, Scope.LANE, "graph-busy"),
    ("500 ErrorInternalServerError oops", Result.DEFERRED, Scope.MESSAGE, "temporary"),
    ("403 ErrorAccessDenied no", Result.HELD, Scope.LANE, "graph-access-denied"),
    ("403 ErrorSendAsDenied no", Result.HELD, Scope.SENDER, "send-as-denied"),
    ("404 MailboxNotEnabledForRESTAPI no", Result.HELD, Scope.LANE, "mailbox-not-in-exchange-online"),
    ("404 ErrorInvalidUser no", Result.HELD, Scope.LANE, "mailbox-unknown"),
    ("507 ErrorQuotaExceeded full", Result.HELD, Scope.LANE, "mailbox-full"),
    ("403 ErrorExceededMessageLimit no", Result.HELD, Scope.LANE, "submission-quota"),
    ("400 ErrorInvalidRecipients bad", Result.FAILED, Scope.MESSAGE, "invalid-recipients"),
    ("400 SomethingNew what", Result.HELD, Scope.MESSAGE, "message-policy"),
    ("418 Teapot what", Result.HELD, Scope.MESSAGE, "message-policy"),
    ("302 Found elsewhere", Result.DEFERRED, Scope.LANE, "graph-unexpected"),
    ("200 OK not sent", Result.DEFERRED, Scope.MESSAGE, "graph-not-accepted"),
    ("401 InvalidAuthenticationToken no", Result.HELD, Scope.UPSTREAM, "graph-token-refused"),
]


@pytest.mark.parametrize(("reply", "result", "scope", "code"), REFUSALS, ids=lambda value: str(value)[:30])
async def test_every_answer_has_its_outcome(
    tmp_path: Path, reply: str, result: Result, scope: Scope, code: str
) -> None:
    async with tenant(tmp_path, "Mail.Send", transport="graph") as one:
        one.sim.faults.add(Fault("graph", "reply", reply, times=None))
        outcome = await one.send()
        assert (outcome.result, outcome.scope, outcome.code) == (result, scope, code)
        assert outcome.reason
        assert not outcome.uncertain


async def test_retry_after_is_obeyed_and_costs_the_message_nothing(tmp_path: Path) -> None:
    async with tenant(tmp_path, "Mail.Send") as one:
        one.sim.faults.add(Fault("graph", "reply", "429 ApplicationThrottled slow", seconds=17))
        outcome = await one.send()
        assert (outcome.wait, outcome.slow, outcome.counts) == (17.0, True, False)


async def test_what_an_upload_is_told_to_wait_all_mail_of_the_mailbox_waits(tmp_path: Path) -> None:
    """Retry-After counts for app and mailbox: nothing of it is sent over another connection meanwhile."""
    async with tenant(tmp_path, "Mail.Send", "Mail.ReadWrite") as one:
        await one.send()  # the choice, tokens and the first connection are there
        one.sim.faults.add(Fault("graph-session", "reply", "429 ApplicationThrottled slow", seconds=2))
        upload = asyncio.create_task(one.send(body=b"x" * 5_000_000))
        async with asyncio.timeout(20):
            while not one.sim.counters["faults"]:
                await asyncio.sleep(0.01)
            assert (await one.send()).result is Result.SENT
            assert (await upload).result is Result.SENT
        assert one.sim.limits_report()["graph"]["early_retries"] == {}


async def test_an_expired_token_is_renewed_within_the_attempt(tmp_path: Path) -> None:
    async with tenant(tmp_path, "Mail.Send") as one:
        await one.send()
        one.sim.faults.add(Fault("graph", "reply", "401 InvalidAuthenticationToken expired", times=1))
        assert (await one.send()).result is Result.SENT
        assert one.sim.store.counters["token_requests"] == 3


async def test_a_break_after_the_whole_request_is_uncertain(tmp_path: Path) -> None:
    async with tenant(tmp_path, "Mail.Send") as one:
        one.sim.faults.add(Fault("graph", "drop-after-accept"))
        connection = await one.open()
        outcome = await one.send(connection=connection)
        assert (outcome.result, outcome.uncertain, outcome.code) == (Result.DEFERRED, True, "uncertain")
        assert not connection.usable()
        assert (await one.send()).result is Result.SENT
        ids = [message.message_id for message in one.sim.messages]
        assert ids == ["<1@x>", "<1@x>"]
        await connection.close()


async def test_silence_after_the_whole_request_is_uncertain(tmp_path: Path) -> None:
    async with tenant(tmp_path, "Mail.Send", timeout=0.5) as one:
        one.sim.faults.add(Fault("graph", "hang"))
        outcome = await one.send()
        assert outcome.uncertain
        assert "0.5 seconds" in outcome.reason


async def test_a_closed_port_is_certainly_not_sent(tmp_path: Path) -> None:
    async with tenant(tmp_path, "Mail.Send", graph_url="https://localhost:1") as one:
        outcome = await one.send()
        assert (outcome.result, outcome.scope, outcome.code) == (
            Result.DEFERRED,
            Scope.UPSTREAM,
            "connection-refused",
        )
        assert not outcome.uncertain
        assert one.begin.calls == 0


async def test_a_certificate_nobody_vouches_for_is_held(tmp_path: Path) -> None:
    async with tenant(tmp_path, "Mail.Send") as one:
        connection = await one.open()
        session = one.courier._clients["M365"].session()
        session.connector._ssl = True  # type: ignore[union-attr]  # the system's CAs only
        outcome = await one.send(connection=connection)
        assert (outcome.result, outcome.code) == (Result.HELD, "certificate-not-trusted")
        await connection.close()


async def test_a_large_message_without_read_write_is_held_with_the_remedy(tmp_path: Path) -> None:
    async with tenant(tmp_path, "Mail.Send") as one:
        outcome = await one.send(body=b"x" * 5_000_000)
        assert (outcome.result, outcome.scope) == (Result.HELD, Scope.MESSAGE)
        assert "Mail.ReadWrite" in outcome.remedy
        assert one.sim.messages == []


async def test_large_mail_goes_at_the_first_try_after_read_write_was_granted(tmp_path: Path) -> None:
    """The token is older than the consent: it is fetched again, at once after a reload."""
    async with tenant(tmp_path, "Mail.Send") as one:
        assert (await one.send(body=b"x" * 5_000_000)).code == "mail-readwrite-missing"
        await one.sim.change(permissions=["Mail.Send", "Mail.ReadWrite"])
        one.reload()
        assert (await one.send(body=b"x" * 5_000_000)).result is Result.SENT
        assert len(one.sim.messages) == 1


async def test_a_missing_permission_costs_no_token_that_still_serves(tmp_path: Path) -> None:
    """Entra away and large mail held: mail of usual size goes on."""
    async with tenant(tmp_path, "Mail.Send") as one:
        await one.send()
        await one.sim.change(entra_down="refuse")
        assert (await one.send(body=b"x" * 5_000_000)).code == "mail-readwrite-missing"
        assert (await one.send()).result is Result.SENT


@pytest.mark.parametrize(
    ("lost_at", "complete", "uncertain"),
    [
        ("draft", True, False),
        ("upload", True, False),
        ("send", True, True),
        ("sendMail", True, True),
        ("send", False, False),
    ],
)
async def test_only_a_break_at_submission_is_uncertain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost_at: str, complete: bool, uncertain: bool
) -> None:
    async def broken(*_: object) -> LargeResult:
        return LargeResult(None, None, Lost("gone", complete=complete), lost_at)

    monkeypatch.setattr("relay.deliver.graph.connection.send_large", broken)
    async with tenant(tmp_path, "Mail.Send") as one:
        outcome = await one.send(body=b"x" * 5_000_000)
        assert (outcome.result, outcome.uncertain) == (Result.DEFERRED, uncertain)


@pytest.mark.parametrize(
    ("status", "step", "code"),
    [
        (403, "upload", "mail-readwrite-missing"),
        (403, "send", "graph-access-denied"),
        (429, "draft", "throttled"),
    ],
)
async def test_answers_of_the_large_way_are_judged_by_their_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, step: str, code: str
) -> None:
    async def refused(*_: object) -> LargeResult:
        return LargeResult(
            None, Answer(status, {}, "ErrorAccessDenied" if status == 403 else "", ""), None, step, ("x",)
        )

    monkeypatch.setattr("relay.deliver.graph.connection.send_large", refused)
    async with tenant(tmp_path, "Mail.Send") as one:
        report = await one.report(body=b"x" * 5_000_000)
        assert report.outcomes["anna@x.example"].code == code
        assert report.details["notes"] == "x"


async def test_beyond_the_mailbox_limit_it_bounces(tmp_path: Path) -> None:
    async with tenant(tmp_path, "Mail.Send", message_size=1000) as one:
        assert (await one.send(body=b"x" * 2000)).result is Result.FAILED


async def test_no_token_no_connection(tmp_path: Path) -> None:
    async with tenant(tmp_path, "Mail.Send") as one:
        await one.sim.change(secret_expired=True)
        with pytest.raises(Trouble) as caught:
            await one.open()
        assert (caught.value.outcome.result, caught.value.outcome.scope) == (Result.HELD, Scope.UPSTREAM)


class StuckBody:
    """A body of which nothing can be read until somebody lets it."""

    size = 7

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.free = asyncio.Event()

    async def chunks(self, block: int = 65536) -> AsyncIterator[bytes]:
        self.asked.set()
        await self.free.wait()
        yield b"Hello\r\n"


async def test_a_request_that_is_not_complete_can_be_abandoned(tmp_path: Path) -> None:
    async with tenant(tmp_path, "Mail.Send") as one:
        connection, body = await one.open(), StuckBody()
        assert not connection.abandon()
        under_way = asyncio.ensure_future(one.send(connection=connection, body=body))
        await asyncio.wait_for(body.asked.wait(), 10)
        assert connection.abandon()
        outcome = await asyncio.wait_for(under_way, 5)
        assert (outcome.result, outcome.code, outcome.uncertain) == (Result.DEFERRED, "abandoned", False)
        assert not connection.usable()
        assert not connection.abandon()
        body.free.set()
        assert (await one.send()).result is Result.SENT
        assert len(one.sim.messages) == 1


async def test_a_request_that_is_complete_cannot_be_abandoned(tmp_path: Path) -> None:
    async with tenant(tmp_path, "Mail.Send") as one:
        connection = await one.open()
        one.sim.faults.add(Fault("graph-send", "delay", seconds=0.5))
        under_way = asyncio.ensure_future(one.send(connection=connection))
        while not under_way.done():
            await asyncio.wait([under_way], timeout=0.02)
            if one.begin.calls:
                assert not connection.abandon()
        assert (await under_way).result is Result.SENT
        await connection.close()
