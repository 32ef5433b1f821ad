"""The tenant as it is right now: what an administrator could change in Entra and Exchange, changeable while running."""

from __future__ import annotations

import email.utils
import uuid
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from relay.simulator.options import CLOUDS, PERMISSIONS, Limits, SimulatorOptions

TWO_YEARS = 2 * 365 * 86400.0  # seconds; the longest secret the portal offers
CHOICES: dict[str, tuple[str | None, ...]] = {
    "entra_down": (None, "refuse", "503", "hang"),
    "graph_oversize": ("413", "400", "200"),
}
"""Keys that take one of a few words. How Graph meets a post over 4 MB: 200 is a pretended success, seen in the field."""

_TEXTS = ("tenant_id", "client_id", "client_secret")
_FLAGS = [
    "secret_expired",
    "app_enabled",
    "tenant_exists",
    "any_mailbox",
    "exchange_down",
    "graph_down",
    "smtp_auth_disabled_tenant",
    "second_334",
    "refuse_long_lines",
    "service_principal",
]
_NUMBERS = ("token_lifetime", "latency", "secret_expires", "clock_skew")
_ADDRESS_SETS = [
    "mailboxes",
    "smtp_auth_disabled_mailboxes",
    "smtp_auth_enabled_mailboxes",
    "mailbox_full",
    "unlicensed",
    "on_premises",
    "blocked_senders",
]
_SCOPES = ("full_access", "rbac_scope", "graph_scope")
_LIMITS = frozenset(item.name for item in fields(Limits))


def lowered(addresses: Iterable[str]) -> set[str]:
    """Addresses compare without case throughout."""
    return {address.lower() for address in addresses}


