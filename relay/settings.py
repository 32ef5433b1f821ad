"""The typed settings that `config` reads and every other room is handed: one slice for each room.

Only the standard library; defaults live in the config room's model, so every field here is given.
Durations are seconds, sizes are octets.
"""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import re
from dataclasses import dataclass, field
from pathlib import Path

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Secret:
    """A secret value that never shows itself; ``source`` says where it came from (``plain``, ``env:NAME``, ...)."""

    __slots__ = ("_value", "source")

    def __init__(self, value: str, source: str = "plain") -> None:
        self._value = value
        self.source = source

    def reveal(self) -> str:
        """The value itself. Hand it to the library that needs it; never to a log, an error or a page."""
        return self._value

    def fingerprint(self) -> str:
        """Eight hex digits that tell two values apart without showing either."""
        return hashlib.sha256(self._value.encode()).hexdigest()[:8]

    def __repr__(self) -> str:
        return f"Secret({self.source})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and (self._value, self.source) == (other._value, other.source)

    def __hash__(self) -> int:
        return hash((self._value, self.source))


@dataclass(frozen=True, slots=True)
class ClientSecret:
    """``client_secret``: the secret's Value from the app registration."""

    secret: Secret


@dataclass(frozen=True, slots=True)
class Rotation:
    """How a certificate is replaced, at the app registration as well."""

    automatic: bool
    """Whether the daemon does it in time; `relay certificate rotate` does it in any case."""
    lifetime: float
    """Of each new certificate, in seconds."""
    object_id: str | None
    """Object ID of the app registration; None: asked from Graph."""
    remove_old: bool
    """Whether the registration forgets the old one once the new one has logged in."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """``certificate``: a PFX, or a PEM that holds certificate and key."""

    file: Path
    passphrase: Secret | None
    rotation: Rotation | None = None
    """None: of a second credential, which is there to be replaced itself."""


@dataclass(frozen=True, slots=True)
class ManagedIdentity:
    """``managed_identity``: ``client_id`` is None for the system-assigned one."""

    client_id: str | None


@dataclass(frozen=True, slots=True)
class FederatedTokenFile:
    """``federated_token_file``: read again at each token request."""

    file: Path


@dataclass(frozen=True, slots=True)
class UserLogin:
    """``user_login``: a mailbox user who signed in once with `relay login`."""

    file: Path
    """Where the refresh token is kept, encrypted."""
    user: str
    """The mailbox; the upstream's ``from_email``."""
    key: Secret | None
    """What it is encrypted with; None: a key file beside ``file``."""


Credential = ClientSecret | Certificate | ManagedIdentity | FederatedTokenFile | UserLogin


@dataclass(frozen=True, slots=True)
class MailboxLimits:
    """What one mailbox may do; Exchange's own limits by default (facts 3.1)."""

    connections: int
    messages_per_minute: int
    """Any sliding 60 s; 0 means no limit."""
    recipients_per_day: int
    """Any sliding 24 h; 0 means no limit."""
    recipients_per_message: int
    message_size: int


@dataclass(frozen=True, slots=True)
class Upstream:
    """One Microsoft 365 tenant and app registration."""

    name: str
    from_email: str
    tenant_id: str
    client_id: str
    credential: Credential
    host: str
    port: int
    timeout: float
    """For each network step."""
    batch_size: int
    transport: str
    """``auto``, ``smtp`` or ``graph``."""
    cloud: str
    authority: str
    """Without trailing slash and without tenant."""
    graph_url: str
    smtp_scope: str
    """Such as ``https://outlook.office365.com/.default``; follows ``cloud``."""
    graph_scope: str
    """Such as ``https://graph.microsoft.com/.default``; follows ``cloud``, never ``graph_url``."""
    ca_file: Path | None
    proxy: str | None
    limits: MailboxLimits
    client_secret_expires: datetime.date | None = None
    next_credential: ClientSecret | Certificate | None = None
    """Tried when the first is refused; for a change without a gap."""
    next_secret_expires: datetime.date | None = None


@dataclass(frozen=True, slots=True)
class ListenerTls:
    """``mode`` is none, starttls, implicit or auto; ``minimum`` is 1.0, 1.1, 1.2 or 1.3."""

    mode: str
    certificate: Path | None
    key: Path | None
    minimum: str


