"""The refusals of Entra's token service, one function for each, in the words of Microsoft's AADSTS reference."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Mapping

from relay.simulator.entra_codes import CODES, UNKNOWN


class EntraError(Exception):
    """A refusal: OAuth ``error``, AADSTS number, text, HTTP status, and headers such as Retry-After."""

    def __init__(
        self, error: str, code: int, text: str, status: int = 400, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(f"AADSTS{code}: {text}")
        self.error, self.code, self.text, self.status = error, code, text, status
        self.headers = dict(headers or {})

    def to_json(self, authority: str, now: float, correlation_id: str | None) -> dict[str, object]:
        """The body of the answer; ``now`` is Unix time."""
        trace, correlation = str(uuid.uuid4()), correlation_id or str(uuid.uuid4())
        stamp = datetime.datetime.fromtimestamp(now, datetime.UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        return {
            "error": self.error,
            "error_description": f"AADSTS{self.code}: {self.text} Trace ID: {trace} "
            f"Correlation ID: {correlation} Timestamp: {stamp}",
            "error_codes": [self.code],
            "timestamp": stamp,
            "trace_id": trace,
            "correlation_id": correlation,
            "error_uri": f"{authority}/error?code={self.code}",
        }


def missing_parameter(name: str) -> EntraError:
    """900144: a form field is not there."""
    return EntraError(
        "invalid_request", 900144, f"The request body must contain the following parameter: '{name}'."
    )


def unsupported_grant(grant: str) -> EntraError:
    """70003: another flow than client credentials."""
    return EntraError(
        "unsupported_grant_type", 70003, f"The app requested an unsupported grant type '{grant}'."
    )


def tenant_not_found(tenant: str) -> EntraError:
    """90002: unknown tenant, in discovery and at the token endpoint."""
    return EntraError(
        "invalid_tenant",
        90002,
        f"Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID and are signing into "
        "the correct cloud. Check with your subscription administrator, this may happen if there are no active "
        "subscriptions for the tenant.",
    )


def tenant_malformed(tenant: str) -> EntraError:
    """900023: neither a GUID nor a domain name."""
    return EntraError(
        "invalid_request",
        900023,
        f"Specified tenant identifier '{tenant}' is neither a valid DNS name, nor a valid external domain.",
    )


def common_not_allowed(tenant: str) -> EntraError:
    """9001023: client credentials need the tenant in the address."""
    return EntraError(
        "invalid_request",
        9001023,
        f"The grant type is not supported over the /common or /consumers endpoints ('{tenant}'). "
        "Please use the /organizations or tenant-specific endpoint.",
    )


def app_not_found(client_id: str, tenant: str) -> EntraError:
    """700016: no such application in this tenant."""
    return EntraError(
        "unauthorized_client",
        700016,
        f"Application with identifier '{client_id}' was not found in the directory '{tenant}'. This can happen if "
        "the application has not been installed by the administrator of the tenant or consented to by any user in "
        "the tenant. You may have sent your authentication request to the wrong tenant.",
    )


def app_disabled(client_id: str) -> EntraError:
    """7000112: the enterprise application is switched off."""
    return EntraError("unauthorized_client", 7000112, f"Application '{client_id}' is disabled.")


def no_service_principal(client_id: str) -> EntraError:
    """7000229: registered, but never consented to in this tenant."""
    text = f"The client application {client_id} is missing service principal in the tenant."
    return EntraError("invalid_client", 7000229, text, 401)


def no_credential() -> EntraError:
    """7000218: neither secret nor assertion."""
    text = "The request body must contain the following parameter: 'client_assertion' or 'client_secret'."
    return EntraError("invalid_client", 7000218, text, 401)


def wrong_secret(client_id: str) -> EntraError:
    """7000215."""
    text = (
        "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, "
        f"not the client secret ID, for a secret added to app '{client_id}'."
    )
    return EntraError("invalid_client", 7000215, text, 401)


def expired_secret(client_id: str) -> EntraError:
    """7000222."""
    text = (
        f"The provided client secret keys for app '{client_id}' are expired. Visit the Azure portal to create new "
        "keys for your app: https://aka.ms/NewClientSecret, or consider using certificate credentials for added "
        "security: https://aka.ms/certCreds."
    )
    return EntraError("invalid_client", 7000222, text, 401)


def unknown_certificate(reason: str) -> EntraError:
    """700027: the assertion's certificate is not registered, or its signature does not fit."""
    text = (
        f"The certificate with identifier used to sign the client assertion is not valid. [Reason - {reason}]"
    )
    return EntraError("invalid_client", 700027, text, 401)


