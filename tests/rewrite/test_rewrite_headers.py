"""Header blocks: where they end, what is read in them, what is mended, and that the rest stays as it is."""

from __future__ import annotations

import email
import email.parser
import email.policy
import time

import pytest

from relay.rewrite.contract import HeaderFacts
from relay.rewrite.headers import read_header, split_header
from relay.rewrite.pipeline import date_text, rewrite
from tests.rewrite.samples import SCANS, SPOOL_ID, WHEN, field, rewritten, route

OURS = b"Received: from app ([127.0.0.1])\r\n\tby relay with ESMTP id 0k3v9s2f7q8zc;\r\n\tTue, 24 Nov 2026 10:00:00 +0000\r\n"
COMPLETE = b"To: x@y.example\r\nDate: Tue, 24 Nov 2026 10:00:00 +0000\r\nMessage-ID: <a@b>\r\n"


@pytest.mark.parametrize(
    ("message", "end"),
    [
        (b"A: b\r\n\r\nbody", 8),
        (b"A: b\r\n c\r\n\td\r\n\r\nbody", 16),
        (b"A: b\r\nno field\r\nB: c\r\n\r\n", 6),
        (b"\r\nbody", 2),
        (b"Hello\r\n", 0),
        (b" Hello\r\n", 0),
        (b": x\r\n\r\n", 0),
        (b"From me Mon Jan  1 10:00:00 2026\r\nA: b\r\n\r\nbody", 42),
        (b">From me\r\nA: b\r\n\r\n", 18),
        (b"A: b\r\nFrom me\r\n\r\n", 6),
        (b"From : a@b\r\n\r\n", 14),
        (b"A : b\r\n\r\n", 9),
        (b"A: b\n\nbody", 6),
        ("ü: b\r\n\r\n".encode(), 0),
        (OURS + b"From me\r\nA: b\r\n\r\nbody", len(OURS) + 17),
    ],
)
def test_where_the_header_block_ends(message: bytes, end: int) -> None:
    """After the first empty line, or before the first line that is neither field nor continuation."""
    assert split_header(message, complete=True) == end
    assert split_header(message) in (end, None)


def test_the_end_is_not_guessed_before_it_is_there() -> None:
    """Arriving octet by octet, the answer is the same as at once."""
    message = b"From me\r\nA: b\r\n c\r\n\r\nbody\r\n"
    answers = {split_header(message[:size]) for size in range(len(message) + 1)}
    assert answers == {None, 21}
    assert split_header(b"A: b", complete=True) == 4
    assert split_header(b"", complete=True) == 0


def test_facts_of_an_ordinary_header() -> None:
    """What admission and routing need."""
    header = OURS + b"From: App <App@site.local>\r\nSubject: Hello\r\n" + COMPLETE + b"\r\n"
    assert read_header(header) == HeaderFacts(("App@site.local",), "<a@b>", "Hello", 1, 6)
    assert read_header(b"") == HeaderFacts((), "", "", 0, 0)
    assert read_header(OURS * 31 + b"\r\n").received_count == 31
    assert read_header(b"From: a@b\r\nfrom : c@d\r\n\r\n").from_addresses == ("a@b", "c@d")


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"plain", "plain"),
        (b"folded\r\n subject", "folded subject"),
        (b"=?utf-8?q?J=C3=B6rg?= x", "Jörg x"),
        (b"a =?utf-8?b?SsO2?= =?utf-8?b?cmc=?= b", "a Jörg b"),
        (b"=?utf-8?b?SsM=?= =?utf-8?b?tnJn?=", "Jörg"),
        (b"=?utf-8?q?a?= =?iso-8859-1?q?=FC?=", "aü"),
        (b"=?utf-8*de?q?gr=C3=BC=C3=9Fe?=", "grüße"),
        (b"=?utf-8?b?SsO2cmc?=", "Jörg"),
        (b"=?utf-8?b?!?=", ""),
        (b"=?unknown-8bit?q?gr=FC=DFe?=", "grüße"),
        (b"=?unicode_escape?q?=5Cr=5CnX?=", "\\r\\nX"),
        (b"=?utf-7?q?+2AA-?=", "?"),
        (b"=?broken", "=?broken"),
        ("grüße".encode(), "grüße"),
        ("grüße".encode("latin-1"), "grüße"),
        (b"\x1b$BF|K\\\x1b(B", "日本"),
        (b"tab\tbell\x07esc\x1b[31m", "tab bell␇esc␛[31m"),
        (b"=?utf-8?q?a=0D=0Ab=E2=80=AEc?=", "a␍␊b\ufffdc"),
        (b"", ""),
    ],
)
def test_subjects_are_decoded_for_people(raw: bytes, shown: str) -> None:
    """Nothing in them can turn or forge a line on a page, in a log or on a terminal."""
    assert read_header(b"Subject: " + raw + b"\r\n\r\n").subject == shown


