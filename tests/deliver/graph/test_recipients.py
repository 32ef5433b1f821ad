"""The envelope decides: whatever the header says, Graph delivers to the envelope's recipients; people read the rest."""

from __future__ import annotations

import base64
import email
import email.policy
import email.utils
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.deliver.graph.recipients import addressed
from relay.message import Recipient
from relay.rewrite.addresses import comparable
from relay.rewrite.encoding import decode_words
from relay.simulator.graph_mail import from_mime

REST = b"From: s@contoso.com\r\nSubject: x\r\n"


def header_for(*recipients: str, head: bytes) -> bytes:
    return addressed(REST + head + b"\r\n", [Recipient(one) for one in recipients])


def delivered(header: bytes) -> set[str]:
    """Whom the simulator's own reading of the message delivers to."""
    mail = from_mime(base64.b64encode(header + b"Hello\r\n"), "s@contoso.com", "S", set())
    return {comparable(one) for one in mail.recipients}


def fields(header: bytes, name: str) -> list[str]:
    """The unfolded values of a field."""
    text = re.sub(r"\r\n(?=[ \t])", "", header.decode())
    return [
        line.partition(":")[2].strip()
        for line in text.split("\r\n")
        if line.partition(":")[0].strip().lower() == name
    ]


def test_a_header_that_names_the_envelope_stays_byte_for_byte() -> None:
    head = b'To: Anna <Anna@X.example>,\r\n\t"Smith, Bob" <bob@x.example>\r\nCc: carl@y.example\r\n'
    out = header_for(
        "anna@x.example", "bob@x.example", "carl@y.example", head=head.replace(b"Anna@X", b"anna@x")
    )
    assert out == REST + head.replace(b"Anna@X", b"anna@x") + b"\r\n"


def test_case_and_idle_quotes_make_no_difference() -> None:
    out = header_for("anna@x.example", "bob@x.example", head=b'To: ANNA@X.example, "bob"@x.example\r\n')
    assert delivered(out) == {"anna@x.example", "bob@x.example"}
    assert fields(out, "bcc") == []


def test_recipients_that_no_field_names_go_to_one_bcc() -> None:
    out = header_for("a@x.example", "b@x.example", "c@x.example", head=b"To: a@x.example\r\n")
    assert fields(out, "to") == ["a@x.example"]
    assert fields(out, "bcc") == ["b@x.example, c@x.example"]


def test_strangers_stay_readable_and_receive_nothing() -> None:
    out = header_for("a@x.example", head=b"To: a@x.example, Bob Example <bob@other.example>, x@y.example\r\n")
    assert delivered(out) == {"a@x.example"}
    assert fields(out, "to") == ['a@x.example, "Bob Example (bob at other.example)":;, "x at y.example":;']


def test_a_stranger_alone_leaves_no_empty_to() -> None:
    out = header_for("a@x.example", head=b"To: Bob <bob@other.example>\r\n")
    assert fields(out, "to") == ['"Bob (bob at other.example)":;']
    assert fields(out, "bcc") == ["a@x.example"]


def test_nothing_readable_in_to_means_undisclosed_with_bcc() -> None:
    out = header_for("a@x.example", head=b"To: ,,\r\n")
    assert fields(out, "to") == ["undisclosed-recipients:;"]
    assert fields(out, "bcc") == ["a@x.example"]


def test_several_to_fields_become_one_and_a_name_in_both_is_named_once() -> None:
    out = header_for(
        "a@x.example", "b@x.example", head=b"To: a@x.example\r\nTo: B <b@x.example>\r\nCc: A@x.example\r\n"
    )
    assert fields(out, "to") == ["a@x.example, B <b@x.example>"]
    assert fields(out, "cc") == []


def test_groups_comments_and_encoded_words_are_read() -> None:
    head = b"To: Team: a@x.example (Anna), =?utf-8?q?J=C3=B6rg?= <b@x.example>;, =?utf-8?q?evil=40y=2Eexample?= <c@y.example>\r\n"
    out = header_for("a@x.example", "b@x.example", head=head)
    assert delivered(out) == {"a@x.example", "b@x.example"}
    assert "@" not in decode_words(fields(out, "to")[0].replace("a@x.example", "").replace("b@x.example", ""))


def test_an_address_in_a_kept_name_is_no_address() -> None:
    out = header_for("a@x.example", head=b'To: "other@y.example" <a@x.example>\r\n')
    assert fields(out, "to") == ['"other at y.example" <a@x.example>']


@pytest.mark.parametrize(
    "name", ["Bcc", "Resent-To", "Resent-Bcc", "Return-Path", "Delivered-To", "Apparently-To"]
)
def test_fields_of_other_deliveries_are_taken_out(name: str) -> None:
    out = header_for("a@x.example", head=f"To: a@x.example\r\n{name}: other@y.example\r\n".encode())
    assert b"other" not in out


