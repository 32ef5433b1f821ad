"""Find the configuration and load it: a file, the environment alone, or the file with the environment over it."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from relay.config import files, upcoming, yamlfile
from relay.config.build import Builder
from relay.config.checks import check
from relay.config.environment import overlay
from relay.config.faults import ConfigError, Fault
from relay.config.findings import Findings, Origin
from relay.config.secrets import SecretReader
from relay.config.validate import validate
from relay.settings import Settings

SYSTEM_FILE = (
    Path("C:/ProgramData/relay/config.yaml") if sys.platform == "win32" else Path("/etc/relay/config.yaml")
)
LOCAL_FILE = Path("config.yaml")


def load(path: Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """The settings of this file (default: see `find`) and environment (default: the process's).

    Raises `ConfigError` with every fault; what merely deserves attention is in ``Settings.warnings``.
    """
    environ = os.environ if environ is None else environ
    file = path or find(environ)
    return _loaded(file, yamlfile.read(file) if file is not None else yamlfile.Document(), environ)


def load_text(text: str, path: Path, environ: Mapping[str, str] | None = None) -> Settings:
    """Like `load`, for a text that is to become the file at this path: nothing is written."""
    document = yamlfile.parse(text.removeprefix("\ufeff"), str(path))
    return _loaded(path, document, os.environ if environ is None else environ)


def _loaded(file: Path | None, document: yamlfile.Document, environ: Mapping[str, str]) -> Settings:
    findings = Findings(Origin(file))
    data = _document(file, document, findings)
    settings = _settings(data, environ, findings)
    if findings.faults or settings is None:
        raise ConfigError(_in_order(findings.faults))
    warnings = (*findings.warnings, *upcoming.warnings(settings))
    return dataclasses.replace(settings, warnings=warnings)


def find(environ: Mapping[str, str]) -> Path | None:
    """The file to read: RELAY_CONFIG, /etc/relay/config.yaml, ./config.yaml; None: the environment alone."""
    named = environ.get("RELAY_CONFIG", "").strip()
    if named:
        return Path(named)
    return next((file for file in (SYSTEM_FILE, LOCAL_FILE) if _present(file)), None)


def _present(file: Path) -> bool:
    try:
        file.stat()
    except PermissionError:
        return True  # it may be there: better to say that it cannot be read than to do without it silently
    except OSError:
        return False
    return True


def _document(file: Path | None, document: yamlfile.Document, findings: Findings) -> object:
    if file is None:
        return {}
    findings.origin.lines.update(document.lines)
    findings.faults += document.faults
    files.warn_if_public(file, "", findings)
    return document.data if document.data is not None else {}


def _settings(data: object, environ: Mapping[str, str], findings: Findings) -> Settings | None:
    if not isinstance(data, dict):
        findings.fault("", "the file holds no keys", "begin with `upstreams:`, as config.example.yaml shows")
        return None
    if any(not fault.path for fault in findings.faults):
        return None  # not YAML, or not readable: anything said about its keys would mislead
    overlaid = overlay(data, environ, findings)
    if not overlaid.get("upstreams") and findings.origin.file is None:
        findings.faults.append(_nothing_found())
        return None
    config = validate(overlaid, findings)
    if config is None:
        return None
    check(config, findings)
    settings = Builder(config, SecretReader(environ, findings), findings).settings(_source(findings.origin))
    origin = findings.origin
    return dataclasses.replace(settings, file=origin.file, variables=tuple(origin.variables.items()))


def _nothing_found() -> Fault:
    return Fault(
        "", None, f"there is no configuration: neither RELAY_CONFIG, {SYSTEM_FILE} nor ./{LOCAL_FILE} names a file",
        "run `relay setup`, or set RELAY_TENANT_ID, RELAY_CLIENT_ID, RELAY_CLIENT_SECRET and RELAY_FROM_EMAIL",
        "environment",
    )  # fmt: skip


def _source(origin: Origin) -> str:
    if origin.file is None:
        return "environment"
    return f"{origin.file} and environment" if origin.variables else str(origin.file)


def _in_order(faults: list[Fault]) -> list[Fault]:
    """The file's order; what came from the environment first."""
    return sorted(faults, key=lambda fault: fault.line or 0)
