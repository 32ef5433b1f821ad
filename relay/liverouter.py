"""The sender rules as the running relay applies them: those of the last load, around what is held, our own mail too."""

from __future__ import annotations

from relay.message import Client
from relay.ownmail import OWN_MAIL, OwnMail
from relay.rewrite.contract import Refused, Route
from relay.rewrite.route import Router
from relay.schedule.loop import Scheduler
from relay.settings import Settings
from relay.spool.contract import Claim, lane_parts


class LiveRouter:
    """The router of the moment: the rules of the last load, and the lanes that are held just now."""

    def __init__(self, settings: Settings, own: OwnMail) -> None:
        self.rules = Router(settings)
        self._own = own
        self.scheduler: Scheduler | None = None

    def route(self, sender: str, header_from: tuple[str, ...], client: Client) -> Route:
        """See `relay.rewrite.route.Router.route`; our own mail has a way of its own."""
        if client.listener == OWN_MAIL:
            return self._own.route(header_from)
        return self.rules.route(sender, header_from, client)

    def choose(self, route: Route, source: str = "") -> str:
        """A lane of the route; of a pool, the next one that is not held."""
        if len(route.mailboxes) == 1 or self.scheduler is None:
            return self.rules.choose(route, source)
        return self.rules.choose(route, source, avoid=self.scheduler.avoided(route.lanes))

    def member(self, lanes: tuple[str, ...], source: str) -> str:
        """`choose` for a pool that is known by its lanes alone."""
        parts = [lane_parts(lane) for lane in lanes]
        return self.choose(Route(parts[0][0], tuple(mailbox for _, mailbox in parts), None, "", ""), source)

    def uses(self, lane: str) -> bool:
        """Whether mail, our own included, can come to that lane."""
        return self.rules.uses(lane) or self._own.uses(lane)

    def identity(self, claim: Claim) -> str:
        """The From address that today's rules give a message."""
        original = claim.header_from[0] if claim.header_from else claim.envelope.sender
        try:
            route = self.route(claim.envelope.sender, claim.header_from, claim.client)
        except Refused:
            return original
        return route.from_address or original

    def lane_for(self, claim: Claim) -> str | None:
        """The lane that today's rules give a waiting message; None when they refuse it."""
        try:
            route = self.route(claim.envelope.sender, claim.header_from, claim.client)
        except Refused:
            return None
        return claim.lane if claim.lane in route.lanes else self.choose(route, claim.source)
