"""Why there is no token: one `Reason` for each cause, with what to do about it.

The rows for Entra's own refusals (AADSTS codes) are in `relay.tokens.aadsts`; here are the shape of a row and the
causes found on our side of the wire: network, TLS, proxy, clock, and the credential's own files. ``docs/tokens.md``
shows both tables, and a test keeps it equal to the data.
"""

from __future__ import annotations

from dataclasses import dataclass

from relay.errors import TokenError

APP = "Microsoft Entra admin center > Applications > App registrations > your application"
ENTERPRISE = "Microsoft Entra admin center > Applications > Enterprise applications > your application"


@dataclass(frozen=True, slots=True)
class Reason:
    """One cause: ``says`` in plain words, ``remedy`` with the place, ``temporary`` when waiting can help."""

    slug: str
    says: str
    remedy: str
    temporary: bool = False
    codes: tuple[int, ...] = ()
    """AADSTS numbers that mean this; empty for causes on our side."""

    def error(self, *, evidence: str = "", hint: str = "", says: str = "") -> TokenError:
        """The error to raise; ``hint`` is put behind the remedy, ``says`` replaces the plain sentence."""
        remedy = f"{self.remedy} {hint}".strip()
        return TokenError(
            says or self.says, code=self.slug, remedy=remedy, temporary=self.temporary, evidence=evidence
        )


