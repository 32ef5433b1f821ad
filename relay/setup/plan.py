"""From the answers to the changes of a configuration: which keys are set, for whom the listeners are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from relay.check.interfaces import Interface
from relay.config.edit import KeyPath
from relay.setup.answers import CREDENTIALS, PLACES, Answers, Known

LOOPBACK = ["127.0.0.0/8", "::1"]
CONTAINER_NETWORK = "172.16.0.0/12"
"""Where Docker puts its bridges by default."""
SMTP, UNPRIVILEGED = 25, 2525
PAGE = "127.0.0.1:8025"
"""Where the admin page is offered: for this machine alone."""
SYSTEM_FOLDER = Path("/etc")


def listen_for(clients: str, own: Sequence[Interface]) -> str:
    """The address to offer for these clients."""
    if clients == "host":
        return f"127.0.0.1:{SMTP}"
    if clients == "lan":
        return f"0.0.0.0:{SMTP}"
    bridges = [one.address for one in own if one.inside_containers and one.network.version == 4]
    return f"{bridges[0]}:{UNPRIVILEGED}" if len(bridges) == 1 else f"0.0.0.0:{UNPRIVILEGED}"


def allow_for(clients: str, own: Sequence[Interface]) -> list[str]:
    """The networks to offer: never everybody, and never a public network unasked."""
    if clients == "host":
        return list(LOOPBACK)
    if clients == "containers":
        bridges = [str(one.network) for one in own if one.inside_containers]
        return [*LOOPBACK, *(bridges or [CONTAINER_NETWORK])]
    private = [str(one.network) for one in own if not one.public and not one.inside_containers]
    return [*LOOPBACK, *dict.fromkeys(private)]


def changes_for(answers: Answers, known: Known, file: Path, secret_name: str) -> dict[KeyPath, object]:
    """What is to be set. What the file says already, and nobody asked to change, is not in it."""
    changes: dict[KeyPath, object] = {}
    first: KeyPath = ("upstreams", 0)
    wanted: dict[str, Any] = {
        "server_name": answers.server_name
        or (None if known.upstream.get("server_name") else "Microsoft 365"),
        "from_email": answers.from_email,
        "tenant_id": answers.tenant_id,
        "client_id": answers.client_id,
    }
    for key, value in wanted.items():
        if value is not None and known.upstream.get(key) != value:
            changes[*first, key] = value
    if answers.secret is not None:
        _credential(changes, first, known, secret_name)
    if answers.secret_expires is not None:
        changes[*first, "client_secret_expires"] = answers.secret_expires
    if not known.exists:
        changes |= {(*first, "port"): 587, (*first, "timeout"): 120, (*first, "batch_size"): "medium"}
    for key in PLACES:
        if key in answers.places:
            changes[*first, key] = int(answers.places[key]) if key == "port" else answers.places[key]
    if answers.transport is not None:
        changes[*first, "transport"] = answers.transport
    return changes | _listeners(answers) | _rest(answers, known, file)


def _credential(changes: dict[KeyPath, object], first: KeyPath, known: Known, secret_name: str) -> None:
    """The secret's file; exactly one credential is allowed, so another kind goes."""
    reference = f"file:{secret_name}"
    if known.upstream.get("client_secret") != reference:
        changes[*first, "client_secret"] = reference
    for kind in CREDENTIALS[1:]:
        if known.upstream.get(kind) is not None:
            changes[*first, kind] = None


def _listeners(answers: Answers) -> dict[KeyPath, object]:
    changes: dict[KeyPath, object] = {}
    for number, bind in enumerate(answers.listen):
        changes["listeners", number, "bind"] = bind
        if answers.allow:
            changes["listeners", number, "allow"] = list(answers.allow)
    if answers.allow and not answers.listen:
        changes["listeners", 0, "allow"] = list(answers.allow)
    return changes


def _rest(answers: Answers, known: Known, file: Path) -> dict[KeyPath, object]:
    changes: dict[KeyPath, object] = {}
    if answers.postmaster is not None:
        changes["postmaster",] = answers.postmaster
    if answers.web is not None:
        changes["web", "bind"] = answers.web
    if answers.spool_url is not None:
        changes["spool", "url"] = answers.spool_url
    elif not known.exists and SYSTEM_FOLDER not in file.absolute().parents:
        # a trial in somebody's own folder: the system's place would need an administrator
        changes["spool", "url"] = "sqlite:///spool.db"
    return changes
