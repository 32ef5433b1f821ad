"""The From a message leaves with, for the forms that are found in the wild."""

from __future__ import annotations

import email
import email.policy

import pytest

from relay.rewrite.headers import read_header
from relay.rewrite.route import Route
from tests.rewrite.samples import SCANS, field, rewritten, route

S = b" <scans@contoso.com>"

FORMS: list[tuple[bytes, tuple[str, ...], bytes]] = [
    # value of From, addresses read, display name that leaves
    (b"app@site.local", ("app@site.local",), b""),
    (b"<app@site.local>", ("app@site.local",), b""),
    (b"Signify <App@Site.local>", ("App@Site.local",), b"Signify"),
    (b"Signify<app@site.local>", ("app@site.local",), b"Signify"),
    (b"Two  Blanks <a@b.c>", ("a@b.c",), b"Two Blanks"),
    (b'"Doe, John" <a@b.c>', ("a@b.c",), b'"Doe, John"'),
    (b'"a \\"b\\" c" <a@b.c>', ("a@b.c",), b'"a \\"b\\" c"'),
    (b'"back\\\\slash" <a@b.c>', ("a@b.c",), b'"back\\\\slash"'),
    (b'"two  blanks" <a@b.c>', ("a@b.c",), b'"two  blanks"'),
    (b'A "B C" D <a@b.c>', ("a@b.c",), b'A "B C" D'),
    (b'"a@b.c" <a@b.c>', ("a@b.c",), b'"a@b.c"'),
    (b"John Q. Public <a@b.c>", ("a@b.c",), b'"John Q. Public"'),
    (b"O'Neil & Co <a@b.c>", ("a@b.c",), b"O'Neil & Co"),
    (b"Doe, John <a@b.c>", ("a@b.c",), b'"Doe, John"'),
    (b"=?utf-8?q?J=C3=B6rg?= <a@b.c>", ("a@b.c",), b"=?utf-8?q?J=C3=B6rg?="),
    (b"=?ISO-2022-JP?B?GyRCRnxLXBsoQg==?= <a@b.c>", ("a@b.c",), b"=?ISO-2022-JP?B?GyRCRnxLXBsoQg==?="),
    (b"=?utf-8?q?one?=\r\n =?utf-8?q?two?= <a@b.c>", ("a@b.c",), b"=?utf-8?q?one?= =?utf-8?q?two?="),
    (b'"=?utf-8?q?J=C3=B6rg?=" <a@b.c>', ("a@b.c",), b'"=?utf-8?q?J=C3=B6rg?="'),
    (b"=?utf-8?q?J=C3=B6rg?=, Sales <a@b.c>", ("a@b.c",), b"=?utf-8?b?SsO2cmcsIFNhbGVz?="),
    (b"a@b.c (Commented Name)", ("a@b.c",), b"Commented Name"),
    (b"a@b.c (Doe, John)", ("a@b.c",), b'"Doe, John"'),
    (b"a@b.c (nested (twice))", ("a@b.c",), b'"nested (twice)"'),
    (b"a@b.c (=?utf-8?q?J=C3=B6rg?=)", ("a@b.c",), b"=?utf-8?q?J=C3=B6rg?="),
    (b"a@b.c (unclosed", ("a@b.c",), b"unclosed"),
    (b"(lead) a@b.c", ("a@b.c",), b"lead"),
    (b"Name (comment) <a@b.c>", ("a@b.c",), b"Name"),
    (b"<a(x)@(y)b.c>", ("a@b.c",), b"x"),
    (b"a @ b . c", ("a@b.c",), b""),
    (b"Name a@b.c", ("a@b.c",), b"Name"),
    (b"a@b.c Name", ("a@b.c",), b"Name"),
    (b"<a@b.c> Name", ("a@b.c",), b"Name"),
    (b"<@r1,@r2:a@b.c>", ("a@b.c",), b""),
    (b"Name <mailto:a@b.c>", ("a@b.c",), b"Name"),
    (b"<<a@b.c>>", ("a@b.c",), b""),
    (b"Name <a@b.c", ("a@b.c",), b"Name"),
    (b"'a@b.c'", ("a@b.c",), b""),
    (b'"a@b.c"', ("a@b.c",), b""),
    (b'"Name <a@b.c>"', ("a@b.c",), b""),
    (b"=?utf-8?q?John_=3Ca=40b=2Ec=3E?=", ("a@b.c",), b"John"),
    (b'"unclosed <a@b.c>', ("a@b.c",), b"unclosed"),
    (b'John "J" Doe" <a@b.c>', ("a@b.c",), b'John "J" Doe'),
    (b"Staff: Ann <a@b.c>, d@e.f;", ("a@b.c", "d@e.f"), b"Ann"),
    (b"undisclosed:;", (), b"undisclosed"),
    (b"A <a@b.c>, B <d@e.f>", ("a@b.c", "d@e.f"), b"A"),
    (b"a@b.c,,d@e.f,", ("a@b.c", "d@e.f"), b""),
    (b"a@b.c; d@e.f", ("a@b.c", "d@e.f"), b""),
    (b"A <a@b.c> B <d@e.f>", ("a@b.c", "d@e.f"), b"A"),
    (b"<a@b.c, d@e.f>", ("a@b.c", "d@e.f"), b""),
    (b"ups@[10.0.0.7]", ("ups@[10.0.0.7]",), b""),
    (b"root@localhost", ("root@localhost",), b""),
    (b"x@my_host.local", ("x@my_host.local",), b""),
    (b"do..como@docomo.example", ("do..como@docomo.example",), b""),
    (b'"odd local"@b.c', ('"odd local"@b.c',), b""),
    (b"root (Cron Daemon)", (), b'"root (Cron Daemon)"'),
    (b"MFP-3", (), b"MFP-3"),
    (b"Scanner <>", (), b"Scanner"),
    (b"Scanner <scanner>", (), b"Scanner"),
    (b"john doe@", (), b'"john doe@"'),
    (b"<>", (), b""),
    (b"", (), b""),
    (b"   ", (), b""),
    (b"@", (), b""),
    (b",;:<>()[]\"\\", (), b""),
    (b"a@b@c.d", (), b'"a@b@c.d"'),
    ("Jörg Müller <a@b.c>".encode(), ("a@b.c",), b"=?utf-8?b?SsO2cmcgTcO8bGxlcg==?="),
    ("Jörg Müller <a@b.c>".encode("latin-1"), ("a@b.c",), b"=?utf-8?b?SsO2cmcgTcO8bGxlcg==?="),
    ('"Müller, Jörg" <a@b.c>'.encode(), ("a@b.c",), b"=?utf-8?b?TcO8bGxlciwgSsO2cmc=?="),
    (b'"\x1b$BF|K\\\x1b(B" <a@b.c>', ("a@b.c",), b"=?utf-8?b?5pel5pys?="),
    ("a@b.c (Jörg)".encode("latin-1"), ("a@b.c",), b"=?utf-8?b?SsO2cmc=?="),
    (b"Name\r\n\t<a@b.c>", ("a@b.c",), b"Name"),
    (b"\r\n Name <a@b.c>", ("a@b.c",), b"Name"),
    (b"=?utf-8?Q?Doe,_J=C3=B6rg?= <a@b.c>", ("a@b.c",), b"=?utf-8?b?RG9lLCBKw7ZyZw==?="),
    (b"=?utf-8?q?x=0D=0ABcc:_e=40v?= <a@b.c>", ("a@b.c",), b'"x Bcc: e@v"'),
    (b"tab\there <a@b.c>", ("a@b.c",), b"tab here"),
    (b"bell\x07 <a@b.c>", ("a@b.c",), b"bell"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "addresses", "name"), FORMS)
