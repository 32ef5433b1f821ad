"""Asking Entra (or the managed identity service) for one token: the blocking part, run in a worker thread.

msal and requests are imported here on first use: together they cost some 12 MB and start-up time that a relay
without mail need not pay.
"""

from __future__ import annotations

import logging
import os
import ssl
from typing import Any, Protocol
from urllib.parse import urlsplit

from relay.clock import Clock
from relay.errors import TokenError
from relay.settings import Certificate, ManagedIdentity, Upstream, UserLogin
from relay.tokens import claims, credentials, faults
from relay.tokens.contract import Resource, Token
from relay.tokens.reasons import Reason, local
from relay.tokens.wire import Http

_SERVICE_FABRIC = "IDENTITY_SERVER_THUMBPRINT"
_UNSTATED_LIFETIME = 300.0
"""Seconds a token is trusted when nothing says how long it lives; Entra always says."""
_PEEK_TIMEOUT = 5.0
"""Seconds for looking at an untrusted certificate's issuer."""


class _Client(Protocol):
    """The part of msal's two client classes that is used."""

    def ask(self, resource: Resource) -> dict[str, object]: ...


class Asker:
    """Fetches tokens of one resource of one upstream. One call at a time; every call goes to the wire.

    ``skew`` is this clock minus Microsoft's in seconds, once known; ``retry_after`` is what the last refusal asked
    for, in seconds, else None.
    """

    def __init__(self, upstream: Upstream, clock: Clock) -> None:
        self._upstream = upstream
        self._clock = clock
        self._client: _Client | None = None
        self._http: Http | None = None
        self._stamp: tuple[int, int] | None = None
        self.skew: float | None = None
        self.retry_after: float | None = None

    def fetch(self, resource: Resource) -> Token:
        """A new token. Raises TokenError, and nothing else; after an error the next call starts afresh.

        Starting afresh matters: msal replays an error from memory for a minute or more (facts 7.4), and a mended
        app registration should show at once.
        """
        self.retry_after = None
        try:
            return self._fetch(resource)
        except TokenError as refusal:
            error = refusal
        except (
            Exception
        ) as fault:  # msal raises a dozen kinds (facts 7.4), and a new one must not kill the lane
            error = self._explain(*faults.from_exception(fault, self._http.last if self._http else None))
        finally:
            if self._http:
                self._http.close()  # an idle hour later the connection would be dead anyway
        self._forget()
        raise self._scrubbed(error)

    def _fetch(self, resource: Resource) -> Token:
        client = self._ready()
        asked = self._clock.now()
        result = client.ask(resource)
        self._note_clock()
        if "access_token" not in result:
            raise self._refusal(result)
        return self._token(result, resource, asked)

    def _token(self, result: dict[str, object], resource: Resource, asked: float) -> Token:
        value = str(result["access_token"])
        payload = claims.decode(value)
        lifetime = result.get("expires_in")
        self._note_claims(payload)
        if isinstance(lifetime, int | float):
            # the lifetime, counted on our own clock, is right even when that clock is wrong; exp is not
            expires = asked + lifetime
        else:
            expires = claims.seconds(payload, "exp") or asked + _UNSTATED_LIFETIME
        return Token(value, resource, expires, claims.roles(payload), payload, claims.scopes(payload))

    def _ready(self) -> _Client:
        stamp = credentials.stamp(self._upstream.credential)
        if self._client is None or stamp != self._stamp:
            self._forget()
            self._stamp = stamp
            self._client = self._identity() if self._is_identity() else self._application()
        return self._client

    def _is_identity(self) -> bool:
        return isinstance(self._upstream.credential, ManagedIdentity)

    def _is_user(self) -> bool:
        return isinstance(self._upstream.credential, UserLogin)

    def _application(self) -> _Client:
        up = self._upstream
        self._http = Http.for_entra(up.authority, up.proxy, up.ca_file, up.timeout)
        if self._is_user():
            from relay.tokens.signin import UserClient

            _quiet_msal()
            return UserClient(up, self._http, self._clock)
        return _Application(up, self._http)

    def _identity(self) -> _Client:
        self._http = Http.for_identity(self._upstream.timeout)
        return _Identity(self._upstream, self._http)

    def _forget(self) -> None:
        self._client = self._http = None

    # what went wrong

    def _refusal(self, result: dict[str, object]) -> TokenError:
        last = self._http.last if self._http else None
        if self._is_identity():
            said = faults.brief(str(result.get("error_description") or result.get("error") or result))
            busy = last is not None and (last.status_code == 429 or last.status_code >= 500)
            return self._explain(local("identity-unreachable" if busy else "identity-refused"), said)
        reason, evidence = faults.from_result(result, last)
        if self._is_user():
            from relay.tokens.signin import reason_for_user

            reason = reason_for_user(reason, result)
        return self._explain(reason, evidence)

    def _explain(self, reason: Reason, evidence: str) -> TokenError:
        self._note_clock()
        if self._http and self._http.last:
            self.retry_after = self._http.last.retry_after()
        if self._is_identity() and reason.temporary and reason.slug != "internal":
            return local("identity-unreachable").error(evidence=evidence)
        if reason.slug in ("tenant-unknown", "application-unknown") and self._ids_are_swapped():
            return local("ids-swapped").error(evidence=evidence)
        says = ""
        if reason.slug == "secret-wrong" and credentials.looks_like_secret_id(self._upstream.credential):
            says = "The client secret is wrong: it looks like the Secret ID, not the secret's Value."
        return reason.error(evidence=evidence, hint=self._hint(reason), says=says)

    def _hint(self, reason: Reason) -> str:
        if reason.slug == "tls-not-trusted":
            return self._name_issuer()
        if reason.slug == "consent-missing" and self._is_user():
            return "Then run `relay login` again."
        hint = self._thumbprint() if reason.slug == "certificate-unknown" else ""
        about_clock = reason.slug in ("clock-wrong", "tls-clock", "certificate-unknown")
        if about_clock and self.skew is not None and abs(self.skew) > claims.SKEW_LIMIT:
            hint = f"{hint} {skew_text(self.skew)}".strip()
        return hint

    def _thumbprint(self) -> str:
        """What to compare in the admin center."""
        from relay.tokens.keypair import facts

        certificate = self._upstream.credential
        if not isinstance(certificate, Certificate):
            return ""
        try:
            return f"Its thumbprint (SHA-1) is {facts(credentials.load_certificate(certificate).leaf).sha1}."
        except TokenError:  # replaced just now; only a hint
            return ""

    def _ids_are_swapped(self) -> bool:
        """Certain only by asking: is there a tenant whose id is our client id? (One request, on this error only.)"""
        if self._http is None or not credentials.GUID.fullmatch(self._upstream.client_id):
            return False
        place = f"{self._upstream.authority}/{self._upstream.client_id}/v2.0/.well-known/openid-configuration"
        kept, found = self._http.last, False
        try:
            found = self._http.get(place).status_code == 200
        except OSError:  # requests' exceptions are OSErrors; the first answer stands
            found = False
        self._http.last = kept
        return found

    def _name_issuer(self) -> str:
        """Who signed the certificate we do not trust: names the inspecting proxy. Sends nothing but a handshake."""
        if self._http is None or self._http.proxied:
            return ""
        where = urlsplit(self._upstream.authority)
        try:
            pem = ssl.get_server_certificate((where.hostname or "", where.port or 443), timeout=_PEEK_TIMEOUT)
            return f"It was issued by: {_issuer(pem)}."
        except (OSError, ValueError):  # only a hint; the fault itself is reported either way
            return ""

    def _scrubbed(self, error: TokenError) -> TokenError:
        clean = credentials.scrub(error.evidence, self._upstream.credential)
        clean = credentials.scrub_proxy(clean, self._upstream.proxy)
        return TokenError(
            str(error), code=error.code, remedy=error.remedy, temporary=error.temporary, evidence=clean
        )

    # clocks

    def _note_clock(self) -> None:
        """The Date header has whole seconds, which is plenty. The identity service has our own clock."""
        stated = self._http.last.date() if self._http and self._http.last else None
        if stated is not None and not self._is_identity():
            self.skew = self._clock.now() - stated

    def _note_claims(self, payload: dict[str, object]) -> None:
        """A token from the future tells of a slow clock even where no Date header did."""
        starts, now = claims.seconds(payload, "nbf"), self._clock.now()
        if starts is not None and starts > now and (self.skew is None or self._is_identity()):
            self.skew = now - starts


