"""What the tests of the config room share: a small valid configuration, and loading one from text."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from relay.config.faults import ConfigError, Fault
from relay.config.load import load
from relay.settings import Settings

TENANT = "7f1c0c5e-5a7b-4a6e-9d3f-2b8f6f1f0a01"
CLIENT = "b7a0d3f2-91c4-4c55-8e0a-6c1b2d3e4f05"
SECRET = "x8Q~very-secret-value"
HASH = "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQ$RdescudvJCsgt3ub+b27sa"
UPSTREAM = f"""\
upstreams:
  - server_name: Microsoft 365
    from_email: notifications@contoso.com
    tenant_id: {TENANT}
    client_id: {CLIENT}
    client_secret: env:SECRET
"""
EIGHT = {
    "RELAY_TENANT_ID": TENANT,
    "RELAY_CLIENT_ID": CLIENT,
    "RELAY_CLIENT_SECRET": SECRET,
    "RELAY_FROM_EMAIL": "notifications@contoso.com",
}


def write(folder: Path, text: str, name: str = "config.yaml") -> Path:
    """A file only its owner may read."""
    file = folder / name
    file.write_text(text, encoding="utf-8")
    file.chmod(0o600)
    return file


def load_text(folder: Path, text: str, environ: Mapping[str, str] | None = None) -> Settings:
    """The settings of this text, with SECRET in the environment."""
    return load(write(folder, text), {"SECRET": SECRET, **(environ or {})})


def faults_of(folder: Path, text: str, environ: Mapping[str, str] | None = None) -> tuple[Fault, ...]:
    """The faults of this text; fails when it has none."""
    with pytest.raises(ConfigError) as caught:
        load_text(folder, text, environ)
    assert caught.value.faults
    return caught.value.faults


def only_fault(folder: Path, text: str, environ: Mapping[str, str] | None = None) -> Fault:
    """The one fault of this text."""
    faults = faults_of(folder, text, environ)
    assert len(faults) == 1, [str(fault) for fault in faults]
    return faults[0]


def env_faults(environ: Mapping[str, str], folder: Path) -> tuple[Fault, ...]:
    """The faults of an environment alone, in an empty working directory."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        with pytest.raises(ConfigError) as caught:
            load(None, environ)
    finally:
        os.chdir(before)
    return caught.value.faults
