"""Passwords: right ones remembered, wrong ones slowed down, unknown names no cheaper than known ones."""

from __future__ import annotations

import asyncio
import base64

import argon2
import pytest

from relay import settings
from relay.accept import auth
from relay.accept.auth import Authenticator, BadCredentials, Guessing, decode, plain_parts
from tests.accept.support import all_settings, listener, running

HASHER = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)


def login(name: str, password: str, *may: str) -> settings.ClientLogin:
    return settings.ClientLogin(name, settings.Secret(HASHER.hash(password)), may)


class Counting(Authenticator):
    """Counts the real checks."""

    checks = 0

    def _verify(self, stored: str, password: str) -> bool:
        self.checks += 1
        return super()._verify(stored, password)


async def test_right_and_wrong() -> None:
    """Only the user's own password is right; unknown users cost a check like known ones."""
    some = Counting([login("a", "one"), login("b", "two")])
    answers = [
        await some.check(*pair)
        for pair in [("a", "one"), ("a", "two"), ("b", "two"), ("c", "one"), ("c", "x")]
    ]
    assert answers == [True, False, True, False, False]
    assert some.checks == 5


async def test_success_is_remembered() -> None:
    """A right password is checked once; wrong ones each time; the memory is bounded and holds no password."""
    some = Counting([login("a", "one")])
    assert all([await some.check("a", "one") for _ in range(5)])
    assert some.checks == 1
    assert not any([await some.check("a", "no") for _ in range(3)])
    assert some.checks == 4
    assert b"one" not in b"".join(some._known)
    for number in range(auth.REMEMBERED + 10):
        some._remember(str(number).encode())
    assert len(some._known) == auth.REMEMBERED


async def test_many_connections_of_one_device() -> None:
    """Twenty connections that log in at the same moment cost one check."""
    some = Counting([login("a", "one")])
    assert all(await asyncio.gather(*(some.check("a", "one") for _ in range(20))))
    assert some.checks == 1


