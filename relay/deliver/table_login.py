"""Replies about who we are: the facts' section 1.2, in the order in which they are tried.

Nothing here ever bounces a message: every row is an administrator's to mend, or passes by itself.
The remedies name the exact place; most Exchange changes take 30 minutes to 2 hours to show.
"""

from __future__ import annotations

from relay.deliver.phases import ANY, LOGIN, MAILING, Phase
from relay.deliver.row import Row
from relay.message import Result, Scope

AUTH_MAIL = frozenset({Phase.AUTH, Phase.MAIL})
PROBE = 900.0
"""Seconds between probes of a refused login: facts 1.2, every 10 to 15 minutes."""

REFUSED_REMEDY = (
    "With Graph's Mail.Send granted, transport: auto (or graph) needs none of this. For SMTP, either grant the app"
    " SMTP.SendAsApp (Entra admin center, App registrations, API permissions, APIs my organization uses, Office 365"
    " Exchange Online, Application permissions, then Grant admin consent) and in Exchange Online PowerShell run"
    " New-ServicePrincipal -AppId <client id> -ObjectId <object id of the Enterprise application> and"
    " Add-MailboxPermission -Identity <mailbox> -User <service principal> -AccessRights FullAccess; or assign the"
    " Exchange role: New-ManagementRoleAssignment -Role 'Application SMTP.SendAsApp' -App <client id>."
    " Changes take up to 2 hours."
)


def _held(code: str, replies: str, enhanced: str, text: str, scope: Scope, reason: str, remedy: str) -> Row:
    return Row(
        code,
        AUTH_MAIL,
        replies,
        enhanced,
        text,
        Result.HELD,
        scope,
        reason,
        remedy,
        wait=PROBE,
        counts=False,
        source="1.2",
    )


LOGIN_ROWS: tuple[Row, ...] = (
    _held("smtp-auth-disabled-tenant", "535", r"5\.7\.139", "disabled for the tenant", Scope.UPSTREAM,
          "SMTP AUTH is switched off for the whole tenant, and the mailbox does not override it.",
          "In Exchange Online PowerShell run Set-CASMailbox <mailbox> -SmtpClientAuthenticationDisabled $false (this"
          " mailbox only), or Set-TransportConfig -SmtpClientAuthenticationDisabled $false (everybody); or in the"
          " Exchange admin center, Settings, Mail flow, clear Turn off SMTP AUTH protocol. Or grant Graph's Mail.Send and"
          " set transport: auto."),
    _held("smtp-auth-disabled-mailbox", "535", r"5\.7\.139", "disabled for the mailbox", Scope.LANE,
          "SMTP AUTH is switched off for the mailbox <mailbox>.",
          "In Exchange Online PowerShell run Set-CASMailbox <mailbox> -SmtpClientAuthenticationDisabled $false, or in"
          " the Microsoft 365 admin center, Users, <mailbox>, Mail, Manage email apps, tick Authenticated SMTP."),
    _held("basic-auth-disabled", "535", r"5\.7\.139", "basic authentication is disabled", Scope.UPSTREAM,
          "Exchange took the login for a password login, and those are switched off.",
          "Point host at smtp.office365.com itself: something in between logs in with a password instead of OAuth2."),
    _held("security-defaults", "535", r"5\.7\.139", "security defaults policy", Scope.UPSTREAM,
          "Security defaults of the tenant block SMTP AUTH.",
          "In the Entra admin center, Overview, Properties, Manage security defaults, replace them by Conditional"
          " Access policies; or grant Graph's Mail.Send and set transport: auto, since Graph is not affected."),
    _held("conditional-access", "535", r"5\.7\.139", "did not meet the criteria", Scope.UPSTREAM,
          "A Conditional Access or other tenant policy refused the login; it can depend on the public IP address"
          " this machine sends from.",
          "In the Entra admin center, Protection, Conditional Access, look at Sign-in logs, Service principal"
          " sign-ins, and exclude the app or allow this machine's public IP address."),
    _held("federated-sign-in", "535", r"5\.7\.139", r"federated|\bSTS\b|not https", Scope.UPSTREAM,
          "The tenant signs in through its own federation server, which Exchange could not use.",
          "Use client credentials of this tenant (tenant_id, client_id), and set host to smtp.office365.com itself:"
          " only password logins go through the federation server."),
    _held("credentials-incorrect", "535", r"5\.7\.139", "user credentials were incorrect", Scope.LANE,
          "Exchange took the login for a password login and found the password wrong.",
          "Set host to smtp.office365.com itself, and check that the mailbox <mailbox> exists."),
    _held("login-policy", "535", r"5\.7\.139", "", Scope.LANE,
          "A policy of the tenant refused the login of <mailbox>.",
          "In the Entra admin center, Monitoring, Sign-in logs, Service principal sign-ins, find the refusal and the"
          " policy behind it; check Set-CASMailbox <mailbox> -SmtpClientAuthenticationDisabled $false."),
    _held("authentication-refused", "535", "", "", Scope.LANE,
          "Exchange refused the token for <mailbox>: the permission is missing, the service principal is registered"
          " with the wrong object id, or the mailbox does not exist.",
          REFUSED_REMEDY),
    _held("not-authenticated", "530", r"5\.7\.57", "", Scope.LANE,
          "Exchange wants a login before mail from <mailbox>, although it took one.",
          REFUSED_REMEDY),
    Row("basic-auth-retired", ANY, "550", r"5\.7\.30", "", Result.HELD, Scope.UPSTREAM,
        "Exchange took the login for a password login, which it no longer accepts from this tenant.",
        "Point host at smtp.office365.com itself: something in between logs in with a password instead of OAuth2.",
        wait=PROBE, counts=False, source="1.2"),
    Row("mechanism-refused", ANY, "504", r"5\.7\.4", "", Result.HELD, Scope.UPSTREAM,
        "The server does not take XOAUTH2 logins here.",
        "Set host to smtp.office365.com and port to 587, and take SMTP inspection off the firewall: it removes"
        " commands it does not know.",
        wait=PROBE, counts=False, source="1.2"),
    Row("login-temporarily-refused", LOGIN, "454", r"4\.7\.0", "", Result.DEFERRED, Scope.LANE,
        "Exchange could not check the login just now.", "", wait=60, counts=False, source="1.2"),
    Row("server-busy-at-login", LOGIN, "451", r"4\.7\.0", "", Result.DEFERRED, Scope.LANE,
        "Exchange has a temporary fault.", "", wait=60, counts=False, source="1.2"),
    Row("server-busy", MAILING, "45[14]", r"4\.7\.0", "", Result.DEFERRED, Scope.MESSAGE,
        "Exchange has a temporary fault.", "", source="1.2, 3.2"),
    Row("tls-too-old", ANY, "421", r"4\.7\.66", "", Result.HELD, Scope.UPSTREAM,
        "Exchange saw TLS 1.0 or 1.1, which this relay does not speak: a device in between does.",
        "Take TLS inspection of port 587 off the firewall or proxy, or let it speak TLS 1.2 or newer.",
        wait=PROBE, counts=False, source="1.2"),
)  # fmt: skip
