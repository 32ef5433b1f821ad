"""When credentials end, and what an administrator should hear about it: pure judgement over plain facts.

`credential_states` reads files (blocking); everything else is a function of its arguments. `relay status`, `relay
check`, the page and the reminders all speak from here.
"""

from __future__ import annotations

import datetime
import math
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from relay.errors import TokenError
from relay.settings import (
    Certificate,
    ClientSecret,
    Credential,
    FederatedTokenFile,
    ManagedIdentity,
    Rotation,
    Upstream,
    UserLogin,
)
from relay.tokens import keypair, vault
from relay.tokens.choice import NAMES
from relay.tokens.claims import READERS, Finding
from relay.tokens.credentials import load_certificate
from relay.tokens.reasons import APP, local

REMINDERS = (60, 30, 14, 7, 1)
"""Days before the end at which an administrator is reminded (design section 3)."""
DAY = 86400.0

Ends = Mapping[tuple[str, str], float]
"""Ends that Graph knows better, in wall seconds: by upstream and by ``credential`` or ``next_credential``."""


@dataclass(frozen=True, slots=True)
class CredentialState:
    """One credential of an upstream. Nothing secret."""

    upstream: str
    slot: str
    """``credential`` or ``next_credential``."""
    kind: str
    """client_secret, certificate, managed_identity, federated_token_file or user_login."""
    expires: float | None
    """Wall seconds since 1970; None: not known, or it does not end."""
    source: str = ""
    """Where the end is known from: configuration, certificate, graph or sign-in."""
    rotates: bool = False
    """Whether the relay replaces it by itself."""
    fault: str = ""
    remedy: str = ""
    """Why its file cannot be used, and what to do."""
    about: str = ""
    """A thumbprint, or the user's name."""


def kind_of(credential: Credential) -> str:
    """The configuration key of a credential."""
    kinds = {
        ClientSecret: "client_secret",
        Certificate: "certificate",
        ManagedIdentity: "managed_identity",
        UserLogin: "user_login",
    }
    return kinds.get(type(credential), "federated_token_file")


def credential_states(upstream: Upstream, ends: Ends | None = None) -> list[CredentialState]:
    """The upstream's one or two credentials. Reads certificate and sign-in files."""
    both = [(NAMES[0], upstream.credential, upstream.client_secret_expires)]
    if upstream.next_credential is not None:
        both.append((NAMES[1], upstream.next_credential, upstream.next_secret_expires))
    return [_state(upstream.name, slot, one, day, ends or {}) for slot, one, day in both]


def _state(
    name: str, slot: str, credential: Credential, day: datetime.date | None, ends: Ends
) -> CredentialState:
    kind = kind_of(credential)
    try:
        if isinstance(credential, Certificate):
            return _of_certificate(name, slot, credential)
        if isinstance(credential, UserLogin):
            return _of_user(name, slot, credential)
    except TokenError as error:
        return CredentialState(name, slot, kind, None, fault=str(error), remedy=error.remedy)
    if (known := ends.get((name, slot))) is not None:
        return CredentialState(name, slot, kind, known, "graph")
    if isinstance(credential, ClientSecret) and day is not None:
        return CredentialState(name, slot, kind, _midnight(day), "configuration")
    return CredentialState(name, slot, kind, None, about=_about(credential))


def _about(credential: Credential) -> str:
    if isinstance(credential, ManagedIdentity):
        return f"client id {credential.client_id}" if credential.client_id else "system-assigned"
    return str(credential.file) if isinstance(credential, FederatedTokenFile) else ""


def _of_certificate(name: str, slot: str, certificate: Certificate) -> CredentialState:
    known = keypair.facts(load_certificate(certificate).leaf)
    rotates = certificate.rotation is not None and certificate.rotation.automatic
    about = f"SHA-1 {known.sha1}"
    return CredentialState(name, slot, "certificate", known.ends, "certificate", rotates, about=about)


def _of_user(name: str, slot: str, login: UserLogin) -> CredentialState:
    known = vault.peek(login)
    if known is None:
        says = f"{login.user} has not signed in yet."
        return CredentialState(name, slot, "user_login", None, fault=says, remedy="Run `relay login`.")
    return CredentialState(name, slot, "user_login", known.lapses, "sign-in", about=known.user)


def _midnight(day: datetime.date) -> float:
    return datetime.datetime.combine(day, datetime.time(), tzinfo=datetime.UTC).timestamp()


def days_left(expires: float, now: float) -> int:
    """Whole days until then, a begun one counted; 0 or less: it is over."""
    return math.ceil((expires - now) / DAY)


