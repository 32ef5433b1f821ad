"""Secrets are read from where the configuration says, never shown, and doubtful ones are warned about."""

from __future__ import annotations

import os
import sys
import types

import pytest

from relay.config.load import load
from relay.settings import ClientSecret, Secret
from tests.config.config_kit import HASH, SECRET, UPSTREAM, load_text, only_fault, write


def secret_of(folder, written, environ=None) -> Secret:
    """The client secret of a configuration that writes it this way."""
    settings = load_text(folder, UPSTREAM.replace("env:SECRET", written), environ)
    credential = settings.upstreams[0].credential
    assert isinstance(credential, ClientSecret)
    return credential.secret


def test_from_a_file_beside_the_configuration(tmp_path):
    """Relative to the configuration; only the line end is left out."""
    write(tmp_path, f" {SECRET} \r\n", "secret.txt")
    assert secret_of(tmp_path, "file:secret.txt") == Secret(f" {SECRET} ", "file:secret.txt")


def test_from_a_systemd_credential(tmp_path):
    """LoadCredential= puts it into $CREDENTIALS_DIRECTORY."""
    write(tmp_path, SECRET, "relay-secret")
    secret = secret_of(tmp_path, "credential:relay-secret", {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert secret == Secret(SECRET, "credential:relay-secret")


def test_from_the_keyring(tmp_path, monkeypatch):
    """The optional module is asked for the service relay."""
    module = types.ModuleType("keyring")
    module.get_password = lambda service, name: {("relay", "m365"): SECRET}.get((service, name))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "keyring", module)
    assert secret_of(tmp_path, "keyring:m365") == Secret(SECRET, "keyring:m365")
    fault = only_fault(tmp_path, UPSTREAM.replace("env:SECRET", "keyring:other"))
    assert "keyring set relay other" in fault.remedy


def test_without_the_keyring_module(tmp_path, monkeypatch):
    """The fault says how to install it."""
    monkeypatch.setitem(sys.modules, "keyring", None)
    assert "relay[keyring]" in only_fault(tmp_path, UPSTREAM.replace("env:SECRET", "keyring:x")).remedy


def test_a_keyring_that_fails_is_a_fault(tmp_path, monkeypatch):
    """Whatever its backend raises."""
    module = types.ModuleType("keyring")

    def locked(service: str, name: str) -> str:
        raise RuntimeError("locked")

    module.get_password = locked  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "keyring", module)
    assert "RuntimeError" in only_fault(tmp_path, UPSTREAM.replace("env:SECRET", "keyring:x")).problem


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("env:ABSENT", "ABSENT is not set"),
        ("env:EMPTY", "env:EMPTY holds nothing"),
        ("file:absent", "cannot be read"),
        ("file:empty", "file:empty holds nothing"),
        ("file:binary", "short text"),
        ("'file:'", "names no file"),
        ("credential:x", "CREDENTIALS_DIRECTORY"),
        ('""', "empty"),
    ],
)
def test_secrets_that_are_not_there(tmp_path, written, words):
    """The fault names the source, so that the operator looks in the right place."""
    write(tmp_path, "\n", "empty")
    (tmp_path / "binary").write_bytes(b"\xff\x00")
    (tmp_path / "binary").chmod(0o600)
    fault = only_fault(tmp_path, UPSTREAM.replace("env:SECRET", written), {"EMPTY": " "})
    assert fault.path == "upstreams[0].client_secret"
    assert words in fault.problem


def test_a_credential_cannot_leave_its_folder(tmp_path):
    """`credential:../x` is a mistake, not a way around."""
    text = UPSTREAM.replace("env:SECRET", "credential:../config.yaml")
    assert "name" in only_fault(tmp_path, text, {"CREDENTIALS_DIRECTORY": str(tmp_path)}).problem


def test_a_plain_secret_works_with_a_warning(tmp_path):
    """And the warning does not show it."""
    settings = load_text(tmp_path, UPSTREAM.replace("env:SECRET", SECRET))
    assert len(settings.warnings) == 1
    assert "written plainly" in settings.warnings[0]
    assert f"{tmp_path}/config.yaml:6: upstreams[0].client_secret" in settings.warnings[0]
    assert SECRET not in repr(settings)


def test_the_secrets_id_is_recognised(tmp_path):
    """Step 5 of the guide: people copy the ID instead of the Value."""
    settings = load_text(tmp_path, UPSTREAM, {"SECRET": "0b9cd5a2-6b3e-4c1f-8a77-1f2e3d4c5b6a"})
    assert "this looks like the secret's ID; the guide's step 5 needs the Value" in settings.warnings[0]


@pytest.mark.parametrize("name", ["config.yaml", "secret.txt"])
def test_files_that_others_may_read_are_warned_about(tmp_path, name):
    """On POSIX: a mode that lets everybody read."""
    write(tmp_path, SECRET, "secret.txt")
    text = UPSTREAM.replace("env:SECRET", "file:secret.txt")
    assert load_text(tmp_path, text).warnings == ()
    os.chmod(tmp_path / name, 0o604)
    (warning,) = load(tmp_path / "config.yaml", {}).warnings
    assert name in warning
    assert "0604" in warning


def test_a_hash_may_come_from_a_file(tmp_path):
    """The password of a client is a hash wherever it is written; written in place it is no plain secret."""
    write(tmp_path, HASH + "\n", "hash")
    text = f"{UPSTREAM}clients: [{{username: a, password: file:hash}}, {{username: b, password: {HASH}}}]\n"
    settings = load_text(tmp_path, text)
    assert [client.password.reveal() for client in settings.clients] == [HASH, HASH]
    assert settings.warnings == ()
    write(tmp_path, "hunter2", "hash")
    fault = only_fault(tmp_path, text)
    assert "argon2id" in fault.problem
    assert "hunter2" not in str(fault)