def test_shown_texts_are_bounded() -> None:
    """However long the fields are."""
    facts = read_header(
        b"Subject: " + b"=?utf-8?q?=C3=BC?= " * 9000 + b"\r\nMessage-ID: " + b"x" * 9000 + b"\r\n\r\n"
    )
    assert len(facts.subject) == 250
    assert facts.subject.startswith("üüü")
    assert len(facts.message_id) == 998


def test_untouched_fields_stay_byte_for_byte() -> None:
    """Order, case, folding, odd blanks: all of it."""
    odd = (
        b"x-ODD :  two  blanks \r\nSUBJECT:\tTabs\tand  blanks\r\n\t folded \r\nDKIM-Signature: v=1;\r\n  a=b\r\n"
        b"X-Empty:\r\nDisposition-Notification-To: a@b\r\nDelivered-To: c@d\r\nX-A: 1\r\nX-A: 2\r\n"
    )
    result = rewritten(OURS + odd + b"From: a@b.c\r\n" + COMPLETE + b"\r\n")
    expected = OURS + odd + b"From: scans@contoso.com\r\n" + COMPLETE + b"Reply-To: a@b.c\r\n\r\n"
    assert result.header == expected
    assert result.notes == ()


def test_bcc_and_return_path_never_leave() -> None:
    """All of them, folded ones, odd case, before a fake empty line."""
    header = (
        b"BCC: a@secret\r\nFrom: a@b\r\nbcc : b@secret,\r\n c@secret\r\nResent-Bcc: d@secret\r\n"
        b"Return-Path: <e@secret>\r\nX-A: 1\r\n \r\nBcc: f@secret\r\n\r\n"
    )
    result = rewritten(header)
    assert b"secret" not in result.header
    assert {"Bcc removed", "Resent-Bcc removed", "Return-Path removed"} <= set(result.notes)


def test_missing_fields_are_added_and_noted() -> None:
    """A scanner that sends a Subject only."""
    result = rewritten(OURS + b"Subject: Scan\r\n\r\n")
    assert result.header == (
        OURS + b"Subject: Scan\r\nFrom: scans@contoso.com\r\nDate: Tue, 24 Nov 2026 10:00:00 +0000\r\n"
        b"Message-ID: <0k3v9s2f7q8zc@contoso.com>\r\nTo: undisclosed-recipients:;\r\n\r\n"
    )
    assert result.notes == ("From added", "Date added", "Message-ID added", "To added")
    assert (result.from_before, result.from_after) == ("", SCANS)


def test_an_added_message_id_is_the_same_at_each_attempt_and_only_there() -> None:
    """Receivers find duplicates by it; two messages must never share one."""
    one, other = OURS + b"X-A: 1\r\n\r\n", OURS + b"X-A: 2\r\n\r\n"

    def made(header: bytes, message_id: str) -> bytes | None:
        made = rewrite(header, route(), SCANS, sender="", message_id=message_id, received=WHEN)
        return field(made.header, "Message-ID")

    assert made(one, "") == made(one, "") != made(other, "")
    assert made(one, "a b") != made(one, "a-b")
    assert made(one, "<whole@id>") == b"<whole@id>"
    assert made(one, "x\r\nBcc: a@b") != made(one, "")


