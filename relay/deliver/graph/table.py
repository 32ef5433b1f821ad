"""Graph's answer table: every known answer to sendMail, then the defaults. docs/replies.md shows it to people.

Facts 6.7, in the order in which they are tried; error codes before statuses, since some come with several.
Nothing here bounces more than one message, and an unknown refusal bounces none.
"""

from __future__ import annotations

from relay.deliver.graph.row import GraphRow
from relay.deliver.table_login import PROBE
from relay.deliver.table_mail import HOUR, SEND_AS
from relay.message import Result, Scope

APP = "In the Entra admin center, App registrations, this app (client id <client id>), API permissions"
GRANT_MAIL_SEND = (
    f"{APP}, Add a permission, Microsoft Graph, Application permissions, tick Mail.Send, then Grant admin consent. If"
    " that is granted already, a scope in Exchange leaves <mailbox> out: in Exchange Online PowerShell run"
    " Test-ServicePrincipalAuthorization -Identity <client id> -Resource <mailbox>, and look at"
    " Get-ApplicationAccessPolicy. Changes take up to 2 hours."
)
GRANT_READ_WRITE = (
    f"{APP}, Add a permission, Microsoft Graph, Application permissions, tick Mail.ReadWrite, then Grant admin"
    " consent; then reload the relay (or relay queue retry the message). Or send less at once: about 3 MB go with"
    " Mail.Send alone. Or grant SMTP.SendAsApp as well, which carries large mail over SMTP."
)
SEE_ANSWER = "Look up the error code in Microsoft's page of Graph error responses; then retry the message."


def _held(code: str, statuses: str, errors: str, scope: Scope, reason: str, remedy: str,
          wait: float | None = PROBE, text: str = "", source: str = "6.7") -> GraphRow:  # fmt: skip
    """An administrator's to mend; probed after ``wait`` seconds at the earliest."""
    return GraphRow(code, statuses, errors, text, Result.HELD, scope, reason, remedy, wait, counts=False,
                    source=source)  # fmt: skip


def _failed(code: str, statuses: str, errors: str, enhanced: str, reason: str, remedy: str) -> GraphRow:
    """For good: goes back to the sender."""
    return GraphRow(
        code, statuses, errors, "", Result.FAILED, Scope.MESSAGE, reason, remedy, enhanced=enhanced
    )


