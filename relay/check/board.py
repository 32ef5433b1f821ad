"""Collects the steps of a check: cleaned of secrets, told at once, reported in order."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from relay.check.catalogue import rank
from relay.check.contract import CheckReport, Progress, Step
from relay.settings import ClientSecret, Secret, Settings, Upstream
from relay.tokens.credentials import scrub

SHORTEST = 6
"""Characters from which a secret is searched for: a shorter one would be found in ordinary words."""


class Board:
    """One check's steps. ``secrets`` never get past it, whatever a server or an error text quotes."""

    def __init__(self, secrets: Iterable[Secret], progress: Progress | None) -> None:
        self._secrets = [one for one in secrets if len(one.reveal()) >= SHORTEST]
        self._progress = progress
        self._steps: list[Step] = []

    def add(self, step: Step) -> Step:
        """Take a step in, and tell it."""
        clean = Step(
            step.id,
            step.title,
            step.guide_step,
            step.status,
            self._clean(step.seen),
            self._clean(step.remedy),
        )
        self._steps.append(clean)
        if self._progress is not None:
            self._progress(clean)
        return clean

    def report(self) -> CheckReport:
        """All steps so far, in the guide's order; several of one kind as they were added."""
        return CheckReport(tuple(sorted(self._steps, key=rank)))

    def _clean(self, text: str) -> str:
        for secret in self._secrets:
            text = scrub(text, ClientSecret(secret))
        return scrub(text, ClientSecret(Secret("")))


def secrets_of(upstreams: Iterable[Upstream]) -> list[Secret]:
    """Every secret an upstream holds, of whatever kind its credentials are, and the proxy's user and password."""
    found = []
    for one in upstreams:
        found += _secrets_in(one)
        if one.proxy and "@" in one.proxy:
            login = one.proxy.rpartition("@")[0].rpartition("//")[2]
            found += [Secret(login), Secret(login.partition(":")[2])]
    return found


def _secrets_in(value: object) -> list[Secret]:
    if isinstance(value, Secret):
        return [value]
    if not dataclasses.is_dataclass(value):
        return []
    return [one for field in dataclasses.fields(value) for one in _secrets_in(getattr(value, field.name))]


def all_secrets(settings: Settings) -> list[Secret]:
    """The upstreams', the clients' hashes, the page's hash, and addresses of alerts, which often hold a key."""
    found = [*secrets_of(settings.upstreams), *(client.password for client in settings.clients)]
    if settings.web is not None and settings.web.password is not None:
        found.append(settings.web.password)
    if settings.alerts.webhook:
        found.append(Secret(settings.alerts.webhook))
    return found
