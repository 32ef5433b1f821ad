"""What the documents show of configuration is taken by relay as it stands, and the values they name are those in force."""

from __future__ import annotations

import re
from typing import Any

import argon2
import pytest
import yaml

from relay.alert.causes import Cause
from relay.alert.command import environment
from relay.alert.news import News
from relay.config.environment import OTHERS, VARIABLES
from relay.config.load import load
from relay.figures import octets
from relay.settings import Settings
from tests.docs.blocks import DOCUMENTS, ROOT, Block, blocks
from tests.simulator.keykit import make_certificate

ELSEWHERE = {"clientNetworks", "containers", "services", "rule_files", "scrape_configs"}
"""Top-level keys of other programs' files."""
UPSTREAM: dict[str, Any] = {
    "from_email": "notifications@contoso.com",
    "tenant_id": "11111111-2222-4333-8444-555555555555",
    "client_id": "66666666-7777-4888-9999-aaaaaaaaaaaa",
}
CREDENTIALS = {"client_secret", "certificate", "managed_identity", "federated_token_file", "user_login"}


def examples() -> list[Block]:
    """Blocks of YAML that are relay's configuration."""
    found = [one for document in DOCUMENTS for one in blocks(document) if one.language == "yaml"]
    return [one for one in found if not any(f"\n{key}:" in f"\n{one.text}" for key in ELSEWHERE)]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with the files that examples name."""
    folder = tmp_path_factory.mktemp("files")
    private, public = make_certificate(days=90)
    for one in ("cert.pem", "web.pem", "app.pem"):
        (folder / one).write_text(public + private)
    for one in ("key.pem", "web.key"):
        (folder / one).write_text(private)
    for one in ("client-secret", "client-secret.next", "webhook", "token"):
        (folder / one).write_text("not-a-real-secret-but-as-long-as-one")
    return folder


def whole(text: str) -> dict[str, Any]:
    """An example made a whole configuration: what it leaves out is put around it."""
    shown = yaml.safe_load(text)
    if isinstance(shown, list):
        shown = {"senders": shown}
    upstream = {
        key: shown.pop(key)
        for key in (*CREDENTIALS, "client_secret_expires", "next_credential")
        if key in shown
    }
    if not CREDENTIALS & set(upstream):
        upstream["client_secret"] = "env:SECRET"
    return {"upstreams": [{**UPSTREAM, **upstream}], **shown}


@pytest.mark.parametrize("block", examples(), ids=lambda one: f"{one.page}:{one.line}")
def test_an_example_is_a_configuration_that_relay_takes(block, files, tmp_path) -> None:
    """Names of files and a password's hash stand for real ones; nothing else is changed."""
    text = re.sub(
        r"(?:/[\w./-]+/)([\w-]+\.pem|client-secret[\w.-]*|webhook|[\w-]*token)\b", rf"{files}/\1", block.text
    )
    text = text.replace(
        "$argon2id$...", argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("x")
    )
    config = files / "config.yaml"
    config.write_text(yaml.safe_dump(whole(text)))
    config.chmod(0o600)
    settings = load(config, {"SECRET": "x", "RELAY_CLIENT_SECRET": "x", "PFX_PASS": "x"})
    assert settings.upstreams


def test_every_variable_in_documents_and_manifests_exists() -> None:
    """`RELAY_...` anywhere is one that relay reads, or one that it hands to an alert's program."""
    text = "".join(
        one.read_text() for one in [*DOCUMENTS, ROOT / "Dockerfile", *(ROOT / "deploy").rglob("*.yaml")]
    )
    known = {one.name for one in VARIABLES} | set(OTHERS) | {"RELAY_SEND_PASSWORD"}
    news = News(Cause("x:y", "title", "reason", "remedy", "evidence", 0.0), over=False)
    handed = set(environment(news, "host", {}))
    assert set(re.findall(r"\bRELAY_[A-Z_]+[A-Z]\b", text)) <= known | handed


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> Settings:
    """From the eight fields alone, the guide's own values left out."""
    config = tmp_path_factory.mktemp("defaults") / "config.yaml"
    config.write_text(yaml.safe_dump({"upstreams": [{**UPSTREAM, "client_secret": "env:SECRET"}], "web": {}}))
    config.chmod(0o600)
    return load(config, {"SECRET": "x"})


