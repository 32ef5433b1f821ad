"""Who is told of failures and delays, how often, and that the telling is stored with its cause."""

from __future__ import annotations

import dataclasses
import email
import email.policy

import pytest

from relay import events
from relay.message import BytesBody, Client, Content, Envelope, Outcome, Recipient, Reply, Result
from relay.schedule.desk import OWN_MAIL, Desk, Outgoing, own_mail
from relay.schedule.overdue import Overdue
from relay.spool.contract import Claim, Filter, Hold, Settlement
from relay.spool.sqlite import SqliteSpool
from tests.fakes.clock import ManualClock
from tests.fakes.post import FakePost
from tests.fakes.spool import DEFERRED, LANE, OTHER, SENT, accept, new_message, spool_settings

FAILED = Outcome(
    Result.FAILED, reply=Reply(550, "5.1.10", "Recipient not found"), reason="There is no such recipient"
)
HEADER = b"From: boss@contoso.com\r\nSubject: plan\r\nMessage-ID: <1@contoso.com>\r\n\r\n"
CONTENT = Content(HEADER, BytesBody(b"the whole plan\r\n"))


def claim(sender: str = "boss@contoso.com", **changes) -> Claim:
    people = changes.pop("people", (Recipient("anna@example.net"),))
    base = Claim(
        "0AMGPQ1200000",
        LANE,
        Envelope(sender, people),
        Client("10.0.0.7"),
        1_794_999_000.0,
        100,
        1,
        "<1@contoso.com>",
        "plan",
    )
    return dataclasses.replace(base, **changes)


def failure(outcome: Outcome = FAILED, people: tuple[str, ...] = ("anna@example.net",), **more) -> Settlement:
    return Settlement("0AMGPQ1200000", dict.fromkeys(people, outcome), **more)


@pytest.fixture
async def spool(tmp_path):
    one = SqliteSpool(spool_settings(tmp_path), ManualClock())
    await one.open()
    yield one
    await one.close()


@pytest.fixture
def desk(spool):
    return Desk(spool, FakePost(), spool._clock)


def read(mail) -> email.message.EmailMessage:
    return email.message_from_bytes(mail.message.header + mail.body, policy=email.policy.default)


async def test_a_failure_is_told_to_the_envelope_sender_once(desk):
    done = await desk.about_failures(claim(), failure(), CONTENT)
    (mail,) = done.notices
    message = read(mail)
    assert done.told
    assert [one.address for one in mail.message.envelope.recipients] == ["boss@contoso.com"]
    assert mail.message.envelope.sender == ""
    assert mail.message.lane == OTHER
    assert message["From"].addresses[0].addr_spec == "notifications@contoso.com"
    assert message["Auto-Submitted"] == "auto-replied"
    assert message.get_content_type() == "multipart/report"
    assert "no such recipient" in message.get_body(("plain",)).get_content()


async def test_a_sender_that_cannot_be_reached_leaves_it_to_the_postmaster(desk):
    (mail,) = (await desk.about_failures(claim("scanner@floor2.local"), failure(), CONTENT)).notices
    assert mail.message.envelope.recipients[0].address == "it@contoso.com"


@pytest.mark.parametrize(
    ("about", "content"),
    [
        (claim(""), CONTENT),
        (claim(), Content(b"X-Relay-Notice-For: 1\r\n" + HEADER, CONTENT.body)),
        (claim(people=(Recipient("anna@example.net", notify="NEVER"),)), CONTENT),
        (claim(people=(Recipient("anna@example.net", notify="SUCCESS"),)), CONTENT),
    ],
    ids=["null sender", "a notice", "NEVER", "SUCCESS only"],
)
async def test_nobody_is_told_and_nobody_need_be(desk, about, content):
    done = await desk.about_failures(about, failure(), content)
    assert (done.notices, done.told) == ((), True)


async def test_without_a_postmaster_a_failure_stays_untold(spool):
    post = FakePost(postmaster=None)
    desk = Desk(spool, post, spool._clock)
    done = await desk.about_failures(claim("scanner@floor2.local"), failure(), CONTENT)
    assert (done.notices, done.told) == ((), False)