def test_empty_fields_count_as_missing() -> None:
    """An empty To or Date is invalid."""
    result = rewritten(b"From: a@b\r\nTo: \r\nCc:\r\n \r\nDate:\r\nMessage-ID: \t\r\nSubject:\r\n\r\n")
    assert field(result.header, "To") == b"undisclosed-recipients:;"
    assert field(result.header, "Cc") is None
    assert field(result.header, "Message-ID") == f"<{SPOOL_ID}@contoso.com>".encode()
    assert field(result.header, "Subject") == b""


def test_repeated_fields() -> None:
    """To and Cc are joined, of the others the first counts (RFC 5322 section 3.6)."""
    result = rewritten(
        b"From: a@b\r\nTo: One <a@x>,\r\nSubject: first\r\nTO: b@x,\r\n c@x\r\nSubject: second\r\nTo: d@x\r\n"
        b"Date: 1\r\nDate: 2\r\nMessage-ID: <1@x>\r\nMessage-ID: <2@x>\r\nReply-To: r@x\r\nReply-To: s@x\r\n\r\n"
    )
    assert field(result.header, "To") == b"One <a@x>, b@x, c@x, d@x"
    assert field(result.header, "Subject") == b"first"
    assert field(result.header, "Date") == b"1"
    assert field(result.header, "Message-ID") == b"<1@x>"
    assert field(result.header, "Reply-To") == b"r@x"
    assert "repeated Subject removed" in result.notes
    assert "several To fields joined" in result.notes


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("Subject: Störung in Halle 3".encode("latin-1"), b"Subject: =?utf-8?b?U3TDtnJ1bmc=?= in Halle 3"),
        ("Subject: Störung in Halle 3".encode(), b"Subject: =?utf-8?b?U3TDtnJ1bmc=?= in Halle 3"),
        ("X-Büro: x".encode(), None),
        ("X-Site: Büro 7".encode("cp1252"), b"X-Site: =?utf-8?b?QsO8cm8=?= 7"),
        ("Subject: =?utf-8?q?a?= ü".encode(), b"Subject: =?utf-8?b?YSDDvA==?="),
        ("Cc: Jörg <j@x>, \"Müller, M\" <m@x>".encode(), b"Cc: =?utf-8?b?SsO2cmc=?= <j@x>, =?utf-8?b?TcO8bGxlciwgTQ==?= <m@x>"),
        ("Cc: a@bücher.example".encode(), b"Cc: a@xn--bcher-kva.example"),
        ("Content-Disposition: attachment; filename=\"Büro 1.pdf\"".encode(),
         b"Content-Disposition: attachment; filename*=utf-8''B%C3%BCro%201.pdf"),
        ("References: <ü@x>".encode(), b"References: <?@x>"),
    ],
)  # fmt: skip
def test_raw_8bit_header_text_is_encoded(raw: bytes, expected: bytes | None) -> None:
    """Exchange refuses it without SMTPUTF8; old ERPs and scripts send it all the time."""
    result = rewritten(b"From: a@b\r\n" + COMPLETE + raw + b"\r\n\r\n")
    if expected is None:
        assert raw + b"\r\n" in result.header
        assert result.header.index(b"\r\n\r\n") < result.header.index(raw)
    else:
        assert result.header.isascii()
        assert expected in result.header
        assert any("8-bit" in note for note in result.notes)


def test_raw_latin1_with_smtputf8_is_still_encoded_utf8_is_not() -> None:
    """RFC 6532 is about UTF-8 only."""
    header = b"From: a@b\r\n" + COMPLETE + "Subject: ü".encode("latin-1") + "\r\nComments: ü\r\n\r\n".encode()
    out = rewritten(header, smtputf8=True).header
    assert field(out, "Subject") == b"=?utf-8?b?w7w=?="
    assert field(out, "Comments") == "ü".encode()


