"""The configuration's shape: every key with its kind, default and description (design section 3).

The descriptions feed the JSON Schema and, by a test, keep `docs/configuration.md` complete. `examples` of a required
key double as the stand-in that lets the cross checks run when the key itself is faulty (`validate.py`).
"""

from __future__ import annotations

import sys
from typing import Annotated

from pydantic import Field

from relay.config.credential_model import CertificateFile, NextCredential, UserLoginSection
from relay.config.fields import (
    GB,
    MB,
    NOT_EMPTY,
    TB,
    Address,
    Addresses,
    Batch,
    Bind,
    ClientMatch,
    Command,
    Day,
    Duration,
    DurationOrNone,
    FilePath,
    From,
    Guid,
    Host,
    HttpsUrl,
    Identity,
    LocalSpoolUrl,
    Net,
    PasswordSection,
    Pattern,
    Proxy,
    ReplyTo,
    SecretText,
    Section,
    SenderPattern,
    SpoolUrl,
    Switch,
    Tenant,
    Text,
    WebUrl,
    choice,
    octets,
    whole,
)

DEFAULT_BIND = "127.0.0.1:25"
DEFAULT_SPOOL = (
    "sqlite:///C:/ProgramData/relay/spool.db"
    if sys.platform == "win32"
    else "sqlite:////var/lib/relay/spool.db"
)
# The stand-ins differ from each other so that they cause no further fault.
_TENANT = "7f1c0c5e-5a7b-4a6e-9d3f-2b8f6f1f0a01"
_CLIENT = "b7a0d3f2-91c4-4c55-8e0a-6c1b2d3e4f05"


class UpstreamLimits(Section):
    """upstreams[].limits"""

    connections: Annotated[int, *whole(1, 100)] = Field(
        2, description="SMTP connections at once for each mailbox. Exchange takes 3."
    )
    messages_per_minute: Annotated[int, *whole(0, 1_000_000)] = Field(
        30,
        description="Messages in any 60 seconds for each mailbox; 0 means no limit. Exchange takes 30.",
    )
    recipients_per_day: Annotated[int, *whole(0, 100_000_000)] = Field(
        10_000,
        description="Recipients in any 24 hours for each mailbox; 0 means no limit. Exchange takes 10,000.",
    )
    recipients_per_message: Annotated[int, *whole(1, 1000)] = Field(
        500,
        description="More recipients than this are split over several submissions. Exchange's default is 500.",
    )
    message_size: Annotated[int, *octets(1, 150 * MB)] = Field(
        35 * MB,
        description="Largest message the mailboxes may send. Exchange's default is 35MB, its most 150MB.",
    )


class UpstreamSection(Section):
    """upstreams[]: one Microsoft 365 tenant and app registration."""

    server_name: Text = Field("Microsoft 365", description="Any logical name, unique among the upstreams.")
    from_email: Address = Field(
        description="A mailbox of the tenant: the default sender.", examples=["notifications@contoso.com"]
    )
    tenant_id: Tenant = Field(
        description="Directory (tenant) ID of the app registration.", examples=[_TENANT]
    )
    client_id: Guid = Field(
        description="Application (client) ID of the app registration.", examples=[_CLIENT]
    )
    client_secret: SecretText | None = Field(
        None,
        repr=False,
        description="The client secret's Value (a secret value). Exactly one credential is given.",
    )
    client_secret_expires: Day | None = Field(
        None, description="Day on which the secret expires; reminders come 60, 30, 14, 7 and 1 days before."
    )
    certificate: CertificateFile | None = Field(None, description="A certificate instead of client_secret.")
    managed_identity: Identity | None = Field(
        None, description="`system`, or the client id of a user-assigned identity; instead of client_secret."
    )
    federated_token_file: FilePath | None = Field(
        None, description="File with the token of a workload identity; instead of client_secret."
    )
    user_login: UserLoginSection | None = Field(
        None,
        description="The user of from_email, who signs in once with `relay login`; instead of client_secret.",
    )
    next_credential: NextCredential | None = Field(
        None, description="A second credential, used when the first is refused: for a change without a gap."
    )
    port: Annotated[int, *whole(1, 65535)] = Field(587, description="SMTP submission port, STARTTLS.")
    timeout: Duration = Field(120.0, description="Longest wait for each network step upstream.")
    batch_size: Batch = Field(
        30,
        description="Messages sent over one authenticated connection: small 10, medium 30, large 100, or a number.",
    )
    host: Host | None = Field(
        None, description="SMTP host; the cloud's own (smtp.office365.com) when not given."
    )
    transport: Annotated[str, *choice("auto", "smtp", "graph")] = Field(
        "auto",
        description="How mail is submitted: smtp, graph, or auto, which decides by the token's permissions: graph.md.",
    )
    cloud: Annotated[str, *choice("public", "gcc-high", "dod", "china")] = Field(
        "public",
        description="The Microsoft cloud of the tenant; sets host, authority, graph_url and the scopes.",
    )
    authority: HttpsUrl | None = Field(
        None, description="Where tokens come from; the cloud's own when not given."
    )
    graph_url: HttpsUrl | None = Field(None, description="Microsoft Graph; the cloud's own when not given.")
    ca_file: FilePath | None = Field(
        None, description="PEM certificates trusted in addition to the system's."
    )
    proxy: Proxy | None = Field(
        None, repr=False, description="HTTP proxy for tokens, Graph, and SMTP (by CONNECT)."
    )
    limits: UpstreamLimits = Field(
        default_factory=UpstreamLimits,
        description="What one mailbox may do; kept so that Exchange is never provoked.",
    )


