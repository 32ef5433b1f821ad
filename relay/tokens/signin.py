"""A mailbox user's sign-in: once by device code (RFC 8628), afterwards by the refresh token that was kept.

For those who may not use application permissions. The application is then a public client: no secret at all, and the
token is the user's. Blocking (msal): for a worker thread, or a command.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from relay.clock import Clock
from relay.errors import TokenError
from relay.settings import Upstream, UserLogin
from relay.tokens import aadsts, claims, credentials, faults, vault
from relay.tokens.contract import Resource
from relay.tokens.filelock import locked
from relay.tokens.reasons import Reason, local
from relay.tokens.wire import Http


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the user is told: open ``address`` in any browser, type ``code``, within ``seconds``."""

    address: str
    code: str
    seconds: int


@dataclass(frozen=True, slots=True)
class SignedIn:
    """What came of it: who signed in, what may be used, and what was refused with which error."""

    sign_in: vault.SignIn
    granted: tuple[Resource, ...]
    refused: tuple[tuple[Resource, TokenError], ...] = ()


class UserClient:
    """The part of msal that the asker uses, for a user's sign-in: one refresh for each token."""

    def __init__(self, upstream: Upstream, http: Http, clock: Clock) -> None:
        """Does network I/O (tenant discovery)."""
        assert isinstance(upstream.credential, UserLogin)
        self._upstream = upstream
        self._login = upstream.credential
        self._clock = clock
        self._app = _public_client(upstream, http)

    def ask(self, resource: Resource) -> dict[str, object]:
        """A token by the refresh token; the new refresh token is on disk before the access token is handed out.

        Two resources, and an operator's `relay login`, take turns: each works with the newest one.
        """
        _check_writable(self._login)
        try:
            with locked(self._login.file, vault.LOCK_SECONDS):
                return self._refresh(resource)
        except TimeoutError as busy:
            raise local("timed-out").error(evidence=str(busy)) from None

    def _refresh(self, resource: Resource) -> dict[str, object]:
        kept = vault.read(self._login)
        if kept.client_id != self._upstream.client_id or kept.tenant_id != self._upstream.tenant_id:
            raise local("user-login-other").error(evidence=f"{self._login.file}: for client {kept.client_id}")
        scope = claims.user_scope(self._upstream, resource)
        result: dict[str, object] = self._app.acquire_token_by_refresh_token(kept.refresh_token, [scope])
        if "access_token" in result:
            token = str(result.pop("refresh_token", "") or kept.refresh_token)
            vault.write(self._login, dataclasses.replace(kept, used=self._clock.now(), refresh_token=token))
        return result


def _public_client(upstream: Upstream, http: Http) -> Any:
    import msal

    return msal.PublicClientApplication(
        upstream.client_id,
        authority=f"{upstream.authority}/{upstream.tenant_id}",
        instance_discovery=False,  # see `relay.tokens.asker`
        http_client=http,
    )


def reason_for_user(reason: Reason, result: dict[str, object]) -> Reason:
    """The row that fits a user's sign-in, where the table of refusals speaks of an application's.

    RFC 8628 section 3.5 names the errors of a device code.
    """
    error = str(result.get("error") or "")
    if error in ("expired_token", "code_expired", "authorization_pending", "slow_down"):
        return aadsts.reason("device-code-expired")
    if error in ("authorization_declined", "access_denied"):
        return local("user-declined")
    if reason.slug in ("user-sign-in", "security-defaults") or error == "interaction_required":
        return local("user-login-again")
    if reason.slug == "credential-missing":
        return local("public-client-off")
    if reason.slug == "entra-refused" and error == "invalid_grant":
        return aadsts.reason("user-login-lapsed")
    return reason


def resources(upstream: Upstream) -> tuple[Resource, ...]:
    """What this upstream's transport needs tokens for; the first is asked of the user."""
    wanted = {"smtp": (Resource.SMTP,), "graph": (Resource.GRAPH,)}
    return wanted.get(upstream.transport, (Resource.SMTP, Resource.GRAPH))