def test_every_form_is_read_and_rewritten(value: bytes, addresses: tuple[str, ...], name: bytes) -> None:
    """The addresses are found, the name survives in valid syntax, the address is the mailbox's."""
    header = b"From: " + value + b"\r\nTo: x@y.example\r\n\r\n"
    assert read_header(header).from_addresses == addresses
    result = rewritten(header)
    got = field(result.header, "From")
    assert got == (name + S if name else SCANS.encode())
    parsed = email.message_from_bytes(result.header, policy=email.policy.default)
    assert [one.addr_spec for one in parsed["From"].addresses] == [SCANS]


def test_shift_jis_is_read_with_the_declared_charset() -> None:
    """Trail bytes of Shift-JIS look like ASCII specials; the Content-Type's charset tells."""
    value = "ソフト表示 <a@b.c>".encode("shift_jis")
    header = b"From: " + value + b"\r\nContent-Type: text/plain; charset=Shift_JIS\r\n\r\n"
    result = rewritten(header)
    assert result.from_before == "ソフト表示 <a@b.c>"
    assert result.from_after == "ソフト表示 <scans@contoso.com>"
    assert result.header.isascii()


def test_undecodable_names_never_fail() -> None:
    """Octets of no known character set come out as something readable, in ASCII."""
    result = rewritten(b'From: "\x81\x8d\xff\xfe\x90" <a@b.c>\r\n\r\n')
    assert result.header.isascii()
    assert b"<scans@contoso.com>" in result.header


