"""`relay config show` and `relay config schema`: data on stdout, words on stderr, never a secret."""

from __future__ import annotations

import json

import pytest
import yaml
from typer.testing import CliRunner

from relay.cli.config import config_app
from relay.config.show import show
from relay.config.tree import keys
from tests.config.config_kit import HASH, SECRET, UPSTREAM, load_text, write
from tests.config.test_config_documents import paths_of

FULL = f"""{UPSTREAM}
    client_secret_expires: 2028-11-01
    proxy: http://user:hunter2@proxy:3128
clients: [{{username: a, password: "{HASH}"}}]
senders:
  - {{match: '/a\\d@x/', client: user:a, from: keep, login: [b@c.de]}}
  - {{match: a@b.c, client: 10.0.0.0/8}}
spool: {{url: 'postgresql://relay:hunter2@db:5432/relay'}}
alerts: {{webhook: 'https://hooks.example/T0/key-123'}}
web: {{password: env:HASH}}
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A configuration that uses much of the model, and its secrets in the environment."""
    monkeypatch.setenv("SECRET", SECRET)
    monkeypatch.setenv("HASH", HASH)
    return write(tmp_path, FULL)


def test_no_secret_is_shown(tmp_path):
    """Secrets are shown as their source; passwords inside addresses are taken out."""
    shown = show(load_text(tmp_path, FULL, {"HASH": HASH}))
    text = json.dumps(shown)
    for hidden in (SECRET, "hunter2", "key-123", HASH):
        assert hidden not in text
    assert shown["upstreams"][0]["client_secret"] == "env:SECRET (set)"
    assert shown["clients"][0]["password"] == "argon2 hash (set)"
    assert shown["upstreams"][0]["proxy"] == "http://user:***@proxy:3128"
    assert shown["spool"]["url"] == "postgresql://relay:***@db:5432/relay"
    assert shown["web"]["password"] == "env:HASH (set)"


def test_it_has_the_shape_of_the_file(tmp_path):
    """Every key shown is a key of the model, so that it can be put into a file."""
    shown = show(load_text(tmp_path, FULL, {"HASH": HASH}))
    assert paths_of(shown) <= set(keys())
    assert [rule["match"] for rule in shown["senders"]] == ["/a\\d@x/", "a@b.c"]
    assert [rule["client"] for rule in shown["senders"]] == ["user:a", "10.0.0.0/8"]


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("managed_identity: system", {"managed_identity": "system"}),
        ("federated_token_file: /run/token", {"federated_token_file": "/run/token"}),
    ],
)
def test_other_credentials_are_shown(tmp_path, line, shown):
    """As they are written."""
    upstream = show(load_text(tmp_path, UPSTREAM.replace("client_secret: env:SECRET", line)))["upstreams"][0]
    assert shown.items() <= upstream.items()
    assert "client_secret" not in upstream


def test_show_prints_yaml_or_json(file):
    """The same data in both forms; warnings go to stderr."""
    as_yaml = CliRunner().invoke(config_app, ["show", "--config", str(file)])
    as_json = CliRunner().invoke(config_app, ["show", "--config", str(file), "--json"])
    assert (as_yaml.exit_code, as_json.exit_code) == (0, 0)
    assert json.loads(as_json.stdout) == yaml.safe_load(as_yaml.stdout)
    assert "spool.url: it holds a password" in as_json.stderr


def test_show_of_a_faulty_configuration_exits_2(tmp_path):
    """All faults on stderr, nothing on stdout."""
    bad = write(tmp_path, f"{UPSTREAM}    port: x\nlog: {{level: x}}\n")
    result = CliRunner().invoke(config_app, ["show", "--config", str(bad)], env={"SECRET": SECRET})
    assert (result.exit_code, result.stdout) == (2, "")
    assert "upstreams[0].port" in result.stderr
    assert "log.level" in result.stderr


def test_schema_prints_json():
    """For an editor."""
    result = CliRunner().invoke(config_app, ["schema"])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["properties"].keys() >= {"upstreams", "listeners", "spool"}
