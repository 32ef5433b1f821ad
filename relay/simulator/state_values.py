"""What each key of the tenant's state takes: `READERS` checks and normalises a value, `shown` writes it as JSON."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from relay.simulator.credentials import Certificate, Secret
from relay.simulator.options import PERMISSIONS

TWO_YEARS = 2 * 365 * 86400.0  # seconds; the longest secret the portal offers

Reader = Callable[[Any], Any]


def lowered(addresses: Iterable[str]) -> set[str]:
    """Addresses compare without case throughout."""
    return {address.lower() for address in addresses}


def checked_permissions(permissions: Iterable[str]) -> set[str]:
    """The permissions as a set. Raises ValueError for one that nobody could grant."""
    chosen = set(permissions)
    if unknown := chosen - PERMISSIONS:
        raise ValueError(
            f"unknown permission {', '.join(sorted(unknown))}: known are {', '.join(sorted(PERMISSIONS))}"
        )
    return chosen


def checked_certificate(pem: str) -> str:
    """The same text. Raises ValueError when it holds no certificate."""
    Certificate(pem).x509  # noqa: B018 - raises ValueError
    return pem


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a text is needed")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false is needed")
    return value


def read_number(value: Any) -> float:
    """A number, not a truth value. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("a number is needed")
    return value


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list | tuple | set) or not all(isinstance(item, str) for item in value):
        raise ValueError("a list of texts is needed")
    return list(value)


def _addresses(value: Any) -> set[str]:
    return lowered(_texts(value))


def _permissions(value: Any) -> set[str]:
    return checked_permissions(_texts(value))


def _send_as(value: Any) -> dict[str, set[str]]:
    return {mailbox.lower(): _addresses(also) for mailbox, also in _object(value).items()}


def _names(value: Any) -> dict[str, str]:
    return {mailbox.lower(): _text(name) for mailbox, name in _object(value).items()}


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("an object is needed")
    return value


def _secrets(value: Any) -> list[Secret]:
    if not isinstance(value, list):
        raise ValueError("a list is needed")
    return [Secret.from_json(item, time.time() + TWO_YEARS) for item in value]


def _certificates(value: Any) -> list[str]:
    return [checked_certificate(pem) for pem in _texts(value)]


def _optional(reader: Reader) -> Reader:
    return lambda value: None if value is None else reader(value)


def _choice(*words: str | bool | None) -> Reader:
    def read(value: Any) -> Any:
        if value not in words:
            raise ValueError(f"one of {', '.join(map(str, words))} is needed")
        return value

    return read


_FLAGS = [
    "secret_expired",
    "app_enabled",
    "tenant_exists",
    "any_mailbox",
    "exchange_down",
    "smtp_auth_disabled_tenant",
    "second_334",
    "refuse_long_lines",
    "service_principal",
    "exchange_service_principal",
    "conditional_access",
    "assignment_required",
    "public_client",
    "user_consent",
]
_ADDRESS_SETS = [
    "mailboxes",
    "domains",
    "smtp_auth_disabled_mailboxes",
    "smtp_auth_enabled_mailboxes",
    "mailbox_full",
    "unlicensed",
    "on_premises",
    "blocked_senders",
    "disabled_users",
]

READERS: dict[str, Reader] = {
    **dict.fromkeys(("tenant_id", "client_id", "client_secret"), _text),
    **dict.fromkeys(_FLAGS, _flag),
    **dict.fromkeys(
        ("token_lifetime", "latency", "secret_expires", "clock_skew", "certificate_delay"), read_number
    ),
    **dict.fromkeys(_ADDRESS_SETS, _addresses),
    **dict.fromkeys(("full_access", "rbac_scope", "graph_scope"), _optional(_addresses)),
    "permissions": _permissions,
    "send_as": _send_as,
    "display_names": _names,
    "extra_secrets": _secrets,
    "certificates": _certificates,
    "auto_sign_in": _optional(_text),
    "entra_error": _optional(read_number),
    "entra_down": _choice(None, "refuse", "503", "hang"),
    "graph_down": _choice(False, True, "refuse"),
    "graph_oversize": _choice("413", "400", "200"),
    "smtp_policy": _choice(None, "security-defaults", "conditional-access"),
    "smtp_front": _choice(None, "strips-starttls", "foreign-banner", "intercepts-tls"),
    "https_front": _choice(None, "intercepts-tls", "block-page"),
}
"""Key of `State` -> what reads a new value for it; each raises ValueError for a value that does not fit."""


def shown(value: Any) -> Any:
    """A value of the state as JSON."""
    if isinstance(value, set):
        return sorted(value)
    if isinstance(value, dict):
        return {key: shown(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shown(item) for item in value]
    return value.to_json() if isinstance(value, Secret) else value
