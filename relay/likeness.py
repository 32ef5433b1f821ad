"""Whether the replicas of a group have the same configuration, told by digests that each of them declares.

Compared is what decides about mail whichever replica has it in hand. What may well differ from host to host is not:
listeners, the page, paths, proxies, addresses of servers, and where a secret comes from.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from relay.settings import Settings
from relay.spool.contract import Replica


def digests(settings: Settings) -> dict[str, str]:
    """Section of the configuration -> a short digest of what is compared of it. No secret goes into any."""
    spool = asdict(settings.spool)
    del spool["url"], spool["local"]
    parts: dict[str, Any] = {
        "upstreams": [
            (one.name, one.from_email, one.tenant_id, one.client_id, one.transport, one.batch_size, asdict(one.limits))
            for one in settings.upstreams
        ],
        "senders": [asdict(one) for one in settings.senders],
        "default_sender": settings.default_sender,
        "recipients": asdict(settings.recipients),
        "spool": spool,
        "postmaster": settings.postmaster,
    }  # fmt: skip
    return {name: _digest(part) for name, part in parts.items()}


def _digest(part: Any) -> str:
    return hashlib.sha256(json.dumps(part, default=_as_text).encode()).hexdigest()[:12]


def _as_text(value: Any) -> str:
    """A pattern whole: printed, a long one is cut."""
    return value.pattern if isinstance(value, re.Pattern) else str(value)


def differing(ours: Mapping[str, str], theirs: Mapping[str, str]) -> list[str]:
    """The sections that are not the same; none where one side said nothing (an earlier release)."""
    return [name for name in ours if name in theirs and theirs[name] != ours[name]]


def others_differ(settings: Settings, replicas: Sequence[Replica]) -> str:
    """Which replicas have another configuration than this one, as half a sentence; empty when none has."""
    ours = digests(settings)
    found = [(one.name, differing(ours, one.config)) for one in replicas if not one.me]
    return "; ".join(f"{name}: {', '.join(sections)}" for name, sections in found if sections)
