"""What a helper process is told when it starts: as much of the configuration as it needs, and no secret."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from relay.settings import ManagedIdentity, Secret, Settings


@dataclass(frozen=True, slots=True)
class Brief:
    """The standing orders of one helper; other settings mean another helper."""

    settings: Settings
    """Without secrets."""
    sockets: dict[str, tuple[int, ...]]
    """Descriptors of the listening sockets, by the listener's ``bind``."""
    hostname: str
    bodies: Path
    """Where the spool keeps large bodies."""
    node: int
    """Told apart by it: bits in the ids of the messages it accepts."""
    last: int
    """The newest id there was."""


def without_secrets(settings: Settings) -> Settings:
    """The settings with everything taken out that only the daemon may know."""
    nobody = ManagedIdentity(None)
    upstreams = (
        dataclasses.replace(one, credential=nobody, next_credential=None, proxy=None)
        for one in settings.upstreams
    )
    clients = (dataclasses.replace(one, password=Secret("")) for one in settings.clients)
    return dataclasses.replace(
        settings,
        upstreams=tuple(upstreams),
        clients=tuple(clients),
        spool=dataclasses.replace(settings.spool, url=""),
        alerts=dataclasses.replace(settings.alerts, webhook=None, command=None),
        web=None,
    )
