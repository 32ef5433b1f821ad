"""Entra's refusals as one table: AADSTS number, what it means, what to do and where.

Source: Microsoft, "Microsoft Entra authentication and authorization error codes" (reference-error-codes), and what
the field adds to it. Microsoft asks programs to act on ``error`` and to use the numbers for hints only: so the
number picks the sentence and the remedy, and where it is unknown ``error`` decides.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from relay.tokens.reasons import APP, ENTERPRISE, Reason

_CLOUD = "`cloud` (or `authority`)"

REASONS: tuple[Reason, ...] = (
    Reason(
        "secret-wrong",
        "The client secret is wrong.",
        f"Step 5: {APP} > Certificates & secrets > Client secrets: create a new one and copy its Value at once "
        "(not its Secret ID; the Value is never shown again) into `client_secret`.",
        codes=(7000215,),
    ),
    Reason(
        "secret-expired",
        "The client secret has expired.",
        f"Step 5: {APP} > Certificates & secrets > New client secret; put its Value into `client_secret` and its "
        "day of expiry into `client_secret_expires`. A certificate instead lasts longer.",
        codes=(7000222,),
    ),
    Reason(
        "credential-missing",
        "The request carried no credential.",
        "Step 5: set `client_secret` (or `certificate`, `managed_identity`, `federated_token_file`), and look "
        "whether its source (environment variable, file) is empty.",
        codes=(7000218,),
    ),
    Reason(
        "service-principal-missing",
        "The application is known, but it has no service principal in this tenant.",
        f"Step 4: {APP} > API permissions > Grant admin consent creates it. If the application belongs to another "
        "tenant, compare `tenant_id` with step 6.",
        codes=(7000229,),
    ),
    Reason(
        "application-unknown",
        "There is no application with this client id in this tenant.",
        f"Step 6: {APP} > Overview: compare Application (client) ID with `client_id` (the Object ID is not it) and "
        f"Directory (tenant) ID with `tenant_id`; they are easily swapped. For a sovereign cloud check {_CLOUD}.",
        codes=(700016,),
    ),
    Reason(
        "application-disabled",
        "The application is disabled in this tenant.",
        f"{ENTERPRISE} > Properties: set Enabled for users to sign-in to Yes. If Microsoft disabled it, that page "
        "says so.",
        codes=(70001, 7000112),
    ),
    Reason(
        "tenant-unknown",
        "There is no tenant with this id.",
        f"Step 6: {APP} > Overview: copy Directory (tenant) ID into `tenant_id`; it is easily swapped with the "
        f"Application (client) ID. For a sovereign cloud check {_CLOUD}.",
        codes=(90002,),
    ),
    Reason(
        "tenant-malformed",
        "The tenant id is not well formed.",
        f"Step 6: {APP} > Overview: copy Directory (tenant) ID, 36 characters with four hyphens, into `tenant_id`.",
        codes=(900023,),
    ),
    Reason(
        "tenant-in-other-cloud",
        "The tenant lives in another Microsoft cloud.",
        f"Set {_CLOUD} to the tenant's: public, gcc-high, dod or china.",
        codes=(90038, 900382, 900432),
    ),
    Reason(
        "tenant-needed",
        "The request does not name one tenant.",
        f"Step 6: {APP} > Overview: `tenant_id` must be the Directory (tenant) ID, not `common` or "
        "`organizations`, and `authority` must not end in a tenant.",
        codes=(50059, 90019, 50194, 9001023, 90130),
    ),
    Reason(
        "scope-wrong",
        "The requested scope is not acceptable.",
        f"Check {_CLOUD}: the scope follows from it and must be one resource followed by /.default.",
        codes=(1002012, 70011, 28002, 700022, 700023),
    ),
    Reason(
        "resource-unknown",
        "The tenant does not know the service the token is for.",
        f"Check {_CLOUD}, and that the tenant has an Exchange Online subscription (step 0).",
        codes=(500011,),
    ),
    Reason(
        "resource-not-granted",
        "The tenant is not subscribed to the service, or the application does not list it.",
        f"Step 3: {APP} > API permissions > Add a permission; and check the Exchange Online subscription (step 0).",
        codes=(650052, 650057),
    ),
    Reason(
        "consent-missing",
        "Nobody has granted admin consent to the application's permissions.",
        f"Step 4: {APP} > API permissions > Grant admin consent, Yes.",
        codes=(65001, 650056, 90094),
    ),
    Reason(
        "conditional-access",
        "A Conditional Access policy blocks the application.",
        "Microsoft Entra admin center > Protection > Conditional Access > Policies: exclude the application from "
        "policies for workload identities, or allow the address this machine has on the Internet.",
        codes=(53003, 530032),
    ),
    Reason(
        "security-defaults",
        "Security defaults block this way of signing in.",
        "They block user passwords only: check that `client_secret`, `certificate` or another application "
        "credential is set (step 5).",
        codes=(530035,),
    ),
    Reason(
        "user-sign-in",
        "Entra took this for a user's sign-in.",
        f"The relay signs in as an application: `client_id` must be the Application (client) ID of step 6 ({APP} > "
        "Overview) and the credential that of step 5.",
        codes=(50034, 50126, 50055, 50057, 50076, 50079),
    ),
    Reason(
        "user-login-lapsed",
        "The user's sign-in has ended: revoked, the password changed, or not used for 90 days.",
        "Run `relay login` again on this machine, and sign in as the mailbox's user.",
        codes=(700082, 700084, 50173, 70008, 70043, 50132, 50133, 50078),
    ),
    Reason(
        "device-code-expired",
        "Nobody signed in before the code ended.",
        "Run `relay login` again, and enter the new code within 15 minutes.",
        codes=(70019, 70020),
    ),
    Reason(
        "assignment-required",
        "The application must be assigned before it may sign in.",
        f"{ENTERPRISE} > Properties: set Assignment required to No, or assign it under Users and groups.",
        codes=(50105, 501051),
    ),
    Reason(
        "certificate-unknown",
        "Entra does not know this certificate.",
        f"Step 5: {APP} > Certificates & secrets > Certificates > Upload certificate: the public part (.cer or .pem) "
        "of exactly the one in `certificate`; compare thumbprint and expiry.",
        codes=(700027, 50012),
    ),
    Reason(
        "clock-wrong",
        "The signed request is outside its time range: this machine's clock is probably wrong.",
        "Set this machine's clock (NTP).",
        codes=(700024, 500133, 50013),
    ),
    Reason(
        "certificate-subject",
        "The certificate's subject name is not authorised.",
        f"Step 5: {APP} > Certificates & secrets > Certificates: upload this very certificate, or correct the "
        "trusted subject name and issuer.",
        codes=(700030,),
    ),
    Reason(
        "federation-mismatch",
        "No federated credential of the application matches the token from the file.",
        f"Step 5: {APP} > Certificates & secrets > Federated credentials: issuer, subject and audience must equal "
        "iss, sub and aud of the token in `federated_token_file`.",
        codes=(700213, 70021),
    ),
    Reason(
        "federation-user-token",
        "The token in the file belongs to a user, not to a workload.",
        "`federated_token_file` must hold the workload's own token, such as a Kubernetes service account's.",
        codes=(700229,),
    ),
    Reason(
        "request-loop",
        "Entra saw too many equal requests.",
        "The relay slows down by itself. Look for other programs that use the same application (step 6).",
        temporary=True,
        codes=(50196,),
    ),
    Reason(
        "entra-busy",
        "Entra cannot answer for the moment.",
        "It is tried again by itself. See the Microsoft 365 service health page if it stays.",
        temporary=True,
        codes=(90055, 90033, 90006, 90012, 90024, 50033, 50000),
    ),
)  # fmt: skip

UNKNOWN = Reason(
    "entra-refused",
    "Entra refused the request.",
    "Look the AADSTS number up at https://login.microsoftonline.com/error, and go through steps 3 to 6 again.",
)

_BY_CODE = {code: reason for reason in REASONS for code in reason.codes}
_BY_SLUG = {reason.slug: reason for reason in (*REASONS, UNKNOWN)}

BY_OAUTH_ERROR: dict[str, str] = {
    "temporarily_unavailable": "entra-busy",
    "server_error": "entra-busy",
    "invalid_scope": "scope-wrong",
    "invalid_resource": "resource-unknown",
}
"""RFC 6749 section 5.2 ``error`` values that say enough without a known number."""

_CODE = re.compile(r"AADSTS(\d{4,8})")


def reason(slug: str) -> Reason:
    """The row of that slug; KeyError when there is none."""
    return _BY_SLUG[slug]


def codes_in(text: str) -> list[int]:
    """The AADSTS numbers in a text, in order."""
    return [int(number) for number in _CODE.findall(text)]


def look_up(codes: Iterable[int], error: str = "") -> Reason:
    """The first number that is known decides, else ``error`` (RFC 6749), else `UNKNOWN`."""
    for code in codes:
        if code in _BY_CODE:
            return _BY_CODE[code]
    slug = BY_OAUTH_ERROR.get(error)
    return _BY_SLUG[slug] if slug else UNKNOWN
