"""One notice, field by field, as a mail program reads it."""

from __future__ import annotations

import pytest

from relay.message import Reply
from relay.report.notice import FULL_LIMIT, NOTICE_FIELD, Action, Kind, action
from tests.report.kit import (
    ABOUT,
    BOB,
    HEADER,
    NOW,
    RECEIVED,
    about,
    fate,
    group,
    groups,
    parts,
    read,
    words,
    written,
)

DAY = 86_400.0


def test_header_fields() -> None:
    """From the relay to one address, marked as automatic, answering the original."""
    notice = written()
    parsed = read(notice)
    assert parsed["From"].addresses[0].addr_spec == "notifications@contoso.com"
    assert parsed["From"].addresses[0].display_name == "Mail relay at relay.contoso.com"
    assert [one.addr_spec for one in parsed["To"].addresses] == ["app@contoso.com"]
    assert parsed["Subject"] == notice.subject == "Not delivered: Figures"
    assert parsed["Date"].datetime.timestamp() == NOW
    assert parsed["Message-ID"] == notice.message_id == "<n.1@relay.contoso.com>"
    assert parsed["Auto-Submitted"] == "auto-replied"
    assert "OOF" in parsed["X-Auto-Response-Suppress"]
    assert parsed[NOTICE_FIELD] == ABOUT.id
    assert parsed["In-Reply-To"] == parsed["References"] == ABOUT.message_id
    assert parsed["MIME-Version"] == "1.0"
    assert notice.header.endswith(b"\r\n\r\n")
    assert notice.header.count(b"\r\n\r\n") == 1
    assert notice.to == "app@contoso.com"
    assert not notice.eight_bit
    assert not notice.smtputf8
    assert not parsed.defects


def test_structure() -> None:
    """multipart/report of three parts: for people, for machines, what came back."""
    parsed = read(written())
    assert parsed.get_content_type() == "multipart/report"
    assert parsed.get_param("report-type") == "delivery-status"
    assert [part.get_content_type() for part in parsed.iter_parts()] == [
        "text/plain", "message/delivery-status", "text/rfc822-headers"]  # fmt: skip


def test_machine_part_of_a_failure() -> None:
    """Every field, and no other; the message's group comes first."""
    notice = written(Kind.FAILURE, about(envid="QQ31+2B4+3Dx"), fate(orcpt="rfc822;Bob+2Bsales@example.com"))
    assert len(groups(notice)) == 2
    assert group(notice, 0) == {
        "Original-Envelope-Id": "QQ31+4=x",
        "Reporting-MTA": "dns; relay.contoso.com",
        "Arrival-Date": "Mon, 23 Nov 2026 10:00:00 +0000",
    }
    assert group(notice) == {
        "Original-Recipient": "rfc822;Bob+sales@example.com",
        "Final-Recipient": "rfc822;bob@example.com",
        "Action": "failed",
        "Status": "5.1.1",
        "Remote-MTA": "dns; smtp.office365.com",
        "Diagnostic-Code": "smtp; 550 5.1.1 RESOLVER.ADR.RecipientNotFound; not found",
        "Last-Attempt-Date": "Mon, 23 Nov 2026 11:00:00 +0000",
    }


def test_machine_part_of_a_delay() -> None:
    """A delay says until when it is tried."""
    busy = fate(reply=Reply(451, "4.7.500", "Access denied, please try again later"))
    notice = written(Kind.DELAY, about(will_retry_until=RECEIVED + 5 * DAY), busy)
    found = group(notice)
    assert (found["Action"], found["Status"]) == ("delayed", "4.7.500")
    assert found["Will-Retry-Until"] == "Sat, 28 Nov 2026 10:00:00 +0000"
    assert notice.subject == "Delayed: Figures"