async def test_nothing_is_told_of_what_was_only_deferred_or_withdrawn(desk):
    assert (await desk.about_failures(claim(), failure(DEFERRED), CONTENT)).notices == ()
    assert (await desk.about_failures(claim(), failure(withdraw=True), CONTENT)).notices == ()


async def test_ret_full_returns_the_whole_message(desk):
    about = claim()
    about = dataclasses.replace(about, envelope=dataclasses.replace(about.envelope, ret="FULL"))
    (mail,) = (await desk.about_failures(about, failure(), CONTENT)).notices
    assert b"the whole plan" in mail.body
    (mail,) = (await desk.about_failures(claim(), failure(), CONTENT)).notices
    assert b"the whole plan" not in mail.body


async def test_many_failures_become_a_summary_also_over_a_restart(spool, desk):
    for number in range(25):
        done = await desk.about_failures(claim(), failure(), CONTENT)
        assert bool(done.notices) == (number < 20)
        assert done.told
    again = Desk(spool, FakePost(), spool._clock)
    await again.load()
    spool._clock.advance(3601)
    await again.tend()
    (summary,) = await spool.claim(OTHER, 5, spool.now())
    assert summary.envelope.recipients[0].address == "boss@contoso.com"
    assert "5 more notices" in summary.subject


OWN = dataclasses.replace(
    claim("", people=(Recipient("boss@contoso.com", "NEVER"),)), client=Client(listener=OWN_MAIL)
)


async def test_a_refused_notice_goes_to_the_postmaster_with_all_it_says(desk):
    (refused,) = (await desk.about_failures(claim(), failure(), CONTENT)).notices
    content = Content(refused.message.header, BytesBody(refused.body))
    done = await desk.about_failures(OWN, failure(people=("boss@contoso.com",)), content)
    (mail,) = done.notices
    assert done.told
    assert [one.address for one in mail.message.envelope.recipients] == ["it@contoso.com"]
    message = read(mail)
    assert message["To"] == "it@contoso.com"
    assert "one of the relay's own" in " ".join(message.get_body(("plain",)).get_content().split())
    (inner,) = [one for one in message.walk() if one.get_content_type() == "message/rfc822"]
    assert "anna@example.net" in inner.as_string()


@pytest.mark.parametrize("redirected", [False, True], ids=["to it", "to where all mail is redirected"])
async def test_a_notice_to_the_postmaster_that_is_refused_causes_no_other(spool, redirected):
    class Post(FakePost):
        def outgoing(self, to, near=""):
            return Outgoing("notifications@contoso.com", OTHER, "all@test.example" if redirected else to)

    refused = "all@test.example" if redirected else "IT@contoso.com"
    about = dataclasses.replace(OWN, envelope=Envelope("", (Recipient(refused, "NEVER"),)))
    done = await Desk(spool, Post(), spool._clock).about_failures(about, failure(people=(refused,)), CONTENT)
    assert (done.notices, done.told) == ((), False)


async def test_success_is_told_where_exchange_was_not_asked_for_it(desk):
    wants = (
        Recipient("anna@example.net", "SUCCESS", "rfc822;a+2Bb@example.net"),
        Recipient("bob@example.net"),
    )
    people = ("anna@example.net", "bob@example.net")
    done = await desk.about_outcomes(
        claim(people=wants), failure(SENT, people, details={"host": "h.example"}), CONTENT
    )
    (mail,) = done.notices
    message = read(mail)
    assert message["Subject"] == "Relayed: plan"
    (machine,) = [one for one in message.walk() if one.get_content_type() == "message/delivery-status"]
    fields = machine.get_payload()[1]
    assert len(machine.get_payload()) == 2
    assert fields["Final-Recipient"] == "rfc822;anna@example.net"
    assert fields["Original-Recipient"] == "rfc822;a+b@example.net"
    assert (fields["Action"], fields["Status"]) == ("relayed", "2.0.0")


@pytest.mark.parametrize(
    ("sender", "notify", "details"),
    [
        ("boss@contoso.com", "SUCCESS", {"dsn": "passed on"}),
        ("boss@contoso.com", "FAILURE", {}),
        ("boss@contoso.com", None, {}),
        ("scanner@floor2.local", "SUCCESS", {}),
        ("", "SUCCESS", {}),
    ],
    ids=["Exchange reports it", "not asked for", "nothing asked", "sender out of reach", "null sender"],
)
async def test_success_is_not_told(desk, sender, notify, details):
    about = claim(sender, people=(Recipient("anna@example.net", notify),))
    assert (await desk.about_outcomes(about, failure(SENT, details=details), CONTENT)).notices == ()


