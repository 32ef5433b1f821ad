"""What the tokens show and the tries showed, together: which transport carries the mail, or what was not granted."""

from __future__ import annotations

from dataclasses import dataclass

from relay.check import catalogue
from relay.check.contract import Status, Step
from relay.check.verdicts import filled
from relay.deliver.rights import Way
from relay.settings import ManagedIdentity, Upstream, UserLogin
from relay.tokens.claims import NEEDED_ROLE, judge
from relay.tokens.contract import Resource, Token
from relay.tokens.reasons import APP

_SMTP_ROLE, _GRAPH_ROLE = NEEDED_ROLE[Resource.SMTP], NEEDED_ROLE[Resource.GRAPH]


@dataclass(frozen=True, slots=True)
class Tries:
    """What trying showed beyond the tokens."""

    smtp_in: bool
    """A mailbox was let in over SMTP."""
    graph_in: bool
    """Graph would take a mailbox's mail."""
    denied: bool
    """A right was refused (535 5.7.3, or 403), and not just the network or a switch in the way."""
    spare: bool
    """Graph stands in when SMTP fails."""


@dataclass(frozen=True, slots=True)
class Permissions:
    """One upstream's. ``choice`` is None when there is no token to decide by."""

    upstream: Upstream
    choice: Way | None
    smtp: Token | None
    graph: Token | None

    @property
    def words(self) -> str:
        """What the tokens carry."""
        return f"The tokens carry: {', '.join(sorted({*granted(self.smtp), *granted(self.graph)})) or 'no permission'}."

    def step(self, tries: Tries, about: str) -> Step:
        """The step of the report."""
        kind = catalogue.PERMISSIONS
        deciding = self.graph if self.choice is Way.GRAPH else self.smtp
        if self.choice is None or deciding is None:
            return kind.step(Status.SKIPPED, "there is no token that could show them", about=about)
        way = self._way(tries)
        if way:
            return kind.step(Status.OK, f"{self.words} {way}", about=about)
        if self.choice is Way.SMTP and _may(self.graph):
            remedy = "Set `transport: auto` (or graph): Graph needs nothing more. " + _grant_smtp(
                self.upstream
            )
            seen = (
                f"{self.words} That is enough for Graph, not for SMTP, and `transport: smtp` forbids Graph."
            )
            return kind.step(Status.FAIL, seen, remedy, about=about, guide_step=3)
        if tries.denied:
            seen = f"{self.words} Consent was not granted, or the permission was never added."
            return kind.step(Status.FAIL, seen, self._consent(deciding), about=about)
        seen = f"{self.words} Whether an Exchange role gives the right, only a login would tell."
        return kind.step(Status.WARN, seen, self._consent(deciding), about=about)

    def _way(self, tries: Tries) -> str:
        """How mail goes, in a sentence; empty when it does not."""
        in_smtp, in_graph = _may(self.smtp), _may(self.graph)
        role = "An Exchange role lets the app in (that leaves no trace in a token). "
        if tries.spare and not tries.smtp_in:
            return "SMTP cannot be used now, so mail goes over Graph."
        if self.choice is Way.SMTP and (in_smtp or tries.smtp_in):
            return ("" if in_smtp else role) + "Mail goes over SMTP."
        if self.choice is Way.GRAPH and (in_graph or tries.graph_in):
            return ("" if in_graph else role) + self._graph_words()
        if self.choice is Way.TRY_SMTP and (tries.smtp_in or tries.graph_in):
            return role + ("Mail goes over SMTP." if tries.smtp_in else self._graph_words())
        return ""

    def _consent(self, deciding: Token) -> str:
        """For other identities than an app registration the tokens room knows the place."""
        if isinstance(self.upstream.credential, UserLogin | ManagedIdentity):
            return " ".join(one.remedy for one in judge(deciding, self.upstream) if one.remedy)
        return _consent(self.upstream, self.choice or Way.SMTP)

    def _graph_words(self) -> str:
        fine = "Mail.Send only is fine: Graph will be used, and SMTP needs no right. "
        only = fine if self.choice is Way.GRAPH and self.upstream.transport == "auto" else ""
        large = " Messages over about 3 MB need Mail.ReadWrite as well (large attachments, scans)."
        return f"{only}Mail goes over Graph." + ("" if "Mail.ReadWrite" in granted(self.graph) else large)


def granted(token: Token | None) -> tuple[str, ...]:
    """The permissions a token carries: an application's, or what a user allowed."""
    return token.permissions if token is not None else ()


def _may(token: Token | None) -> bool:
    return token is not None and token.may_send


def _consent(upstream: Upstream, choice: Way) -> str:
    role, service = (
        (_SMTP_ROLE, "APIs my organization uses > Office 365 Exchange Online")
        if choice is Way.SMTP
        else (_GRAPH_ROLE, "Microsoft Graph")
    )
    app = filled(APP, upstream)
    return (
        f"Step 4: {app} > API permissions: if {role} is listed, press Grant admin consent, Yes. If it is not (step 3): "
        f"Add a permission > {service} > Application permissions > {role} > Add, then Grant admin consent. "
        "(Delegated permissions do not count.) A new token shows it within minutes. "
        "With Exchange roles instead: relay setup --print-powershell graph-scope (or rbac, for SMTP)."
    )


def _grant_smtp(upstream: Upstream) -> str:
    app = filled(APP, upstream)
    return (
        f"For SMTP instead: {app} > API permissions > Add a permission > APIs my organization uses > Office 365 "
        f"Exchange Online > Application permissions > {_SMTP_ROLE}, Grant admin consent, and the Exchange side: "
        "relay setup --print-powershell classic."
    )
