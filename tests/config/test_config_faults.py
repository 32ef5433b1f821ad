"""Every fault is reported together, each with path, line and remedy; no fault shows a secret."""

from __future__ import annotations

import pytest

from relay.config.faults import ConfigError, Fault
from relay.config.load import load
from relay.errors import RelayError
from tests.config.config_kit import CLIENT, HASH, SECRET, TENANT, UPSTREAM, faults_of, only_fault

MANY = """\
upstreams:
  - server_nam: Microsoft 365
    from_email: notifications
    tenant_id: common
    client_id: 12
    client_secret: env:NOPE
    port: 0x10
    connections: 4
    limits: {message_size: 35XB}
  - 12
listeners:
  - bind: 0.0.0.0:2525
  - bind: 127.0.0.1:25
    allow: 10.0.0.0/8
    auth: perhaps
    newlines: strict
    newlines: strict
senders:
  - match: /((/
    client: user:bob
  - from: keep
spool: {retry: []}
"""


def test_all_faults_are_reported_together(tmp_path):
    """Wrong values, unknown and duplicate keys, missing keys and the checks across keys: one report, with lines."""
    found = {(fault.path, fault.line) for fault in faults_of(tmp_path, MANY)}
    assert found == {
        ("upstreams[0].server_nam", 2),
        ("upstreams[0].from_email", 3),
        ("upstreams[0].tenant_id", 4),
        ("upstreams[0].client_id", 5),
        ("upstreams[0].client_secret", 6),
        ("upstreams[0].port", 7),
        ("upstreams[0].connections", 8),
        ("upstreams[0].limits.message_size", 9),
        ("upstreams[1]", 10),
        ("listeners[0].bind", 12),
        ("listeners[1].allow", 14),
        ("listeners[1].auth", 15),
        ("listeners[1].newlines", 17),
        ("senders[0].match", 19),
        ("senders[0].client", 20),
        ("senders[1].match", 21),
        ("spool.retry", 22),
    }


def test_the_error_lists_each_fault_on_its_line(tmp_path):
    """`str` of the error is what an operator sees: file:line: path: problem. Remedy."""
    faults = faults_of(tmp_path, f"{UPSTREAM}spool: {{max_agee: 5d}}\n")
    error = ConfigError(faults)
    assert isinstance(error, RelayError)
    assert str(error).splitlines() == [
        "the configuration cannot be used, 1 fault:",
        f"{tmp_path}/config.yaml:7: spool.max_agee: this key is not known. Did you mean `max_age`?",
    ]
    assert all(fault.remedy for fault in faults_of(tmp_path, MANY))


def test_a_fault_from_the_environment_names_the_variable():
    """There is no line then."""
    fault = Fault("upstreams[0].port", None, "is wrong", "mend it", "RELAY_PORT")
    assert str(fault) == "RELAY_PORT: upstreams[0].port: is wrong. Mend it."