def test_many_recipients_are_folded() -> None:
    everybody = [f"somebody-{number}@a-rather-long-domain.example" for number in range(600)]
    out = header_for(*everybody, head=b"To: x\r\n")
    assert delivered(out) == set(everybody)
    assert max(map(len, out.split(b"\r\n"))) <= 78


def test_a_long_name_of_a_stranger_is_folded_and_parses() -> None:
    name = "Very Long Name " * 20
    out = header_for("a@x.example", head=f'To: "{name}" <bob@other.example>\r\n'.encode())
    assert max(map(len, out.split(b"\r\n"))) <= 78
    parsed = email.message_from_bytes(out, policy=email.policy.default)
    assert parsed["To"].addresses == ()
    assert len(parsed["To"].groups) == 1
    assert "at other.example" in str(parsed["To"])


@pytest.mark.parametrize(
    "name", ["Long, name " * 12, "Long name (with more) " * 12, 'Long \\"quoted\\" name, ' * 9]
)
def test_readers_that_do_not_unfold_find_the_recipient_after_a_long_name(name: str) -> None:
    """Python's `email.utils.getaddresses` loses an address whose quoted name is folded."""
    out = header_for("a@x.example", head=f'To: "{name}" <a@x.example>, "{name}" <b@x.example>\r\n'.encode())
    raw = email.message_from_bytes(out).get_all("to", [])
    assert [address for _, address in email.utils.getaddresses(raw) if address] == ["a@x.example"]
    assert max(map(len, out.split(b"\r\n"))) <= 78


def test_addresses_beyond_ascii() -> None:
    out = header_for(
        "j\u00f6rg@b\u00fccher.example", head="To: J <j\u00f6rg@b\u00fccher.example>\r\n".encode()
    )
    assert delivered(out) == {comparable("j\u00f6rg@b\u00fccher.example")}


PEOPLE = ["a@x.example", "bob.b@x.example", "Carl@Y.example", '"odd name"@x.example', "d+tag@z.example"]
STRANGERS = ["eve@other.example", "A@x.example.org", "x.a@x.example", '"a@x.example"@evil.example']
PIECES = st.sampled_from([
    *PEOPLE, *STRANGERS, *(f"<{one}>" for one in PEOPLE + STRANGERS), *(f"N N <{one}>" for one in PEOPLE + STRANGERS),
    ",", ", ", ";", ":", "Group:", " ", "\r\n ", "\t", '"', "(", ")", "(c, <eve@other.example>)", "\\", "<", ">", "@",
    "=?utf-8?q?eve=40other.example?=", "=?utf-8?b?ZXZlQG90aGVyLmV4YW1wbGU=?=", "=?utf-8?q?=3Ceve=40other.example=3E=2C?=",
    "\uff20", "eve\uff20other.example", '"Q, \\" <x>"', "name", "undisclosed-recipients:;", "[1.2.3.4]", "J\u00f6rg",
])  # fmt: skip
VALUES = st.lists(PIECES, max_size=14).map("".join)
HEADS = st.lists(
    st.tuples(st.sampled_from(["To", "Cc", "CC", "to ", "Bcc", "Resent-To"]), VALUES), max_size=5
)


@settings(max_examples=300, deadline=None)
@given(HEADS, st.lists(st.sampled_from(PEOPLE), min_size=1, unique=True))
def test_whatever_the_header_says_the_envelope_receives(
    head: list[tuple[str, str]], envelope: list[str]
) -> None:
    block = "".join(f"{name}: {value}\r\n" for name, value in head).encode()
    out = header_for(*envelope, head=block)
    assert delivered(out) == {comparable(one) for one in envelope}
    assert max(map(len, out.split(b"\r\n"))) <= 998
    parsed = email.message_from_bytes(out, policy=email.policy.default)
    assert len(parsed.get_all("To", [])) <= 1
    read = [
        one for name in ("To", "Cc", "Bcc") for value in parsed.get_all(name, []) for one in value.addresses
    ]
    assert {comparable(one.addr_spec) for one in read} == {
        comparable(one) for one in envelope
    }  # a second reader


@settings(max_examples=300, deadline=None)
@given(HEADS, st.lists(st.sampled_from(PEOPLE), min_size=1, unique=True))
def test_no_other_sign_is_left_that_could_make_an_address(
    head: list[tuple[str, str]], envelope: list[str]
) -> None:
    block = "".join(f"{name}: {value}\r\n" for name, value in head).encode()
    out = header_for(*envelope, head=block)
    text = " ".join(decode_words(one) for name in ("to", "cc", "bcc") for one in fields(out, name))
    assert len(re.findall("[@\uff20\ufe6b]", text)) == len(envelope)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_any_octets_are_borne(noise: bytes) -> None:
    out = addressed(noise, [Recipient("a@x.example")])
    assert b"a@x.example" in out
