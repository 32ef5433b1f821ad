"""The environment alone is enough; with a file it overrides the first upstream and the first listener."""

from __future__ import annotations

import pytest

from relay.config import load as loading
from relay.config.load import find, load
from relay.settings import Certificate, ClientSecret
from tests.config.config_kit import (
    CLIENT,
    EIGHT,
    HASH,
    SECRET,
    TENANT,
    UPSTREAM,
    env_faults,
    load_text,
    only_fault,
    write,
)


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """No configuration file in sight."""
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    monkeypatch.setattr(loading, "SYSTEM_FILE", tmp_path / "absent" / "config.yaml")
    return empty


def test_four_variables_are_enough():
    """What a container needs: tenant, client, secret and sender."""
    settings = load(None, EIGHT)
    upstream = settings.upstreams[0]
    assert (upstream.tenant_id, upstream.client_id) == (TENANT, CLIENT)
    assert upstream.from_email == "notifications@contoso.com"
    assert isinstance(upstream.credential, ClientSecret)
    assert upstream.credential.secret.reveal() == SECRET
    assert upstream.credential.secret.source == "env:RELAY_CLIENT_SECRET"
    assert settings.listeners[0].bind == "127.0.0.1:25"
    assert (settings.source, settings.warnings) == ("environment", ())


def test_every_variable_sets_its_key(nowhere):
    """All of the table at once."""
    settings = load(None, {
        **EIGHT, "RELAY_SERVER_NAME": "M365", "RELAY_HOST": "localhost", "RELAY_PORT": "2587", "RELAY_TIMEOUT": "30s",
        "RELAY_BATCH_SIZE": "large", "RELAY_TRANSPORT": "smtp", "RELAY_CLOUD": "gcc-high",
        "RELAY_AUTHORITY": "https://127.0.0.1:1", "RELAY_GRAPH_URL": "https://127.0.0.1:2",
        "RELAY_PROXY": "http://proxy:3128", "RELAY_LISTEN": "0.0.0.0:2525, [::1]:25",
        "RELAY_ALLOW": "10.0.0.0/8,172.17.0.5", "RELAY_SPOOL_URL": "sqlite:///spool.db",
        "RELAY_POSTMASTER": "it@contoso.com", "RELAY_WEB_BIND": "127.0.0.1:9", "RELAY_WEB_PASSWORD": HASH,
        "RELAY_LOG_LEVEL": "debug", "RELAY_LOG_FORMAT": "json",
    })  # fmt: skip
    upstream = settings.upstreams[0]
    assert (upstream.name, upstream.host, upstream.port, upstream.timeout) == ("M365", "localhost", 2587, 30)
    assert (upstream.batch_size, upstream.transport, upstream.cloud) == (100, "smtp", "gcc-high")
    assert (upstream.authority, upstream.graph_url) == ("https://127.0.0.1:1", "https://127.0.0.1:2")
    assert upstream.proxy == "http://proxy:3128"
    assert [one.bind for one in settings.listeners] == ["0.0.0.0:2525", "[::1]:25"]
    for listener in settings.listeners:
        assert [str(one) for one in listener.allow] == ["10.0.0.0/8", "172.17.0.5/32"]
    assert settings.spool.url == f"sqlite:///{nowhere}/spool.db"
    assert settings.postmaster == "it@contoso.com"
    assert settings.web is not None
    assert settings.web.password is not None
    assert (settings.web.port, settings.web.password.reveal()) == (9, HASH)
    assert (settings.log.level, settings.log.format) == ("debug", "json")


def test_listening_beyond_loopback_needs_allow(nowhere):
    """RELAY_LISTEN=0.0.0.0:2525 alone would be an open relay."""
    (fault,) = env_faults({**EIGHT, "RELAY_LISTEN": "0.0.0.0:2525"}, nowhere)
    assert fault.source == "RELAY_LISTEN"
    assert "open relay" in fault.problem
    assert "RELAY_ALLOW" in fault.remedy


def test_no_configuration_at_all_says_what_to_do(nowhere):
    """One fault that names the ways out."""
    (fault,) = env_faults({}, nowhere)
    assert "there is no configuration" in fault.problem
    assert "RELAY_TENANT_ID" in fault.remedy


def test_missing_fields_name_their_variables(nowhere):
    """With one variable given, the others are asked for by name."""
    faults = env_faults({"RELAY_TENANT_ID": TENANT}, nowhere)
    remedies = " ".join(fault.remedy for fault in faults)
    assert len(faults) == 3
    for name in ("RELAY_CLIENT_ID", "RELAY_CLIENT_SECRET", "RELAY_FROM_EMAIL"):
        assert name in remedies


def test_a_faulty_variable_is_the_faults_source(nowhere):
    """The operator learns which variable to mend."""
    (fault,) = env_faults({**EIGHT, "RELAY_PORT": "many"}, nowhere)
    assert (fault.source, fault.path, fault.line) == ("RELAY_PORT", "upstreams[0].port", None)


def test_an_empty_secret_names_its_source(nowhere):
    """Compose files often pass an empty variable on."""
    (fault,) = env_faults({**EIGHT, "RELAY_CLIENT_SECRET": ""}, nowhere)
    assert "env:RELAY_CLIENT_SECRET" in fault.problem
    assert fault.source == "RELAY_CLIENT_SECRET"


