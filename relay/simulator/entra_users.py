"""Signing in a user: the device code flow (RFC 8628) and refresh tokens.

Follows Microsoft's "device authorization grant" and "refresh tokens": a code lives 15 minutes, a refresh token 90 days
after its last use; each use gives a new one, and the old one stays valid, as in Entra.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from relay.simulator import entra_errors as refusal
from relay.simulator import jwt
from relay.simulator.credentials import iso
from relay.simulator.state import State

DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
_CODE_LETTERS = "BCDFGHJKLMNPQRSTVWXZ23456789"
_OPENID = frozenset({"openid", "profile", "email", "offline_access"})
DELEGATED: dict[str, frozenset[str]] = {
    "exchange": frozenset({"SMTP.Send", "IMAP.AccessAsUser.All", "POP.AccessAsUser.All"}),
    "graph": frozenset({"Mail.Send", "Mail.ReadWrite", "User.Read"}),
}
"""Which service knows which delegated permission."""


@dataclass
class Device:
    """One device code. ``status`` is pending, approved or declined; ``expires`` and ``polled`` in Unix time."""

    user_code: str
    scope: str
    expires: float
    status: str = "pending"
    user: str = ""
    polled: float = 0.0


@dataclass
class Grant:
    """What a refresh token stands for."""

    user: str
    scope: str
    issued: float
    used: float


@dataclass
class Asked:
    """A scope, taken apart: the one resource (its ``aud``), the permissions there, and whether to stay signed in."""

    resource: str
    permissions: list[str]
    openid: set[str] = field(default_factory=set)


class UserFlows:
    """The codes and grants of one tenant."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.devices: dict[str, Device] = {}
        self.grants: dict[str, Grant] = {}
        self._valid_from: dict[str, float] = {}

    def start(self, scope: str) -> dict[str, Any]:
        """A new device code, as Entra answers it. Raises EntraError for a scope that is none."""
        self._asked(scope)
        limits = self._state.limits
        code = "".join(secrets.choice(_CODE_LETTERS) for _ in range(9))
        identity = secrets.token_urlsafe(48)
        self.devices[identity] = Device(code, scope, self._state.clock() + limits.device_code_life)
        if self._state.auto_sign_in:
            self.decide(self._state.auto_sign_in, approved=True, user_code=code)
        page = "https://microsoft.com/devicelogin"
        return {
            "user_code": code,
            "device_code": identity,
            "verification_uri": page,
            "expires_in": int(limits.device_code_life),
            "interval": int(limits.device_code_interval),
            "message": f"To sign in, use a web browser to open the page {page} and enter the code {code} to authenticate.",
        }

    def decide(self, user: str, *, approved: bool, user_code: str | None = None) -> Device:
        """The user enters a code (the newest that is pending) and agrees or declines. Raises ValueError."""
        pending = [device for device in self.devices.values() if device.status == "pending"]
        chosen = [device for device in pending if user_code in (None, device.user_code)]
        if not chosen:
            raise ValueError("no device code is waiting" + (f" under {user_code}" if user_code else ""))
        if approved and not self._state.is_mailbox(user):
            raise ValueError(f"{user!r} is not a user of the tenant")
        device = chosen[-1]
        device.status, device.user = ("approved" if approved else "declined"), user.lower()
        return device

    def revoke(self, user: str) -> None:
        """The user's password was changed: refresh tokens issued until now are void."""
        self._valid_from[user.lower()] = self._state.clock()

    def redeem_device(self, form: Mapping[str, str], authority: str) -> dict[str, Any]:
        """The answer to one poll. Raises EntraError."""
        device = self.devices.get(form.get("device_code", ""))
        if device is None:
            raise refusal.bad_device_code()
        now, before = self._state.clock(), device.polled
        device.polled = now
        if now >= device.expires:
            raise refusal.device_code_expired()
        if device.status == "declined":
            raise refusal.authorization_declined()
        if device.status == "pending":
            if before and now - before < 0.8 * self._state.limits.device_code_interval:
                raise refusal.slow_down()
            raise refusal.authorization_pending()
        del self.devices[form["device_code"]]
        return self._answer(device.user, device.scope, authority)

    def refresh(self, form: Mapping[str, str], authority: str) -> dict[str, Any]:
        """New tokens for a refresh token. Raises EntraError."""
        grant = self.grants.get(form.get("refresh_token", ""))
        if grant is None:
            raise refusal.bad_refresh_token()
        now, life = self._state.clock(), self._state.limits.refresh_token_life
        if grant.issued <= (valid_from := self._valid_from.get(grant.user, 0.0)):
            raise refusal.refresh_token_revoked(iso(grant.issued), iso(valid_from))
        if life and now - grant.used >= life:
            raise refusal.refresh_token_inactive(iso(grant.issued), life / 86400)
        grant.used = now
        return self._answer(grant.user, form.get("scope") or grant.scope, authority)

    def _answer(self, user: str, scope: str, authority: str) -> dict[str, Any]:
        state = self._state
        if user in state.disabled_users:
            raise refusal.by_number(50057)
        if state.conditional_access:
            raise refusal.blocked_by_policy()
        if state.assignment_required:
            raise refusal.by_number(50105)
        if not state.user_consent:
            raise refusal.by_number(65001)
        asked = self._asked(scope)
        claims = jwt.user_claims(state, user, asked.permissions)
        answer: dict[str, Any] = {
            "token_type": "Bearer",
            "scope": " ".join(f"{asked.resource}/{name}" for name in asked.permissions),
            "expires_in": int(state.token_lifetime),
            "ext_expires_in": int(state.token_lifetime),
            "access_token": jwt.mint(state, authority, asked.resource, claims),
        }
        if "offline_access" in asked.openid:
            answer["refresh_token"] = secrets.token_urlsafe(96)
            now = state.clock()
            self.grants[answer["refresh_token"]] = Grant(user, scope, now, now)
        if "openid" in asked.openid:
            answer["id_token"] = jwt.mint(state, authority, state.client_id, claims)
            answer["client_info"] = jwt.client_info(state, user)
        return answer

    def _asked(self, scope: str) -> Asked:
        """Raises EntraError when the scope names no resource, two, or a permission that does not exist."""
        words = scope.split()
        openid = {word for word in words if word in _OPENID}
        found: dict[str, list[str]] = {}
        for word in (word for word in words if word not in _OPENID):
            resource, _, name = word.rpartition("/")
            found.setdefault(resource or self._state.graph_resource, []).append(name)
        if len(found) > 1:
            raise refusal.by_number(28002, f"The scope {scope} names more than one resource.")
        if not found:
            found = {self._state.graph_resource: ["User.Read"]}
        ((resource, names),) = found.items()
        return Asked(resource, self._permissions(resource, names, scope), openid)

    def _permissions(self, resource: str, names: list[str], scope: str) -> list[str]:
        services = {
            self._state.graph_resource: "graph",
            self._state.exchange_resource: "exchange",
            self._state.exchange_user_resource: "exchange",
        }
        if resource not in services:
            raise refusal.unknown_resource(resource)
        known = DELEGATED[services[resource]]
        if names == [".default"]:
            return sorted(known)
        if not set(names) <= known:
            raise refusal.by_number(
                70011, f"The provided value for the input parameter 'scope' is not valid: {scope}."
            )
        return names