def size(value: int) -> str:
    """``35 MB``."""
    return octets(value).replace(".0", "")


def test_the_values_that_pages_name_are_the_defaults(settings) -> None:
    """Each sentence is found in its page with the value that is in force."""
    upstream, listener, spool = settings.upstreams[0], settings.listeners[0], settings.spool
    limits, taken = upstream.limits, listener.limits
    said = {
        "docs/connect-signify.md": [
            f"| Port | `port` ({upstream.port}) |", f"| Timeout | `timeout` ({upstream.timeout:.0f}) |",
            "| Batch Size | `batch_size` (medium) |", f"| server | `{listener.host.replace('127.0.0.1', 'localhost')}` |",
            f"| port | `{listener.port}` |",
        ],
        "docs/getting-started.md": [
            f"| Port | {upstream.port} |", f"| Timeout | {upstream.timeout:.0f} |",
            f"({size(limits.message_size)} by default)",
        ],
        "docs/connect-printers.md": [f"{size(taken.message_size)} are taken by default (`limits.message_size`)"],
        "docs/connect-sidecar.md": [f"within `answer_within` ({listener.answer_within:.0f} s)"],
        "docs/sizing.md": [
            f"| Messages per minute and mailbox | {limits.messages_per_minute} |",
            f"| Recipients in 24 hours and mailbox | {limits.recipients_per_day:,} |",
            f"uses {limits.connections} (`limits.connections`)",
            f"| Recipients of one message | {limits.recipients_per_message} by default |",
            f"`spool.max_size` ({size(spool.max_size)})",
            f"`limits.connections`, {taken.connections:,} for each listener",
            f"`limits.connections_per_client`, {taken.connections_per_client}",
            f"`limits.message_size`, {size(taken.message_size)}",
        ],
        "docs/windows.md": [f"| Port | `{listener.port}` |"],
        "docs/monitoring.md": [f"http://{settings.web.bind}/healthz"],
    }  # fmt: skip
    wrong = [
        f"{page}: {words}"
        for page, sentences in said.items()
        for words in sentences
        if words not in re.sub(r"\s+", " ", (ROOT / page).read_text())
    ]
    assert wrong == []
    assert (upstream.batch_size, upstream.transport, listener.auth, listener.tls.mode) == (
        30,
        "auto",
        "none",
        "none",
    )


def containers() -> dict[str, dict[str, str]]:
    """Relay's variables in each container that connect-sidecar.md shows."""
    shown = [
        yaml.safe_load(one.text)
        for one in blocks(ROOT / "docs" / "connect-sidecar.md")
        if one.language == "yaml"
    ]
    (pod,) = [one["containers"] for one in shown if "containers" in one]
    (services,) = [one["services"] for one in shown if "services" in one]
    (sidecar,) = [one["env"] for one in pod if one["name"] == "relay"]
    return {
        "pod": {one["name"]: one["value"] for one in sidecar},
        "compose": services["relay"]["environment"],
    }


@pytest.mark.parametrize("name", ["pod", "compose"])
def test_a_containers_variables_are_enough(name, files) -> None:
    """As the page shows them, with the secret's file where it is here; the application's port is the listener's."""
    variables = containers()[name]
    variables["RELAY_CLIENT_SECRET_FILE"] = str(files / "client-secret")
    settings = load(None, {**variables, "RELAY_SPOOL_URL": "sqlite:////var/lib/relay/spool.db"})
    assert [one.port for one in settings.listeners] == [2525]
    assert settings.upstreams[0].from_email == "notifications@contoso.com"
