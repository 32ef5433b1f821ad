"""Our own mail: which lane carries it, whom it can reach, and how it is routed. Notices and alerts use it."""

from __future__ import annotations

import socket

from relay.accept.addresses import matches
from relay.report.notice import reachable
from relay.rewrite.contract import Route
from relay.schedule.desk import OWN_MAIL, Outgoing
from relay.schedule.lane import Lane
from relay.schedule.upstream import UpstreamState
from relay.settings import Settings, Upstream
from relay.spool.contract import lane_name, lane_parts

__all__ = ["OWN_MAIL", "OwnMail", "our_name"]


def our_name() -> str:
    """The name this host gives itself in banner and EHLO; one with a dot where there is one."""
    name = socket.gethostname()
    if "." not in name:
        full = socket.getfqdn()
        name = full if "." in full and not full.startswith("localhost") else name
    clean = "".join(letter for letter in name if letter.isascii() and (letter.isalnum() or letter in ".-"))
    return clean.strip(".-") or "relay"


class OwnMail:
    """What the notice desk and the alarm ask; see `relay.schedule.desk.Post`."""

    def __init__(self, settings: Settings, hostname: str) -> None:
        self.settings = settings
        self.hostname = hostname
        self.lanes: dict[str, Lane] = {}
        """The scheduler's, once there is one: to know which are held."""
        self.upstreams: dict[str, UpstreamState] = {}
        """The scheduler's, for the same."""

    @property
    def postmaster(self) -> str | None:
        """Who gets what nobody else can get."""
        return self.settings.postmaster

    def deliverable(self, address: str) -> bool:
        """A name that the Internet knows, and a recipient that ``recipients`` allows."""
        if not reachable(address):
            return False
        policy = self.settings.recipients
        return any(matches(address, one) for one in policy.allow) and not any(
            matches(address, one) for one in policy.deny
        )

    def outgoing(self, to: str, near: str = "") -> Outgoing | None:
        """See `relay.schedule.desk.Post.outgoing`."""
        own = lane_parts(near)[0]
        upstreams = sorted(self.settings.upstreams, key=lambda one: one.name != own)
        target = self.settings.recipients.redirect_all_to or to
        for one in upstreams:
            for address, lane in self._ways(one):
                if not self._held(one, lane, address):
                    return Outgoing(address, lane, target)
        return Outgoing(*self._ways(upstreams[0])[0], target) if near else None

    def _ways(self, upstream: Upstream) -> list[tuple[str, str]]:
        """From address and lane of the default mailbox, then of the sender rules that name both."""
        ways = [(upstream.from_email, lane_name(upstream.name, upstream.from_email))]
        for rule in self.settings.senders:
            if rule.upstream == upstream.name and rule.from_address is not None:
                mailboxes = rule.login or (rule.from_address,)
                ways += [(rule.from_address, lane_name(upstream.name, one)) for one in mailboxes]
        return list(dict.fromkeys(ways))

    def _held(self, upstream: Upstream, name: str, address: str) -> bool:
        state, lane = self.upstreams.get(upstream.name), self.lanes.get(name)
        if state is not None and state.hold is not None:
            return True
        return lane is not None and (lane.hold is not None or address in lane.held_senders)

    def uses(self, lane: str) -> bool:
        """Whether our own mail may go by that lane."""
        return any(lane == name for one in self.settings.upstreams for _, name in self._ways(one))

    def route(self, header_from: tuple[str, ...]) -> Route:
        """Our own mail goes out as it was addressed: by the default mailbox, or the one that worked instead."""
        wanted = header_from[0].lower() if header_from else ""
        for one in self.settings.upstreams:
            found = [way for way in self._ways(one) if way[0].lower() == wanted]
            if found:
                mailboxes = dict.fromkeys(lane_parts(lane)[1] for _, lane in found)
                return Route(one.name, tuple(mailboxes), found[0][0], "keep", "none")
        first = self.settings.upstreams[0]
        return Route(first.name, (first.from_email.lower(),), first.from_email, "keep", "none")
