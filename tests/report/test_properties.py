"""What holds for any text and any octets: it is composed, it parses, it has one To, and nothing is injected."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from relay.message import Recipient, Reply
from relay.report.bulletin import Matter, admin_notice, line, summary
from relay.report.notice import About, Composed, Fate, Kind, compose, hops, is_notice, reachable
from tests.report.kit import groups, parts, read

LIMITS = settings(max_examples=250, deadline=None)
PIECES = st.sampled_from([
    "\r\n", "\n", "\r", "\r\nBcc: all@example.com", "\r\n\r\n", " ", "  ", "\t", "a@b.example", "@", "<", ">", '"', ",",
    ";", "=?utf-8?q?x?=", "jörg@bücher.example", "東京", "\ud800", "\u202e", "\u2028", "\x85", "\x00", "x" * 1100,
    "+2B", "+0D+0A", "\\x{F6}", "\\x{D800}", "rfc822;", "utf-8;", "5.1.1", "--=_relay_", "word", "(", "…", "é" * 600,
])  # fmt: skip
TEXT = st.one_of(
    st.text(st.characters(), max_size=60), st.lists(PIECES, max_size=8).map("".join), st.just("a@b.example")
)
OCTETS = st.one_of(
    st.binary(max_size=300),
    st.lists(PIECES, max_size=12).map(lambda pieces: "".join(pieces).encode("utf-8", "surrogatepass")),
)
TIMES = st.one_of(st.floats(), st.just(1_795_428_000.0))
REPLIES = st.one_of(st.none(), st.builds(Reply, st.integers(-1, 1000), TEXT, TEXT))
FATES = st.builds(
    Fate,
    st.builds(Recipient, TEXT, st.one_of(st.none(), TEXT), st.one_of(st.none(), TEXT)),
    REPLIES,
    TEXT,
    TEXT,
    TEXT,
)
MESSAGES = st.builds(
    About,
    TEXT,
    TEXT,
    TEXT,
    TEXT,
    TIMES,
    st.one_of(st.none(), TEXT),
    st.sampled_from([None, "FULL", "HDRS", "full", ""]),
    OCTETS,
    st.lists(TEXT, max_size=4).map(tuple),
    st.one_of(st.none(), TIMES),
)
FIELDS = {
    "From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "X-Auto-Response-Suppress", "X-Relay-Notice-For",
    "In-Reply-To", "References", "MIME-Version", "Content-Type", "Content-Transfer-Encoding",
}  # fmt: skip


def check_form(notice: Composed) -> None:
    """CRLF only, no NUL, no long line, one of each field and no other, one recipient."""
    whole = notice.header + notice.body
    assert whole.count(b"\r\n") == whole.count(b"\n") == whole.count(b"\r")
    assert b"\0" not in whole
    assert max(map(len, whole.split(b"\r\n"))) <= 998
    assert notice.header.endswith(b"\r\n\r\n")
    assert notice.header.count(b"\r\n\r\n") == 1
    names = re.findall(rb"^([!-9;-~]+):", notice.header, re.MULTILINE)
    assert len(names) == len(set(names))
    assert {name.decode() for name in names} <= FIELDS
    parsed = read(notice)
    assert len(parsed.get_all("To", [])) == 1
    assert len(parsed["To"].addresses) <= 1
    assert len(parsed["From"].addresses) == 1
    assert parsed["Subject"] == notice.subject
    assert is_notice(notice.header)
    assert hops(notice.header) == 0


@LIMITS
@given(
    st.sampled_from(Kind),
    MESSAGES,
    st.lists(FATES, min_size=1, max_size=4),
    TEXT,
    TEXT,
    TEXT,
    TIMES,
    TEXT,
    OCTETS,
)
def test_any_notice_is_sound(
    kind: Kind,
    about: About,
    fates: list[Fate],
    to: str,
    from_email: str,
    host: str,
    now: float,
    own: str,
    original: bytes,
) -> None:
    """Three parts; the header (or the whole) comes back octet by octet; one group for each recipient."""
    notice = compose(kind, about, fates, to=to, from_email=from_email, hostname=host, now=now, message_id=own,
                     original=original)  # fmt: skip
    check_form(notice)
    human, machine, returned = parts(notice)
    assert "relay trace" in str(human.get_content())
    if returned.get_content_type() == "text/rfc822-headers":
        assert returned.get_payload(decode=True) == about.header
    else:
        assert original in notice.body
    assert notice.body.count(b"\r\nFinal-Recipient: ") + notice.body.count(
        b"\r\nFinal-Recipient:\r\n"
    ) >= len(fates)
    if machine.get_content_type() == "message/delivery-status":
        found = groups(notice)
        assert len(found) == 1 + len(fates)
        for group in found[1:]:
            assert group["Action"] in ("failed", "delayed", "relayed")
            assert re.fullmatch(r"[245]\.\d{1,3}\.\d{1,3}", group["Status"])
            assert len(group.get_all("Final-Recipient", [])) == 1
            assert set(group.keys()) <= {
                "Original-Recipient", "Final-Recipient", "Action", "Status", "Remote-MTA", "Diagnostic-Code",
                "Last-Attempt-Date", "Will-Retry-Until"}  # fmt: skip


@LIMITS
@given(st.builds(Matter, TEXT, TEXT, TEXT, TEXT, TIMES, TEXT, TEXT), st.booleans(), TEXT, TEXT, TIMES, TEXT)
def test_any_bulletin_is_sound(matter: Matter, began: bool, to: str, host: str, now: float, own: str) -> None:
    """The postmaster's news."""
    check_form(admin_notice(matter, began=began, to=to, from_email="n@contoso.com", hostname=host, now=now,
                            message_id=own, waiting=3, in_reply_to=own))  # fmt: skip


@LIMITS
@given(st.sampled_from(Kind), MESSAGES, st.lists(FATES, max_size=3), st.lists(TEXT, max_size=5), TEXT, TIMES)
def test_any_summary_is_sound(
    kind: Kind, about: About, fates: list[Fate], samples: list[str], to: str, now: float
) -> None:
    """Lines made by us or by anybody."""
    samples = [line(kind, about, fates), *samples]
    assert "\n" not in samples[0]
    check_form(summary(to, 9, samples, from_email="n@contoso.com", hostname="relay1", since=now, now=now,
                       message_id="<s@relay1>"))  # fmt: skip


@LIMITS
@given(OCTETS, TEXT)
def test_looking_never_fails(header: bytes, address: str) -> None:
    """Any octets have hops, any text is reachable or not; a field above the block is always seen."""
    assert hops(b"Received: by x\r\n" + header) == 1 + hops(b"X: y\r\n" + header)
    assert is_notice(b"X-Relay-Notice-For: y\r\n" + header)
    assert reachable(address) in (True, False)