def test_long_encoded_subjects_are_folded_into_valid_words() -> None:
    """No word over 75, no line over 78, the text complete."""
    text = "Übergroße Störmeldung " * 30
    out = rewritten(b"From: a@b\r\nSubject: " + text.encode() + b"\r\n\r\n").header
    assert max(map(len, out.split(b"\r\n"))) <= 78
    assert email.message_from_bytes(out, policy=email.policy.default)["Subject"].strip() == text.strip()


@pytest.mark.parametrize(
    "raw",
    [
        b"Subject: " + b"word " * 1000 + b"end",
        b"To: " + b", ".join(b"user%d@x.example" % i for i in range(300)),
        b"To: " + b",".join(b'"a, b%d" <user%d@x.example>' % (i, i) for i in range(300)),
        b"References: " + b"".join(b"<%d@x.example>" % i for i in range(300)),
        b"X-Data: " + b"x" * 5000,
    ],
)
def test_lines_over_998_are_broken(raw: bytes) -> None:
    """Report mailers: a header in one line of thousands of octets."""
    result = rewritten(b"From: a@b\r\n" + raw + b"\r\n\r\n")
    assert max(map(len, result.header.split(b"\r\n"))) <= 998
    name = raw.partition(b":")[0].decode()
    got = field(result.header, name)
    assert got is not None
    if name in ("Subject", "To", "References"):
        assert got.replace(b" ", b"") == raw.partition(b": ")[2].replace(b" ", b"")
    assert any("998" in note and "folded" in note for note in result.notes)


def test_a_structured_line_that_cannot_be_broken_is_left_and_noted() -> None:
    """Breaking it would change what it says."""
    raw = b"Content-Type: text/plain; charset=" + b"x" * 2000
    result = rewritten(b"From: a@b\r\n" + raw + b"\r\n\r\n")
    assert any("left too long" in note for note in result.notes)
    assert b"x" * 2000 in result.header


def test_mbox_line_is_dropped_also_below_our_received() -> None:
    """Some senders hand over a file out of a mailbox."""
    for prefix in (b"", OURS):
        result = rewritten(
            prefix + b"From app Mon Jan  1 10:00:00 2026\r\nFrom: a@b\r\n" + COMPLETE + b"\r\n"
        )
        assert b"From app" not in result.header
        assert result.header.startswith(prefix + b"From: scans@contoso.com\r\n")
        assert "mbox From line removed" in result.notes


def test_bare_line_ends_are_mended() -> None:
    """A bare CR must not make a field, a bare LF never leaves."""
    out = rewritten(b"From: a@b\nSubject: x\rBcc: y@z\r\n\r\n").header
    assert field(out, "Subject") == b"x Bcc: y@z"
    assert out.count(b"\n") == out.count(b"\r\n") == out.count(b"\r")


def test_the_block_always_ends_with_an_empty_line() -> None:
    """Also when the client sent none, or no field at all; text that is no field becomes the body's start."""
    assert rewritten(b"From: a@b").header.endswith(b"\r\n\r\n")
    assert rewritten(b"").header.endswith(b"\r\n\r\n")
    assert rewritten(b"Hello\r\n").header.endswith(b"To: undisclosed-recipients:;\r\n\r\nHello\r\n")


def test_dates_are_rfc_5322_in_utc() -> None:
    """Independent of the locale."""
    assert date_text(0) == "Thu, 1 Jan 1970 00:00:00 +0000"
    assert date_text(WHEN) == "Tue, 24 Nov 2026 10:00:00 +0000"


