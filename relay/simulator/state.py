"""The tenant as it is right now: what an administrator could change in Entra and Exchange, changeable while running."""

from __future__ import annotations

import email.utils
import uuid
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from relay.simulator.credentials import Certificate, Secret
from relay.simulator.options import CLOUDS, Limits, SimulatorOptions
from relay.simulator.state_values import READERS, TWO_YEARS, checked_permissions, lowered, read_number, shown

_LIMITS = frozenset(item.name for item in fields(Limits))


def made_up_name(mailbox: str) -> str:
    """A directory name for a mailbox that was given none."""
    return mailbox.partition("@")[0].replace(".", " ").replace("-", " ").title()


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
        self.extra_secrets = [Secret(value, self.secret_expires) for value in options.extra_secrets]
        self.certificates = list(options.certificates)
        self.certificate_delay = 0.0
        self._certificate_ready: dict[str, float] = {}
        self.federated = list(options.federated)
        self.exchange_resource, self.graph_resource = CLOUDS[options.cloud]
        self.exchange_user_resource = self.exchange_resource.replace("office365.com", "office.com")
        self.app_enabled = True
        self.service_principal = True
        self.exchange_service_principal = True
        self.conditional_access = False
        self.assignment_required = False
        self.public_client = options.public_client
        self.user_consent = True
        self.disabled_users: set[str] = set()
        self.auto_sign_in: str | None = None
        self.entra_error: float | None = None
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
        self.smtp_policy: str | None = None
        self.smtp_front: str | None = None
        self.https_front: str | None = None
        self.exchange_down = False
        self.graph_down: bool | str = False
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
        return given or made_up_name(mailbox)

    def may_send_as(self, mailbox: str, address: str) -> bool:
        """Whether this mailbox's logon may put the address into From (itself, or Send As)."""
        mailbox, address = mailbox.lower(), address.lower()
        return address == mailbox or address in self.send_as.get(mailbox, ())

    def application_id(self) -> str:
        """The object id of the app registration, which is neither the client id nor the service principal's."""
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{self.tenant_id}/applications/{self.client_id}"))

    def secrets(self) -> list[Secret]:
        """Every client secret; the first is ``client_secret``."""
        expires = min(self.secret_expires, self.clock()) if self.secret_expired else self.secret_expires
        return [Secret(self.client_secret, expires, key_id=self.secret_key_id), *self.extra_secrets]

    def registered(self) -> list[Certificate]:
        """Every certificate of the app."""
        return [Certificate(pem) for pem in self.certificates]

    def certificate_add(self, certificate: Certificate) -> None:
        """Register a certificate; it logs in once ``certificate_delay`` has passed."""
        if certificate.thumbprint not in {known.thumbprint for known in self.registered()}:
            self.certificates.append(certificate.pem)
            self._certificate_ready[certificate.pem] = self.clock() + self.certificate_delay

    def certificate_is_ready(self, certificate: Certificate) -> bool:
        """Whether Entra's sign-in service has heard of a certificate that was added."""
        return self.clock() >= self._certificate_ready.get(certificate.pem, 0.0)

    def smtp_auth_disabled(self, mailbox: str) -> str | None:
        """``Mailbox`` or ``Tenant`` when the switch is off there; the mailbox's own setting wins."""
        if mailbox.lower() in self.smtp_auth_disabled_mailboxes:
            return "Mailbox"
        if self.smtp_auth_disabled_tenant and mailbox.lower() not in self.smtp_auth_enabled_mailboxes:
            return "Tenant"
        return None

    def to_json(self) -> dict[str, Any]:
        """Everything that `patch` accepts, with its present value."""
        limits = {name: getattr(self.limits, name) for name in sorted(_LIMITS)}
        return {**{name: shown(getattr(self, name)) for name in READERS}, "limits": limits}

    def patch(self, changes: dict[str, Any]) -> None:
        """Change the tenant; all of it or, on ValueError, nothing. ``secret`` is another name of ``client_secret``."""
        ready = [
            (self.limits if key in _LIMITS else self, key, _read(key, value))
            for key, value in _flattened(changes)
        ]
        for owner, name, value in ready:
            setattr(owner, name, value)


def _read(key: str, value: Any) -> Any:
    """The value, fit for the key. Raises ValueError."""
    if key not in READERS and key not in _LIMITS:
        raise ValueError(f"{key}: unknown")
    try:
        if key in READERS:
            return READERS[key](value)
        if read_number(value) < 0:
            raise ValueError("a number from 0 up is needed")
    except ValueError as error:
        raise ValueError(f"{key}: not a fitting value: {value!r}: {error}") from error
    return value


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