def assertion_out_of_time() -> EntraError:
    """700024: ``nbf``/``exp`` do not hold now."""
    return EntraError("invalid_client", 700024, "Client assertion is not within its valid time range.", 401)


def assertion_malformed(reason: str) -> EntraError:
    """50027: no JWT at all."""
    return EntraError("invalid_request", 50027, f"JWT token is invalid or malformed. {reason}")


def federation_unmatched(issuer: object, subject: object) -> EntraError:
    """700213: no federated credential of this issuer and subject."""
    text = f"No matching federated identity record found for presented assertion subject '{subject}', issuer '{issuer}'."
    return EntraError("invalid_client", 700213, text, 401)


def scope_not_default(scope: str) -> EntraError:
    """1002012: client credentials take ``<resource>/.default`` and nothing else."""
    return EntraError(
        "invalid_scope",
        1002012,
        f"The provided value for scope {scope} is not valid. Client credential flows must have a scope value with "
        "/.default suffixed to the resource identifier (application ID URI).",
    )


def several_scopes(scope: str) -> EntraError:
    """70011: more than one resource, or a list that cannot be read."""
    return EntraError(
        "invalid_scope",
        70011,
        f"The provided request must include a 'scope' input parameter of one resource: {scope}.",
    )


def unknown_resource(resource: str) -> EntraError:
    """500011: nobody of that name in the tenant (or in this cloud)."""
    return EntraError(
        "invalid_resource",
        500011,
        f"The resource principal named {resource} was not found in the tenant. This can happen if the application "
        "has not been installed by the administrator of the tenant or consented to by any user in the tenant.",
    )


def by_number(code: int, text: str = "", status: int = 0) -> EntraError:
    """A refusal by its AADSTS number alone; text and status only where they shall differ from the usual."""
    error, usual_status, usual_text = CODES.get(code, UNKNOWN)
    return EntraError(error, code, text or usual_text, status or usual_status)


def blocked_by_policy() -> EntraError:
    """53003: Conditional Access, for workload identities or users."""
    text = "The access policy does not allow token issuance."
    return by_number(53003, f"Access has been blocked by Conditional Access policies. {text}")


def expired_certificate() -> EntraError:
    """700027 once more: the certificate is registered, but its dates are over."""
    return unknown_certificate("The key used is expired.")


def authorization_pending() -> EntraError:
    """70016: the user has not entered the code yet."""
    text = "The provided request has not yet been authorized by the user. The user must input their code."
    return EntraError("authorization_pending", 70016, text)


def slow_down() -> EntraError:
    """RFC 8628 section 3.5: polled before the interval was over (Entra's number for it is unverified)."""
    return EntraError("slow_down", 70016, "The device code is asked for too often: wait longer.")


def authorization_declined() -> EntraError:
    """65004: the user said no."""
    return EntraError("authorization_declined", 65004, "User declined to consent to access the app.")


def device_code_expired() -> EntraError:
    """70020: nobody entered the code in time."""
    return EntraError("expired_token", 70020, "The device code has expired.")


def bad_device_code() -> EntraError:
    """70018: no such device code."""
    return EntraError("bad_verification_code", 70018, "The device code is not valid.")


def bad_refresh_token() -> EntraError:
    """9002313: no refresh token of this tenant and app."""
    text = "Invalid request. Request is malformed or invalid."
    return EntraError("invalid_grant", 9002313, text)


def refresh_token_inactive(issued: str, days: float) -> EntraError:
    """700082: not used for so long."""
    text = (
        "The refresh token has expired due to inactivity. "
        f"The token was issued on {issued} and was inactive for {days:.0f} days."
    )
    return EntraError("invalid_grant", 700082, text)


def refresh_token_revoked(issued: str, valid_from: str) -> EntraError:
    """50173: the password was changed, or an administrator revoked the sessions."""
    text = (
        "The provided grant has expired due to it being revoked, a fresh auth token is needed. The user might have "
        f"changed or reset their password. The grant was issued on '{issued}' and the TokensValidFrom date (before "
        f"which tokens are not valid) for this user is '{valid_from}'."
    )
    return EntraError("invalid_grant", 50173, text)
