"""Every step of a check: its id, its title, where the set-up guide mends it, and its place in the report."""

from __future__ import annotations

from dataclasses import dataclass

from relay.check.contract import Status, Step


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of step; docs/check.md has a row for each."""

    slug: str
    title: str
    guide_step: int | None

    def step(
        self, status: Status, seen: str, remedy: str = "", *, about: str = "", guide_step: int | None = None
    ) -> Step:
        """A step of this kind. ``about`` (an upstream, a mailbox, a listener) tells several of them apart."""
        suffix, shown = (f":{about}", f" ({about})") if about else ("", "")
        place = self.guide_step if guide_step is None else guide_step
        return Step(self.slug + suffix, self.title + shown, place, status, seen, remedy)


CONFIGURATION = Kind("configuration", "Configuration", 7)
SECRETS = Kind("secrets", "Secrets and their files", 5)
DNS = Kind("dns", "Name resolution", 0)
TCP_SMTP = Kind("tcp-smtp", "SMTP port reachable", 0)
TCP_TOKEN = Kind("tcp-token", "Sign-in server reachable", 0)
TCP_GRAPH = Kind("tcp-graph", "Microsoft Graph reachable", 0)
STARTTLS = Kind("starttls", "STARTTLS, certificate, XOAUTH2 offered", 0)
TOKEN_SMTP = Kind("token-smtp", "Token for Exchange Online", 5)
TOKEN_GRAPH = Kind("token-graph", "Token for Microsoft Graph", 5)
IDENTITY = Kind("identity", "Token belongs to this tenant and app", 6)
CLOCK = Kind("clock", "Clock", None)
PERMISSIONS = Kind("permissions", "Permissions, and the transport they give", 4)
SMTP_LOGIN = Kind("smtp-login", "Login to Exchange as", 7)
GRAPH_MAILBOX = Kind("graph-mailbox", "Sending through Graph as", 7)
EXPIRY = Kind("secret-expiry", "Expiry of the credential", 5)
LISTENER = Kind("listener", "Listener", 7)
NETWORKS = Kind("listener-networks", "Who may connect to", None)
LISTENER_TLS = Kind("listener-tls", "TLS certificate of listener", None)
SPOOL = Kind("spool", "Spool", None)
POSTMASTER = Kind("postmaster", "Postmaster and alerts", None)
SEND = Kind("send", "A message that travels", 7)

KINDS: tuple[Kind, ...] = (
    CONFIGURATION, SECRETS, DNS, TCP_SMTP, TCP_TOKEN, TCP_GRAPH, STARTTLS, TOKEN_SMTP, TOKEN_GRAPH, IDENTITY, CLOCK,
    PERMISSIONS, SMTP_LOGIN, GRAPH_MAILBOX, EXPIRY, LISTENER, NETWORKS, LISTENER_TLS, SPOOL, POSTMASTER, SEND,
)  # fmt: skip
"""In the guide's order: what comes before what, for an administrator who mends from the top."""

_RANK = {kind.slug: rank for rank, kind in enumerate(KINDS)}


def rank(step: Step) -> int:
    """Where a step stands in the report."""
    return _RANK[step.id.partition(":")[0]]