@pytest.mark.parametrize(
    ("value", "name", "after"),
    [
        (b"Scanner <scanner@scanners.local>", "address", b'"scanner@scanners.local"' + S),
        (b"MFP-3", "address", b"MFP-3" + S),
        (b"", "address", SCANS.encode()),
        (b"Scanner <scanner@scanners.local>", "Contoso Scans", b"Contoso Scans" + S),
        (b"x@y", "Scans, 2nd floor", b'"Scans, 2nd floor"' + S),
        (b"x@y", 'The "best"', b'"The \\"best\\""' + S),
        (b"x@y", "Büro", b"=?utf-8?b?QsO8cm8=?=" + S),
        (b"x@y", "Evil\r\nBcc: all@contoso.com", b'"Evil Bcc: all@contoso.com"' + S),
    ],
)
def test_name_policies(value: bytes, name: str, after: bytes) -> None:
    """``address`` shows who it was; a text is encoded as it must be, and cannot make a field."""
    result = rewritten(b"From: " + value + b"\r\n\r\n", route(name=name))
    assert field(result.header, "From") == after


def test_address_policy_uses_the_envelope_when_there_is_no_from() -> None:
    """CDO sends no From at all."""
    result = rewritten(b"Subject: x\r\n\r\n", route(name="address"), sender="app@site.local")
    assert field(result.header, "From") == b'"app@site.local"' + S
    assert field(result.header, "Reply-To") == b"app@site.local"


def test_several_from_fields_become_one_in_the_place_of_the_first() -> None:
    """RFC 5322 allows one."""
    result = rewritten(b"From: A <a@b.c>\r\nSubject: x\r\nFROM: B <d@e.f>\r\n\r\n")
    assert result.header.startswith(b"From: A <scans@contoso.com>\r\nSubject: x\r\n")
    assert field(result.header, "Reply-To") == b"a@b.c, d@e.f"
    assert result.from_before == "A <a@b.c> | B <d@e.f>"


def test_an_absurdly_long_name_is_shortened_and_folded() -> None:
    """256 characters of a name are what Exchange keeps; no line is over 998."""
    for value in (b"x" * 50000, b"word " * 20000, "ü".encode() * 30000, b"=?utf-8?q?" + b"x" * 9000 + b"?="):
        result = rewritten(b"From: " + value + b" <a@b.c>\r\n\r\n")
        lines = result.header.split(b"\r\n")
        assert max(map(len, lines)) < 998
        assert len(result.from_after) < 300
        assert field(result.header, "Reply-To") == b"a@b.c"


def test_long_but_fair_names_are_folded_at_78() -> None:
    """Folding happens between words only."""
    words = b" ".join(b"word%d" % i for i in range(30))
    result = rewritten(b"From: " + words + b" <a@b.c>\r\n\r\n")
    assert field(result.header, "From") == words + S
    assert max(map(len, result.header.split(b"\r\n"))) <= 78


def test_too_long_an_address_is_no_address() -> None:
    """Beyond what SMTP can carry nobody can answer to it."""
    result = rewritten(b"From: " + b"x" * 400 + b"@b.c\r\n\r\n")
    assert read_header(b"From: " + b"x" * 400 + b"@b.c\r\n\r\n").from_addresses == ()
    assert field(result.header, "Reply-To") is None


def test_a_from_that_is_right_already_stays_byte_for_byte() -> None:
    """Odd spacing and case included; no Reply-To is added for oneself."""
    header = b"fRoM:  Scans  \r\n\t <Scans@CONTOSO.com>\r\nTo: a@b\r\nDate: x\r\nMessage-ID: <a@b>\r\n\r\n"
    simple = b"fRoM:  Scans <Scans@CONTOSO.com>\r\nTo: a@b\r\nDate: x\r\nMessage-ID: <a@b>\r\n\r\n"
    assert rewritten(simple).header == simple
    assert field(rewritten(header).header, "Reply-To") is None


@pytest.mark.parametrize(
    ("fields", "reply_to", "expected"),
    [
        (b"From: a@b.c\r\n", "original", b"a@b.c"),
        (b"From: a@b.c\r\nReply-To: Desk <desk@contoso.com>\r\n", "original", b"Desk <desk@contoso.com>"),
        (b"From: a@b.c\r\nReply-To:\r\n", "original", b"a@b.c"),
        (b"From: a@b.c\r\n", "none", None),
        (b"From: a@b.c\r\nReply-To: d@e.f\r\n", "none", b"d@e.f"),
        (b"From: a@b.c\r\n", "help@contoso.com", b"help@contoso.com"),
        (b"From: a@b.c\r\nReply-To: d@e.f\r\n", "help@contoso.com", b"help@contoso.com"),
        (b"From: SCANS@contoso.com\r\n", "original", None),
        (b"From: A <a@b.c>, a@B.C\r\n", "original", b"a@b.c"),
        (b"From: broken\r\n", "original", None),
        (b"From: do..como@d.example\r\n", "original", b'"do..como"@d.example'),
        ("From: a@bücher.example\r\n".encode(), "original", b"a@xn--bcher-kva.example"),
        ("From: jörg@b.c\r\n".encode(), "original", None),
        ("From: a@b\uff20c.example\r\n".encode(), "original", None),
        ("From: a@…\r\n".encode(), "original", None),
    ],
)
def test_reply_to_policies(fields: bytes, reply_to: str, expected: bytes | None) -> None:
    """Answers go to the original sender unless the message or the rule says otherwise."""
    assert field(rewritten(fields + b"\r\n", route(reply_to=reply_to)).header, "Reply-To") == expected