async def test_failure_and_success_of_one_message_are_two_notices_and_both_are_logged(desk, monkeypatch):
    told = []
    monkeypatch.setattr(events, "notified", lambda **fields: told.append((fields["kind"], fields["to"])))
    wants = (Recipient("anna@example.net", "SUCCESS,FAILURE"), Recipient("bob@example.net"))
    done = Settlement("0AMGPQ1200000", {"anna@example.net": SENT, "bob@example.net": FAILED})
    done = await desk.about_outcomes(claim(people=wants), done, CONTENT)
    assert [one.message.subject for one in done.notices] == ["Not delivered: plan", "Relayed: plan"]
    assert told == [("failure", "boss@contoso.com"), ("relayed", "boss@contoso.com")]


async def test_a_notice_of_success_does_not_speak_for_a_failure(desk, monkeypatch):
    async def broken(*_):
        raise RuntimeError("boom")

    with monkeypatch.context() as patch:
        patch.setattr(desk, "_compose", broken)
        wants = (Recipient("anna@example.net", "SUCCESS,FAILURE"), Recipient("bob@example.net"))
        done = Settlement("0AMGPQ1200000", {"anna@example.net": SENT, "bob@example.net": FAILED})
        assert not (await desk.about_outcomes(claim(people=wants), done, CONTENT)).told
    done = Settlement("0AMGPQ1200000", {"anna@example.net": SENT})
    assert not (await desk.about_outcomes(claim(people=wants), done, CONTENT)).told


async def test_a_fault_in_composing_never_costs_the_outcome(spool):
    class Broken(FakePost):
        def deliverable(self, address: str) -> bool:
            raise RuntimeError("boom")

    done = await Desk(spool, Broken(), spool._clock).about_failures(claim(), failure(), CONTENT)
    assert (done.outcomes, done.told) == (failure().outcomes, False)


@pytest.fixture
def overdue(spool, desk, tmp_path):
    return Overdue(spool, desk, spool_settings(tmp_path), spool._clock)


FROM_CONTOSO = dataclasses.replace(
    new_message(), envelope=Envelope("boss@contoso.com", (Recipient("anna@example.net"),))
)


async def defer(spool, message_id):
    (one,) = await spool.claim(LANE, 1, spool.now())
    await spool.settle(
        Settlement(message_id, {"anna@example.net": DEFERRED}, due=spool.now() + 9e5), spool.now()
    )
    return one


async def test_a_delay_is_told_after_its_time_and_once(spool, overdue):
    message_id = await accept(spool, message=FROM_CONTOSO)
    await defer(spool, message_id)
    spool._clock.advance(4 * 3600 - 10)
    await overdue.look()
    assert await spool.claim(OTHER, 5, spool.now()) == []
    spool._clock.advance(20)
    for _ in range(3):
        await overdue.look()
    (told,) = await spool.claim(OTHER, 5, spool.now())
    content = await spool.content(told.id)
    text = b"".join([chunk async for chunk in content.body.chunks()])
    assert b"Action: delayed" in text
    assert b"Will-Retry-Until:" in text
    assert b"Status: 4.7.0\r\n" in text
    assert b"Diagnostic-Code: smtp; 451 4.7.0 later" in text
    assert b"Last-Attempt-Date:" not in text  # it was hours ago, and nobody wrote down when
    (view,) = await spool.find(Filter(ids=(message_id,)))
    assert (view.state, view.attempts) == ("deferred", 1)


async def test_held_mail_is_not_called_delayed_and_does_not_grow_old(spool, overdue):
    await accept(spool, message=FROM_CONTOSO)
    await spool.hold(Hold("lane", LANE, "c", "The secret has expired", "Make a new one", "", spool.now()))
    spool._clock.advance(29 * 86_400)
    await overdue.look()
    assert await spool.claim(OTHER, 5, spool.now()) == []
    assert [one.state for one in await spool.find(Filter())] == ["held"]


