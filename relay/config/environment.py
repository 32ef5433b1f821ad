"""Environment variables: what each one sets, and how they are laid over what the file says (design section 3)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from relay.config.findings import Findings
from relay.config.model import DEFAULT_BIND
from relay.config.tree import close

Data = dict[str, Any]

_CREDENTIALS = ("client_secret", "certificate", "managed_identity", "federated_token_file", "user_login")
_REFERENCE = re.compile(r"(env|file|credential|keyring):")
_KUBERNETES = re.compile(r"RELAY_(\w+_)?(SERVICE_(HOST|PORT\w*)|PORT(_[0-9]+_(TCP|UDP)\w*)?)")


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable: the key it sets (of the first upstream and listener), and what it says."""

    name: str
    path: str
    description: str


VARIABLES = (
    Variable("RELAY_TENANT_ID", "upstreams[0].tenant_id", "Directory (tenant) ID."),
    Variable("RELAY_CLIENT_ID", "upstreams[0].client_id", "Application (client) ID."),
    Variable("RELAY_CLIENT_SECRET", "upstreams[0].client_secret", "The client secret's Value."),
    Variable(
        "RELAY_CLIENT_SECRET_FILE", "upstreams[0].client_secret", "File that holds the client secret's Value."
    ),
    Variable(
        "RELAY_CLIENT_SECRET_NEXT",
        "upstreams[0].next_credential.client_secret",
        "The second client secret's Value, for a change without a gap.",
    ),
    Variable(
        "RELAY_CLIENT_SECRET_NEXT_FILE",
        "upstreams[0].next_credential.client_secret",
        "File that holds the second client secret's Value.",
    ),
    Variable("RELAY_FROM_EMAIL", "upstreams[0].from_email", "The default sender, a mailbox of the tenant."),
    Variable("RELAY_SERVER_NAME", "upstreams[0].server_name", "Any logical name."),
    Variable("RELAY_HOST", "upstreams[0].host", "SMTP host."),
    Variable("RELAY_PORT", "upstreams[0].port", "SMTP submission port."),
    Variable("RELAY_TIMEOUT", "upstreams[0].timeout", "Longest wait for each network step."),
    Variable("RELAY_BATCH_SIZE", "upstreams[0].batch_size", "small, medium, large, or a number."),
    Variable("RELAY_TRANSPORT", "upstreams[0].transport", "auto, smtp or graph."),
    Variable("RELAY_CLOUD", "upstreams[0].cloud", "public, gcc-high, dod or china."),
    Variable("RELAY_AUTHORITY", "upstreams[0].authority", "Where tokens come from."),
    Variable("RELAY_GRAPH_URL", "upstreams[0].graph_url", "Microsoft Graph."),
    Variable(
        "RELAY_CA_FILE", "upstreams[0].ca_file", "PEM certificates trusted in addition to the system's."
    ),
    Variable("RELAY_PROXY", "upstreams[0].proxy", "HTTP proxy."),
    Variable("RELAY_LISTEN", "listeners[0].bind", "Addresses and ports to listen on, separated by commas."),
    Variable("RELAY_ALLOW", "listeners[0].allow", "Networks that may connect, separated by commas."),
    Variable("RELAY_SPOOL_URL", "spool.url", "Where accepted mail lives."),
    Variable("RELAY_SPOOL_LOCAL", "spool.local", "Where mail is accepted while the database is away."),
    Variable("RELAY_POSTMASTER", "postmaster", "Gets notices nobody else can get."),
    Variable("RELAY_WEB_BIND", "web.bind", "Address and port of the administrator's page."),
    Variable("RELAY_WEB_PASSWORD", "web.password", "argon2id hash for the page."),
    Variable("RELAY_LOG_LEVEL", "log.level", "debug, info, warning or error."),
    Variable("RELAY_LOG_FORMAT", "log.format", "auto, text or json."),
)
OTHERS = ("RELAY_CONFIG", "RELAY_CREDENTIALS", "RELAY_REPLICA")
"""Variables that are ours but set no key."""
_BY_NAME = {variable.name: variable for variable in VARIABLES}


def overlay(data: Data, environ: Mapping[str, str], findings: Findings) -> Data:
    """The file's data with the environment laid over it; notes in ``findings.origin`` which variable set what."""
    named_by_file = _named(data)
    _warn_unknown(environ, named_by_file, findings)
    chosen = _chosen(environ, findings)
    result = dict(data)
    for name, value in chosen.items():
        # A variable that the file itself reads by env:NAME is spoken for: it overrides nothing.
        if name not in named_by_file:
            _SETTERS.get(name, _set_plain)(result, _BY_NAME[name], value, findings)
    return result


def _chosen(environ: Mapping[str, str], findings: Findings) -> dict[str, str]:
    """The variables that say something, in the table's order. Empty ones count as unset, the secret excepted."""
    chosen = {}
    for name in _BY_NAME:
        value = environ.get(name, "")
        if name == "RELAY_PORT" and value.startswith(("tcp://", "udp://")):
            findings.note(
                "RELAY_PORT: ignored, since Kubernetes set it for a Service named relay; "
                "set enableServiceLinks: false, or name the Service otherwise"
            )
        elif value.strip() or (name == "RELAY_CLIENT_SECRET" and _empty_secret(environ)):
            chosen[name] = value
    return chosen


def _empty_secret(environ: Mapping[str, str]) -> bool:
    """The secret is there but empty, and no file stands in for it: worth a fault of its own."""
    return "RELAY_CLIENT_SECRET" in environ and not environ.get("RELAY_CLIENT_SECRET_FILE", "").strip()