def test_held_is_a_delay_while_it_is_kept_and_a_failure_after() -> None:
    """And nothing pretends that it was attempted of late."""
    kept = about(will_retry_until=RECEIVED + 30 * DAY)
    assert action(Kind.HELD, kept) is Action.DELAYED
    assert written(Kind.HELD, kept).subject == "Delayed: Figures"
    assert group(written(Kind.HELD, kept))["Action"] == "delayed"
    gone = written(Kind.HELD)
    assert gone.subject == "Not delivered: Figures"
    assert group(gone)["Action"] == "failed"
    assert "Last-Attempt-Date" not in group(gone)
    assert group(written(Kind.HELD, last_attempt=RECEIVED))["Last-Attempt-Date"].startswith("Mon, 23 Nov")


@pytest.mark.parametrize(
    ("kind", "reply", "status", "diagnostic"),
    [
        (Kind.FAILURE, Reply(550, "5.1.10", "x"), "5.1.10", "smtp; 550 5.1.10 x"),
        (Kind.FAILURE, Reply(451, "4.4.1", "x"), "5.4.1", "smtp; 451 4.4.1 x"),
        (Kind.DELAY, Reply(550, "5.2.121", "x"), "4.2.121", "smtp; 550 5.2.121 x"),
        (Kind.FAILURE, Reply(550, "", "no code"), "5.0.0", "smtp; 550 no code"),
        (Kind.DELAY, Reply(421, "", ""), "4.0.0", "smtp; 421"),
        (Kind.FAILURE, Reply(550, "5.1.1\r\nAction: delivered", "x"), "5.0.0",
         "smtp; 550 5.1.1 Action: delivered x"),
        (Kind.FAILURE, Reply(550, "9.9.9", "x"), "5.0.0", "smtp; 550 9.9.9 x"),
        (Kind.FAILURE, Reply(0, "", "ErrorSendAsDenied"), "5.0.0", "x-relay; ErrorSendAsDenied"),
        (Kind.FAILURE, Reply(550, "5.1.1", "Empfänger fehlt"), "5.1.1", "smtp; 550 5.1.1 Empf\\xe4nger fehlt"),
        (Kind.FAILURE, None, "5.0.0", None),
        (Kind.DELAY, None, "4.0.0", None),
        (Kind.DELAY, Reply(0), "4.0.0", None),
    ],
)  # fmt: skip
def test_status_agrees_with_the_action(
    kind: Kind, reply: Reply | None, status: str, diagnostic: str | None
) -> None:
    """The class follows the action, the detail the server; its words stand beside it, unfalsified."""
    found = group(written(kind, ABOUT, fate(reply=reply)))
    assert found["Status"] == status
    assert found.get("Diagnostic-Code") == diagnostic


def test_every_recipient_has_its_group() -> None:
    """In the order given."""
    notice = written(Kind.FAILURE, ABOUT, *(fate(f"r{number}@example.com") for number in range(120)))
    finals = [one["Final-Recipient"] for one in groups(notice)[1:]]
    assert finals == [f"rfc822;r{number}@example.com" for number in range(120)]


def test_a_non_ascii_recipient_makes_it_global() -> None:
    """RFC 6533: UTF-8 in the machine part, 8BITMIME needed, but no SMTPUTF8 for an ASCII reader."""
    notice = written(Kind.FAILURE, ABOUT, fate("jörg@example.com", orcpt="utf-8;j\\x{F6}rg@example.com"), BOB)
    machine = parts(notice)[1]
    assert machine.get_content_type() == "message/global-delivery-status"
    assert "Original-Recipient: utf-8;jörg@example.com\r\n".encode() in notice.body
    assert "Final-Recipient: utf-8;jörg@example.com\r\n".encode() in notice.body
    assert b"Final-Recipient: rfc822;bob@example.com\r\n" in notice.body
    assert notice.eight_bit
    assert not notice.smtputf8
    assert read(notice)["Content-Transfer-Encoding"] == "8bit"


def test_a_non_ascii_sender_gets_his_notice() -> None:
    """The address stands in To as UTF-8 (RFC 6532), and the notice says what it needs."""
    notice = written(Kind.FAILURE, about(sender="jörg@contoso.com"))
    assert "To: jörg@contoso.com\r\n".encode() in notice.header
    assert notice.smtputf8