def test_reply_to_of_a_message_with_many_senders_is_bounded() -> None:
    """Twenty are plenty."""
    many = b", ".join(b"a%d@b.c" % i for i in range(500))
    reply = field(rewritten(b"From: " + many + b"\r\n\r\n").header, "Reply-To")
    assert reply is not None
    assert reply.count(b"@") == 20


KEEP = Route("M365", ("ann@contoso.com",), None, "keep", "original", 0)
KEEP_LOGIN = Route("M365", ("relay@contoso.com",), None, "keep", "original", 0)


def kept(header: bytes, to: Route = KEEP, sender: str = "") -> bytes:
    return rewritten(header + b"\r\n", to, mailbox=to.mailboxes[0], sender=sender).header


def test_keep_leaves_a_plain_from_alone() -> None:
    """And adds no Reply-To."""
    out = kept(b"From: Ann  Lee <Ann@contoso.com>\r\n")
    assert field(out, "From") == b"Ann Lee <Ann@contoso.com>"
    assert kept(b"From:Ann <Ann@contoso.com>\r\n").startswith(b"From:Ann <Ann@contoso.com>\r\n")
    assert field(out, "Reply-To") is None


def test_keep_writes_anew_what_others_could_read_differently() -> None:
    """Only the addresses that were checked against the rule leave."""
    out = kept(b'From: "x" <ann@contoso.com> (y), <broken\r\nFrom: bob@contoso.com\r\n')
    assert field(out, "From") == b'"x" <ann@contoso.com>, bob@contoso.com'


def test_keep_with_several_addresses_gets_a_sender() -> None:
    """5.1.20: multiple From addresses without Sender."""
    out = kept(b"From: ann@contoso.com, bob@contoso.com\r\n")
    assert field(out, "Sender") == b"ann@contoso.com"
    out = kept(b"From: ann@contoso.com, bob@contoso.com\r\nSender: bob@contoso.com\r\n")
    assert field(out, "Sender") == b"bob@contoso.com"


def test_sender_field() -> None:
    """Gone after a rewrite, kept where another mailbox submits, gone where From is the mailbox itself."""
    assert field(rewritten(b"From: a@b\r\nSender: c@d\r\n\r\n").header, "Sender") is None
    given = b"From: ann@contoso.com\r\nSender: app@contoso.com\r\n"
    assert field(kept(given, KEEP_LOGIN), "Sender") == b"app@contoso.com"
    assert field(kept(given), "Sender") is None


def test_keep_without_a_readable_from_uses_the_envelope_then_the_mailbox() -> None:
    """There is always a From."""
    assert field(kept(b"Subject: x\r\n", sender="Bob@contoso.com"), "From") == b"Bob@contoso.com"
    assert field(kept(b"From: Bob\r\n", sender=""), "From") == b"Bob <ann@contoso.com>"


def test_keep_with_a_name_of_the_rule() -> None:
    """Names apply to kept addresses, too."""
    to = Route("M365", ("ann@contoso.com",), None, "Büro", "original", 0)
    assert (
        field(kept(b"From: Ann <ann@contoso.com>\r\n", to), "From")
        == b"=?utf-8?b?QsO8cm8=?= <ann@contoso.com>"
    )


def test_smtputf8_lets_raw_names_and_addresses_pass() -> None:
    """Only where the submission may carry them."""
    header = "From: Jörg <jörg@b.example>\r\nSubject: grüße\r\nTo: ü@b.example\r\n\r\n".encode()
    out = rewritten(header, smtputf8=True).header
    assert field(out, "From") == "Jörg <scans@contoso.com>".encode()
    assert field(out, "Reply-To") == "jörg@b.example".encode()
    assert field(out, "Subject") == "grüße".encode()
    plain = rewritten(header).header
    assert field(plain, "From") == b"=?utf-8?b?SsO2cmc=?= <scans@contoso.com>"
    assert field(plain, "To") == "ü@b.example".encode()