REAL = {
    "Ricoh: envelope is the device, From the user": (
        b"From: \"Ann Lee\" <ann@site.local>\r\nTo: x@y.example\r\nSubject: Message from \"RNP0026\"\r\n\r\n",
        b'"Ann Lee" <scans@contoso.com>',
    ),
    "HP MFP: no Date, no Message-ID": (
        b"To: x@y.example\r\nFrom: HP MFP <mfp@site.local>\r\nSubject: Scan\r\nMIME-Version: 1.0\r\n\r\n",
        b"HP MFP <scans@contoso.com>",
    ),
    "ERP: raw ISO-8859-1": (
        "From: Müller Buchhaltung <erp@site.local>\r\nSubject: Rechnung für März\r\n\r\n".encode("latin-1"),
        b"=?utf-8?q?M=C3=BCller_Buchhaltung?= <scans@contoso.com>",
    ),
    "APC: address literal": (b"From: ups@[10.0.0.7]\r\nSubject: UPS\r\n\r\n", b"scans@contoso.com"),
    "cron": (b"From: root (Cron Daemon)\r\nTo: root\r\n\r\n", b'"root (Cron Daemon)" <scans@contoso.com>'),
    "CDO: no From": (b"Subject: x\r\n\r\n", b"scans@contoso.com"),
    "Toshiba: receipt wanted": (
        b"From: <mfp@site.local>\r\nDisposition-Notification-To: <mfp@site.local>\r\n"
        b"Content-Type: multipart/mixed; boundary=\"+-+-+-T-+-+\"\r\n\r\n",
        b"scans@contoso.com",
    ),
}  # fmt: skip


_NO_BODY = {"StartBoundaryNotFoundDefect", "MultipartInvariantViolationDefect"}
"""What Python before 3.11.5 says of a multipart header block that stands here without its body."""


@pytest.mark.parametrize("name", REAL)
def test_real_clients(name: str) -> None:
    """Headers as listener-facts section 3 describes them come out in a form that Exchange accepts."""
    header, expected = REAL[name]
    out = rewritten(header).header
    assert field(out, "From") == expected
    assert out.isascii()
    parsed = email.parser.BytesHeaderParser(policy=email.policy.default).parsebytes(out)
    odd = [one for one in parsed.defects if type(one).__name__ not in _NO_BODY]
    assert not odd
    assert all(parsed[one] for one in ("From", "To", "Date", "Message-ID"))


def test_an_ordinary_header_is_quick() -> None:
    """Generous here (the machine is shared); the figure we hold ourselves to is 60 microseconds."""
    header = (
        OURS
        + b"From: Signify <app@site.local>\r\nSubject: Hello\r\n"
        + COMPLETE
        + b"X-A: 1234567890\r\n" * 40
        + b"\r\n"
    )
    best = min(_timed(header) for _ in range(20))
    assert best < 0.001


def _timed(header: bytes) -> float:
    start = time.perf_counter()
    read_header(header)
    rewritten(header)
    return time.perf_counter() - start


@pytest.mark.parametrize(
    "value",
    [
        b"(" * 200_000,
        b"<" * 200_000,
        b'"' * 200_000,
        b'"\\' * 100_000,
        b"a," * 100_000,
        b"a:" * 100_000,
        b"@ " * 100_000,
        b"x@" + b": " * 100_000,
        b"=?a?q?" * 40_000,
        b"=?utf-8?q??= " * 20_000,
        b"[ " * 100_000,
        b"a\r\n " * 60_000,
        b"\\a" * 100_000,
        b'"a\\" ' * 50_000,
        "ü ".encode() * 70_000,
        b"<a@b>" * 40_000,
    ],
)
@pytest.mark.parametrize("name", [b"From", b"To", b"Subject"])
def test_hostile_headers_take_bounded_time(name: bytes, value: bytes) -> None:
    """Cost grows in proportion to the header, whatever is in it (256 kB is the listener's bound)."""
    header = name + b": " + value + "ü\r\n\r\n".encode()
    start = time.perf_counter()
    read_header(header)
    result = rewritten(header)
    assert time.perf_counter() - start < 5
    assert result.header.endswith(b"\r\n\r\n")