def skew_text(skew: float) -> str:
    """``skew`` in words; seconds, this clock minus Microsoft's."""
    direction = "ahead of" if skew > 0 else "behind"
    return f"This machine's clock is {abs(skew) / 60:.0f} min {direction} Microsoft's."


def _issuer(pem: str) -> str:
    from cryptography import x509

    return x509.load_pem_x509_certificate(pem.encode()).issuer.rfc4514_string()


def _quiet_msal() -> None:
    """msal logs whole replies with a traceback; whatever matters of them is in our error already."""
    logging.getLogger("msal").setLevel(logging.CRITICAL + 1)


class _Application:
    """An app registration with secret, certificate or federated token: the client credentials flow."""

    def __init__(self, upstream: Upstream, http: Http) -> None:
        """Does network I/O (tenant discovery), so build it in the thread and be ready for any error."""
        import msal

        _quiet_msal()
        self._scopes = {Resource.SMTP: upstream.smtp_scope, Resource.GRAPH: upstream.graph_scope}
        self._app: Any = msal.ConfidentialClientApplication(
            upstream.client_id,
            client_credential=credentials.for_msal(upstream.credential),
            authority=f"{upstream.authority}/{upstream.tenant_id}",
            instance_discovery=False,  # its extra request can hide the AADSTS error
            azure_region=False,  # ignore MSAL_FORCE_REGION: regional endpoints are Microsoft's own
            http_client=http,
        )

    def ask(self, resource: Resource) -> dict[str, object]:
        # our own store decides when a token is old; msal's cache would hand the same one back
        self._app.remove_tokens_for_client()
        result: dict[str, object] = self._app.acquire_token_for_client(scopes=[self._scopes[resource]])
        return result


class _Identity:
    """The managed identity of this Azure machine. A new msal client each time: no I/O to build, no stale cache."""

    def __init__(self, upstream: Upstream, http: Http) -> None:
        assert isinstance(upstream.credential, ManagedIdentity)
        self._client_id = upstream.credential.client_id
        self._scopes = {Resource.SMTP: upstream.smtp_scope, Resource.GRAPH: upstream.graph_scope}
        self._http = http

    def ask(self, resource: Resource) -> dict[str, object]:
        import msal

        _quiet_msal()
        who = (
            msal.UserAssignedManagedIdentity(client_id=self._client_id)
            if self._client_id
            else msal.SystemAssignedManagedIdentity()
        )
        # Service Fabric pins its endpoint's certificate by a session of its own, made from a requests one
        http = self._http.session if _SERVICE_FABRIC in os.environ else self._http
        client = msal.ManagedIdentityClient(who, http_client=http)
        wanted = self._scopes[resource].removesuffix("/.default")
        result: dict[str, object] = client.acquire_token_for_client(resource=wanted)
        return result
