"""The configuration as the notice desk sees it."""

from __future__ import annotations

from dataclasses import dataclass, field

from relay.schedule.desk import Outgoing
from tests.fakes.spool import OTHER


@dataclass
class FakePost:
    """Everything works; mail to ``.local`` arrives nowhere; our own mail goes by a lane of its own."""

    postmaster: str | None = "it@contoso.com"
    hostname: str = "relay.contoso.com"
    out: Outgoing | None = field(default_factory=lambda: Outgoing("notifications@contoso.com", OTHER, ""))

    def deliverable(self, address: str) -> bool:
        return not address.endswith(".local")

    def outgoing(self, to: str, near: str = "") -> Outgoing | None:
        return Outgoing(self.out.from_email, self.out.lane, to) if self.out else None