@pytest.mark.parametrize(
    ("orcpt", "shown"),
    [
        ("rfc822;bob@example.com", "rfc822;bob@example.com"),
        ("RFC822;a+2Bb+3Dc@example.com", "rfc822;a+b=c@example.com"),
        ("utf-8;plain+tag@example.com", "utf-8;plain\\x{2B}tag@example.com"),
        ("x400;/C=US/", "x400;/C=US/"),
        ("rfc822;a+0D+0AAction:+20none@b", "rfc822;a+0D+0AAction:+20none@b"),
        ("rfc822;a+C3+B6@b.example", "rfc822;a+C3+B6@b.example"),
        ("rfc822;", None),
        ("no type", None),
        ("bad type;a@b", None),
        (None, None),
    ],
)
def test_orcpt_comes_back_as_it_was_meant(orcpt: str | None, shown: str | None) -> None:
    """RFC 3461 section 4.2; what hides line ends stays hidden."""
    notice = written(Kind.FAILURE, ABOUT, fate(orcpt=orcpt))
    assert group(notice).get("Original-Recipient") == shown
    assert parts(notice)[1].get_content_type() == "message/delivery-status"


@pytest.mark.parametrize(
    ("envid", "shown"),
    [
        ("abc", "abc"),
        ("a+20b+2B", "a b+"),
        ("a+0D+0Ab", "a+0D+0Ab"),
        ("a+ZZ", "a+ZZ"),
        ("", None),
        (None, None),
    ],
)
def test_envid_comes_back_decoded(envid: str | None, shown: str | None) -> None:
    """RFC 3461 section 4.4."""
    assert group(written(Kind.FAILURE, about(envid=envid)), 0).get("Original-Envelope-Id") == shown


ORIGINAL = HEADER + "Grüße\r\n".encode()


@pytest.mark.parametrize(
    ("kind", "ret", "original", "full"),
    [
        (Kind.FAILURE, "FULL", ORIGINAL, True),
        (Kind.HELD, "FULL", ORIGINAL, True),
        (Kind.FAILURE, "HDRS", ORIGINAL, False),
        (Kind.FAILURE, None, ORIGINAL, False),
        (Kind.FAILURE, "FULL", None, False),
        (Kind.DELAY, "FULL", ORIGINAL, False),
        (Kind.FAILURE, "FULL", HEADER + b"x" * FULL_LIMIT, False),
        (Kind.FAILURE, "FULL", HEADER + b"a bare\nline end", False),
        (Kind.FAILURE, "FULL", HEADER + b"nul \0", False),
        (Kind.FAILURE, "FULL", HEADER + b"x" * 999, False),
    ],
)
def test_ret(kind: Kind, ret: str | None, original: bytes | None, full: bool) -> None:
    """All of it for RET=FULL, when it failed and is small and can be quoted unharmed; else the header."""
    notice = written(kind, about(ret=ret), original=original)
    returned = parts(notice)[2]
    assert returned.get_content_type() == ("message/rfc822" if full else "text/rfc822-headers")
    assert (ORIGINAL in notice.body) is full
    if not full:
        assert returned.get_payload(decode=True) == HEADER


@pytest.mark.parametrize(
    "header",
    [
        HEADER,
        b"Subject: J\xf6rg \x83\x5c\r\nX: \x00\x1b\r\n\r\n",
        b"Subject: bare\rand\nmore\r\n",
        b"X: " + b"y" * 3000 + b"\r\n\r\n",
        b"trailing blank: x \r\n\t\r\n.\r\n\r\n",
        b"X: =?utf-8?q?=41?= =20\r\n\r\n",
        b"",
        b"no line end",
    ],
)
def test_original_header_is_returned_octet_by_octet(header: bytes) -> None:
    """Whatever it holds, in seven bits that nobody on the way has a reason to touch."""
    notice = written(Kind.FAILURE, about(header=header))
    assert parts(notice)[2].get_payload(decode=True) == header
    assert notice.body.isascii()
    assert max(map(len, notice.body.split(b"\r\n"))) <= 998


