"""What the simulated Exchange keeps and what it refuses after the last dot, and the limits of a mailbox."""

from __future__ import annotations

import asyncio
import json
import smtplib
import ssl
from pathlib import Path

import pytest

from tests.simulator.kit import MESSAGE, Clock, Connect, Dialog, Start, fetch_token

MAILBOX = "notifications@contoso.com"


async def begin(dialog: Dialog, body: str = "") -> None:
    """An open transaction, up to the 354."""
    assert (await dialog.say(f"MAIL FROM:<{MAILBOX}>{body}")).startswith("250")
    assert (await dialog.say("RCPT TO:<a@b.example>")).startswith("250")
    assert (await dialog.say("DATA")).startswith("354 ")


async def test_an_accepted_message_is_a_file_and_an_entry(
    start: Start, connect: Connect, tmp_path: Path
) -> None:
    """Envelope, parameters, headers and the exact octets are kept, and the index on disk lists them."""
    sim = await start()
    dialog = await connect(sim)
    data = MESSAGE.replace(b"hello", b"=?utf-8?b?R3LDvMOfZQ==?=").replace(
        b"To: a@b.example", b"Bcc: c@d.example"
    )
    assert (await dialog.say(f"MAIL FROM:<{MAILBOX}> BODY=8BITMIME SIZE=99")).startswith("250")
    for recipient in ("a@b.example", "c@d.example"):
        assert (await dialog.say(f"RCPT TO:<{recipient}>")).startswith("250")
    assert (await dialog.say("DATA")).startswith("354")
    reply = await dialog.say(data + b"\r\n..dot\r\n.")
    assert reply == "250 2.0.0 OK <1@contoso.com> [Hostname=SIM0PR01CA0001.outlook.office365.com]"
    (accepted,) = sim.messages
    assert accepted.bytes() == data + b"\r\n.dot\r\n"
    assert accepted.size == len(accepted.bytes())
    assert (accepted.mailbox, accepted.mail_from, accepted.transport) == (MAILBOX, MAILBOX, "smtp")
    assert accepted.recipients == ["a@b.example", "c@d.example"]
    assert accepted.mail_params == {"BODY": "8BITMIME", "SIZE": "99"}
    assert (accepted.header_from, accepted.subject, accepted.message_id) == (
        MAILBOX,
        "Grüße",
        "<1@contoso.com>",
    )
    assert accepted.has_bcc
    lines = (tmp_path / "sim" / "index.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["id"] == accepted.id
    assert sim.counters["messages"] == 1


@pytest.mark.parametrize("ending", [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n.\r", b"\r\r\n.x\r\n"])
async def test_only_crlf_dot_crlf_ends_and_bare_newlines_are_refused(
    start: Start, connect: Connect, ending: bytes
) -> None:
    """A smuggled command stays content; the message is refused 550 5.6.11 as a whole."""
    sim = await start()
    dialog = await connect(sim)
    await begin(dialog)
    smuggled = MESSAGE + ending + b"MAIL FROM:<smuggled@contoso.com>\r\n"
    assert (await dialog.say(smuggled + b".")).startswith("550 5.6.11")
    assert await dialog.say("NOOP") == "250 2.0.0 OK"
    assert sim.messages == []


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
async def test_the_body_survives_any_cut_of_the_stream(start: Start, connect: Connect, size: int) -> None:
    """Dots and line ends are understood wherever the network cuts."""
    sim = await start()
    dialog = await connect(sim)
    await begin(dialog)
    body = MESSAGE + b"\r\n..\r\n...x\r\n\r\n..y z\r\n.\r\n"
    for position in range(0, len(body), size):
        dialog.raw(body[position : position + size])
        await dialog.writer.drain()
        await asyncio.sleep(0)
    assert (await dialog.read()).startswith("250 2.0.0")
    assert sim.messages[0].bytes() == MESSAGE + b"\r\n.\r\n..x\r\n\r\n.y z\r\n"


@pytest.mark.parametrize(
    ("header", "reply"),
    [
        (b"Subject: none\r\n", "550 5.7.512"),
        (b"From: notifications@contoso.com\r\nFrom: notifications@contoso.com\r\n", "550 5.7.512"),
        (b"From: Somebody\r\n", "550 5.7.512"),
        (b"From: notifications@contoso.com, scans@contoso.com\r\n", "550 5.1.20"),
        (
            b"From: ceo@contoso.com\r\n",
            "554 5.2.252 SendAsDenied; notifications@contoso.com not allowed to send as",
        ),
        (b"From: notifications@contoso.com\r\nSender: ceo@contoso.com\r\n", "554 5.2.252 SendAsDenied"),
        (b"Received: x\r\n" * 31 + b"From: notifications@contoso.com\r\n", "554 5.4.14"),
        (b"From: notifications@contoso.com\r\nX-Long: " + b"x " * 140_000 + b"\r\n", "500 5.5.2"),
        (b"From: notifications@contoso.com\r\n" + b"X-Many: x\r\n" * 25_000, "552 5.3.4 Header size"),
        (b'From: "Doe, John" <NOTIFICATIONS@contoso.com>\r\n', "250 2.0.0"),
        (b"From: =?utf-8?q?J=C3=B6rg?=\r\n <notifications@contoso.com>\r\n", "250 2.0.0"),
    ],
)
async def test_the_header_block_decides(start: Start, connect: Connect, header: bytes, reply: str) -> None:
    """One valid From that the mailbox may use, not too many hops, not too large."""
    sim = await start()
    answer = await (await connect(sim)).message(header + b"\r\nbody")
    assert answer.startswith(reply)
    assert len(sim.messages) == (reply[0] == "2")


async def test_send_as_lets_another_address_pass(start: Start, connect: Connect) -> None:
    """Granted for the mailbox, as envelope sender and in From; another mailbox of the tenant is not enough."""
    sim = await start(send_as={MAILBOX: {"shop@contoso.com"}})
    dialog = await connect(sim)
    shop = MESSAGE.replace(b"notifications@", b"shop@")
    assert (await dialog.message(shop, sender="Shop@contoso.com")).startswith("250 ")
    assert (await dialog.message(MESSAGE, sender="scans@contoso.com")).startswith("554 5.2.252")
    assert sim.messages[0].header_from == "shop@contoso.com"


async def test_long_lines_are_refused_unless_told_otherwise(start: Start, connect: Connect) -> None:
    """998 octets pass, 999 do not; with BINARYMIME or the option off, anything passes."""
    sim = await start()
    dialog = await connect(sim)
    assert (await dialog.message(MESSAGE + b"\r\n" + b"x" * 998)).startswith("250 ")
    assert (await dialog.message(MESSAGE + b"\r\n" + b"x" * 999)).startswith("500 5.5.2")
    await sim.change(refuse_long_lines=False)
    assert (await dialog.message(MESSAGE + b"\r\n" + b"x" * 999)).startswith("250 ")


async def test_a_message_over_the_mailbox_limit_is_refused_at_the_end_too(
    start: Start, connect: Connect
) -> None:
    """Without SIZE the octets are counted; the session goes on."""
    sim = await start(message_size=1000)
    dialog = await connect(sim)
    assert (await dialog.message(MESSAGE + b"\r\nxxxxxxxx" * 100)).startswith(
        "552 5.3.4 Message size exceeds"
    )
    assert (await dialog.message(MESSAGE)).startswith("250 ")


async def test_bdat_carries_a_message_in_chunks(start: Start, connect: Connect) -> None:
    """Chunks are taken as they are, dots and all; BINARYMIME needs BDAT; a chunk without MAIL is thrown away."""
    sim = await start()
    dialog = await connect(sim)
    dialog.raw(b"BDAT 6 LAST\r\nQUIT\r\n")
    assert (await dialog.read()).startswith("503 ")
    assert (await dialog.say(f"MAIL FROM:<{MAILBOX}> BODY=BINARYMIME")).startswith("250 ")
    assert (await dialog.say("RCPT TO:<a@b.example>")).startswith("250 ")
    assert (await dialog.say("DATA")).startswith("503 ")
    part = MESSAGE + b"\r\n.\r\nbare\nline"
    dialog.raw(b"BDAT %d\r\n%sBDAT 3 LAST\r\nend" % (len(part), part))
    assert (await dialog.read()).startswith("250 ")
    assert (await dialog.read()).startswith("250 2.0.0 OK")
    assert sim.messages[0].bytes() == part + b"end"


async def test_the_fourth_connection_of_a_mailbox_is_refused(start: Start, connect: Connect) -> None:
    """432 4.3.2 at AUTH; another mailbox, or a freed place, is welcome."""
    sim = await start()
    dialogs = [await connect(sim) for _ in range(3)]
    fourth = await connect(sim, "tls")
    assert (await fourth.auth()).startswith("432 4.3.2 ")
    assert (await fourth.auth("scans@contoso.com")).startswith("235 ")
    assert (await dialogs[0].say("QUIT")).startswith("221 ")
    assert await dialogs[0].closed()
    assert (await (await connect(sim, "tls")).auth()).startswith("235 ")
    report = sim.limits_report()["mailboxes"][MAILBOX]
    assert (report["connections"], report["connections_tried"]) == (3, 4)


async def test_the_rate_slides_over_sixty_seconds(start: Start, connect: Connect, clock: Clock) -> None:
    """The message too many is 421 4.4.2 and the connection closes; a minute after the first there is room for one."""
    sim = await start(clock=clock, messages_per_minute=3)
    dialog = await connect(sim)
    for _ in range(3):
        assert (await dialog.message(MESSAGE)).startswith("250 ")
        clock.now += 10
    assert (await dialog.say(f"MAIL FROM:<{MAILBOX}>")).startswith("421 4.4.2 Message submission rate")
    assert await dialog.closed()
    clock.now += 30
    dialog = await connect(sim)
    assert (await dialog.message(MESSAGE)).startswith("250 ")
    assert (await dialog.say(f"MAIL FROM:<{MAILBOX}>")).startswith("421 4.4.2")
    report = sim.limits_report()["mailboxes"][MAILBOX]
    assert (report["messages_per_minute"], report["messages_per_minute_tried"]) == (3, 5)
    assert report["refusals"] == {"messages_per_minute": 2}


async def test_a_transaction_given_up_is_not_counted(start: Start, connect: Connect) -> None:
    """MAIL and RSET, or a new EHLO, submit nothing."""
    sim = await start(messages_per_minute=1)
    dialog = await connect(sim)
    for undo in ("RSET", "EHLO relay.test", "RSET"):
        assert (await dialog.say(f"MAIL FROM:<{MAILBOX}>")).startswith("250 ")
        assert (await dialog.say(undo)).startswith("250")
    assert (await dialog.message(MESSAGE)).startswith("250 ")


async def test_recipients_per_message_and_per_day(start: Start, connect: Connect, clock: Clock) -> None:
    """452 4.5.3 beyond the message's limit; SubmissionQuotaExceeded beyond the day's, until the day has passed."""
    sim = await start(clock=clock, recipients_per_message=2, recipients_per_day=3)
    dialog = await connect(sim)
    pair = ("a@b.example", "c@d.example")
    assert (await dialog.message(MESSAGE, recipients=(*pair, "e@f.example"))).startswith("452 4.5.3 Too many")
    assert (await dialog.say("RSET")).startswith("250")
    assert (await dialog.message(MESSAGE, recipients=pair)).startswith("250 ")
    refused = await dialog.message(MESSAGE, recipients=pair)
    assert refused.startswith("554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException")
    clock.now += 86_400
    assert (await (await connect(sim)).message(MESSAGE, recipients=pair)).startswith("250 ")


async def test_repeating_a_mistake_throttles_the_mailbox(
    start: Start, connect: Connect, clock: Clock
) -> None:
    """After so many SendAsDenied (554) everything of this mailbox is 550 5.2.252 for a while, good mail included."""
    sim = await start(clock=clock, repeated_errors=3)
    dialog = await connect(sim)
    wrong = MESSAGE.replace(b"notifications@", b"ceo@")
    for _ in range(3):
        assert (await dialog.message(wrong)).startswith("554 5.2.252 SendAsDenied")
    throttled = "550 5.2.252 Sender throttled due to continuous send as denied errors"
    assert (await dialog.message(MESSAGE)).startswith(throttled)
    clock.now += 3600
    assert (await (await connect(sim)).message(MESSAGE)).startswith("250 ")


async def test_a_full_mailbox_and_a_blocked_sender(start: Start, connect: Connect) -> None:
    """554 5.2.2 with the exception's name; 550 5.1.8 for a sender that Defender has restricted."""
    sim = await start()
    await sim.change(mailbox_full=[MAILBOX])
    dialog = await connect(sim)
    full = await dialog.message(MESSAGE)
    assert full.startswith("554 5.2.2 mailbox full; STOREDRV.Submission.Exception:QuotaExceededException")
    await sim.change(mailbox_full=[], blocked_senders=[MAILBOX])
    assert (await dialog.message(MESSAGE)).startswith(
        "550 5.1.8 Access denied, bad outbound sender AS(42004)"
    )
    assert [refusal["phase"] for refusal in sim.store.refusals] == ["end-of-data"] * 2


async def test_twenty_five_megabytes_go_to_a_file(start: Start) -> None:
    """Python's own client sends a large message with dots at the beginning of lines; every octet arrives."""
    sim = await start()
    token = await fetch_token(sim)
    message = MESSAGE + b"\r\n" + (b".dotted " + b"x" * 68 + b"\r\n") * 340_000

    def submit() -> None:
        with smtplib.SMTP("localhost", sim.smtp_port, timeout=60) as client:
            client.starttls(context=ssl.create_default_context(cafile=sim.ca_file))
            client.ehlo()
            text = f"user={MAILBOX}\x01auth=Bearer {token}\x01\x01"
            client.auth("XOAUTH2", lambda challenge=None: "" if challenge else text)
            client.sendmail(MAILBOX, ["a@b.example"], message)

    await asyncio.to_thread(submit)
    assert await sim.wait_for_messages(1)
    assert sim.messages[0].bytes() == message
    assert list((sim.directory / "messages").glob("*.part")) == []
