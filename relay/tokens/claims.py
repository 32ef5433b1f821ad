"""What an access token says about itself, and what that means for sending mail.

The payload is decoded, not verified: the token is Microsoft's to check, ours only to read (facts 1.6). Nothing here
shows the token. Source of the judgement: facts 1.4 and Microsoft, "Access token claims reference".
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass

from relay.settings import ManagedIdentity, Upstream, UserLogin
from relay.tokens.contract import NEEDED_ROLE as NEEDED_ROLE
from relay.tokens.contract import NEEDED_SCOPE as NEEDED_SCOPE
from relay.tokens.contract import Resource, Token
from relay.tokens.credentials import GUID
from relay.tokens.reasons import APP

SERVICE = {Resource.SMTP: "Exchange Online", Resource.GRAPH: "Microsoft Graph"}
_SERVICE_IDS = {
    Resource.SMTP: "00000002-0000-0ff1-ce00-000000000000",
    Resource.GRAPH: "00000003-0000-0000-c000-000000000000",
}
READERS = frozenset(
    {
        "Application.Read.All",
        "Application.ReadWrite.All",
        "Application.ReadWrite.OwnedBy",
        "Directory.Read.All",
    }
)
"""Application permissions with which a registration can be read."""
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
_ADD_SCOPE = {
    resource: f"Steps 3 and 4: {APP} > API permissions > Add a permission > Microsoft Graph > Delegated permissions > "
    f"{scope}, grant consent, then run `relay login` again."
    for resource, scope in NEEDED_SCOPE.items()
}
_ADD_TO_IDENTITY = {
    resource: f"A managed identity has no page for API permissions: assign {role} of {SERVICE[resource]} to it by "
    f"New-MgServicePrincipalAppRoleAssignment (docs/credentials.md), or the Exchange role Application {role}. An "
    "assignment shows only in new tokens, which can take Azure a day."
    for resource, role in NEEDED_ROLE.items()
}
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


def scopes(claims: dict[str, object]) -> tuple[str, ...]:
    """The delegated permissions of a user's token (``scp``); empty when the claim is absent."""
    found = claims.get("scp")
    return tuple(found.split()) if isinstance(found, str) else ()


def user_scope(upstream: Upstream, resource: Resource) -> str:
    """The delegated scope to ask for. SMTP has another host there than application tokens have (facts 1.3)."""
    whole = upstream.smtp_scope if resource is Resource.SMTP else upstream.graph_scope
    base = whole.removesuffix("/.default")
    if resource is Resource.SMTP and base == "https://outlook.office365.com":
        base = "https://outlook.office.com"
    return f"{base}/{NEEDED_SCOPE[resource]}"


def seconds(claims: dict[str, object], name: str) -> float | None:
    """A NumericDate claim (``exp``, ``nbf``, ``iat``), or None."""
    value = claims.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def may_send(token: Token) -> bool:
    """Whether the token shows the right to send. False proves nothing: Exchange roles do not show."""
    return token.may_send


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
    if isinstance(upstream.credential, UserLogin):
        return [_about_scopes(token)]
    if "scp" in token.claims:
        seen = "The token is a user's, not an application's."
        return [
            Finding(
                "delegated", "fail", seen, "Use the client id and credential of an application (steps 5, 6)."
            )
        ]
    return [_about_roles(token, upstream)]


def _about_scopes(token: Token) -> Finding:
    scope, service = NEEDED_SCOPE[token.resource], SERVICE[token.resource]
    if "scp" not in token.claims:
        seen = f"{service}: the token is an application's, though a user signs in (`user_login`)."
        return Finding("not-delegated", "fail", seen, "Run `relay login` again.")
    if scope in token.scopes:
        user = str(token.claims.get("upn") or token.claims.get("unique_name") or "the user")
        return Finding("scope-present", "ok", f"{service}: {user} allows {scope}.")
    seen = f"{service}: {scope} is not among what the user allowed: {', '.join(token.scopes) or 'nothing'}."
    return Finding("scope-absent", "fail", seen, _ADD_SCOPE[token.resource])


def _about_roles(token: Token, upstream: Upstream) -> Finding:
    role, service = NEEDED_ROLE[token.resource], SERVICE[token.resource]
    remedies = _ADD_TO_IDENTITY if isinstance(upstream.credential, ManagedIdentity) else _ADD_ROLE
    if role in token.roles:
        return Finding(
            "role-present", "ok", f"{service}: the token carries {role}.", _AFTER_ROLE[token.resource]
        )
    if token.roles:
        seen = f"{service}: {role} is not granted; the token carries only {', '.join(token.roles)}."
        return Finding("role-other", "warn", seen, remedies[token.resource])
    seen = f"{service}: the token carries no permission: either consent is missing, or Exchange roles (RBAC) are used."
    return Finding("role-absent", "warn", seen, remedies[token.resource])


_AFTER_ROLE = {
    Resource.SMTP: "Exchange also needs its service principal (New-ServicePrincipal) and Add-MailboxPermission.",
    Resource.GRAPH: "A mailbox scope in Exchange may still deny single mailboxes (ErrorAccessDenied).",
}


def _audience_fits(resource: Resource, audience: str, upstream: Upstream) -> bool:
    scope = upstream.smtp_scope if resource is Resource.SMTP else upstream.graph_scope
    wanted = {scope.removesuffix("/.default"), _SERVICE_IDS[resource]}
    if isinstance(upstream.credential, UserLogin):
        wanted.add(user_scope(upstream, resource).rpartition("/")[0])
    return audience.rstrip("/").lower() in {one.rstrip("/").lower() for one in wanted}


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