async def test_mail_held_too_long_is_given_up_and_its_sender_told_why(spool, overdue):
    message_id = await accept(spool, message=FROM_CONTOSO)
    await spool.hold(Hold("lane", LANE, "c", "The secret has expired", "Make a new one", "", spool.now()))
    spool._clock.advance(30 * 86_400 + 60)
    await overdue.look()
    (told,) = await spool.claim(OTHER, 5, spool.now())
    content = await spool.content(told.id)
    text = b"".join([chunk async for chunk in content.body.chunks()])
    assert b"The secret has expired" in text
    assert [one.state for one in await spool.trace(message_id)] == ["failed"]


async def test_mail_whose_turn_never_came_is_given_up_at_max_age(spool, overdue):
    message_id = await accept(spool, message=FROM_CONTOSO)
    spool._clock.advance(5 * 86_400 + 60)
    await overdue.look()
    assert [one.state for one in await spool.trace(message_id)] == ["failed"]
    (told,) = await spool.claim(OTHER, 5, spool.now())
    content = await spool.content(told.id)
    text = b"".join([chunk async for chunk in content.body.chunks()])
    assert b"Status: 5.4.7\r\n" in text
    assert b"Diagnostic-Code:" not in text


async def test_a_long_list_is_looked_at_in_steps_and_whole(spool, overdue):
    for _ in range(250):
        await accept(
            spool,
            message=dataclasses.replace(
                FROM_CONTOSO, envelope=Envelope("", FROM_CONTOSO.envelope.recipients)
            ),
        )
    spool._clock.advance(5 * 3600)
    for _ in range(3):
        await overdue.look()
    assert await spool.overdue(spool.now(), unnoticed=True) == []


async def test_a_backlog_is_told_of_step_by_step_without_a_pause_of_a_minute(spool, desk, overdue):
    ids = [await accept(spool, message=FROM_CONTOSO) for _ in range(230)]
    spool._clock.advance(5 * 86_400 + 60)
    looks = 0
    while True:
        await overdue.look()
        looks += 1
        if overdue.pause() > 1:
            break
    assert looks == 3
    assert [one.state for one in await spool.trace(ids[-1])] == ["failed"]
    assert (await spool.stats()).messages == 20  # the notices; the others wait for a summary
    spool._clock.advance(3601)
    assert [owed.count for owed in await desk._accounts.owed()] == [210]


async def test_held_mail_is_passed_over_and_then_rests(spool, overdue):
    for _ in range(150):
        await accept(spool, message=FROM_CONTOSO)
    await spool.hold(Hold("lane", LANE, "c", "The secret has expired", "Make a new one", "", spool.now()))
    spool._clock.advance(86_400)
    await overdue.look()
    assert overdue.pause() < 1
    await overdue.look()
    assert overdue.pause() == 60


async def test_mail_that_is_too_old_tells_exchanges_last_words(spool, overdue):
    await defer(spool, await accept(spool, message=FROM_CONTOSO))
    spool._clock.advance(5 * 86_400 + 60)
    await overdue.look()
    (told,) = await spool.claim(OTHER, 5, spool.now())
    content = await spool.content(told.id)
    text = b"".join([chunk async for chunk in content.body.chunks()])
    assert b"Status: 5.4.7\r\n" in text
    assert b"Diagnostic-Code: smtp; 451 4.7.0 later" in text


async def test_what_is_claimed_meanwhile_is_neither_given_up_nor_announced(spool, overdue, monkeypatch):
    told = []
    monkeypatch.setattr(events, "notified", lambda **fields: told.append(fields))
    await accept(spool, message=FROM_CONTOSO)
    spool._clock.advance(5 * 86_400 + 60)
    found = await spool.overdue(spool.now(), unnoticed=False)
    await spool.claim(LANE, 1, spool.now())
    await overdue._look_at_old(found[0], spool.now())
    assert told == []
    assert await spool.claim(OTHER, 5, spool.now()) == []


def test_our_own_mail_has_the_null_sender_and_wants_no_notice():
    from relay.report.contract import Composed
    from relay.schedule.desk import Outgoing

    mail = own_mail(Composed("x@y", b"h\r\n\r\n", b"b", "s", "<m>"), Outgoing("f@c", LANE, "test@c"), "relay")
    assert mail.message.envelope == Envelope("", (Recipient("test@c", notify="NEVER"),))
    assert mail.message.header_from == ("f@c",)
