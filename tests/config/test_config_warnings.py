"""What works but deserves attention is in Settings.warnings; what would do harm is refused at start."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from relay.config.upcoming import Upcoming, refusals
from tests.config.config_kit import HASH, TENANT, UPSTREAM, faults_of, load_text, only_fault, write

CLIENTS = f'clients: [{{username: a, password: "{HASH}"}}]\n'


def make_pair(folder: Path, name: str) -> tuple[str, str]:
    """A self-signed certificate and its key, as PEM files."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject).issuer_name(subject).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write(folder, certificate.public_bytes(pem).decode(), f"{name}.pem")
    write(folder, private.decode(), f"{name}.key")
    return f"{name}.pem", f"{name}.key"


WARNED = [
    ("    port: 465\n", "", "port 465"),
    ("    limits: {connections: 4}\n", "", "more than the 3"),
    ("    limits: {messages_per_minute: 0}\n", "", "no limit is more than the 30"),
    ("    limits: {recipients_per_day: 20000}\n", "", "more than the 10000"),
    ("    limits: {message_size: 20MB}\n", "listeners: [{bind: 127.0.0.1:25}]\n", "larger messages are accepted"),
    ("", "listeners: [{bind: 0.0.0.0:25, allow: [0.0.0.0/0]}]\n", "every address of the Internet"),
    ("", "listeners: [{bind: 127.0.0.1:25, proxy_protocol_from: ['::/0']}]\n", "any client may claim"),
    ("", "listeners: [{bind: 127.0.0.1:25, auth: optional}]\n", "nobody can log in"),
    ("", f"{CLIENTS}listeners: [{{bind: '0.0.0.0:25', auth: required}}]\n", "over TLS only"),
    ("", f"{CLIENTS}listeners: [{{bind: '0.0.0.0:25', auth: required, auth_in_clear: true}}]\n", "readable by others"),
    ("", "senders: [{match: '*'}, {match: a@b.c}]\n", "never used"),
    ("", "senders: [{match: '/(a+)+@x/'}]\n", "can take very long"),
    ("", "recipients: {deny: ['*']}\n", "refuses every recipient"),
    ("", "recipients: {allow: []}\n", "every recipient is refused"),
    ("", "spool: {max_age: 1h}\n", "before it is called delayed"),
    ("", "spool: {retry: [6d]}\n", "nothing is ever tried twice"),
    ("", "spool: {url: 'postgresql://u:hunter2@h/db'}\n", "holds a password"),
]  # fmt: skip


@pytest.mark.parametrize(("upstream", "rest", "words"), WARNED)
def test_doubtful_settings_are_warned_about(tmp_path, upstream, rest, words):
    """One doubtful setting, one warning, and it loads all the same."""
    warnings = load_text(tmp_path, UPSTREAM + upstream + rest).warnings
    assert len(warnings) == 1, warnings
    assert words in warnings[0]
    assert "hunter2" not in warnings[0]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (TENANT, "contoso.onmicrosoft.com", "this is a domain"),
        (TENANT, "00000000-0000-0000-0000-000000000000", "placeholder"),
        ("notifications@contoso.com", "n@contoso.onmicrosoft.com", "100 outside recipients"),
    ],
)
def test_doubtful_ids_are_warned_about(tmp_path, old, new, words):
    """Accepted, since they may be meant."""
    (warning,) = load_text(tmp_path, UPSTREAM.replace(old, new)).warnings
    assert words in warning
    assert "config.yaml:" in warning


def test_a_page_beyond_loopback_without_tls_is_warned_about(tmp_path):
    text = f'{UPSTREAM}web: {{bind: "0.0.0.0:8025", password: "{HASH}"}}\n'
    (warning,) = load_text(tmp_path, text).warnings
    assert "without TLS" in warning


def test_features_to_come_that_would_do_harm_are_refused(tmp_path, monkeypatch):
    """They load and validate; the daemon asks `refusals` and must not start."""
    row = Upcoming("spool.url", "refuse", lambda settings: settings.spool.history > 0, "not yet")
    monkeypatch.setattr("relay.config.upcoming.UPCOMING", (row,))
    assert refusals(load_text(tmp_path, UPSTREAM)) == ("spool.url: not yet",)