def stage(expires: float, now: float) -> int | None:
    """Which reminder is due: the smallest of `REMINDERS` that has come, 0 when it is over, None when none is due."""
    if expires <= now:
        return 0
    return min((days for days in REMINDERS if expires - now <= days * DAY), default=None)


def day_of(expires: float) -> str:
    """The day as 2028-11-01 (UTC)."""
    return datetime.datetime.fromtimestamp(expires, datetime.UTC).date().isoformat()


_CALLED = {
    "client_secret": "client secret",
    "certificate": "certificate",
    "user_login": "user's sign-in",
    "managed_identity": "managed identity",
    "federated_token_file": "workload identity",
}
_NEW_SECRET = (
    f"Step 5: {APP} > Certificates & secrets > New client secret. Put its Value into `next_credential: client_secret` "
    "and reload; when `relay status` shows it in use, move it to `client_secret`, set `client_secret_expires`, and "
    "delete the old one."
)
_NEW_CERTIFICATE = (
    "Make one with `relay certificate new`, upload its .cer file (step 5: "
    f"{APP} > Certificates & secrets > Certificates > Upload certificate), and name it in `next_credential: "
    "certificate` until the old one is gone. With `certificate: rotate: true` relay does all that by itself."
)
_RENEW = {
    "client_secret": _NEW_SECRET,
    "certificate": _NEW_CERTIFICATE,
    "user_login": "Run `relay login` on this machine, and sign in as the mailbox's user.",
}


def remedy_for(state: CredentialState) -> str:
    """How to renew it."""
    if state.rotates:
        return "Run `relay certificate rotate`, which says what keeps the relay from doing it by itself."
    return _RENEW.get(state.kind, "")


def says(state: CredentialState, now: float) -> str:
    """How long it lasts, in one sentence."""
    called = _CALLED[state.kind]
    if state.expires is None:
        return _open_end(state, called)
    left, day = days_left(state.expires, now), day_of(state.expires)
    if state.expires <= now:
        return f"The {called} of {state.upstream} ended on {day}."
    span = "1 day" if left == 1 else f"{left} days"
    unless = ", unless it is used before" if state.kind == "user_login" else ""
    return f"The {called} of {state.upstream} ends in {span}, on {day}{unless}."


def _open_end(state: CredentialState, called: str) -> str:
    if state.kind == "client_secret":
        return f"When the client secret of {state.upstream} ends is not known."
    return f"The {called} of {state.upstream} does not end."


def credential_findings(
    upstream: Upstream, now: float, ends: Ends | None = None, graph_roles: Collection[str] | None = None
) -> list[Finding]:
    """What a check should say about the credentials: their ends, and whether they can be renewed. Asks nobody.

    ``graph_roles``: the roles of a Graph token, when there is one. Slugs: ``credential-expiry``,
    ``credential-unusable`` (both with ``-next`` for the second credential), ``rotation-impossible``. Reads files.
    """
    found = [_finding(state, now) for state in credential_states(upstream, ends)]
    certificate = upstream.credential
    if isinstance(certificate, Certificate) and certificate.rotation and certificate.rotation.automatic:
        found += _about_rotation(certificate, certificate.rotation, graph_roles)
    return found


def _about_rotation(
    certificate: Certificate, rotation: Rotation, graph_roles: Collection[str] | None
) -> list[Finding]:
    """What would keep the relay from replacing its certificate, months before it has to."""
    folder = certificate.file.parent
    if not (os.access(folder, os.W_OK | os.X_OK) and os.access(certificate.file, os.W_OK)):
        reason = local("certificate-read-only")
        return [Finding("rotation-impossible", "warn", f"{certificate.file}: {reason.says}", reason.remedy)]
    if rotation.object_id is None and graph_roles is not None and not READERS & set(graph_roles):
        reason = local("object-id-unknown")
        return [Finding("rotation-impossible", "warn", reason.says, reason.remedy)]
    return []


def _finding(state: CredentialState, now: float) -> Finding:
    ending = "-next" if state.slot == NAMES[1] else ""
    if state.fault:
        return Finding(f"credential-unusable{ending}", "fail", state.fault, state.remedy)
    slug, text = f"credential-expiry{ending}", says(state, now)
    if state.expires is None:
        if state.kind == "client_secret":
            hint = "Set `client_secret_expires` (Certificates & secrets shows the day), or grant Application.Read.All."
            return Finding(slug, "warn", text, hint)
        return Finding(slug, "ok", text)
    due = stage(state.expires, now)
    if due is None or (state.kind == "user_login" and due > 30):
        return Finding(slug, "ok", text)
    return Finding(slug, "fail" if due == 0 else "warn", text, remedy_for(state))
