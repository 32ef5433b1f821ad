"""Routing: header From first, then the envelope sender; first rule wins; keep, logins, pools, refusals."""

from __future__ import annotations

from collections import Counter

import pytest

from relay.message import Client
from relay.rewrite.contract import Refused, Route
from relay.rewrite.route import Router
from relay.settings import SenderRule
from tests.rewrite.samples import CLIENT, SCANS, route, rule, settings


def find(
    *rules: SenderRule, sender: str = "", header: tuple[str, ...] = (), client: Client = CLIENT
) -> Route:
    return Router(settings(*rules)).route(sender, header, client)


@pytest.mark.parametrize(
    ("match", "address"),
    [
        ("printer@site.local", "printer@site.local"),
        ("printer@site.local", "Printer@SITE.Local"),
        ("*@site.local", "any.thing+x@site.local"),
        ("*@site.local", "x@SITE.LOCAL."),
        ("*", "whoever@where.ever"),
        ("*@[10.0.0.7]", "ups@[10.0.0.7]"),
        ("*@bücher.example", "a@xn--bcher-kva.example"),
        ("*@xn--bcher-kva.example", "a@BÜCHER.example"),
        ("müller@site.local", "MÜLLER@site.local"),
        ("john@site.local", '"john"@site.local'),
        (r"/mfp-\d+@site\.local/", "MFP-12@Site.local"),
        (r"/.*@bücher\.example/", "a@xn--bcher-kva.example"),
        (r"/.*@xn--bcher-kva\.example/", "a@bücher.example"),
    ],
)
def test_an_address_matches_however_it_is_spelled(match: str, address: str) -> None:
    """Case, IDN form, idle quotes and a trailing dot make no difference, in header or envelope."""
    assert find(rule(match), header=(address,)).rule == 0
    assert find(rule(match), sender=address).rule == 0


@pytest.mark.parametrize(
    ("match", "address"),
    [
        ("*@site.local", "a@sub.site.local"),
        ("*@site.local", "a@mysite.local"),
        ("printer@site.local", "printer2@site.local"),
        (r"/mfp@site\.local/", "mfp@site.local.evil.example"),
        (r"/mfp@site\.local/", "xmfp@site.local"),
    ],
)
def test_a_match_is_a_full_match(match: str, address: str) -> None:
    """Neither subdomains nor parts of an address match; the default takes them."""
    got = find(rule(match), header=(address,))
    assert (got.rule, got.from_address, got.name, got.reply_to) == (
        None,
        "notifications@contoso.com",
        "keep",
        "original",
    )
    assert got.mailboxes == ("notifications@contoso.com",)


def test_the_first_rule_wins_even_when_a_later_one_is_exact() -> None:
    """Order decides, not precision."""
    rules = (rule("*@a.local"), rule("x@a.local", "x@contoso.com"), rule("*", "all@contoso.com"))
    assert find(*rules, header=("x@a.local",)).rule == 0
    assert find(*rules[1:], header=("x@a.local",)).rule == 0
    assert find(*reversed(rules), header=("x@a.local",)).from_address == "all@contoso.com"


def test_header_from_decides_before_the_envelope() -> None:
    """Ricoh: envelope is the device, header From the user. An earlier rule for the envelope does not win."""
    rules = (rule("device@local", "device@contoso.com"), rule("user@local", "user@contoso.com"))
    assert find(*rules, sender="device@local", header=("user@local",)).from_address == "user@contoso.com"
    assert find(*rules, sender="device@local", header=("other@local",)).from_address == "device@contoso.com"
    assert find(*rules, sender="device@local", header=()).from_address == "device@contoso.com"
    assert find(*rules, sender="", header=("x@local", "user@local")).rule is None


def test_client_conditions() -> None:
    """A rule may ask for a network or an AUTH user; mapped IPv4 counts as IPv4, odd addresses never match."""
    lan = rule("*", network="192.168.10.0/24")
    six = rule("*", network="fe80::/10")
    auth = rule("*", user="scanner-3")
    assert find(lan, sender="a@b", client=Client("192.168.10.9")).rule == 0
    assert find(lan, sender="a@b", client=Client("::ffff:192.168.10.9")).rule == 0
    assert find(lan, sender="a@b", client=Client("192.168.11.9")).rule is None
    assert find(lan, sender="a@b", client=Client("::1")).rule is None
    assert find(lan, sender="a@b", client=Client("")).rule is None
    assert find(six, sender="a@b", client=Client("fe80::1%eth0")).rule == 0
    assert find(auth, sender="a@b", client=Client("10.0.0.1", user="scanner-3")).rule == 0
    assert find(auth, sender="a@b", client=Client("10.0.0.1")).rule is None


