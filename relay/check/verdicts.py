"""From what was seen to a step: the sentences and remedies about tokens, logins and Graph, with the ids filled in."""

from __future__ import annotations

import re
from dataclasses import replace

from relay.check import catalogue
from relay.check.contract import Status, Step
from relay.check.graph import Answer
from relay.check.powershell import CONNECT, PATIENCE, App, quote
from relay.deliver.login import USER_REMEDY
from relay.errors import TokenError
from relay.message import Outcome, Result
from relay.settings import Upstream
from relay.tokens.contract import Token
from relay.tokens.reasons import APP

REFUSED = frozenset({"authentication-refused", "not-authenticated"})
"""Exchange's catch-all: it does not say which of several things is missing (facts 1.2)."""
SLOW_TO_SHOW = frozenset({"smtp-auth-disabled-tenant", "smtp-auth-disabled-mailbox", "login-policy"})
OF_THE_NETWORK = frozenset({
    "dns-failure", "connection-refused", "connection-lost", "timed-out", "tls-not-trusted", "tls-failure",
    "proxy-authentication", "proxy-failure", "not-entra",
})  # fmt: skip
_STEP = re.compile(r"[Ss]teps? (\d)")


def app_of(upstream: Upstream, *tokens: Token | None) -> App:
    """The application with what its tokens tell of it: `oid` is the object id that Exchange wants (facts 1.6)."""
    found = next((str(one.claims["oid"]) for one in tokens if one and one.claims.get("oid")), "")
    return App(upstream.client_id, found)


def filled(remedy: str, upstream: Upstream) -> str:
    """A remedy of the tokens room with the application named by its id."""
    return remedy.replace("your application", f"the application with client ID {upstream.client_id}")


def token_failed(kind: catalogue.Kind, error: TokenError, upstream: Upstream, about: str) -> Step:
    """No token: the reason's own words and remedy, and the guide's step it names."""
    seen = f"{error} [{error.code}]" + (f" The answer: {error.evidence}" if error.evidence else "")
    remedy = filled(error.remedy, upstream)
    plain = kind.step(Status.FAIL, seen, remedy, about=about)
    return replace(plain, guide_step=_guide_step(error))


def _guide_step(error: TokenError) -> int | None:
    """The step that the remedy names; the guide's step 0 for the network; None where the guide has none."""
    named = _STEP.search(error.remedy)
    if named is not None:
        return int(named[1])
    return 0 if error.code in OF_THE_NETWORK else None


# logins


def login_step(
    outcome: Outcome | None,
    mailbox: str,
    app: App,
    smtp: Token,
    *,
    about: str,
    others_in: bool,
    graph_ready: bool,
) -> Step:
    """One mailbox's login. ``others_in``: another mailbox of the app got in, so Exchange knows the app."""
    if outcome is None:
        return catalogue.SMTP_LOGIN.step(Status.OK, "Exchange took the login (235)", about=about)
    said = f" Exchange said: {outcome.reply}" if outcome.reply is not None else ""
    temporary = outcome.result is Result.DEFERRED and outcome.reply is not None
    if outcome.code in REFUSED:
        reason = f"Exchange refused the token for {mailbox}."
        of_user = bool(smtp.scopes)
        remedy = (
            USER_REMEDY.format(mailbox=mailbox)
            if of_user
            else _refused_remedy(mailbox, app, smtp, others_in=others_in)
        )
    else:
        reason = outcome.reason
        remedy = outcome.remedy or "Run relay check again in some minutes."
        if outcome.code in SLOW_TO_SHOW:
            remedy = f"{remedy} {_switches(mailbox)} {PATIENCE}"
    if graph_ready and outcome.code not in ("connection-lost", "timed-out"):
        remedy += " Or set `transport: graph`: the app has Mail.Send."
    status = Status.WARN if temporary else Status.FAIL
    return catalogue.SMTP_LOGIN.step(status, f"{reason} [{outcome.code}]{said}", remedy, about=about)


