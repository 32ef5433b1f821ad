"""What an access token says about itself, and what that means for sending mail.

The payload is decoded, not verified: the token is Microsoft's to check, ours only to read (facts 1.6). Nothing here
shows the token. Source of the judgement: facts 1.4 and Microsoft, "Access token claims reference".
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass

from relay.settings import ManagedIdentity, Upstream
from relay.tokens.contract import Resource, Token
from relay.tokens.credentials import GUID
from relay.tokens.reasons import APP

NEEDED_ROLE = {Resource.SMTP: "SMTP.SendAsApp", Resource.GRAPH: "Mail.Send"}
"""The application permission that shows the right to send; Exchange roles (RBAC) leave no trace in a token."""

SERVICE = {Resource.SMTP: "Exchange Online", Resource.GRAPH: "Microsoft Graph"}
_SERVICE_IDS = {
    Resource.SMTP: "00000002-0000-0ff1-ce00-000000000000",
    Resource.GRAPH: "00000003-0000-0000-c000-000000000000",
}
SKEW_LIMIT = 300.0
"""Seconds between this clock and Microsoft's beyond which signatures and tokens are refused."""

_ADD_SMTP_ROLE = (
    f"Steps 3 and 4: {APP} > API permissions > Add a permission > APIs my organization uses > Office 365 Exchange "
    "Online > Application permissions > SMTP.SendAsApp, then Grant admin consent, New-ServicePrincipal and "
    "Add-MailboxPermission in Exchange Online PowerShell; or assign the Exchange role Application SMTP.SendAsApp. "
    "With Graph's Mail.Send, `transport: auto` (or graph) needs none of this."
)
_ADD_GRAPH_ROLE = (
    f"Steps 3 and 4: {APP} > API permissions > Add a permission > Microsoft Graph > Application permissions > "
    "Mail.Send, then Grant admin consent; or assign the Exchange role Application Mail.Send."
)
_ADD_ROLE = {Resource.SMTP: _ADD_SMTP_ROLE, Resource.GRAPH: _ADD_GRAPH_ROLE}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to say about a token: ``level`` is ok, warn or fail."""

    slug: str
    level: str
    seen: str
    remedy: str = ""


def decode(token: str) -> dict[str, object]:
    """The payload of a JWT (RFC 7519); empty when it is not one, since Microsoft may issue opaque tokens."""
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    try:
        payload = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return {}
    return payload if isinstance(payload, dict) else {}


def roles(claims: dict[str, object]) -> tuple[str, ...]:
    """The application permissions; empty when the claim is absent."""
    found = claims.get("roles")
    return tuple(role for role in found if isinstance(role, str)) if isinstance(found, list) else ()


def seconds(claims: dict[str, object], name: str) -> float | None:
    """A NumericDate claim (``exp``, ``nbf``, ``iat``), or None."""
    value = claims.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def may_send(token: Token) -> bool:
    """Whether the token shows the right to send. False proves nothing: Exchange roles do not show."""
    return NEEDED_ROLE[token.resource] in token.roles


def judge(token: Token, upstream: Upstream, *, now: float | None = None) -> list[Finding]:
    """What an administrator should know about this token, worst last. ``now``: wall time, to compare with ``nbf``."""
    if not token.claims:
        return [Finding("opaque", "warn", "The token cannot be read; only an attempt to send decides.")]
    found = [
        *_about_rights(token, upstream),
        *_about_identity(token, upstream),
        *_about_clock(token, now),
    ]
    return sorted(found, key=lambda finding: ("ok", "warn", "fail").index(finding.level))


def _about_rights(token: Token, upstream: Upstream) -> list[Finding]:
    audience = str(token.claims.get("aud", ""))
    if not _audience_fits(token.resource, audience, upstream):
        seen = f"The token is for {audience or 'nobody'}, not for {SERVICE[token.resource]}."
        return [Finding("audience", "fail", seen, "Check `cloud`: the scope asked for follows from it.")]
    if "scp" in token.claims:
        seen = "The token is a user's, not an application's."
        return [
            Finding(
                "delegated", "fail", seen, "Use the client id and credential of an application (steps 5, 6)."
            )
        ]
    return [_about_roles(token)]


def _about_roles(token: Token) -> Finding:
    role, service = NEEDED_ROLE[token.resource], SERVICE[token.resource]
    if role in token.roles:
        return Finding(
            "role-present", "ok", f"{service}: the token carries {role}.", _AFTER_ROLE[token.resource]
        )
    if token.roles:
        seen = f"{service}: {role} is not granted; the token carries only {', '.join(token.roles)}."
        return Finding("role-other", "warn", seen, _ADD_ROLE[token.resource])
    seen = f"{service}: the token carries no permission: either consent is missing, or Exchange roles (RBAC) are used."
    return Finding("role-absent", "warn", seen, _ADD_ROLE[token.resource])


_AFTER_ROLE = {
    Resource.SMTP: "Exchange also needs its service principal (New-ServicePrincipal) and Add-MailboxPermission.",
    Resource.GRAPH: "A mailbox scope in Exchange may still deny single mailboxes (ErrorAccessDenied).",
}


def _audience_fits(resource: Resource, audience: str, upstream: Upstream) -> bool:
    scope = upstream.smtp_scope if resource is Resource.SMTP else upstream.graph_scope
    wanted = scope.removesuffix("/.default").rstrip("/").lower()
    return audience.rstrip("/").lower() in (wanted, _SERVICE_IDS[resource])


def _about_identity(token: Token, upstream: Upstream) -> list[Finding]:
    found = []
    tenant = str(token.claims.get("tid", ""))
    named_by_id = GUID.fullmatch(upstream.tenant_id)  # a domain name is allowed, and cannot be compared
    if tenant and named_by_id and tenant.lower() != upstream.tenant_id.lower():
        seen = f"The token is of tenant {tenant}, the configuration says {upstream.tenant_id}."
        found.append(
            Finding("tenant", "warn", seen, f"Step 6: {APP} > Overview: compare Directory (tenant) ID.")
        )
    client = str(token.claims.get("appid") or token.claims.get("azp") or "")
    own = not isinstance(upstream.credential, ManagedIdentity)  # an identity's id need not be configured
    if own and client and client.lower() != upstream.client_id.lower():
        seen = f"The token is of application {client}, the configuration says {upstream.client_id}."
        found.append(
            Finding("application", "warn", seen, f"Step 6: {APP} > Overview: compare the client ID.")
        )
    return found


def _about_clock(token: Token, now: float | None) -> list[Finding]:
    starts = seconds(token.claims, "nbf")
    if now is None or starts is None or starts <= now + 1:
        return []
    # Entra dates nbf five minutes back, so a future one means this clock is behind by more than that
    seen = f"The token is valid only from {starts - now:.0f} s in the future: this machine's clock is behind."
    return [Finding("clock", "fail", seen, "Set this machine's clock (NTP).")]