def test_null_sender_takes_the_default() -> None:
    """A null sender without a header From has no address to match; with a From it is routed by that."""
    assert find(rule("*")).rule is None
    assert find(rule("*"), header=("mailer-daemon@app",)).rule == 0
    with pytest.raises(Refused, match=r"550 5\.7\.1 The null sender .*default_sender"):
        Router(settings(default_sender="reject")).route("", (), CLIENT)


def test_reject_names_the_address_and_the_setting() -> None:
    """The administrator must see who and which key; hostile text cannot break the reply."""
    router = Router(settings(rule("*@a.local"), default_sender="reject"))
    with pytest.raises(Refused, match=r"<who@b\.local>.*senders.*default_sender is reject") as caught:
        router.route("x@c.local", ("who@b.local",), CLIENT)
    assert (caught.value.reply.code, caught.value.reply.enhanced) == (550, "5.7.1")
    with pytest.raises(Refused) as caught:
        router.route("ü\r\n250 ok" + "x" * 500 + "@b", (), CLIENT)
    text = caught.value.reply.text
    assert text.isascii() and "\r" not in text and "\n" not in text and len(text) < 400


def test_keep_submits_as_the_original_or_as_the_login() -> None:
    """``from: keep`` without login uses the From's own mailbox, lower case; with one, that mailbox."""
    got = find(rule("*@contoso.com", None), header=("Ann@Contoso.com",))
    assert (got.from_address, got.mailboxes) == (None, ("ann@contoso.com",))
    assert find(rule("*@contoso.com", None), sender="Bob@contoso.com").mailboxes == ("bob@contoso.com",)
    both = find(rule("*@contoso.com", None, login=("Relay@contoso.com",)), header=("ann@contoso.com",))
    assert both.mailboxes == ("relay@contoso.com",)


def test_keep_needs_every_from_address_to_be_covered() -> None:
    """Otherwise one allowed address would carry another through."""
    keep = rule("*@contoso.com", None)
    assert find(keep, header=("a@contoso.com", "b@contoso.com")).mailboxes == ("a@contoso.com",)
    with pytest.raises(Refused, match=r"550 5\.7\.1 From address <ceo@fabrikam\.com>.*senders\[0\]"):
        find(keep, header=("a@contoso.com", "ceo@fabrikam.com"))
    with pytest.raises(Refused, match=r"ceo@fabrikam\.com"):
        find(keep, sender="a@contoso.com", header=("ceo@fabrikam.com",))


def test_a_rule_with_from_takes_several_addresses() -> None:
    """They are rewritten to one, so the others need no rule."""
    assert find(rule("*@a.local"), header=("x@a.local", "y@b.local")).from_address == SCANS


def test_login_list_is_a_pool_in_order_lower_case_without_repeats() -> None:
    """A pool's lanes carry the upstream's name."""
    got = find(
        rule("*", login=("N1@contoso.com", "n2@contoso.com", "n1@contoso.com"), upstream="Second"),
        sender="a@b",
    )
    assert got.lanes == ("Second/n1@contoso.com", "Second/n2@contoso.com")


POOL = Route("M365", ("n1@c", "n2@c", "n3@c"), SCANS, "keep", "original", 0)
N1, N2, N3 = POOL.lanes


def test_pool_members_take_turns_evenly() -> None:
    """Whoever sends."""
    router = Router(settings())
    turns = Counter(router.choose(POOL, source=str(i % 2)) for i in range(300))
    assert turns == {N1: 100, N2: 100, N3: 100}


def test_pool_passes_over_held_lanes_unless_all_are() -> None:
    """What is left is shared evenly, too."""
    router = Router(settings())
    turns = Counter(router.choose(POOL, avoid=frozenset({N2})) for _ in range(100))
    assert turns == {N1: 50, N3: 50}
    assert {router.choose(POOL, avoid=frozenset(POOL.lanes)) for _ in range(3)} == {N1, N2, N3}
    assert router.choose(route(), avoid=frozenset(route().lanes)) == route().lanes[0]


def test_pool_fills_the_least_backlog_first() -> None:
    """Equal ones take turns."""
    router = Router(settings())
    waiting = {N1: 5, N2: 0, N3: 9}

    def choose() -> str:
        lane = router.choose(POOL, backlog=waiting.__getitem__)
        waiting[lane] += 1
        return lane

    assert [choose() for _ in range(5)] == [N2] * 5
    for _ in range(13):
        choose()
    assert max(waiting.values()) - min(waiting.values()) <= 1


def test_many_rules_cost_little() -> None:
    """A thousand printers: the index finds the rule, order kept."""
    rules = [rule(f"p{i}@site.local", f"p{i}@contoso.com") for i in range(1000)]
    router = Router(settings(*rules, rule("*@site.local", "rest@contoso.com")))
    assert router.route("", ("P777@site.local",), CLIENT).rule == 777
    assert router.route("", ("x@site.local",), CLIENT).rule == 1000
    assert len(router._candidates("p5@site.local")) == 2
