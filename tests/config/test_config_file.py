"""A file alone: defaults are the design's, every kind of value is read, relative files belong to the file's folder."""

from __future__ import annotations

import datetime
import ipaddress
import re

import pytest

from relay.config.load import load
from relay.settings import Certificate, ClientSecret, FederatedTokenFile, ManagedIdentity
from tests.config.config_kit import HASH, SECRET, UPSTREAM, load_text

MB = 1024 * 1024


def test_defaults_are_the_designs(tmp_path):
    """With the guide's fields alone, everything else is as the contract says."""
    settings = load_text(tmp_path, UPSTREAM)
    upstream, listener, spool = settings.upstreams[0], settings.listeners[0], settings.spool
    assert (upstream.port, upstream.timeout, upstream.batch_size, upstream.transport) == (
        587,
        120.0,
        30,
        "auto",
    )
    assert upstream.host == "smtp.office365.com"
    assert upstream.smtp_scope == "https://outlook.office365.com/.default"
    limits = upstream.limits
    assert (limits.connections, limits.messages_per_minute, limits.recipients_per_day) == (2, 30, 10000)
    assert (limits.recipients_per_message, limits.message_size) == (500, 35 * MB)
    assert isinstance(upstream.credential, ClientSecret)
    assert upstream.credential.secret.reveal() == SECRET
    assert upstream.credential.secret.source == "env:SECRET"
    assert (listener.bind, listener.host, listener.port) == ("127.0.0.1:25", "127.0.0.1", 25)
    assert [str(one) for one in listener.allow] == ["127.0.0.0/8", "::1/128"]
    assert (listener.tls.mode, listener.tls.minimum, listener.auth) == ("none", "1.2", "none")
    assert (listener.answer_after, listener.newlines, listener.auth_in_clear) == ("spool", "strict", False)
    limits = listener.limits
    assert (limits.message_size, limits.recipients, limits.connections) == (35 * MB, 1000, 1000)
    assert (limits.connections_per_client, limits.messages_per_minute_per_client, limits.idle) == (
        50,
        0,
        300.0,
    )
    assert spool.retry == (60, 120, 300, 600, 1200, 1800, 3600)
    assert (spool.max_size, spool.max_age, spool.max_held) == (10 * 1024 * MB, 5 * 86400, 30 * 86400)
    assert (spool.on_uncertain, spool.delay_notice, spool.history) == ("resend", 4 * 3600, 30 * 86400)
    assert (settings.default_sender, settings.recipients.allow, settings.web) == ("rewrite", ("*",), None)
    assert (settings.log.level, settings.log.format) == ("info", "auto")
    assert settings.warnings == ()


@pytest.mark.parametrize(
    ("cloud", "host", "authority", "smtp_scope", "graph_scope"),
    [
        ("public", "smtp.office365.com", "https://login.microsoftonline.com",
         "https://outlook.office365.com/.default", "https://graph.microsoft.com/.default"),
        ("gcc-high", "smtp.office365.us", "https://login.microsoftonline.us",
         "https://outlook.office365.us/.default", "https://graph.microsoft.us/.default"),
        ("dod", "outlook-dod.office365.us", "https://login.microsoftonline.us",
         "https://outlook-dod.office365.us/.default", "https://dod-graph.microsoft.us/.default"),
        ("china", "smtp.partner.outlook.cn", "https://login.chinacloudapi.cn",
         "https://partner.outlook.cn/.default", "https://microsoftgraph.chinacloudapi.cn/.default"),
    ],
)  # fmt: skip
def test_the_cloud_sets_addresses_and_scopes(tmp_path, cloud, host, authority, smtp_scope, graph_scope):
    """Facts 7.1: each cloud has its own host, authority and scopes."""
    upstream = load_text(tmp_path, f"{UPSTREAM}    cloud: {cloud}\n").upstreams[0]
    assert (upstream.host, upstream.authority) == (host, authority)
    assert (upstream.smtp_scope, upstream.graph_scope) == (smtp_scope, graph_scope)


def test_explicit_addresses_win_and_scopes_stay_with_the_cloud(tmp_path):
    """host, authority and graph_url may be overridden; the scopes follow `cloud`, never graph_url."""
    more = (
        "    host: localhost\n    authority: https://127.0.0.1:8443/\n    graph_url: https://127.0.0.1:8444\n"
    )
    upstream = load_text(tmp_path, UPSTREAM + more).upstreams[0]
    assert (upstream.host, upstream.authority) == ("localhost", "https://127.0.0.1:8443")
    assert upstream.graph_url == "https://127.0.0.1:8444"
    assert upstream.graph_scope == "https://graph.microsoft.com/.default"


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("5m", 300), ("4h", 14400), ("5d", 432000), ("7", 7), ("1.5h", 5400)]
)
def test_durations(tmp_path, text, seconds):
    """Durations have a unit; a bare number is seconds."""
    assert load_text(tmp_path, f"{UPSTREAM}spool: {{max_age: {text}}}\n").spool.max_age == seconds


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        ("25MB", 25 * MB),
        ("512KB", 512 * 1024),
        ("10GB", 10 * 1024 * MB),
        ("1000", 1000),
        ("1.5 mb", 3 * MB // 2),
    ],
)
def test_sizes(tmp_path, text, octets):
    """Sizes are powers of 1024; a bare number is octets."""
    assert load_text(tmp_path, f"{UPSTREAM}spool: {{max_size: {text}}}\n").spool.max_size == octets