class State:
    """One tenant, its app registration, its mailboxes and limits. Addresses are kept in lower case."""

    def __init__(self, options: SimulatorOptions) -> None:
        if options.cloud not in CLOUDS:
            raise ValueError(f"unknown cloud {options.cloud!r}: one of {', '.join(CLOUDS)}")
        self._clock = options.clock
        self.clock_skew = 0.0
        self.tenant_id = options.tenant_id
        self.client_id = options.client_id
        self.client_secret = options.client_secret
        self.secret_expires = options.secret_expires or options.clock() + TWO_YEARS
        self.secret_expired = False
        self.secret_key_id = str(uuid.uuid4())
        self.certificates = list(options.certificates)
        self.federated = list(options.federated)
        self.exchange_resource, self.graph_resource = CLOUDS[options.cloud]
        self.app_enabled = True
        self.service_principal = True
        self.tenant_exists = True
        self.permissions = checked_permissions(options.permissions)
        self.token_lifetime: float = options.token_lifetime
        self.refresh_in = options.refresh_in
        self.domains = lowered(options.domains)
        self.mailboxes = lowered(options.mailboxes)
        self.any_mailbox = options.any_mailbox
        self.send_as = {mailbox.lower(): lowered(also) for mailbox, also in options.send_as.items()}
        self.display_names = {mailbox.lower(): name for mailbox, name in options.display_names.items()}
        self.full_access = None if options.full_access is None else lowered(options.full_access)
        self.rbac_scope = None if options.rbac_scope is None else lowered(options.rbac_scope)
        self.graph_scope = None if options.graph_scope is None else lowered(options.graph_scope)
        self.smtp_auth_disabled_tenant = False
        self.smtp_auth_disabled_mailboxes: set[str] = set()
        self.smtp_auth_enabled_mailboxes: set[str] = set()
        self.mailbox_full: set[str] = set()
        self.unlicensed: set[str] = set()
        self.on_premises: set[str] = set()
        self.blocked_senders: set[str] = set()
        self.entra_down: str | None = None
        self.graph_oversize = "413"
        self.exchange_down = False
        self.graph_down = False
        self.latency = options.latency
        self.second_334 = options.second_334
        self.refuse_long_lines = options.refuse_long_lines
        self.limits = options.limits()

    def clock(self) -> float:
        """Unix time as Microsoft's side sees it: this machine's, moved by ``clock_skew`` seconds."""
        return self._clock() + self.clock_skew

    def http_date(self) -> str:
        """The same for a Date header (RFC 9110 section 5.6.7)."""
        return email.utils.formatdate(self.clock(), usegmt=True)

    def is_mailbox(self, address: str) -> bool:
        """Whether Exchange knows a mailbox of this address."""
        address = address.lower()
        if address in self.mailboxes:
            return True
        local, _, domain = address.rpartition("@")
        return self.any_mailbox and bool(local) and domain in self.domains

    def user_id(self, mailbox: str) -> str:
        """The directory's object id of a mailbox, the same every time."""
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{self.tenant_id}/{mailbox.lower()}"))

    def service_principal_id(self) -> str:
        """The object id of the enterprise application: the ``oid`` claim of its tokens."""
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{self.tenant_id}/{self.client_id}"))

    def display_name(self, mailbox: str) -> str:
        """The directory's name of a mailbox, made from the address when none was given."""
        given = self.display_names.get(mailbox.lower())
        return given or mailbox.partition("@")[0].replace(".", " ").replace("-", " ").title()

    def may_send_as(self, mailbox: str, address: str) -> bool:
        """Whether this mailbox's logon may put the address into From (itself, or Send As)."""
        mailbox, address = mailbox.lower(), address.lower()
        return address == mailbox or address in self.send_as.get(mailbox, ())

    def secret_is_expired(self) -> bool:
        """Whether the one client secret has passed its end date."""
        return self.secret_expired or self.clock() >= self.secret_expires

    def smtp_auth_disabled(self, mailbox: str) -> str | None:
        """``Mailbox`` or ``Tenant`` when the switch is off there; the mailbox's own setting wins."""
        if mailbox.lower() in self.smtp_auth_disabled_mailboxes:
            return "Mailbox"
        if self.smtp_auth_disabled_tenant and mailbox.lower() not in self.smtp_auth_enabled_mailboxes:
            return "Tenant"
        return None

    def to_json(self) -> dict[str, Any]:
        """Everything that `patch` accepts, with its present value."""
        shown: dict[str, Any] = {name: getattr(self, name) for name in (*_TEXTS, *_FLAGS, *_NUMBERS)}
        for name in (*_ADDRESS_SETS, "permissions", "domains"):
            shown[name] = sorted(getattr(self, name))
        for name in _SCOPES:
            value = getattr(self, name)
            shown[name] = None if value is None else sorted(value)
        shown["send_as"] = {mailbox: sorted(also) for mailbox, also in self.send_as.items()}
        shown["display_names"] = dict(self.display_names)
        shown.update({name: getattr(self, name) for name in CHOICES})
        shown["limits"] = {name: getattr(self.limits, name) for name in sorted(_LIMITS)}
        return shown

    def patch(self, changes: dict[str, Any]) -> None:
        """Change the tenant; all of it or, on ValueError, nothing. ``secret`` is another name of ``client_secret``."""
        ready = [
            self._limit(key, value) if key in _LIMITS else self._change(key, value)
            for key, value in _flattened(changes)
        ]
        for owner, name, value in ready:
            setattr(owner, name, value)

    def _limit(self, key: str, value: Any) -> tuple[Any, str, Any]:
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise ValueError(f"{key}: a number from 0 up is needed")
        return self.limits, key, value

    def _change(self, key: str, value: Any) -> tuple[Any, str, Any]:
        if key in _TEXTS and isinstance(value, str):
            return self, key, value
        if key in _FLAGS and isinstance(value, bool):
            return self, key, value
        if key in _NUMBERS and isinstance(value, int | float) and not isinstance(value, bool):
            return self, key, value
        if key in (*_ADDRESS_SETS, "domains") and _is_texts(value):
            return self, key, lowered(value)
        if key in _SCOPES and (value is None or _is_texts(value)):
            return self, key, None if value is None else lowered(value)
        if key == "permissions" and _is_texts(value):
            return self, key, checked_permissions(value)
        if key in CHOICES and value in CHOICES[key]:
            return self, key, value
        if key == "send_as" and isinstance(value, dict) and all(_is_texts(also) for also in value.values()):
            return self, key, {mailbox.lower(): lowered(also) for mailbox, also in value.items()}
        if key == "display_names" and isinstance(value, dict) and _is_texts(list(value.values())):
            return self, key, {mailbox.lower(): name for mailbox, name in value.items()}
        raise ValueError(f"{key}: unknown, or not a fitting value: {value!r}")


def checked_permissions(permissions: Iterable[str]) -> set[str]:
    """The permissions as a set. Raises ValueError for one that nobody could grant."""
    chosen = set(permissions)
    if unknown := chosen - PERMISSIONS:
        raise ValueError(
            f"unknown permission {', '.join(sorted(unknown))}: known are {', '.join(sorted(PERMISSIONS))}"
        )
    return chosen


def _is_texts(value: Any) -> bool:
    return isinstance(value, list | tuple | set) and all(isinstance(item, str) for item in value)


def _flattened(changes: dict[str, Any]) -> Iterable[tuple[str, Any]]:
    """``limits: {...}`` and plain limit names mean the same; ``secret`` is a short name."""
    for key, value in changes.items():
        if key == "limits" and isinstance(value, dict):
            unknown = set(value) - _LIMITS
            if unknown:
                raise ValueError(f"unknown limit {', '.join(sorted(unknown))}")
            yield from value.items()
        else:
            yield ("client_secret" if key == "secret" else key), value