async def test_nobody_and_broken_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without clients nobody gets in; a password that is no hash is said to the log, not to the client."""
    told: list[str] = []
    monkeypatch.setattr(auth.events, "trouble", lambda **fields: told.append(fields["what"]))
    assert not await Authenticator([]).check("a", "b")
    broken = settings.ClientLogin("a", settings.Secret("plain"), ())
    assert not await Authenticator([broken]).check("a", "plain")
    assert told == ["a password under clients is not an argon2 hash"]


def test_may_send_as() -> None:
    """Patterns decide; none given means none allowed; the null sender names nobody."""
    some = Authenticator([login("a", "x", "*@scanners.local", "boss@contoso.com"), login("b", "x")])
    assert some.may_send_as("a", "Any@Scanners.local")
    assert some.may_send_as("a", "BOSS@contoso.com")
    assert some.may_send_as("a", "")
    assert not some.may_send_as("a", "other@contoso.com")
    assert not some.may_send_as("b", "x@y.z")
    assert not some.may_send_as("gone", "x@y.z")


def test_guessing_slows_down() -> None:
    """Each wrong password of a client costs more, to a bound; success or time forgives."""
    guessing = Guessing()
    delays = [guessing.delay("a", "u", float(n)) for n in range(6)]
    assert delays == [0.0, 1.0, 2.0, 4.0, 4.0, 4.0]
    assert guessing.delay("b", "u", 6.0) == 0.0
    guessing.forgive("a", "u")
    assert guessing.delay("a", "u", 7.0) == 0.0
    assert guessing.delay("b", "u", 2000.0) == 0.0


@pytest.mark.parametrize("text", ["YWJj", " YWJj ", "YWJj\t"])
def test_decoding(text: str) -> None:
    """Blanks around base64 do not matter."""
    assert decode(text) == "abc"


def test_decoding_without_padding() -> None:
    """Missing padding is forgiven, a lone ``=`` is the empty answer (RFC 4954), anything else is refused."""
    assert decode("YQ") == "a"
    assert decode("=") == ""
    for bad in ("!", "Y", "/w=="):
        with pytest.raises(BadCredentials):
            decode(bad)
    with pytest.raises(BadCredentials):
        plain_parts(base64.b64encode(b"a\0b").decode())


async def test_wrong_passwords_wait_and_are_told() -> None:
    """The delay is kept before the answer, the refusal is logged without the password, the counter rises."""
    config = all_settings(clients=(login("scanner-3", "secret", "*"),))
    async with running(listener(auth="optional"), config=config) as bench:
        for _ in range(2):
            async with bench.session() as client:
                await client.ask("EHLO x")
                guess = base64.b64encode(b"\0scanner-3\0hunter2").decode()
                assert (await client.ask(f"AUTH PLAIN {guess}")).startswith("535 5.7.8")
        assert bench.clock.slept == [0.0, 1.0]
        assert bench.server.rejected == 2
        assert "scanner-3" in str(bench.events("rejected"))
        assert "hunter2" not in str(bench.told)


async def test_ehlo_offers_auth_twice() -> None:
    """``AUTH=LOGIN PLAIN`` stands beside ``AUTH PLAIN LOGIN``, and both go once the client is known."""
    config = all_settings(clients=(login("scanner-3", "secret", "*"),))
    async with running(listener(auth="optional"), config=config) as bench, bench.session() as client:
        offered = (await client.ask("EHLO x")).split("\n")
        assert {"250-AUTH PLAIN LOGIN", "250-AUTH=LOGIN PLAIN"} <= set(offered)
        words = base64.b64encode(b"\0scanner-3\0secret").decode()
        assert (await client.ask(f"AUTH PLAIN {words}")).startswith("235")
        assert "AUTH" not in await client.ask("EHLO x")


def test_guessing_is_blocked_for_a_while() -> None:
    """Ten wrong passwords of one client block it for ten minutes, nobody else, and what is remembered is bounded."""
    guessing = Guessing()
    for n in range(9):
        guessing.delay("a", "u", float(n))
    assert not guessing.blocked("a", "u", 9.0)
    guessing.delay("a", "u", 9.0)
    assert guessing.blocked("a", "u", 10.0)
    assert guessing.blocked("a", "u", 9.0 + 599.0)
    assert not guessing.blocked("a", "u", 9.0 + 600.0)
    assert not guessing.blocked("b", "u", 10.0)
    assert guessing.delay("a", "u", 700.0) == 0.0
    for n in range(10_001):
        guessing.delay(f"other {n}", "u", 701.0)
    assert guessing.delay("other 10000", "u", 702.0) == 1.0  # the latest are remembered, the oldest forgotten
    assert guessing.delay("a", "u", 702.0) == 0.0


def test_a_valid_login_does_not_clear_the_guesses_at_another() -> None:
    """Logging in between the guesses, as often as one likes, does not lift the block on the other user."""
    guessing = Guessing()
    for n in range(10):
        guessing.delay("a", "boss", float(n))
        guessing.forgive("a", "own")
    assert guessing.blocked("a", "boss", 10.0)
    assert guessing.blocked("a", "third", 10.0)


def test_who_was_let_in_before_stays_welcome() -> None:
    """A stale password of one device does not shut out the logins that worked at this address; guessing at them does."""
    guessing = Guessing()
    guessing.forgive("a", "printer")
    for n in range(10):
        guessing.delay("a", "stale", float(n))
    assert not guessing.blocked("a", "printer", 10.0)
    assert guessing.blocked("b", "printer", 10.0) is False
    guessing.delay("a", "printer", 11.0)
    assert guessing.blocked("a", "printer", 12.0)


async def test_a_valid_login_between_the_guesses_helps_nobody() -> None:
    """Guesses at one user, with another's right password in between, end in the block all the same; the other stays let in."""
    config = all_settings(clients=(login("boss", "secret", "*"), login("own", "mine", "*")))
    wrong, right, own = (
        base64.b64encode(b"\0" + words).decode() for words in (b"boss\0guess", b"boss\0secret", b"own\0mine")
    )
    async with running(listener(auth="optional"), config=config) as bench:
        for _ in range(10):
            async with bench.session() as client:
                assert (await client.ask(f"AUTH PLAIN {wrong}")).startswith("535")
                assert (await client.ask(f"AUTH PLAIN {own}")).startswith("235")
        async with bench.session() as client:
            assert (await client.ask(f"AUTH PLAIN {right}")).startswith("421 4.7.0 Too many wrong passwords")
        async with bench.session() as client:
            assert (await client.ask(f"AUTH PLAIN {own}")).startswith("235")


@pytest.mark.parametrize(
    ("auth", "lines", "phase", "reply"),
    [
        ("none", ["MAIL FROM:<scanner 3>"], "mail", "501 5.1.7"),
        ("none", ["MAIL FROM:<a@b.c>", "RCPT TO:<nobody at all>"], "rcpt", "501 5.1.3"),
        ("required", ["MAIL FROM:<a@b.c>"], "mail", "530 5.7.0"),
    ],
)
async def test_what_keeps_a_device_from_its_first_message_is_in_the_log(auth, lines, phase, reply) -> None:
    """A malformed address, or no login where one is needed: whoever looks for the device finds it there."""
    config = all_settings(clients=(login("scanner-3", "secret", "*"),))
    async with running(listener(auth=auth), config=config) as bench, bench.session() as client:
        await client.ask("EHLO printer")
        told = [await client.ask(line) for line in lines]
        (said,) = bench.events("rejected")
        assert (said["phase"], said["reply"], said["client"]) == (phase, told[-1], "127.0.0.1")
        assert told[-1].startswith(reply)
        assert bench.server.rejected == 1