@pytest.mark.parametrize(("text", "number"), [("small", 10), ("Medium", 30), ("large", 100), ("17", 17)])
def test_batch_sizes(tmp_path, text, number):
    """The guide's words, or a number."""
    assert load_text(tmp_path, f"{UPSTREAM}    batch_size: {text}\n").upstreams[0].batch_size == number


def test_yaml_scalars_mean_what_they_show(tmp_path):
    """Neither octal nor base 60 numbers, nor words for true: text stays as it is written."""
    text = (
        UPSTREAM.replace("Microsoft 365", "0123") + "    port: 0587\n    client_secret_expires: 2028-11-01\n"
    )
    upstream = load_text(
        tmp_path, text + "listeners: [{bind: 127.0.0.1:25, tls: {minimum: 1.3}}]\n"
    ).upstreams[0]
    assert (upstream.name, upstream.port) == ("0123", 587)
    assert upstream.client_secret_expires == datetime.date(2028, 11, 1)


def test_sender_rules(tmp_path):
    """Each form of match, client, from and login arrives typed; defaults are the first upstream's."""
    text = f"""{UPSTREAM}
clients: [{{username: bob, password: {HASH}, may_send_as: ["*@A.local"]}}]
senders:
  - {{match: "*@Scanners.Local", client: 192.168.10.7, from: scans@contoso.com, login: [a@contoso.com, b@contoso.com]}}
  - {{match: /erp-\\d+@old\\.local/, client: "user:bob", from: keep, name: ERP, reply_to: none}}
  - {{match: root@localhost}}
"""
    settings = load_text(tmp_path, text)
    first, second, third = settings.senders
    assert first.match == "*@scanners.local"
    assert first.network == ipaddress.ip_network("192.168.10.7/32")
    assert first.login == ("a@contoso.com", "b@contoso.com")
    assert first.upstream == "Microsoft 365"
    assert isinstance(second.match, re.Pattern)
    assert second.match.fullmatch("ERP-12@old.local")
    assert (second.user, second.network, second.from_address) == ("bob", None, None)
    assert (second.name, second.reply_to) == ("ERP", "none")
    assert (third.match, third.from_address, third.login) == (
        "root@localhost",
        "notifications@contoso.com",
        (),
    )
    assert settings.clients[0].may_send_as == ("*@a.local",)
    assert settings.clients[0].password.reveal() == HASH


@pytest.mark.parametrize(
    ("line", "credential"),
    [
        ("managed_identity: system", ManagedIdentity(None)),
        ("managed_identity: 7F1C0C5E-5A7B-4A6E-9D3F-2B8F6F1F0A01",
         ManagedIdentity("7f1c0c5e-5a7b-4a6e-9d3f-2b8f6f1f0a01")),
    ],
)  # fmt: skip
def test_managed_identity(tmp_path, line, credential):
    """The system's identity, or one by its client id, instead of a secret."""
    text = UPSTREAM.replace("client_secret: env:SECRET", line)
    assert load_text(tmp_path, text).upstreams[0].credential == credential


def test_file_names_are_relative_to_the_configuration(tmp_path):
    """Certificate, token file and spool beside the configuration are found wherever relay is started."""
    pem = tmp_path / "app.pem"
    pem.write_text("certificate and key")
    pem.chmod(0o600)
    text = UPSTREAM.replace(
        "client_secret: env:SECRET", "certificate: {file: app.pem, passphrase: env:SECRET}"
    )
    settings = load_text(tmp_path, text + "spool: {url: sqlite:///mail/spool.db}\n")
    credential = settings.upstreams[0].credential
    assert isinstance(credential, Certificate)
    assert credential.file == pem
    assert credential.passphrase is not None
    assert credential.passphrase.reveal() == SECRET
    assert settings.spool.url == f"sqlite:///{tmp_path}/mail/spool.db"
    text = UPSTREAM.replace("client_secret: env:SECRET", "federated_token_file: token")
    settings = load_text(tmp_path, text)
    assert settings.upstreams[0].credential == FederatedTokenFile(tmp_path / "token")
    assert any("does not exist yet" in warning for warning in settings.warnings)


def test_ipv6_bind(tmp_path):
    """The brackets stay in `bind` and are gone in `host`."""
    listener = load_text(tmp_path, f'{UPSTREAM}listeners: [{{bind: "[::1]:2525"}}]\n').listeners[0]
    assert (listener.bind, listener.host, listener.port) == ("[::1]:2525", "::1", 2525)


def test_an_empty_key_means_its_default(tmp_path):
    """A key without a value, and a section without keys, are as if they were not there."""
    settings = load_text(tmp_path, f"{UPSTREAM}    limits:\nlisteners:\nsenders:\nspool: {{max_age: null}}\n")
    assert settings.spool.max_age == 432000
    assert settings.listeners[0].port == 25


def test_merge_keys_and_aliases(tmp_path):
    """Two upstreams that differ in little can share the rest."""
    text = (
        UPSTREAM.replace("  - server_name", "  - &first\n    server_name")
        + "  - {<<: *first, server_name: second}\n"
    )
    settings = load_text(tmp_path, text, {"RELAY_PORT": "2587"})
    assert [upstream.name for upstream in settings.upstreams] == ["Microsoft 365", "second"]
    assert [upstream.port for upstream in settings.upstreams] == [2587, 587]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_windows_encodings_are_read(tmp_path, encoding):
    """A byte order mark, and UTF-16 as PowerShell writes it."""
    file = tmp_path / "config.yaml"
    file.write_bytes(UPSTREAM.replace("\n", "\r\n").encode(encoding))
    file.chmod(0o600)
    assert load(file, {"SECRET": SECRET}).upstreams[0].name == "Microsoft 365"