def _refused_remedy(mailbox: str, app: App, smtp: Token, *, others_in: bool) -> str:
    """What can be behind the catch-all, the likeliest first; each with the line that checks and the one that mends."""
    principal = (
        f"The service principal is missing in Exchange, or has the App registration's object id instead of the "
        f"Enterprise application's. Check: {app.show_principal()} (ObjectId must be {app.principal}). "
        f"Mend: {app.new_principal()}"
    )
    permission = f"The mailbox permission is missing. Check: {app.show_permission(mailbox)} Mend: {app.add_permission(mailbox)}"
    role = (
        f"With Exchange roles: the mailbox is outside the role's scope, or the role is missing. "
        f"Check: {app.test_scope(mailbox)} (InScope must be True). Mend: {app.assign_role('Application SMTP.SendAsApp')}"
    )
    unknown = f"There is no mailbox {mailbox}. Check: Get-Mailbox -Identity {quote(mailbox)}"
    if smtp.may_send:
        causes = [permission, unknown] if others_in else [principal, permission, unknown]
    else:
        causes = [role, unknown] if others_in else [role, principal, unknown]
    listed = " ".join(f"({number}) {cause}" for number, cause in enumerate(causes, 1))
    return (
        "Exchange gives the same answer for several causes; in order of likelihood, in Exchange Online PowerShell "
        f"({CONNECT}): {listed} {PATIENCE}"
    )


def _switches(mailbox: str) -> str:
    return (
        f"Check in Exchange Online PowerShell: Get-CASMailbox -Identity {quote(mailbox)} | "
        "Format-List SmtpClientAuthenticationDisabled; Get-TransportConfig | "
        "Format-List SmtpClientAuthenticationDisabled (the mailbox's own setting wins)."
    )


# Graph


def graph_step(answer: Answer, mailbox: str, app: App, token: Token, about: str) -> Step:
    """What Graph answered to a message without recipients."""
    kind = catalogue.GRAPH_MAILBOX
    if answer.status == 202 or (answer.status == 400 and answer.code != "ErrorAccessDenied"):
        seen = (
            "Graph lets the app send as this mailbox (a message without recipients was refused only for that)"
        )
        return kind.step(Status.OK, seen, about=about)
    seen = f"Graph said: {answer.words}"
    if answer.status == 403:
        return kind.step(Status.FAIL, seen, _denied(mailbox, app, token), about=about)
    if answer.status == 404 and answer.code == "MailboxNotEnabledForRESTAPI":
        remedy = (
            f"{mailbox} has no mailbox in Exchange Online: Microsoft 365 admin center > Users > Active users > "
            "the user > Licenses and apps; or the mailbox is on premises."
        )
        return kind.step(Status.FAIL, seen, remedy, about=about)
    if answer.status == 404:
        remedy = f"There is no mailbox {mailbox} in this tenant: correct `from_email` or the sender rule's `login`."
        return kind.step(Status.FAIL, seen, remedy, about=about)
    if answer.status == 401:
        remedy = (
            f"Step 6: {APP} > Overview: compare `tenant_id` and `client_id`; check `cloud` and `graph_url`."
        )
        return kind.step(Status.FAIL, seen, remedy, about=about)
    status = Status.WARN if answer.status in (429, 500, 502, 503, 504) else Status.FAIL
    return kind.step(status, seen, "Run relay check again in some minutes.", about=about)


def _denied(mailbox: str, app: App, token: Token) -> str:
    if token.may_send:
        return (
            "A scope in Exchange excludes this mailbox. Check in Exchange Online PowerShell: "
            f"Test-ApplicationAccessPolicy -AppId {quote(app.client_id)} -Identity {quote(mailbox)}; "
            f"{app.test_scope(mailbox)} Put the mailbox into the policy's group, or into the role's scope. {PATIENCE}"
        )
    return "The permission is missing: see the step about permissions."
