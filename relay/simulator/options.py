"""What the simulated tenant looks like when it starts: `SimulatorOptions`, and the `Limits` it enforces.

Figures follow Microsoft's published limits for client submission (service description "Exchange Online
limits" and support page "SMTP submission improvements") unless a field says that they are unverified.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path

from relay.simulator.faults import Fault

MEBIBYTE = 1024 * 1024
SERVICE_MESSAGE_SIZE = 157286400  # octets; what EHLO announces, not what a mailbox may send

EXCHANGE_PERMISSIONS = frozenset(
    {"SMTP.SendAsApp", "IMAP.AccessAsApp", "POP.AccessAsApp", "full_access_as_app"}
)
GRAPH_PERMISSIONS = frozenset(
    {"Mail.Send", "Mail.ReadWrite", "Mail.Read", "Application.Read.All", "Application.ReadWrite.OwnedBy"}
)
RBAC_PERMISSIONS = frozenset({"rbac-smtp", "rbac-mail-send", "rbac-mail-readwrite"})
"""Grants made in Exchange ("RBAC for Applications"): they work without a trace in the token."""
PERMISSIONS = EXCHANGE_PERMISSIONS | GRAPH_PERMISSIONS | RBAC_PERMISSIONS

CLOUDS: dict[str, tuple[str, str]] = {
    "public": ("https://outlook.office365.com", "https://graph.microsoft.com"),
    "gcc-high": ("https://outlook.office365.us", "https://graph.microsoft.us"),
    "dod": ("https://outlook-dod.office365.us", "https://dod-graph.microsoft.us"),
    "china": ("https://partner.outlook.cn", "https://microsoftgraph.chinacloudapi.cn"),
}
"""Cloud name -> (resource of Exchange Online, resource of Graph): what a token may be asked for."""

DEFAULT_MAILBOXES = (
    "notifications@contoso.com",
    "scans@contoso.com",
    "alerts@contoso.com",
    "reports@contoso.com",
    "it@contoso.com",
)


@dataclass(kw_only=True)
class Limits:
    """Every figure the simulated service enforces; times in seconds, sizes in octets, 0 switches a limit off."""

    messages_per_minute: int = 30  # per mailbox, sliding 60 s
    connections: int = 3  # concurrent, authenticated, per mailbox
    recipients_per_day: int = 10_000  # per mailbox, sliding 24 h
    recipients_per_message: int = 500
    message_size: int = 35 * MEBIBYTE  # the mailbox's MaxSendSize
    header_size: int = 256 * 1024
    hops: int = 30  # Received fields; Exchange Server's default
    idle: float = 300.0  # Exchange Server's ConnectionInactivityTimeout
    session: float = 600.0  # Exchange Server's ConnectionTimeout, even while active
    protocol_errors: int = 5  # then 421 and the connection closes
    logon_failures: int = 3  # the same, for AUTH
    tarpit: float = 0.0  # Exchange Server waits 5 s before a failure reply
    repeated_errors: int = 10  # the same mistake so often within the window throttles the mailbox
    repeated_window: float = 600.0
    throttle: float = 3600.0  # how long; Microsoft publishes no figure
    graph_request_size: int = 4 * MEBIBYTE
    graph_attachment_size: int = 3 * MEBIBYTE  # one POST below it, an upload session from it on
    graph_upload_size: int = 150 * MEBIBYTE  # the largest file of an upload session
    graph_draft_size: int = (
        0  # files of one draft; both were seen: refused at the last chunk, or (0) at sending
    )
    graph_concurrency: int = 4  # requests at once, per app
    graph_mailbox_concurrency: int = 4  # the same, per app and mailbox
    graph_requests: int = 10_000  # per app and mailbox in 10 minutes
    graph_upload_rate: int = 150 * MEBIBYTE  # per app and mailbox in 5 minutes
    graph_messages_per_minute: int = 0  # Microsoft states the 30 a minute for SMTP only
    device_code_life: float = 900.0
    device_code_interval: float = 5.0  # between two polls
    refresh_token_life: float = 90 * 86400.0  # since its last use
    graph_headers: int = 5  # internetMessageHeaders of one message (unverified)


@dataclass(kw_only=True)
class SimulatorOptions(Limits):
    """How to start a `Simulator`. Only ``directory`` is needed; port 0 lets the system choose.

    ``directory`` receives ``ca.pem``, the server key, the accepted mail (``messages/``) and ``index.jsonl``.
    ``certificates`` are PEM texts of client certificates; ``federated`` are (issuer, subject) pairs.
    ``full_access``, ``rbac_scope`` and ``graph_scope`` name the mailboxes that the app may use through mailbox
    permission, Exchange RBAC and a Graph access policy; None means every mailbox.
    """

    directory: Path
    host: str = "127.0.0.1"
    public_name: str = "localhost"  # the host name in the addresses handed out
    smtp_port: int = 0
    https_port: int = 0
    graph_port: int = 0
    control_port: int = 0
    tenant_id: str = "7a1c0000-5f1e-4c3b-9a7e-0c0ffee00001"
    client_id: str = "c11e0000-8d2f-4b6a-b1d3-0c0ffee00002"
    client_secret: str = "sim8Q~local.rehearsal.only_not-a-real-secret"  # noqa: S105 - a made-up tenant
    secret_expires: float | None = None  # Unix time; None: two years from the start
    cloud: str = "public"
    domains: list[str] = field(default_factory=lambda: ["contoso.com"])
    mailboxes: list[str] = field(default_factory=lambda: list(DEFAULT_MAILBOXES))
    any_mailbox: bool = False  # every address of the domains is a mailbox
    permissions: set[str] = field(default_factory=lambda: {"SMTP.SendAsApp"})
    send_as: dict[str, set[str]] = field(default_factory=dict)  # mailbox -> further addresses
    display_names: dict[str, str] = field(default_factory=dict)  # the directory's names, used by Graph
    full_access: set[str] | None = None
    rbac_scope: set[str] | None = None
    graph_scope: set[str] | None = None
    certificates: list[str] = field(default_factory=list)
    extra_secrets: list[str] = field(default_factory=list)  # valid beside client_secret, for two years
    public_client: bool = False  # "Allow public client flows", which `relay login` needs
    federated: list[tuple[str, str]] = field(default_factory=list)
    token_lifetime: int = 3599  # seconds
    refresh_in: int | None = None  # seconds; sent with the token when set
    latency: float = 0.0  # seconds added to every round trip
    faults: list[Fault] = field(default_factory=list)
    second_334: bool = False  # answer a failed XOAUTH2 with a 334 challenge before the 535
    refuse_long_lines: bool = True  # lines over 998 octets
    keep: bool = True  # False: count the mail, keep neither files nor list
    clock: Callable[[], float] = time.time

    def limits(self) -> Limits:
        """The limits alone, as a copy that may be changed while the simulator runs."""
        return Limits(**{item.name: getattr(self, item.name) for item in fields(Limits)})