@pytest.mark.parametrize("message_id", ["", "none", "<a b@c>", "<a@b>\r\nBcc: x@y", "<>", "<a@b@c>", "<ä@b>"])
def test_an_invalid_message_id_is_not_answered(message_id: str) -> None:
    """Nor does it break a field."""
    parsed = read(written(Kind.FAILURE, about(message_id=message_id)))
    assert parsed["In-Reply-To"] is None
    assert parsed["References"] is None
    assert parsed["Bcc"] is None


def test_own_message_id_is_always_valid_and_always_the_same() -> None:
    """A caller's odd id is replaced by one made of it, so that a retry is the same mail."""
    first, again = (written(message_id="notice for 01JDC\r\nX: y") for _ in range(2))
    assert first == again
    assert first.message_id.endswith("@relay.contoso.com>")
    assert read(first)["Message-ID"] == first.message_id
    assert written(message_id="bare@relay").message_id == "<bare@relay>"


@pytest.mark.parametrize(
    ("subject", "shown"),
    [
        ("", "Not delivered: (no subject)"),
        ("Büro 東京", "Not delivered: Büro 東京"),
        ("=?utf-8?q?x?=", "Not delivered: =?utf-8?q?x?="),
        ("a\r\nBcc: all@example.com", "Not delivered: a Bcc: all@example.com"),
        ("\u202egnp.exe \ud800", "Not delivered: gnp.exe"),
        ("long " * 200, "Not delivered: " + ("long " * 200)[:199] + "…"),
    ],
)
def test_subjects(subject: str, shown: str) -> None:
    """One line, readable again, whatever it was; lines stay within 78 columns."""
    notice = written(Kind.FAILURE, about(subject=subject))
    assert read(notice)["Subject"] == notice.subject == shown
    assert read(notice)["Bcc"] is None
    assert max(map(len, notice.header.split(b"\r\n"))) <= 78


def test_the_sender_reads_what_why_and_what_to_do() -> None:
    """In plain words, with the server's own beside them, and the id for the administrator."""
    text = words(written())
    assert "relay.contoso.com" in text
    assert "could not be delivered" in text
    assert "Subject: Figures" in text
    assert "23 November 2026, 10:00 UTC" in text
    assert "bob@example.com Why: The recipient does not exist." in text
    assert "Exchange's answer: 550 5.1.1 RESOLVER.ADR.RecipientNotFound; not found" in text
    assert "What to do: Check the address and send again." in text
    assert "It will not be tried again." in text
    assert "relay trace 01JDCQ5S7H2AB" in text
    assert "postmaster" not in text


def test_a_delay_says_that_nothing_need_be_done() -> None:
    """And until when; the remedy is an administrator's and not shown to the sender."""
    text = words(written(Kind.DELAY, about(will_retry_until=RECEIVED + 5 * DAY)))
    assert "not delivered yet" in text
    assert "need not be sent again" in text
    assert "until 28 November 2026, 10:00 UTC" in text
    assert "What to do" not in text


def test_the_remedy_of_a_hold_is_for_the_postmaster_only() -> None:
    """The sender cannot mend the set-up."""
    sender = words(written(Kind.HELD, ABOUT, fate(remedy="Make a new client secret.")))
    assert "new client secret" not in sender
    assert "fault in the set-up" in sender
    assert "ask the administrator" in sender
    admin = words(written(Kind.HELD, ABOUT, fate(remedy="Make a new client secret."), to="it@contoso.com"))
    assert "What to do: Make a new client secret." in admin
    assert "no notice can reach the sender, app@contoso.com" in admin


def test_recipients_with_the_same_news_stand_together() -> None:
    """Said once; past fifty the report is referred to."""
    text = words(written(Kind.FAILURE, ABOUT, *(fate(f"r{number}@example.com") for number in range(60))))
    assert text.count("The recipient does not exist.") == 1
    assert "r49@example.com" in text
    assert "r50@example.com" not in text
    assert "and 10 more" in text


def test_a_notice_speaks_of_somebody() -> None:
    """No recipients is the caller's mistake."""
    from relay.report.notice import compose

    with pytest.raises(ValueError, match="at least one recipient"):
        compose(Kind.FAILURE, ABOUT, (), to="a@b.example", from_email="c@d.example", hostname="h", now=NOW,
                message_id="<x@y>")  # fmt: skip
