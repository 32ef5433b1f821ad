"""Envelope paths: what stands around an address may be odd, the address itself may not."""

from __future__ import annotations

import pytest

from relay.accept.addresses import BadAddress, is_valid, matches, parse_path


@pytest.mark.parametrize(
    ("text", "address", "rest"),
    [
        ("<a@b.c>", "a@b.c", ""),
        (" < a@b.c > SIZE=1", "a@b.c", "SIZE=1"),
        ("a@b.c SIZE=1 AUTH=<>", "a@b.c", "SIZE=1 AUTH=<>"),
        ("<>", "", ""),
        ("< > RET=FULL", "", "RET=FULL"),
        ("<<a@b.c>>", "a@b.c", ""),
        ('"x > y" <a@b.c>', "a@b.c", ""),
        ("Bob <a@b.c>", "a@b.c", ""),
        ('<"a>b"@c.d>', '"a>b"@c.d', ""),
        ('<"a\\"b"@c.d>', '"a\\"b"@c.d', ""),
        ("<@x,@y.z:a@b.c>", "a@b.c", ""),
        ("<a@[1.2.3.4]>", "a@[1.2.3.4]", ""),
        ("<a@localhost>", "a@localhost", ""),
        ("<bär@exämple.de>", "bär@exämple.de", ""),
        ("<o'brien+x=y@b.c>", "o'brien+x=y@b.c", ""),
    ],
)
def test_taken(text: str, address: str, rest: str) -> None:
    """These work."""
    path = parse_path(text)
    assert (path.address, path.rest) == (address, rest)


@pytest.mark.parametrize(
    "text",
    ["", "<", ">", "<a@b.c", "a", "<a>", "<a@b@c>", "<a@-b.c>", "<a@b-.c>", "<.a@b.c>", "<a.@b.c>", "<a b@c.d>",
     "<a@b..c>", "<a@b.c.>", "<a@[1.2.3]>", "<a@[IPv6:zz]>", "<a@[x y]>", '<"a@b.c>', "<@x:>", "<@x>",
     "<a@b.c><d@e.f>x@y", f"<{'a' * 65}@b.c>", f"<a@{'b.' * 130}c>", "<a\x85b@c.d>", "<a(comment)@b.c>"],
)  # fmt: skip
def test_refused(text: str) -> None:
    """These do not, and say so without a crash."""
    try:
        path = parse_path(text)
    except BadAddress as error:
        assert str(error)
    else:
        assert path.rest, f"{text!r} was taken as {path}"


def test_encoded_words_stay() -> None:
    """S21: nothing is decoded."""
    assert parse_path("<=?utf-8?q?a=40b?=@c.d>").address == "=?utf-8?q?a=40b?=@c.d"


def test_local_only() -> None:
    """Postmaster may stand alone where it is asked for (RFC 5321 section 4.1.1.3), nothing else may."""
    assert parse_path("<PostMaster>", local_only=("postmaster",)).address == "PostMaster"
    assert parse_path("postmaster NOTIFY=NEVER", local_only=("postmaster",)).rest == "NOTIFY=NEVER"
    with pytest.raises(BadAddress):
        parse_path("<root>", local_only=("postmaster",))


def test_patterns() -> None:
    """Address, ``*@domain``, ``*``; case does not matter, subdomains do."""
    assert matches("A@B.c", "a@b.C")
    assert matches("x@B.c", "*@b.c")
    assert not matches("x@y.b.c", "*@b.c")
    assert not matches("", "*@b.c")
    assert matches("anything", "*")


def test_validity_alone() -> None:
    """The strict check by itself."""
    assert is_valid("a@b")
    assert not is_valid("<a@b>")
