"""Who gets a notice, and what ends mail that goes in circles."""

from __future__ import annotations

import pytest

from relay.message import Recipient
from relay.report.notice import Kind, hops, is_notice, reachable, recipient, wanted
from tests.report.kit import HEADER, about, written


def everywhere(_address: str) -> bool:
    return True


def nowhere(_address: str) -> bool:
    return False


@pytest.mark.parametrize(
    ("notify", "failure", "delay"),
    [
        (None, True, True),
        ("NEVER", False, False),
        ("SUCCESS", False, False),
        ("FAILURE", True, False),
        ("DELAY", False, True),
        ("SUCCESS,FAILURE", True, False),
        ("SUCCESS,DELAY", False, True),
        ("FAILURE,DELAY", True, True),
        ("SUCCESS,FAILURE,DELAY", True, True),
        ("failure, delay", True, True),
        ("", False, False),
    ],
)
def test_notify(notify: str | None, failure: bool, delay: bool) -> None:
    """RFC 3461 section 4.1; a held message counts as failed when given up, as late before."""
    bob = Recipient("bob@example.com", notify)
    assert wanted(Kind.FAILURE, bob) is failure
    assert wanted(Kind.DELAY, bob) is delay
    assert wanted(Kind.HELD, bob) is failure
    assert wanted(Kind.HELD, bob, given_up=False) is delay


def test_the_sender_is_told_when_he_can_be_reached() -> None:
    """Else the postmaster, else nobody."""
    assert recipient(about(), postmaster="it@contoso.com", deliverable=everywhere) == "app@contoso.com"
    assert recipient(about(), postmaster="it@contoso.com", deliverable=nowhere) == "it@contoso.com"
    assert recipient(about(), postmaster=None, deliverable=nowhere) is None
    assert recipient(about(), postmaster="", deliverable=nowhere) is None


@pytest.mark.parametrize("sender", ["root", "a b@c.example", "a@b\r\nBcc: x@y", "a@b,c@d", "<a@b.example>"])
def test_what_is_no_address_is_never_written_to(sender: str) -> None:
    """Whatever the caller believes deliverable."""
    found = recipient(about(sender=sender), postmaster="it@contoso.com", deliverable=everywhere)
    assert found == "it@contoso.com"


@pytest.mark.parametrize("sender", ["", "<>"])
def test_nothing_for_the_null_sender(sender: str) -> None:
    """Not even for the postmaster."""
    assert recipient(about(sender=sender), postmaster="it@contoso.com", deliverable=everywhere) is None


def test_no_notice_about_our_own_notice() -> None:
    """Even when it comes back with another sender, or without Auto-Submitted, which Graph drops."""
    header = written().header
    bare = b"".join(
        line for line in header.splitlines(True) if not line.startswith((b"Auto", b"Content-Type"))
    )
    for block in (header, bare):
        assert is_notice(block)
        assert recipient(about(header=block), postmaster="it@contoso.com", deliverable=everywhere) is None


@pytest.mark.parametrize(
    ("header", "notice"),
    [
        (b"Content-Type: multipart/report; report-type=delivery-status\r\n\r\n", True),
        (b"CONTENT-TYPE :\r\n Multipart/Report;\r\n\tboundary=x\r\n\r\n", True),
        (b"Content-Type: multipart/report-card\r\n\r\n", False),
        (b"content-type: multipart/report\n\n", True),
        (b"x-relay-notice-for: 01J\r\n\r\n", True),
        (b"Subject: x\r\n X-Relay-Notice-For: folded into the subject\r\n\r\n", False),
        (b"Subject: x\r\n\r\nX-Relay-Notice-For: in the body\r\n", False),
        (b"\r\nX-Relay-Notice-For: in the body\r\n", False),
        (b"Message-ID: <0123456789abcdef0123456789abcdef.notice@relay.contoso.com>\r\n\r\n", True),
        (b"Message-ID:\r\n <0123456789abcdef0123456789abcdef.notice@relay>\r\n\r\n", True),
        (b"In-Reply-To: <0123456789abcdef0123456789abcdef.notice@relay>\r\n\r\n", False),
        (b"Message-ID: <last.notice@billing.example>\r\n\r\n", False),
        (b"Auto-Submitted: auto-generated\r\n\r\n", False),
        (HEADER, False),
        (b"", False),
    ],
)
def test_what_counts_as_a_notice(header: bytes, notice: bool) -> None:
    """Ours, and anybody's report; an application's automatic mail is ordinary mail."""
    assert is_notice(header) is notice


def test_hops_are_received_fields_of_the_header_alone() -> None:
    """Folded ones once, any case, none of the body's."""
    header = (
        b"Received: by a\r\n\tfor Received: b\r\nreceived : by b\nX-Received: c\r\nReceived-SPF: d\r\n\r\n"
    )
    assert hops(header) == 2
    assert hops(header + b"Received: by body\r\n") == 2
    assert hops(b"") == 0
    assert hops(b"\r\nReceived: by body\r\n") == 0


@pytest.mark.parametrize(
    ("address", "answer"),
    [
        ("app@contoso.com", True),
        ("jörg@bücher.example", True),
        ("app@localhost", False),
        ("app@server", False),
        ("scanner@scanners.local", False),
        ("Scanner@SCANNERS.LAN", False),
        ("mfp@10.0.0.7", False),
        ("mfp@[10.0.0.7]", False),
        ("root", False),
        ("", False),
        ("a@b@contoso.com", False),
    ],
)
def test_which_senders_can_be_reached_at_all(address: str, answer: bool) -> None:
    """By the form of the domain; what never leaves a site is not tried."""
    assert reachable(address) is answer