def _set_plain(data: Data, variable: Variable, value: str, findings: Findings) -> None:
    path = variable.path
    section, _, key = path.rpartition(".")
    target = _first(data, section.removesuffix("[0]")) if section.endswith("[0]") else _section(data, section)
    if target is not None:
        target[key] = value
        findings.origin.variables[path] = variable.name


def _set_secret(data: Data, variable: Variable, value: str, findings: Findings) -> None:
    """The client secret replaces whatever credential the file gives its first upstream."""
    upstream = _first(data, "upstreams")
    if upstream is None:
        return
    if not value.strip() and any(upstream.get(kind) is not None for kind in _CREDENTIALS):
        return
    for kind in _CREDENTIALS:
        upstream.pop(kind, None)
    # The value itself stays in the environment; what is kept here is where to find it.
    reference = value.strip() if _REFERENCE.match(value.strip()) else f"env:{variable.name}"
    _set_plain(data, variable, reference, findings)


def _set_secret_file(data: Data, variable: Variable, value: str, findings: Findings) -> None:
    if findings.origin.variables.get(variable.path) == "RELAY_CLIENT_SECRET":
        findings.fault(
            variable.path, f"RELAY_CLIENT_SECRET and {variable.name} are both set", "set one of them"
        )
        return
    _set_secret(data, variable, f"file:{value.strip()}", findings)


def _set_next_secret(data: Data, variable: Variable, value: str, findings: Findings) -> None:
    """Replaces what the file says of the next credential."""
    if findings.origin.variables.get(variable.path) == "RELAY_CLIENT_SECRET_NEXT":
        findings.fault(
            variable.path, f"RELAY_CLIENT_SECRET_NEXT and {variable.name} are both set", "set one of them"
        )
        return
    upstream = _first(data, "upstreams")
    if upstream is None:
        return
    if variable.name.endswith("_FILE"):
        reference = f"file:{value.strip()}"
    else:
        reference = value.strip() if _REFERENCE.match(value.strip()) else f"env:{variable.name}"
    upstream["next_credential"] = {"client_secret": reference}
    findings.origin.variables[variable.path] = variable.name


def _set_web_password(data: Data, variable: Variable, value: str, findings: Findings) -> None:
    reference = value.strip() if _REFERENCE.match(value.strip()) else f"env:{variable.name}"
    _set_plain(data, variable, reference, findings)


def _set_listen(data: Data, variable: Variable, value: str, findings: Findings) -> None:
    """The first bind goes to the first listener; further ones become listeners like it, after the file's."""
    binds = _parts(value)
    first = _first(data, "listeners")
    if first is None or not binds:
        return
    first["bind"] = binds[0]
    findings.origin.variables["listeners[0].bind"] = variable.name
    for bind in binds[1:]:
        findings.origin.variables[f"listeners[{len(data['listeners'])}]"] = variable.name
        data["listeners"].append({**first, "bind": bind})


def _set_allow(data: Data, variable: Variable, value: str, findings: Findings) -> None:
    listeners = data.get("listeners")
    first = _first(data, "listeners")
    if first is None:
        return
    if not listeners:
        first["bind"] = DEFAULT_BIND
    for index, listener in enumerate(data["listeners"]):
        made_here = findings.origin.variables.get(f"listeners[{index}]") == "RELAY_LISTEN"
        if index == 0 or made_here:
            listener["allow"] = _parts(value)
            findings.origin.variables[f"listeners[{index}].allow"] = variable.name


_Setter = Callable[[Data, Variable, str, Findings], None]
_SETTERS: dict[str, _Setter] = {
    "RELAY_CLIENT_SECRET": _set_secret,
    "RELAY_CLIENT_SECRET_FILE": _set_secret_file,
    "RELAY_CLIENT_SECRET_NEXT": _set_next_secret,
    "RELAY_CLIENT_SECRET_NEXT_FILE": _set_next_secret,
    "RELAY_WEB_PASSWORD": _set_web_password,
    "RELAY_LISTEN": _set_listen,
    "RELAY_ALLOW": _set_allow,
}


def _parts(value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()]


def _first(data: Data, key: str) -> Data | None:
    """A copy of the list's first section, put in its place; None when the file holds something else there."""
    items = data.get(key)
    if items is None:
        items = []
    if not isinstance(items, list) or (items and not isinstance(items[0], dict)):
        return None
    # Copied before it is changed: YAML aliases may share one section between two places.
    first = dict(items[0]) if items else {}
    data[key] = [first, *items[1:]]
    return first


def _section(data: Data, key: str) -> Data | None:
    if not key:
        return data
    section = data.get(key)
    if section is not None and not isinstance(section, dict):
        return None
    data[key] = dict(section or {})
    return data[key]  # type: ignore[no-any-return]


def _named(value: object) -> set[str]:
    """Names of the variables that the file refers to as ``env:NAME``."""
    if isinstance(value, dict):
        return set().union(*(_named(one) for one in value.values()))
    if isinstance(value, list):
        return set().union(*(_named(one) for one in value))
    return {value[4:].strip()} if isinstance(value, str) and value.startswith("env:") else set()


def _warn_unknown(environ: Mapping[str, str], named_by_file: set[str], findings: Findings) -> None:
    for name in sorted(environ):
        if not name.startswith("RELAY_") or name in _BY_NAME or name in OTHERS or name in named_by_file:
            continue
        if any(value == f"env:{name}" for value in environ.values()) or _KUBERNETES.fullmatch(name):
            continue
        meant = close(name, [*_BY_NAME, *OTHERS])
        hint = f"; did you mean {meant}?" if meant else "; it has no effect"
        findings.note(f"{name}: this environment variable is not known{hint}")
