"""What a set-up needs to know, and what an existing configuration (or a simulator) tells of it already."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from relay.errors import RelayError
from relay.setup.values import KINDS, Refused

CLIENTS = ("host", "lan", "containers")
"""What connects: programs on this machine, devices of the local network, containers."""
CREDENTIALS = ("client_secret", "certificate", "managed_identity", "federated_token_file", "user_login")
PLACES = ("host", "port", "authority", "graph_url", "ca_file")
"""Where the services are, when they are not Microsoft's own: a simulator."""


_STARTING = 10.0
"""Seconds that a simulator may take to start."""
_OPTIONS = {"secret": "the client secret", "secret_expires": "--client-secret-expires"}


@dataclass(slots=True)
class Answers:
    """Everything that is known; None: not yet, or left as the file says."""

    server_name: str | None = None
    from_email: str | None = None
    tenant_id: str | None = None
    client_id: str | None = None
    secret: str | None = field(default=None, repr=False)
    """Never shown, and never written into the configuration itself."""
    secret_expires: str | None = None
    transport: str | None = None
    clients: str | None = None
    listen: list[str] = field(default_factory=list)
    allow: list[str] = field(default_factory=list)
    postmaster: str | None = None
    web: str | None = None
    """Where the admin page is to listen."""
    spool_url: str | None = None
    places: dict[str, str] = field(default_factory=dict)
    """`PLACES` by key."""

    def missing(self, known: Known) -> list[str]:
        """Options that are needed and neither given nor in the file."""
        wanted = [name for name in ("tenant_id", "client_id", "from_email") if not self.get(name, known)]
        if self.secret is None and not known.has_credential:
            wanted.append("client_secret_file")
        return [f"--{name.replace('_', '-')}" for name in wanted]

    def get(self, name: str, known: Known) -> str | None:
        """The answer, else what the file says."""
        return getattr(self, name) or known.upstream.get(name)


@dataclass(frozen=True, slots=True)
class Known:
    """What an existing file says, as its texts; empty for a new one."""

    exists: bool
    upstream: dict[str, Any]
    listeners: list[dict[str, Any]]
    rest: dict[str, Any]

    @property
    def has_credential(self) -> bool:
        """Whether the first upstream has one of any kind."""
        return any(self.upstream.get(kind) is not None for kind in CREDENTIALS)

    @property
    def secret_file(self) -> str | None:
        """The file its client secret is in, if it is in one."""
        reference = str(self.upstream.get("client_secret") or "")
        return reference.removeprefix("file:").strip() if reference.startswith("file:") else None


def known_from(data: Any, *, exists: bool) -> Known:
    """From the document of `relay.config.yamlfile`; what is not of the expected form counts as absent."""
    top = data if isinstance(data, dict) else {}
    upstreams, listeners = top.get("upstreams"), top.get("listeners")
    first = (
        upstreams[0] if isinstance(upstreams, list) and upstreams and isinstance(upstreams[0], dict) else {}
    )
    shaped = [one for one in listeners if isinstance(one, dict)] if isinstance(listeners, list) else []
    return Known(exists, first, shaped, top)


def take_simulator(answers: Answers, file: Path) -> None:
    """Fill in what `relay simulator` printed. Raises RelayError when the file does not hold that.

    A file that is still empty belongs to a simulator that is just starting: it gets its time.
    """
    _await_first_line(file)
    try:
        told = json.loads(file.read_text(encoding="utf-8").splitlines()[0])["env"]
        values = {
            name: str(told[f"RELAY_{name.upper()}"])
            for name in (*PLACES, "tenant_id", "client_id", "from_email")
        }
        secret = str(told["RELAY_CLIENT_SECRET"])
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise RelayError(
            f"{file} does not hold what relay simulator prints",
            remedy="Start it with: relay simulator --dir /tmp/rehearsal > /tmp/rehearsal.json",
        ) from error
    answers.places = {name: values[name] for name in PLACES}
    ca_file = Path(values["ca_file"])  # as the simulator names it, from its own working directory
    answers.places["ca_file"] = str(ca_file.absolute() if ca_file.exists() else file.parent / ca_file)
    for name in ("tenant_id", "client_id", "from_email"):
        if getattr(answers, name) is None:
            setattr(answers, name, values[name])
    answers.secret = answers.secret or secret


def _await_first_line(file: Path) -> None:
    ends = time.monotonic() + _STARTING
    while file.is_file() and b"\n" not in file.read_bytes() and time.monotonic() < ends:
        time.sleep(0.05)


def check_given(answers: Answers, known: Known) -> None:
    """Check what options gave, each like an answer to a question. Raises RelayError that names every bad one."""
    bad = []
    for name, kind in KINDS.items():
        value = getattr(answers, name)
        if value is None:
            continue
        try:
            setattr(answers, name, kind(value))
        except Refused as refusal:
            bad.append(f"{_OPTIONS.get(name) or '--' + name.replace('_', '-')}: {refusal}")
    tenant, client = answers.get("tenant_id", known), answers.get("client_id", known)
    if not bad and tenant and client and tenant.lower() == client.lower():
        bad.append(
            "--client-id: it is the same as the tenant id; copy both again from the Overview page (step 6)"
        )
    if bad:
        raise RelayError("; ".join(bad), remedy="See relay setup --help.")
