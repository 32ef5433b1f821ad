"""The summary, and the postmaster's news."""

from __future__ import annotations

import pytest

from relay.report.bulletin import Matter, admin_notice, line, matter_of, summary
from relay.report.notice import NOTICE_FIELD, Composed, Kind, is_notice
from relay.spool.contract import Hold
from tests.report.kit import ABOUT, BOB, NOW, RECEIVED, about, fate, read

HOLD = Hold(
    scope="lane",
    key="Microsoft 365/scans@contoso.com",
    code="smtp-auth-disabled",
    reason="SMTP AUTH is switched off for the mailbox.",
    remedy="Set-CASMailbox scans@contoso.com -SmtpClientAuthenticationDisabled $false",
    evidence="535 5.7.139 SmtpClientAuthentication is disabled for the Mailbox.",
    since=RECEIVED,
)


def told(matter: Matter, began: bool, **more: object) -> Composed:
    return admin_notice(matter, began=began, to="it@contoso.com", from_email="n@contoso.com", hostname="relay1",
                        now=NOW, message_id="<h.2@relay1>", **more)  # type: ignore[arg-type]  # fmt: skip


def text_of(composed: Composed) -> str:
    return " ".join(str(read(composed).get_content()).split())


def test_a_hold_is_told_with_reason_evidence_and_remedy() -> None:
    """All an administrator needs to act, and how many wait."""
    notice = told(matter_of(HOLD), True, waiting=12)
    text = text_of(notice)
    assert notice.subject == "Needs attention: mail through Microsoft 365/scans@contoso.com is held"
    assert f"Why: {HOLD.reason}" in text
    assert f"Evidence: {HOLD.evidence}" in text
    assert f"What to do: {HOLD.remedy}" in text
    assert "Cause: smtp-auth-disabled" in text
    assert "Messages waiting: 12" in text
    assert "Since 23 November 2026, 10:00 UTC" in text
    assert "Nothing is lost" in text


def test_the_end_of_a_hold_answers_its_beginning() -> None:
    """So that mail programs show them together."""
    notice = told(matter_of(HOLD), False, waiting=12, in_reply_to="<h.1@relay1>")
    assert notice.subject == "Over: mail through Microsoft 365/scans@contoso.com is held"
    assert read(notice)["In-Reply-To"] == "<h.1@relay1>"
    assert "Nothing needs to be done." in text_of(notice)
    assert "go out now: 12" in text_of(notice)
    assert "What to do" not in text_of(notice)


@pytest.mark.parametrize(
    ("scope", "key", "title"),
    [
        ("upstream", "Microsoft 365", "all mail through Microsoft 365 is held"),
        ("lane", "M/a@x", "mail through M/a@x is held"),
        ("sender", "M/a@x|b@x", "mail from b@x through M/a@x is held"),
    ],
)
def test_each_scope_has_its_words(scope: str, key: str, title: str) -> None:
    """The smallest thing that is broken is what is named."""
    hold = Hold(scope, key, "c", "r", "m", "e", RECEIVED)
    assert matter_of(hold).title == title


def test_other_matters_do_not_claim_what_holds_claim() -> None:
    """With a full spool mail is refused: the note is the caller's."""
    full = Matter(
        "the spool is full", "The disk is full.", "", "Make room.", RECEIVED, note="New mail is refused."
    )
    text = text_of(told(full, True))
    assert "New mail is refused." in text
    assert "still accepted" not in text
    assert "Evidence" not in text


def test_the_summary_stands_for_its_notices() -> None:
    """Count, span and lines; what is not listed is counted."""
    lines = [
        line(Kind.FAILURE, ABOUT, [BOB, fate("eve@example.com")]),
        line(Kind.DELAY, about(subject=""), [BOB]),
    ]
    notice = summary("app@contoso.com", 80, lines, from_email="n@contoso.com", hostname="relay1", since=RECEIVED,
                     now=NOW, message_id="<s.1@relay1>")  # fmt: skip
    text = text_of(notice)
    assert notice.subject == "Summary: 80 more notices about mail"
    assert "between 23 November 2026, 10:00 UTC and 23 November 2026, 11:00 UTC" in text
    assert "01JDCQ5S7H2AB: not delivered, “Figures” to bob@example.com and 1 more." in text
    assert "01JDCQ5S7H2AB: delayed, “(no subject)” to bob@example.com. The recipient does not exist." in text
    assert "and 78 more." in text


def test_both_are_marked_so_that_no_notice_follows() -> None:
    """auto-generated, since no mail caused them; our own field; one To; plain text."""
    lines = [line(Kind.FAILURE, about(subject="x\r\nBcc: y"), [BOB])]
    both = (
        told(matter_of(HOLD), True),
        summary("it@contoso.com", 1, lines, from_email="n@contoso.com", hostname="relay1", since=0.0, now=NOW,
                message_id="<s.1@relay1>"),
    )  # fmt: skip
    for notice in both:
        parsed = read(notice)
        assert parsed["Auto-Submitted"] == "auto-generated"
        assert parsed[NOTICE_FIELD] in ("administration", "summary")
        assert is_notice(notice.header)
        assert [one.addr_spec for one in parsed["To"].addresses] == ["it@contoso.com"]
        assert parsed.get_content_type() == "text/plain"
        assert parsed["Bcc"] is None
        assert not parsed.defects
