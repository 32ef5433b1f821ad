"""Our own mail: which lane carries it, whom it can reach, and how it is routed. Notices and alerts use it."""

from __future__ import annotations

from relay.accept.addresses import matches
from relay.report.notice import reachable
from relay.rewrite.contract import Route
from relay.schedule.desk import OWN_MAIL, Outgoing
from relay.schedule.lane import Lane, UpstreamState
from relay.settings import Settings, Upstream
from relay.spool.contract import lane_name, lane_parts

__all__ = ["OWN_MAIL", "OwnMail"]


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
        for one in upstreams:
            if not self._held(one):
                return self._by(one, to)
        return self._by(upstreams[0], to) if near else None

    def _by(self, upstream: Upstream, to: str) -> Outgoing:
        target = self.settings.recipients.redirect_all_to or to
        return Outgoing(upstream.from_email, lane_name(upstream.name, upstream.from_email), target)

    def _held(self, upstream: Upstream) -> bool:
        state = self.upstreams.get(upstream.name)
        lane = self.lanes.get(lane_name(upstream.name, upstream.from_email))
        return (state is not None and state.hold is not None) or (lane is not None and lane.hold is not None)

    def uses(self, lane: str) -> bool:
        """Whether our own mail may go by that lane: the default mailboxes of all upstreams."""
        return any(lane == lane_name(one.name, one.from_email) for one in self.settings.upstreams)

    def route(self, header_from: tuple[str, ...]) -> Route:
        """Our own mail goes through the upstream whose default sender it names, whatever the sender rules say."""
        wanted = header_from[0].lower() if header_from else ""
        found = [one for one in self.settings.upstreams if one.from_email.lower() == wanted]
        one = (found or list(self.settings.upstreams))[0]
        return Route(one.name, (one.from_email.lower(),), one.from_email, "keep", "none")