ONE_FAULT = [
    # more of the upstream, more of the file, path, part of the problem or remedy
    ("    port: 0\n", "", "upstreams[0].port", "1 to 65535"),
    ("    port: [587]\n", "", "upstreams[0].port", "is a list"),
    ("    port: {a: b}\n", "", "upstreams[0].port", "is a section"),
    ("    timeout: 0\n", "", "upstreams[0].timeout", "no time at all"),
    ("    timeout: soon\n", "", "upstreams[0].timeout", "not a duration"),
    ("    timeout: 99999d\n", "", "upstreams[0].timeout", "ten years"),
    ("    batch_size: huge\n", "", "upstreams[0].batch_size", "small, medium, large"),
    ("    batch_size: 0\n", "", "upstreams[0].batch_size", "1 to 1000"),
    ("    transport: imap\n", "", "upstreams[0].transport", "auto, smtp, graph"),
    ("    cloud: azure\n", "", "upstreams[0].cloud", "gcc-high"),
    ("    authority: http://login.example\n", "", "upstreams[0].authority", "https"),
    (f"    authority: https://login.microsoftonline.com/{TENANT}\n", "", "upstreams[0].authority", "tenant"),
    ("    graph_url: https://graph.microsoft.com/v1.0\n", "", "upstreams[0].graph_url", "v1.0"),
    ("    host: smtp.office365.com:587\n", "", "upstreams[0].host", "port"),
    ("    host: https://smtp.office365.com\n", "", "upstreams[0].host", "more than a host name"),
    ("    proxy: socks5://user:hunter2@proxy:1080\n", "", "upstreams[0].proxy", "HTTP proxy"),
    ("    ca_file: missing.pem\n", "", "upstreams[0].ca_file", "cannot be read"),
    ("    ca_file: config.yaml\n", "", "upstreams[0].ca_file", "no PEM certificate"),
    ("    client_secret_expires: tomorrow\n", "", "upstreams[0].client_secret_expires", "not a day"),
    ("    managed_identity: system\n", "", "upstreams[0].managed_identity", "more than one credential"),
    ("    limits: 5\n", "", "upstreams[0].limits", "not a section"),
    ("    limits: {message_size: 1TB}\n", "", "upstreams[0].limits.message_size", "150MB"),
    ("", "upstream: x\n", "upstream", "did you mean `upstreams`"),
    ("", "max_age: 5d\n", "max_age", "spool.max_age"),
    ("", "listeners: 25\n", "listeners", "not a list"),
    ("", "listeners: [{bind: 2525}]\n", "listeners[0].bind", "lacks the address"),
    ("", "listeners: [{bind: ':2525'}]\n", "listeners[0].bind", "lacks the address"),
    ("", "listeners: [{bind: '::1:25'}]\n", "listeners[0].bind", "[::1]:25"),
    ("", "listeners: [{bind: '127.0.0.1:99999'}]\n", "listeners[0].bind", "65535"),
    ("", "listeners: [{bind: '300.0.0.1:25'}]\n", "listeners[0].bind", "not valid"),
    ("", "listeners: [{}]\n", "listeners[0].bind", "is missing"),
    ("", "listeners: [{bind: 127.0.0.1:25}, {bind: 127.0.0.1:25}]\n", "listeners[1].bind", "uses already"),
    ("", "listeners: [{bind: 127.0.0.1:25, allow: [10.0.0.300]}]\n", "listeners[0].allow[0]", "not a network"),
    ("", "listeners: [{bind: 127.0.0.1:25, auth_in_clear: perhaps}]\n", "listeners[0].auth_in_clear", "true or false"),
    ("", "listeners: [{bind: 127.0.0.1:25, tls: {minimum: 0.9}}]\n", "listeners[0].tls.minimum", "1.0, 1.1"),
    ("", "clients: [{username: a, password: hunter2}]\n", "clients[0].password", "relay password"),
    ("", f"clients: [{{username: a, password: {HASH}, may_send_as: ['/x/']}}]\n", "clients[0].may_send_as[0]", "pattern"),
    ("", "senders: [{match: '@contoso.com'}]\n", "senders[0].match", "*@contoso.com"),
    ("", "senders: [{match: 'a*@contoso.com'}]\n", "senders[0].match", "regular expression"),
    ("", "senders: [{match: '/abc'}]\n", "senders[0].match", "does not end"),
    ("", "senders: [{match: '*', from: nobody}]\n", "senders[0].from", "mail address"),
    ("", "senders: [{match: '*', login: [a@contoso.com, b]}]\n", "senders[0].login[1]", "mail address"),
    ("", "senders: [{match: '*', client: 'user:bob'}]\n", "senders[0].client", "no username `bob`"),
    ("", "senders: [{match: '*', upstream: Microsft 365}]\n", "senders[0].upstream", "did you mean `Microsoft 365`"),
    ("", "default_sender: bounce\n", "default_sender", "rewrite, reject"),
    ("", "recipients: {redirect_all_to: me}\n", "recipients.redirect_all_to", "mail address"),
    ("", "spool: {url: 'sqlite:///:memory:'}\n", "spool.url", "survive"),
    ("", "spool: {url: 'mysql://a/b'}\n", "spool.url", "sqlite:////"),
    ("", "spool: {url: 'postgresql://host'}\n", "spool.url", "no database"),
    ("", "spool: {url: 'postgresql://u@host:port/db'}\n", "spool.url", "a host or a port that cannot be one"),
    ("", "spool: {url: 'postgresql://u:a/b@host/db'}\n", "spool.url", "PGPASSFILE"),
    ("", "spool: {local: 'sqlite:////x/local.db'}\n", "spool.local", "on this host's own disk already"),
    ("", "spool: {url: 'postgresql://h/db', local: 'postgresql://h/db'}\n", "spool.local", "not on this host's own disk"),
    ("", "spool: {url: 'postgresql://h/db', local: 'sqlite:///:memory:'}\n", "spool.local", "survive"),
    ("", "spool: {retry: [1m, never]}\n", "spool.retry[1]", "not a duration"),
    ("", "spool: {on_uncertain: maybe}\n", "spool.on_uncertain", "resend, hold"),
    ("", "alerts: {webhook: 'ftp://a/key-123'}\n", "alerts.webhook", "web address"),
    ("", "web: {names: ['no such name']}\n", "web.names[0]", "host"),
    ("", f"web: {{password: {HASH}, tls: {{certificate: config.yaml}}}}\n", "web.tls.key", "is missing"),
    ("", f"web: {{bind: 127.0.0.1:25, password: {HASH}}}\nlisteners: [{{bind: 127.0.0.1:25}}]\n", "web.bind", "another"),
    ("", "log: {level: loud}\n", "log.level", "debug, info"),
    ("", "postmaster: it@contoso\n", "postmaster", "mail address"),
]  # fmt: skip