LOCAL: tuple[Reason, ...] = (
    Reason(
        "dns-failure",
        "The name of the sign-in server could not be resolved.",
        "Check this machine's DNS, and that it may resolve the host of `authority`; behind a proxy set `proxy`.",
        temporary=True,
    ),
    Reason(
        "connection-refused",
        "The sign-in server could not be reached: the connection was refused or there is no route.",
        "Allow outbound TCP 443 to the host of `authority` in the firewall, or set `proxy`.",
        temporary=True,
    ),
    Reason(
        "connection-lost",
        "The connection to the sign-in server broke.",
        "It is tried again by itself. If it stays, look for a firewall or proxy that cuts TLS connections.",
        temporary=True,
    ),
    Reason(
        "timed-out",
        "The sign-in server did not answer in time.",
        "It is tried again by itself. If it stays, allow outbound TCP 443 to the host of `authority`, or set `proxy`.",
        temporary=True,
    ),
    Reason(
        "tls-not-trusted",
        "The sign-in server's certificate is not trusted by this machine.",
        "Usually a proxy or firewall opens TLS: exempt the host of `authority` from inspection, or put the "
        "inspecting authority's certificate into a PEM file and name it in `ca_file`.",
        temporary=True,
    ),
    Reason(
        "tls-clock",
        "The sign-in server's certificate is outside its dates by this machine's clock.",
        "Set this machine's clock (NTP). If the clock is right, a proxy presents an expired certificate.",
        temporary=True,
    ),
    Reason(
        "tls-failure",
        "No TLS connection to the sign-in server could be made.",
        "TLS 1.2 or newer must be possible to the host of `authority`; look at proxies and firewalls in between.",
        temporary=True,
    ),
    Reason(
        "proxy-authentication",
        "The proxy asks for a user name and a password.",
        "Write them into `proxy` as http://user:password@host:port, or exempt the host of `authority`.",
        temporary=True,
    ),
    Reason(
        "proxy-failure",
        "The proxy did not let the request through.",
        "Check `proxy` (host and port), and allow CONNECT to the host of `authority` on port 443 there.",
        temporary=True,
    ),
    Reason(
        "not-entra",
        "Something other than Entra answered: the reply is not what a token service sends.",
        "Check `authority`; look for a captive portal or filtering proxy in front of it.",
        temporary=True,
    ),
    Reason(
        "entra-throttled",
        "Entra limits our requests for the moment.",
        "It is tried again by itself, after the time Entra asked for.",
        temporary=True,
    ),
    Reason(
        "entra-down",
        "Entra answered with a server error.",
        "It is tried again by itself. See the Microsoft 365 service health page if it stays.",
        temporary=True,
    ),
    Reason(
        "ca-file",
        "The file named in `ca_file` cannot be used.",
        "It must be readable and hold one or more certificates in PEM form.",
    ),
    Reason(
        "certificate-missing",
        "The file named in `certificate` cannot be read.",
        "Check its path, and that the relay's user may read it.",
    ),
    Reason(
        "certificate-passphrase",
        "The certificate's passphrase is missing or wrong.",
        "Correct `certificate: passphrase`.",
    ),
    Reason(
        "certificate-unusable",
        "The certificate file does not hold what is needed.",
        "It must be a PFX, or a PEM with an RSA private key and the certificate that belongs to it.",
    ),
    Reason(
        "federated-token-file",
        "The file named in `federated_token_file` cannot be used.",
        "Check its path, that the relay's user may read it, and that the platform (Kubernetes workload identity, "
        "for instance) puts the token there.",
    ),
    Reason(
        "identity-unreachable",
        "The managed identity service of this machine does not answer.",
        "`managed_identity` works only on Azure (VM, App Service, Functions, Arc, Service Fabric); elsewhere use "
        "`certificate` or `client_secret`.",
        temporary=True,
    ),
    Reason(
        "identity-refused",
        "The managed identity service refused: there is no such identity on this machine, or it is not allowed.",
        "Switch the system-assigned identity on, or assign the user-assigned one, under Azure portal > the machine "
        "> Security > Identity, and compare its client id with `managed_identity`.",
    ),
    Reason(
        "directory-denied",
        "Microsoft Graph does not let this application read or change its own registration.",
        "Grant the application permission Application.Read.All of Microsoft Graph (steps 3 and 4), or do without it: "
        "docs/credentials.md says how.",
    ),
    Reason(
        "directory-refused",
        "Microsoft Graph refused the change of the app registration.",
        f"Step 5: {APP} > Certificates & secrets > Certificates > Upload certificate, by hand; and compare "
        "`certificate: object_id` with the Object ID on the registration's Overview page.",
    ),
    Reason(
        "directory-unreachable",
        "Microsoft Graph could not be asked about the app registration.",
        "It is tried again by itself. If it stays, allow outbound TCP 443 to the host of `graph_url`, or set `proxy`.",
        temporary=True,
    ),
    Reason(
        "object-id-unknown",
        "The Object ID of the app registration is not known, and rotating its certificate needs it.",
        f"Set `certificate: object_id` to the Object ID that step 6 shows ({APP} > Overview; not the one of the "
        "Enterprise application), or grant Application.Read.All.",
    ),
    Reason(
        "rotation-no-certificate",
        "This upstream has no certificate that could be rotated.",
        "Make one with `relay certificate new` and name it in `certificate: file`.",
    ),
    Reason(
        "rotation-needs-pem",
        "Only a certificate in a PEM file can be rotated.",
        "Make a new one with `relay certificate new`, upload it, and name it in `certificate: file`.",
    ),
    Reason(
        "rotation-pending",
        "The new certificate is registered, but Entra does not take it yet. The old one stays in use.",
        "It is tried again by itself; it usually takes a few minutes.",
        temporary=True,
    ),
    Reason(
        "rotation-busy",
        "Another process is rotating this certificate.",
        "Wait until it has finished; `relay certificate show` tells the result.",
        temporary=True,
    ),
    Reason(
        "certificate-read-only",
        "The certificate's file cannot be replaced.",
        "The relay's user must be able to write the file and its folder: keep it in /var/lib/relay, for instance.",
    ),
    Reason(
        "user-login-missing",
        "No user has signed in yet.",
        "Run `relay login` on this machine, and sign in as the mailbox's user.",
    ),
    Reason(
        "user-login-unreadable",
        "The file of the user's sign-in cannot be used.",
        "Check that the relay's user may read it and its key, and that the key is the one it was written with; "
        "otherwise run `relay login` again.",
    ),
    Reason(
        "user-login-unwritable",
        "The file of the user's sign-in cannot be written.",
        "The relay's user must be able to write `user_login: file` and its folder: keep it in /var/lib/relay.",
    ),
    Reason(
        "user-login-other",
        "The sign-in that is kept belongs to another application or tenant.",
        "Run `relay login` again: `client_id` or `tenant_id` were changed since.",
    ),
    Reason(
        "user-login-other-user",
        "Somebody else than the mailbox's user signed in; nothing was kept.",
        "Run `relay login` again and choose the mailbox's user. If that user signs in by another name than the "
        "mailbox's address, give it with `--user`.",
    ),
    Reason(
        "user-login-no-refresh",
        "The sign-in brought nothing that could be kept.",
        f"Steps 3 and 4: {APP} > API permissions: the delegated permission offline_access must be allowed.",
    ),
    Reason(
        "user-login-again",
        "Entra wants the user to sign in again.",
        "Run `relay login` again. If it is refused there, too, check that the account is enabled, its password current, "
        "and that Conditional Access allows this application.",
    ),
    Reason(
        "user-declined",
        "The sign-in was declined in the browser.",
        "Run `relay login` again and accept; if Entra asks for an administrator's approval, step 4 gives it.",
    ),
    Reason(
        "public-client-off",
        "The application does not allow users to sign in by a code.",
        f"Step 2: {APP} > Authentication > Settings > Allow public client flows: Enabled, Save. Then run "
        "`relay login` again.",
    ),
    Reason(
        "ids-swapped",
        "`tenant_id` and `client_id` are swapped.",
        f"Exchange them. Step 6: {APP} > Overview shows Application (client) ID and Directory (tenant) ID.",
    ),
    Reason(
        "closed",
        "The relay is stopping.",
        "Nothing to do: mail stays queued.",
        temporary=True,
    ),
    Reason(
        "internal",
        "Asking for a token failed in an unforeseen way.",
        "It is tried again by itself. Please report it with the evidence shown.",
        temporary=True,
    ),
)  # fmt: skip

_BY_SLUG = {reason.slug: reason for reason in LOCAL}


def local(slug: str) -> Reason:
    """The row of that slug; KeyError when there is none (a fault of the code, found by tests)."""
    return _BY_SLUG[slug]
