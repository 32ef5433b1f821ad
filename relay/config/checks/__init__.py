"""Checks that look at more than one value: one small module for each section, all run, all reported together."""

from __future__ import annotations

from relay.config.checks import listeners, rest, senders, upstreams
from relay.config.findings import Findings
from relay.config.model import Config


def check(config: Config, findings: Findings) -> None:
    """Run every check; what is wrong goes to the findings."""
    upstreams.check(config, findings)
    listeners.check(config, findings)
    senders.check(config, findings)
    rest.check(config, findings)


__all__ = ["check"]