class ListenerTlsSection(Section):
    """listeners[].tls"""

    mode: Annotated[str, *choice("none", "starttls", "implicit", "auto")] = Field(
        "none",
        description="none, starttls, implicit, or auto: starttls and a bare TLS hello on the same port.",
    )
    certificate: FilePath | None = Field(None, description="PEM file with the certificate and its chain.")
    key: FilePath | None = Field(None, description="PEM file with the private key, without passphrase.")
    minimum: Annotated[str, *choice("1.0", "1.1", "1.2", "1.3")] = Field(
        "1.2", description="Oldest TLS version accepted; 1.0 for old devices."
    )


class ListenerLimitsSection(Section):
    """listeners[].limits"""

    message_size: Annotated[int, *octets(1, GB)] = Field(35 * MB, description="Largest message accepted.")
    recipients: Annotated[int, *whole(1, 100_000)] = Field(1000, description="Recipients of one message.")
    connections: Annotated[int, *whole(1, 1_000_000)] = Field(1000, description="Connections at once.")
    connections_per_client: Annotated[int, *whole(1, 1_000_000)] = Field(
        50, description="Connections at once from one client address."
    )
    messages_per_minute_per_client: Annotated[int, *whole(0, 1_000_000)] = Field(
        0, description="Messages in any 60 seconds from one client address; 0 means no limit."
    )
    idle: Duration = Field(300.0, description="A connection that says nothing for this long is closed.")


class ListenerSection(Section):
    """listeners[]: one address and port where plain SMTP is accepted."""

    bind: Bind = Field(
        description="Address and port: 127.0.0.1:25, [::1]:25, 0.0.0.0:2525.", examples=["127.0.0.1:1"]
    )
    allow: tuple[Net, ...] = Field(
        (), description="Networks that may connect. Default for a loopback address: this machine."
    )
    tls: ListenerTlsSection = Field(
        default_factory=ListenerTlsSection, description="Encryption towards clients."
    )
    auth: Annotated[str, *choice("none", "optional", "required")] = Field(
        "none", description="Whether clients log in with a name from `clients`."
    )
    auth_in_clear: Switch = Field(
        False, description="Offer AUTH without TLS beyond loopback, for devices that cannot encrypt."
    )
    answer_after: Annotated[str, *choice("spool", "upstream")] = Field(
        "spool", description="250 once the mail is safe on disk, or (upstream) only once Exchange has it."
    )
    answer_within: Duration = Field(
        60.0,
        description="With answer_after: upstream, how long a client waits before it is told to try again.",
    )
    newlines: Annotated[str, *choice("strict", "tolerant")] = Field(
        "strict", description="tolerant is for devices that end lines with LF alone."
    )
    proxy_protocol_from: tuple[Net, ...] = Field(
        (), description="Load balancers that may state the client's address (PROXY protocol)."
    )
    limits: ListenerLimitsSection = Field(
        default_factory=ListenerLimitsSection, description="Bounds on what clients of this listener may do."
    )


class ClientSection(PasswordSection):
    """clients[]: a name and password for AUTH PLAIN and LOGIN."""

    username: Text = Field(description="The name the client logs in with, unique.", examples=["stand-in"])
    password: SecretText = Field(
        repr=False, description="argon2id hash, made with `relay password` (a secret value).", examples=[""]
    )
    may_send_as: tuple[Pattern, ...] = Field(
        ("*",), description="Senders this client may use: addresses, *@domain, or *."
    )


class SenderSection(Section):
    """senders[]: one rule; the first that matches wins."""

    match: SenderPattern = Field(
        description="Sender the client used: an address, *@domain, * or a /regular expression/.",
        examples=["x@y.z"],
    )
    client: ClientMatch | None = Field(None, description="Only mail from this network, or from user:NAME.")
    from_: From | None = Field(
        None, alias="from", description="New From address, or keep. Default: the upstream's from_email."
    )
    login: Addresses = Field(
        (), description="Mailbox to submit as; a list is a pool. Default: the From address."
    )
    name: Text = Field(
        "keep", description="Display name: keep, address (shows the original address), or a text."
    )
    reply_to: ReplyTo = Field(
        "original", description="Reply-To: original (the original sender), none, or an address."
    )
    upstream: Text | None = Field(None, description="server_name of the upstream. Default: the first.")


