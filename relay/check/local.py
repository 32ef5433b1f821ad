"""What can be said of a configuration without asking anybody: its warnings, its secrets, who is told of trouble."""

from __future__ import annotations

from relay.check import catalogue
from relay.check.contract import Status, Step
from relay.config import upcoming
from relay.config.faults import ConfigError
from relay.settings import (
    Certificate,
    ClientSecret,
    Credential,
    FederatedTokenFile,
    Settings,
    Upstream,
    UserLogin,
)

_ABOUT_SECRETS = ("written plainly", "has mode", "secret's ID")
"""What the configuration's warnings about secrets and their files have in common."""


def configuration_step(settings: Settings) -> Step:
    """Read and valid; what deserves attention."""
    kind = catalogue.CONFIGURATION
    refused = upcoming.refusals(settings)
    if refused:
        return kind.step(
            Status.FAIL, "relay run would not start: " + " ".join(refused), "Change what is named."
        )
    others = [one for one in settings.warnings if not _about_secrets(one)]
    if others:
        return kind.step(
            Status.WARN, f"{settings.source}: valid; " + " | ".join(others), "Each line names its key."
        )
    return kind.step(Status.OK, f"{settings.source}: valid")


def invalid_step(error: ConfigError) -> Step:
    """The one step there is when the configuration cannot be read."""
    remedy = "Mend each fault that is named; relay setup writes a configuration that fits."
    return catalogue.CONFIGURATION.step(Status.FAIL, " | ".join(map(str, error.faults)), remedy)


def secrets_step(settings: Settings) -> Step:
    """Where each credential comes from, and who else can read it."""
    kind = catalogue.SECRETS
    sources = "; ".join(f"{one.name}: {_source(one)}" for one in settings.upstreams)
    found = [one for one in settings.warnings if _about_secrets(one)]
    if not found:
        return kind.step(Status.OK, sources)
    remedy = (
        "Put the secret into a file of its own that only relay's user may read (chmod 600), and write file:NAME in "
        "its place; or env:NAME. Give every file named here mode 0640 or 0600."
    )
    return kind.step(Status.WARN, f"{sources} | " + " | ".join(found), remedy)


def postmaster_step(settings: Settings) -> Step:
    """Who hears of trouble, and whether by a way that does not depend on what broke."""
    kind = catalogue.POSTMASTER
    other = bool(settings.alerts.webhook or settings.alerts.command)
    missing = [
        *([] if settings.postmaster else ["`postmaster`"]),
        *([] if other else ["`alerts.webhook` or `alerts.command`"]),
    ]
    if not missing:
        return kind.step(Status.OK, f"{settings.postmaster}, and alerts by another way")
    seen = "nobody is told of trouble" if len(missing) == 2 else f"not set: {missing[0]}"
    remedy = (
        f"Set {' and '.join(missing)}: mail about a broken mailbox cannot leave by that mailbox "
        "(docs/alerts.md)."
    )
    return kind.step(Status.WARN, seen, remedy)


def _about_secrets(warning: str) -> bool:
    return any(words in warning for words in _ABOUT_SECRETS)


def _source(upstream: Upstream) -> str:
    first = _source_of(upstream.credential)
    second = upstream.next_credential
    return first if second is None else f"{first}, and next {_source_of(second)}"


def _source_of(credential: Credential) -> str:
    if isinstance(credential, ClientSecret):
        return f"client secret from {credential.secret.source}"
    if isinstance(credential, Certificate):
        return f"certificate {credential.file}"
    if isinstance(credential, FederatedTokenFile):
        return f"federated token {credential.file}"
    if isinstance(credential, UserLogin):
        return f"sign-in of {credential.user}, kept in {credential.file}"
    return "managed identity"