def test_secret_from_a_file(tmp_path):
    """RELAY_CLIENT_SECRET_FILE, the line end left out, as Docker secrets are mounted."""
    file = write(tmp_path, SECRET + "\n", "secret")
    environ = {**EIGHT, "RELAY_CLIENT_SECRET_FILE": str(file)}
    del environ["RELAY_CLIENT_SECRET"]
    credential = load(None, environ).upstreams[0].credential
    assert isinstance(credential, ClientSecret)
    assert credential.secret.reveal() == SECRET
    assert credential.secret.source == f"file:{file}"


def test_secret_and_secret_file_exclude_each_other(nowhere):
    """Nobody could say which one counts."""
    (fault,) = env_faults({**EIGHT, "RELAY_CLIENT_SECRET_FILE": "x"}, nowhere)
    assert "both set" in fault.problem


def test_variables_override_the_first_of_each(tmp_path):
    """The second upstream and listener stay as the file says."""
    second = UPSTREAM.removeprefix("upstreams:\n").replace("Microsoft 365", "second")
    text = (
        f"{UPSTREAM}{second}listeners: [{{bind: 127.0.0.1:25, idle: 5}}, {{bind: 127.0.0.1:26}}]\n".replace(
            "idle: 5", "newlines: tolerant"
        )
    )
    environ = {
        "RELAY_PORT": "2587", "RELAY_LISTEN": "127.0.0.1:2525,127.0.0.1:2526", "RELAY_ALLOW": "127.0.0.1",
        "RELAY_LOG_LEVEL": "error",
    }  # fmt: skip
    settings = load_text(tmp_path, text, environ)
    assert [one.port for one in settings.upstreams] == [2587, 587]
    binds = [(one.bind, one.newlines, len(one.allow)) for one in settings.listeners]
    assert binds == [
        ("127.0.0.1:2525", "tolerant", 1),
        ("127.0.0.1:26", "strict", 2),
        ("127.0.0.1:2526", "tolerant", 1),
    ]
    assert settings.log.level == "error"
    assert settings.source == f"{tmp_path}/config.yaml and environment"


def test_the_secret_variable_replaces_another_credential(tmp_path):
    """An override that then counted as a second credential would be of no use."""
    text = UPSTREAM.replace("client_secret: env:SECRET", "managed_identity: system")
    credential = load_text(tmp_path, text, {"RELAY_CLIENT_SECRET": "other"}).upstreams[0].credential
    assert isinstance(credential, ClientSecret)
    assert credential.secret.reveal() == "other"


def test_a_variable_named_by_the_file_overrides_nothing(tmp_path):
    """The second upstream's env:RELAY_CLIENT_SECRET must not become the first one's secret."""
    second = UPSTREAM.removeprefix("upstreams:\n").replace("Microsoft 365", "second")
    text = UPSTREAM + second.replace("env:SECRET", "env:RELAY_CLIENT_SECRET")
    settings = load_text(tmp_path, text, {"RELAY_CLIENT_SECRET": "of the second"})
    secrets = [one.credential.secret.reveal() for one in settings.upstreams]  # type: ignore[union-attr]
    assert secrets == [SECRET, "of the second"]


def test_unknown_variables_are_warned_about():
    """With the name that was probably meant."""
    warnings = load(
        None, {**EIGHT, "RELAY_CLIENT_ID_": "x", "RELAY_CONFIG": "", "RELAY_CREDENTIALS": "y"}
    ).warnings
    assert len(warnings) == 1
    assert "did you mean RELAY_CLIENT_ID?" in warnings[0]


def test_kubernetes_service_variables_do_no_harm():
    """A Service named relay makes Kubernetes set RELAY_PORT=tcp://...; that is not our port."""
    settings = load(None, {
        **EIGHT, "RELAY_PORT": "tcp://10.0.0.1:25", "RELAY_SERVICE_HOST": "10.0.0.1",
        "RELAY_PORT_25_TCP_ADDR": "10.0.0.1", "RELAY_SERVICE_PORT_SMTP": "25",
    })  # fmt: skip
    assert settings.upstreams[0].port == 587
    assert len(settings.warnings) == 1
    assert "Kubernetes" in settings.warnings[0]


def test_where_the_file_is_found(tmp_path, nowhere, monkeypatch):
    """RELAY_CONFIG, then the system's place, then the working directory, then nothing."""
    assert find({}) is None
    write(nowhere, UPSTREAM)
    assert find({}) == loading.LOCAL_FILE
    system = write(tmp_path, UPSTREAM, "system.yaml")
    monkeypatch.setattr(loading, "SYSTEM_FILE", system)
    assert find({}) == system
    named = find({"RELAY_CONFIG": "/elsewhere/relay.yaml"})
    assert str(named) == "/elsewhere/relay.yaml"


def test_a_named_file_that_is_absent_is_a_fault(nowhere):
    """Going on with the environment would hide the mistake."""
    (fault,) = env_faults({**EIGHT, "RELAY_CONFIG": "absent.yaml"}, nowhere)
    assert "does not exist" in fault.problem


def test_certificate_survives_an_empty_secret_variable(tmp_path):
    """An empty RELAY_CLIENT_SECRET does not push out the credential of the file."""
    write(tmp_path, "pem", "app.pem")
    text = UPSTREAM.replace("client_secret: env:SECRET", "certificate: {file: app.pem}")
    assert isinstance(
        load_text(tmp_path, text, {"RELAY_CLIENT_SECRET": ""}).upstreams[0].credential, Certificate
    )


def test_a_variable_for_a_section_that_is_no_section(tmp_path):
    """The file's fault is reported, the variable does not hide it."""
    fault = only_fault(tmp_path, f"{UPSTREAM}spool: 5\n", {"RELAY_SPOOL_URL": "sqlite:////x/y"})
    assert fault.path == "spool"