class RecipientsSection(Section):
    """recipients: who may be written to."""

    allow: tuple[Pattern, ...] = Field(("*",), description="Recipients accepted: addresses, *@domain, or *.")
    deny: tuple[Pattern, ...] = Field((), description="Recipients refused, even when allowed above.")
    redirect_all_to: Address | None = Field(
        None, description="For rehearsals: everything goes to this address instead of its recipients."
    )


class SpoolSection(Section):
    """spool: where accepted mail lives, and how long it is tried."""

    url: SpoolUrl = Field(DEFAULT_SPOOL, description="sqlite:////absolute/path or postgresql://user@host/db.")
    local: LocalSpoolUrl | None = Field(
        None,
        description="With postgresql: where mail is accepted while the database is away, such as "
        "sqlite:////var/lib/relay/local.db; without it clients are told 451 then.",
    )
    max_size: Annotated[int, *octets(1, 1024 * TB)] = Field(
        10 * GB, description="Mail kept at most; beyond it clients are told 452 4.3.1 and try later."
    )
    retry: Annotated[tuple[Duration, ...], *NOT_EMPTY] = Field(
        (60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0),
        description="Waits between tries; the last repeats; each is varied a little.",
    )
    max_age: Duration = Field(
        432_000.0, description="Age at which the sender gets a failure notice; time held does not count."
    )
    max_held: Duration = Field(2_592_000.0, description="Longest time a message is held.")
    on_uncertain: Annotated[str, *choice("resend", "hold")] = Field(
        "resend", description="What to do when the connection was lost after the final dot."
    )
    delay_notice: Duration = Field(
        14_400.0, description="Age at which the sender is told that mail is delayed."
    )
    history: DurationOrNone = Field(2_592_000.0, description="How long traces of finished mail are kept.")


class AlertsSection(Section):
    """alerts: ways to the administrator that do not depend on the mailbox that broke."""

    webhook: WebUrl | None = Field(None, repr=False, description="URL that alerts are posted to.")
    command: Command | None = Field(None, description="Command that alerts are handed to.")


class WebTlsSection(Section):
    """web.tls"""

    certificate: FilePath = Field(
        description="PEM file with the certificate and its chain.", examples=["web.pem"]
    )
    key: FilePath = Field(
        description="PEM file with the private key, without passphrase.", examples=["web.key"]
    )


class WebSection(PasswordSection):
    """web: the administrator's page; off when the section is not given."""

    bind: Bind = Field("127.0.0.1:8025", description="Address and port of the page.")
    password: SecretText | None = Field(
        None,
        repr=False,
        description="argon2id hash, made with `relay password` (a secret value). Without it a one-time link is printed.",
    )
    tls: WebTlsSection | None = Field(None, description="Certificate and key of the page.")
    names: tuple[Host, ...] = Field(
        (), description="Further names the page is called by, such as a reverse proxy's; others are refused."
    )
    metrics_from: tuple[Net, ...] = Field(
        (), description="Networks that may read /metrics and the reasons of /readyz, besides this machine."
    )


class LogSection(Section):
    """log: what is written, and how."""

    level: Annotated[str, *choice("debug", "info", "warning", "error")] = Field(
        "info", description="How much is logged."
    )
    format: Annotated[str, *choice("auto", "text", "json")] = Field(
        "auto", description="auto: text on a terminal, else JSON lines."
    )


class Config(Section):
    """Configuration of relay."""

    upstreams: Annotated[tuple[UpstreamSection, ...], *NOT_EMPTY] = Field(
        description="Microsoft 365 tenants and app registrations; the first is the default."
    )
    listeners: tuple[ListenerSection, ...] = Field(
        (), description="Addresses where plain SMTP is accepted. Default: 127.0.0.1:25 for this machine."
    )
    clients: tuple[ClientSection, ...] = Field(
        (), description="Names and passwords for AUTH PLAIN and LOGIN."
    )
    senders: tuple[SenderSection, ...] = Field((), description="Sender rules; the first match wins.")
    default_sender: Annotated[str, *choice("rewrite", "reject")] = Field(
        "rewrite", description="When no rule matches: rewrite to from_email, or reject."
    )
    recipients: RecipientsSection = Field(
        default_factory=RecipientsSection, description="Who may be written to."
    )
    spool: SpoolSection = Field(default_factory=SpoolSection, description="Where accepted mail lives.")
    postmaster: Address | None = Field(
        None, description="Gets notices nobody else can get, alerts, and mail to <postmaster>."
    )
    alerts: AlertsSection = Field(
        default_factory=AlertsSection, description="Ways to the administrator beside mail."
    )
    web: WebSection | None = Field(None, description="The administrator's page.")
    log: LogSection = Field(default_factory=LogSection, description="What is logged.")
