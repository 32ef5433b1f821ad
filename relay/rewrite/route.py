"""Routing: which upstream, which mailbox (or pool), and what becomes of the From. Pure, but for the turn of a pool."""

from __future__ import annotations

import functools
import ipaddress
import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Iterator

from relay.message import Client, Reply
from relay.rewrite.addresses import comparable, domain_to_unicode, is_address
from relay.rewrite.contract import Refused, Route
from relay.rewrite.encoding import visible
from relay.settings import Network, SenderRule, Settings
from relay.spool.contract import lane_parts

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Router:
    """The sender rules, ready to be asked. One instance per loaded configuration."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._rules = settings.senders
        self._by_address: dict[str, list[int]] = defaultdict(list)
        self._by_domain: dict[str, list[int]] = defaultdict(list)
        self._general: list[int] = []
        for index, rule in enumerate(self._rules):
            self._file(index, rule)
        self._fixed = [
            None if rule.from_address is None else _fixed(i, rule) for i, rule in enumerate(self._rules)
        ]
        self._default = _default(settings)
        self._turns: dict[tuple[str, ...], Iterator[int]] = defaultdict(itertools.count)

    def _file(self, index: int, rule: SenderRule) -> None:
        """Put a rule where a message's address finds it, so that a thousand printers cost nothing."""
        match = rule.match
        if isinstance(match, re.Pattern) or match == "*":
            self._general.append(index)
        elif match.startswith("*@"):
            self._by_domain[comparable("x" + match[1:])[1:]].append(index)
        else:
            self._by_address[comparable(match)].append(index)

    def route(self, sender: str, header_from: tuple[str, ...], client: Client) -> Route:
        """The route of a message: by its (first) header From, else by its envelope sender, else the default.

        Raises Refused where the rules do not take it.
        """
        index = None
        for address in (*header_from[:1], sender):
            if address and index is None:
                index = self._first(address, client)
        if index is None:
            return self._default_route(header_from[0] if header_from else sender)
        fixed = self._fixed[index]
        return fixed if fixed is not None else self._kept(index, sender, header_from)

    def _first(self, address: str, client: Client) -> int | None:
        """The first rule that takes this address from this client."""
        for index in self._candidates(address):
            rule = self._rules[index]
            if _matches(rule.match, address) and _admits(rule, client):
                return index
        return None

    def _candidates(self, address: str) -> list[int]:
        wanted = comparable(address)
        exact = self._by_address.get(wanted, [])
        domain = self._by_domain.get(wanted[wanted.rfind("@") :], [])
        if not self._general and not (exact and domain):
            return exact or domain
        return sorted((*exact, *domain, *self._general))

    def _default_route(self, address: str) -> Route:
        if self._default is not None:
            return self._default
        who = f"Sender {_shown(address)}" if address else "The null sender"
        raise _refusal(f"{who} matches no rule under senders, and default_sender is reject")

    def _kept(self, index: int, sender: str, header_from: tuple[str, ...]) -> Route:
        """A rule with ``from: keep``: every From address must be one the rule takes."""
        rule = self._rules[index]
        for address in header_from:
            if not _matches(rule.match, address):
                raise _refusal(
                    f"From address {_shown(address)} is not covered by senders[{index}], which keeps From"
                )
        first = header_from[0] if header_from else sender
        mailboxes = rule.login or (first,)
        return _route(rule, index, mailboxes)

    def uses(self, lane: str) -> bool:
        """Whether these rules can put mail on that lane."""
        if self._default is not None and lane in self._default.lanes:
            return True
        return any(
            lane in fixed.lanes if fixed is not None else _may_keep(rule, lane)
            for rule, fixed in zip(self._rules, self._fixed, strict=True)
        )

    def choose(
        self,
        route: Route,
        source: str = "",
        avoid: frozenset[str] = frozenset(),
        backlog: Callable[[str], int] | None = None,
    ) -> str:
        """The lane for one message: a pool's members take turns, or the least ``backlog`` is filled first.

        Lanes in ``avoid`` (held ones) are passed over unless all are. ``source`` takes part in no decision:
        one source's mail is spread like everybody's.
        """
        lanes = route.lanes
        if len(lanes) == 1:
            return lanes[0]
        able = tuple(lane for lane in lanes if lane not in avoid) or lanes
        start = next(self._turns[lanes]) % len(able)
        in_turn = able[start:] + able[:start]
        return min(in_turn, key=backlog) if backlog else in_turn[0]


def _matches(match: str | re.Pattern[str], address: str) -> bool:
    """Whether a rule's ``match`` fits an address, however the two are spelled."""
    if isinstance(match, re.Pattern):
        plain = comparable(address)
        local, at, domain = plain.rpartition("@")
        spellings = {address, plain, local + at + domain_to_unicode(domain)}
        return any(match.fullmatch(spelling) for spelling in spellings)
    if match == "*":
        return True
    wanted = comparable(address)
    if match.startswith("*@"):
        return wanted[wanted.rfind("@") :] == comparable("x" + match[1:])[1:]
    return wanted == comparable(match)


def _admits(rule: SenderRule, client: Client) -> bool:
    """Whether the client fits a rule's ``client`` condition; user names are compared exactly, as AUTH does."""
    if rule.user is not None and rule.user != client.user:
        return False
    return rule.network is None or _within(client.address, rule.network)


@functools.lru_cache(maxsize=4096)
def _within(address: str, network: Network) -> bool:
    ip = _ip(address)
    return ip is not None and ip.version == network.version and ip in network


def _ip(address: str) -> Address | None:
    """The IP address, IPv4 also when it came mapped into IPv6, any zone taken off; None when it is none."""
    try:
        ip = ipaddress.ip_address(address.strip("[]").partition("%")[0])
    except ValueError:
        return None
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return mapped or ip


def _fixed(index: int, rule: SenderRule) -> Route:
    """The one route of a rule that names its From address."""
    return _route(rule, index, rule.login or (rule.from_address or "",))


def _route(rule: SenderRule, index: int, mailboxes: tuple[str, ...]) -> Route:
    return Route(
        upstream=rule.upstream,
        mailboxes=tuple(dict.fromkeys(comparable(mailbox) for mailbox in mailboxes)),
        from_address=rule.from_address,
        name=rule.name,
        reply_to=rule.reply_to,
        rule=index,
    )


def _may_keep(rule: SenderRule, lane: str) -> bool:
    """Whether a rule with ``from: keep`` can lead to a lane: its own mailboxes, else that of every sender it takes."""
    upstream, mailbox = lane_parts(lane)
    if upstream != rule.upstream:
        return False
    return mailbox in map(comparable, rule.login) if rule.login else _matches(rule.match, mailbox)


def _default(settings: Settings) -> Route | None:
    """Where senders go that no rule names; None: nowhere (``default_sender: reject``)."""
    if settings.default_sender == "reject":
        return None
    first = settings.upstreams[0]
    return Route(
        upstream=first.name,
        mailboxes=(comparable(first.from_email),),
        from_address=first.from_email,
        name="keep",
        reply_to="original",
        rule=None,
    )


def _refusal(text: str) -> Refused:
    return Refused(Reply(550, "5.7.1", text))


def _shown(address: str) -> str:
    """An address as a reply may show it: ASCII, one line, bounded; said so when it is none."""
    text = visible(address, 120).encode("ascii", "backslashreplace").decode("ascii")
    return f"<{text}>" if is_address(address) else f'"{text}"'