@pytest.mark.parametrize(("upstream", "rest", "path", "words"), ONE_FAULT)
def test_each_fault_has_its_path_and_says_what_to_do(tmp_path, upstream, rest, path, words):
    """One mistake gives one fault, at the right key and line, in plain words."""
    fault = only_fault(tmp_path, UPSTREAM + upstream + rest)
    assert fault.path == path
    assert words in f"{fault.problem}. {fault.remedy}"
    assert fault.line is not None
    assert fault.line >= 7
    assert "hunter2" not in str(fault)
    assert "key-123" not in str(fault)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (f"tenant_id: {TENANT}", "tenant_id: organizations", "step 6"),
        (f"tenant_id: {TENANT}", "tenant_id: not-a-guid", "neither a GUID"),
        (f"tenant_id: {TENANT}", f"tenant_id: {TENANT}0", "neither a GUID"),
        (f"tenant_id: {TENANT}", "tenant_id:", "is missing"),
        (f"client_id: {CLIENT}", f"client_id: {TENANT}", "same as tenant_id"),
        (f"client_id: {CLIENT}", "client_id: contoso.com", "not a GUID"),
        ("    client_secret: env:SECRET\n", "", "no credential"),
        ("from_email: notifications@contoso.com", 'from_email: "A <a@b.com>"', "mail address"),
    ],
)
def test_the_eight_fields(tmp_path, old, new, words):
    """The guide's fields: swapped, mistyped, left out."""
    fault = only_fault(tmp_path, UPSTREAM.replace(old, new))
    assert words in f"{fault.problem}. {fault.remedy}"


def test_a_secret_in_the_wrong_field_is_not_shown(tmp_path):
    """People paste the secret as client id; the fault must not repeat it."""
    for field in (f"client_id: {CLIENT}", f"tenant_id: {TENANT}"):
        fault = only_fault(tmp_path, UPSTREAM.replace(field, f"{field.partition(':')[0]}: {SECRET}"))
        assert SECRET not in str(fault)


def test_upstream_names_are_unique(tmp_path):
    """Two upstreams of one name could not be told apart by sender rules and lanes."""
    fault = only_fault(tmp_path, UPSTREAM + UPSTREAM.removeprefix("upstreams:\n"))
    assert (fault.path, fault.line) == ("upstreams[1].server_name", 7)


@pytest.mark.parametrize("bind", ["0.0.0.0:2525", "[::]:25", "192.168.1.1:25", "mail.example:25"])
@pytest.mark.parametrize("auth", ["none", "optional"])
def test_an_open_relay_is_a_fault(tmp_path, bind, auth):
    """Beyond loopback, without allow and without auth: required, relay does not start, and says why."""
    fault = only_fault(tmp_path, f'{UPSTREAM}listeners: [{{bind: "{bind}", auth: {auth}}}]\n')
    assert fault.path == "listeners[0].bind"
    assert "open relay" in fault.problem
    assert "allow" in fault.remedy


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "not valid YAML"),
        ("a:\n\t- b: c", "tabs"),
        ('a: "C:\\mail"', "single quotes"),
        ("a: !!python/object:os.system x", "tag"),
        ("a: *b", "no anchor"),
        ("a: &x [*x]", "no anchor"),
        ("a: 1\n---\nb: 2", "second document"),
        ("[a, b]: c", "plain word"),
        ("- a\n- b", "no keys"),
        ("just text", "no keys"),
        ("a: " + "[" * 5000, "nested too deeply"),
        ("<<: 5", "takes a mapping"),
    ],
)
def test_what_is_not_our_yaml(tmp_path, text, words):
    """Broken, hostile or foreign documents: one fault about the file, no guessing at keys."""
    fault = only_fault(tmp_path, text)
    assert words in f"{fault.problem}. {fault.remedy}"
    assert fault.source.endswith("config.yaml")


def test_alias_bombs_are_refused(tmp_path):
    """Nine levels of nine aliases would be 400 million values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    fault = only_fault(tmp_path, "\n".join(lines))
    assert "aliases" in fault.problem


def test_files_that_cannot_be_used(tmp_path):
    """Absent, a folder, too large, not text: a fault each, never a traceback."""
    large, binary = tmp_path / "large", tmp_path / "binary"
    large.write_bytes(b"#" * (1024 * 1024 + 1))
    binary.write_bytes(b"a: b\n\xff\xfe\xfa")
    for file, words in ((tmp_path / "no", "does not exist"), (tmp_path, "cannot be read"), (large, "1 MB"),
                        (binary, "UTF-8")):  # fmt: skip
        with pytest.raises(ConfigError) as caught:
            load(file, {})
        assert words in caught.value.faults[0].problem
    assert caught.value.faults[0].line == 2


def test_control_characters_cannot_forge_a_line(tmp_path):
    """An unknown key with an escape sequence is shown escaped."""
    text = str(ConfigError(faults_of(tmp_path, UPSTREAM + '"\\e[31mforged\\n": 1\n')))
    assert "\x1b" not in text
    assert len(text.splitlines()) == 2