def test_a_spool_on_postgresql_is_refused_nothing(tmp_path):
    """Several hosts may be named."""
    text = UPSTREAM + "spool: {url: 'postgresql://relay@db1:5432,db2:5432/relay'}\n"
    settings = load_text(tmp_path, text)
    assert refusals(settings) == ()
    assert settings.spool.url == "postgresql://relay@db1:5432,db2:5432/relay"


def test_a_local_spool_is_found_from_the_files_folder_or_by_a_variable(tmp_path):
    """As `spool.url` is."""
    text = UPSTREAM + "spool: {url: 'postgresql://relay@h/db', local: 'sqlite:///local.db'}\n"
    assert load_text(tmp_path, text).spool.local == f"sqlite:///{(tmp_path / 'local.db').as_posix()}"
    by_variable = {"RELAY_SPOOL_URL": "postgresql://relay@h/db", "RELAY_SPOOL_LOCAL": "sqlite:////x/local.db"}
    assert load_text(tmp_path, UPSTREAM, by_variable).spool.local == "sqlite:////x/local.db"


def test_a_plain_configuration_is_refused_nothing(tmp_path):
    """Defaults ask for no feature to come."""
    assert refusals(load_text(tmp_path, UPSTREAM)) == ()


def test_tls_needs_certificate_and_key(tmp_path):
    """Both, for every mode but none."""
    for mode in ("starttls", "implicit", "auto"):
        faults = faults_of(
            tmp_path, f"{UPSTREAM}listeners: [{{bind: 127.0.0.1:25, tls: {{mode: {mode}}}}}]\n"
        )
        assert [fault.path for fault in faults] == ["listeners[0].tls.certificate", "listeners[0].tls.key"]


def test_certificate_and_key_must_belong_together(tmp_path):
    """A pair that works loads; a pair that does not is a fault at start rather than at the first client."""
    certificate, key = make_pair(tmp_path, "one")
    _, other = make_pair(tmp_path, "two")
    text = f"{UPSTREAM}listeners: [{{bind: 127.0.0.1:25, tls: {{mode: starttls, certificate: {certificate}, key: KEY}}}}]\n"
    tls = load_text(tmp_path, text.replace("KEY", key)).listeners[0].tls
    assert (tls.certificate, tls.key) == (tmp_path / certificate, tmp_path / key)
    fault = only_fault(tmp_path, text.replace("KEY", other))
    assert (fault.path, "cannot be used" in fault.problem) == ("listeners[0].tls.certificate", True)
    fault = only_fault(tmp_path, text.replace("KEY", "absent.key"))
    assert fault.path == "listeners[0].tls.key"


def test_a_key_that_others_may_read_is_warned_about(tmp_path):
    """It is a secret file like any other."""
    certificate, key = make_pair(tmp_path, "one")
    (tmp_path / key).chmod(0o644)
    tls = f"{{mode: implicit, certificate: {certificate}, key: {key}}}"
    (warning,) = load_text(tmp_path, f"{UPSTREAM}listeners: [{{bind: 127.0.0.1:25, tls: {tls}}}]\n").warnings
    assert key in warning


def test_a_ca_file_with_certificates_loads(tmp_path):
    """Trusted in addition to the system's."""
    certificate, _ = make_pair(tmp_path, "ca")
    assert (
        load_text(tmp_path, f"{UPSTREAM}    ca_file: {certificate}\n").upstreams[0].ca_file
        == tmp_path / certificate
    )


@pytest.mark.parametrize("bind", ["127.0.0.1:0", "127.9.9.9:25", "[::1]:25", "localhost:25"])
def test_loopback_needs_no_allow(tmp_path, bind):
    """Its default is this machine."""
    listener = load_text(tmp_path, f'{UPSTREAM}listeners: [{{bind: "{bind}"}}]\n').listeners[0]
    assert [str(one) for one in listener.allow] == ["127.0.0.0/8", "::1/128"]


def test_with_required_login_any_address_may_connect(tmp_path):
    """`auth: required` without `allow`: the login decides."""
    text = f'{UPSTREAM}{CLIENTS}listeners: [{{bind: "0.0.0.0:25", auth: required}}]\n'
    assert [str(one) for one in load_text(tmp_path, text).listeners[0].allow] == ["0.0.0.0/0", "::/0"]