KNOWN_ROWS: tuple[GraphRow, ...] = (
    GraphRow("throttled", "429", scope=Scope.LANE, wait=60, slow=True, counts=False, source="6.6, 6.7",
             reason="Microsoft Graph asks this mailbox to slow down.",
             remedy="If another program sends through <mailbox> or this app too, lower limits.messages_per_minute."),
    GraphRow("throttled", "...", "ApplicationThrottled|TooManyRequests|activityLimitReached", scope=Scope.LANE,
             wait=60, slow=True, counts=False, source="6.6, 6.7",
             reason="Microsoft Graph asks this mailbox to slow down.",
             remedy="If another program sends through <mailbox> or this app too, lower limits.messages_per_minute."),
    _held("submission-quota", "...", "ErrorExceededMessageLimit|ErrorSubmissionQuotaExceeded", Scope.LANE,
          "The mailbox <mailbox> has reached its messages or recipients of 24 hours: Exchange allows 10,000 recipients.",
          "Wait, or spread the mail over several mailboxes (login: [a, b]); lower limits.recipients_per_day if other"
          " programs send through it too.", wait=HOUR),
    _held("mailbox-full", "...", "ErrorQuotaExceeded", Scope.LANE,
          "The mailbox <mailbox> is full, usually with copies in Sent Items.",
          "Empty Sent Items of <mailbox> (Graph keeps a copy of all mail there), or raise its quota.", wait=HOUR),
    _held("mailbox-full", "507", "", Scope.LANE,
          "The mailbox <mailbox> is full, usually with copies in Sent Items.",
          "Empty Sent Items of <mailbox> (Graph keeps a copy of all mail there), or raise its quota.", wait=HOUR),
    _held("send-as-denied", "...", "ErrorSendAsDenied|ErrorSendOnBehalfOfDenied", Scope.SENDER, SEND_AS,
          "Let a sender rule rewrite From to <mailbox>, or set login to the mailbox of that address: over Graph an app"
          " sends as the mailbox itself.", wait=HOUR),
    _held("mailbox-not-in-exchange-online", "...", "Mailbox(NotEnabled|NotSupported)ForRESTAPI", Scope.LANE,
          "The mailbox <mailbox> is not in Exchange Online: no licence, on-premises, deleted, or a guest's.",
          "In the Microsoft 365 admin center, Users, <mailbox>, Licenses and apps, assign Exchange Online; or name a"
          " mailbox that is there (from_email, or login of a sender rule)."),
    _held("mailbox-not-in-exchange-online", "...", "extensionError", Scope.LANE,
          "The mailbox <mailbox> is on-premises, or an access policy keeps this app out of it.",
          "Name a mailbox of Exchange Online (from_email, or login of a sender rule), and look at"
          " Get-ApplicationAccessPolicy in Exchange Online PowerShell."),
    _held("recipient-limit", "4..", "ErrorInvalidRecipients", Scope.MESSAGE,
          "The message has more recipients than the mailbox <mailbox> may address at once.",
          "Lower limits.recipients_per_message to what Get-Mailbox <mailbox> shows as RecipientLimits, and reload.",
          text="too many recipients", wait=None),
    _failed("invalid-recipients", "4..", "ErrorInvalidRecipients", "5.1.3",
            "Exchange found a recipient's address that is not a valid one.", "Correct the addresses and send again."),
    _failed("message-too-large", "...", "ErrorMessageSizeExceeded|RequestEntityTooLarge", "5.3.4",
            "The message is larger than the mailbox <mailbox> may send.",
            "Send less at once, or raise the limit: Exchange Online PowerShell, Set-Mailbox <mailbox> -MaxSendSize"
            " 150MB."),
    _failed("message-too-large", "413", "", "5.3.4",
            "The message is larger than the mailbox <mailbox> may send.",
            "Send less at once, or raise the limit: Exchange Online PowerShell, Set-Mailbox <mailbox> -MaxSendSize"
            " 150MB."),
    _failed("mime-refused", "400", "ErrorMimeContentInvalid.*", "5.6.0",
            "Exchange could not read the message.",
            "Look at it with relay queue show or in the sending program; if it is in order, report this as a fault of"
            " the relay."),
    _held("graph-token-refused", "401", "", Scope.UPSTREAM,
          "Microsoft Graph refused the token, a fresh one too.",
          "Check that cloud names the tenant's cloud and graph_url is not overridden, and that this machine's clock is"
          " right; then reload."),
    _held("graph-access-denied", "403", "ErrorAccessDenied|AccessDenied|Authorization_RequestDenied", Scope.LANE,
          "Microsoft Graph does not let this app send as <mailbox>.", GRANT_MAIL_SEND, wait=None),
    _held("mailbox-unknown", "404", "ErrorInvalidUser|(Request_)?ResourceNotFound|ErrorNonExistentMailbox", Scope.LANE,
          "There is no mailbox <mailbox> in the tenant.",
          "Check the spelling of from_email, or of login in the sender rule, and tenant_id."),
    GraphRow("graph-busy", "5..", "ErrorServerBusy|ErrorMailboxStoreUnavailable|ErrorInternalServerTransientError",
             scope=Scope.LANE, wait=30, counts=False, reason="Exchange is not available just now."),
)  # fmt: skip

DEFAULT_ROWS: tuple[GraphRow, ...] = (
    _held("graph-forbidden", "403", "", Scope.LANE, "Microsoft Graph refused mail from <mailbox>.",
          f"{GRANT_MAIL_SEND} A proxy that inspects TLS may refuse, too.", wait=None, source="default"),
    _held("mailbox-unknown", "404", "", Scope.LANE, "Microsoft Graph does not find <mailbox>.",
          "Check the spelling of from_email, or of login in the sender rule; and that graph_url ends without a path.",
          source="default"),
    GraphRow("temporary", "40[89]|42[35]", source="default", reason="Exchange does not take the message just now."),
    # one message's at first: the lane is held, and probed, once a second message meets the same
    _held("message-policy", "4..", "", Scope.MESSAGE, "Microsoft Graph refused the message.", SEE_ANSWER, wait=None,
          source="default"),
    GraphRow("graph-busy", "50[234]", scope=Scope.LANE, wait=30, counts=False, source="6.7",
             reason="Exchange is not available just now."),
    GraphRow("temporary", "5..", source="default", reason="Exchange does not take the message just now."),
    GraphRow("graph-not-accepted", "2..", source="6.1",
             reason="Microsoft Graph answered without accepting the message: only 202 is."),
    GraphRow("graph-unexpected", "...", scope=Scope.LANE, wait=60, counts=False, source="default",
             reason="The answer is not one of Microsoft Graph.",
             remedy="Check graph_url, and exempt it from web filters that answer in its place."),
)  # fmt: skip

GRAPH_ROWS: tuple[GraphRow, ...] = KNOWN_ROWS + DEFAULT_ROWS

REFUSED = frozenset({"graph-access-denied", "graph-forbidden"})
"""The right to send is missing: another transport, or an administrator, may help."""
TOO_LARGE = frozenset({"message-too-large", "graph-not-accepted"})
"""How sendMail shows that a message is too large for it (facts 6.2: 413, 400, and 200 has been seen)."""