@dataclass(frozen=True, slots=True)
class ListenerLimits:
    """Bounds on what clients of one listener may do."""

    message_size: int
    recipients: int
    connections: int
    connections_per_client: int
    messages_per_minute_per_client: int
    """0 means no limit."""
    idle: float


@dataclass(frozen=True, slots=True)
class Listener:
    """One address and port where plain SMTP is accepted."""

    bind: str
    """As configured: ``127.0.0.1:25``, ``[::1]:25``, ``0.0.0.0:2525``."""
    host: str
    port: int
    allow: tuple[Network, ...]
    tls: ListenerTls
    auth: str
    """none, optional or required."""
    auth_in_clear: bool
    answer_after: str
    newlines: str
    proxy_protocol_from: tuple[Network, ...]
    limits: ListenerLimits
    answer_within: float = 60.0
    """Patience of clients under ``answer_after: upstream``."""


@dataclass(frozen=True, slots=True)
class ClientLogin:
    """One entry of ``clients``: an argon2 hash and the senders it may use (address, ``*@domain`` or ``*``)."""

    username: str
    password: Secret
    may_send_as: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SenderRule:
    """One entry of ``senders``."""

    match: str | re.Pattern[str]
    """Lower-case address, ``*@domain`` or ``*``; or a compiled regular expression (case-insensitive, full match)."""
    network: Network | None
    user: str | None
    from_address: str | None
    """None means keep."""
    login: tuple[str, ...]
    """Mailboxes to submit as; empty: the From address."""
    name: str
    """``keep``, ``address``, or a text."""
    reply_to: str
    """``original``, ``none``, or an address."""
    upstream: str


@dataclass(frozen=True, slots=True)
class RecipientPolicy:
    """``recipients``: patterns are addresses, ``*@domain`` or ``*``."""

    allow: tuple[str, ...]
    deny: tuple[str, ...]
    redirect_all_to: str | None


@dataclass(frozen=True, slots=True)
class SpoolSettings:
    """Where accepted mail lives, and how long it is tried."""

    url: str
    max_size: int
    retry: tuple[float, ...]
    max_age: float
    max_held: float
    on_uncertain: str
    delay_notice: float
    history: float
    local: str | None = None
    """A ``sqlite:`` URL: where mail is accepted while the shared spool of ``url`` is away; None: nowhere."""


@dataclass(frozen=True, slots=True)
class Alerts:
    """Ways to reach the administrator that do not depend on the mailbox that broke."""

    webhook: str | None
    command: str | None


@dataclass(frozen=True, slots=True)
class Web:
    """The admin page; None in `Settings` when it is off."""

    bind: str
    host: str
    port: int
    password: Secret | None
    certificate: Path | None
    key: Path | None
    names: tuple[str, ...] = ()
    """Further names under which the page may be called (the Host field), lower case."""
    metrics_from: tuple[Network, ...] = ()
    """Who may read the metrics without a session, besides loopback."""


@dataclass(frozen=True, slots=True)
class Log:
    """``level`` is debug, info, warning or error; ``format`` is auto, text or json."""

    level: str
    format: str


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything, after validation."""

    upstreams: tuple[Upstream, ...]
    listeners: tuple[Listener, ...]
    clients: tuple[ClientLogin, ...]
    senders: tuple[SenderRule, ...]
    default_sender: str
    """rewrite or reject."""
    recipients: RecipientPolicy
    spool: SpoolSettings
    postmaster: str | None
    alerts: Alerts
    web: Web | None
    log: Log
    source: str = "defaults"
    """Where it was read: a path, ``environment``, or both."""
    warnings: tuple[str, ...] = field(default=())
    """What works but an administrator should know: plain secrets, readable files, keys whose feature is to come."""

    file: Path | None = None
    """The configuration file; None when the environment alone configures."""
    variables: tuple[tuple[str, str], ...] = ()
    """(key, environment variable) for each value that the environment sets or overrides."""

    def upstream(self, name: str) -> Upstream:
        """The upstream of that name; KeyError when there is none."""
        for one in self.upstreams:
            if one.name == name:
                return one
        raise KeyError(name)