def sign_in(
    upstream: Upstream, clock: Clock, show: Callable[[Prompt], None], *, expect: str | None = None
) -> SignedIn:
    """Let the user sign in and keep the refresh token. Blocks until that is done, refused or too late (15 minutes).

    ``expect``: the name the user must sign in with; None: the mailbox's address. Raises TokenError.
    """
    login = upstream.credential
    assert isinstance(login, UserLogin)
    _check_writable(login)
    http = Http.for_entra(upstream.authority, upstream.proxy, upstream.ca_file, upstream.timeout)
    try:
        return _SignIn(upstream, login, http, clock).run(show, (expect or login.user).lower())
    except TokenError:
        raise
    except Exception as fault:  # msal raises a dozen kinds (facts 7.4)
        reason, evidence = faults.from_exception(fault, http.last)
        raise reason.error(evidence=credentials.scrub_proxy(evidence, upstream.proxy)) from None
    finally:
        http.close()


def _check_writable(login: UserLogin) -> None:
    """Before a user is bothered, or a refresh token is spent whose successor could not be kept."""
    if not os.access(login.file.parent, os.W_OK | os.X_OK):
        raise vault.unwritable(login, PermissionError(13, "Permission denied"))


class _SignIn:
    """One device code, from asking for it to what it brought."""

    def __init__(self, upstream: Upstream, login: UserLogin, http: Http, clock: Clock) -> None:
        self._upstream = upstream
        self._login = login
        self._http = http
        self._clock = clock
        self._app = _public_client(upstream, http)

    def run(self, show: Callable[[Prompt], None], expect: str) -> SignedIn:
        first, *others = resources(self._upstream)
        result = self._by_code(show, first)
        kept = self._kept(result, expect)
        with locked(self._login.file, vault.LOCK_SECONDS):
            vault.write(self._login, kept)
        granted, refused = [first], []
        for resource in others:
            error = self._try(resource)
            if error is None:
                granted.append(resource)
            else:
                refused.append((resource, error))
        return SignedIn(kept, tuple(granted), tuple(refused))

    def _by_code(self, show: Callable[[Prompt], None], resource: Resource) -> dict[str, object]:
        flow = self._app.initiate_device_flow(scopes=[claims.user_scope(self._upstream, resource)])
        if "user_code" not in flow:
            raise self._refusal(flow)
        address = str(flow.get("verification_uri") or flow.get("verification_url"))
        show(Prompt(address, str(flow["user_code"]), int(flow.get("expires_in", 900))))
        result: dict[str, object] = self._app.acquire_token_by_device_flow(flow)
        if "access_token" not in result:
            raise self._refusal(result)
        return result

    def _kept(self, result: dict[str, object], expect: str) -> vault.SignIn:
        if not result.get("refresh_token"):
            raise local("user-login-no-refresh").error(evidence=str(result.get("scope") or ""))
        user = _user_of(result)
        if user and user.lower() != expect:
            raise local("user-login-other-user").error(evidence=f"signed in as {user}, expected {expect}")
        now, up = self._clock.now(), self._upstream
        return vault.SignIn(
            user or expect, up.tenant_id, up.client_id, now, now, str(result["refresh_token"])
        )

    def _try(self, resource: Resource) -> TokenError | None:
        """Whether the sign-in reaches another service as well; its consent may be missing there."""
        try:
            result = UserClient(self._upstream, self._http, self._clock).ask(resource)
        except TokenError as error:
            return error
        return None if "access_token" in result else self._refusal(result)

    def _refusal(self, result: dict[str, object]) -> TokenError:
        reason, evidence = faults.from_result(result, self._http.last)
        return reason_for_user(reason, result).error(evidence=evidence)


def _user_of(result: dict[str, object]) -> str:
    """Who signed in: the ID token says it, else the access token."""
    identity = result.get("id_token_claims")
    known = identity if isinstance(identity, dict) else claims.decode(str(result["access_token"]))
    return str(known.get("preferred_username") or known.get("upn") or known.get("unique_name") or "")
