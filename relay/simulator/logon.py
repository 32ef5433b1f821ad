"""Who may log on to SMTP: the XOAUTH2 string, the token inside it, and the mailbox it names.

Microsoft: "Authenticate an IMAP, POP or SMTP connection using OAuth", and "RBAC for Applications".
"""

from __future__ import annotations

import base64
import binascii

from relay.simulator import jwt
from relay.simulator.state import State

UNSUCCESSFUL = "535 5.7.3 Authentication unsuccessful"
DISABLED = (
    "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the {where}. "
    "Visit https://aka.ms/smtp_auth_disabled for more information."
)
BASIC_DISABLED = "535 5.7.139 Authentication unsuccessful, basic authentication is disabled."
POLICIES = {
    "security-defaults": "535 5.7.139 Authentication unsuccessful, user is locked by your organization's security "
    "defaults policy. Contact your administrator.",
    "conditional-access": "535 5.7.139 Authentication unsuccessful, the request did not meet the criteria to be "
    "authenticated successfully. Contact your administrator.",
}
"""Tenant policies that refuse a good token at SMTP: keys are values of the state ``smtp_policy``."""


def read_xoauth2(encoded: bytes) -> tuple[str, str] | None:
    """(user, token) of ``user=..^Aauth=Bearer ..^A^A`` in base64; None when it is anything else."""
    try:
        text = base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, ValueError):
        return None
    parts = text.split("\x01")
    if len(parts) != 4 or parts[2:] != ["", ""]:
        return None
    scheme, _, token = parts[1].removeprefix("auth=").partition(" ")
    if not parts[0].startswith("user=") or not parts[1].startswith("auth=") or scheme.lower() != "bearer":
        return None
    return parts[0].removeprefix("user="), token


def refusal(state: State, user: str, token: str) -> str | None:
    """Why this logon fails, as a reply; None when it succeeds.

    Every fault of token, grant or mailbox gives the same 5.7.3: Exchange does not tell them apart.
    """
    try:
        claims = jwt.verify_own(token, state, state.exchange_resource, state.exchange_user_resource)
    except jwt.BadToken:
        return UNSUCCESSFUL
    if not state.is_mailbox(user) or not _granted(state, claims, user.lower()):
        return UNSUCCESSFUL
    if state.smtp_policy in POLICIES:
        return POLICIES[state.smtp_policy]
    where = state.smtp_auth_disabled(user)
    return DISABLED.format(where=where) if where else None


def _granted(state: State, claims: dict[str, object], mailbox: str) -> bool:
    """SMTP.SendAsApp brings the mailbox permission check with it; Exchange RBAC has its own scope instead.

    A signed-in user's token opens the user's own mailbox. An app is nothing to Exchange before New-ServicePrincipal.
    """
    if "upn" in claims:
        return "SMTP.Send" in str(claims.get("scp", "")).split() and claims["upn"] == mailbox
    if claims["aud"] != state.exchange_resource or not state.exchange_service_principal:
        return False
    roles = claims.get("roles")
    if isinstance(roles, list) and "SMTP.SendAsApp" in roles:
        return state.full_access is None or mailbox in state.full_access
    if "rbac-smtp" in state.permissions:
        return state.rbac_scope is None or mailbox in state.rbac_scope
    return False
