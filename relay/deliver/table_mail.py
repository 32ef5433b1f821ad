"""Replies about limits and mail: the facts' section 3.2, in the order in which they are tried.

Some of these usually arrive later, as a notice in the sending mailbox; they are judged alike when they come
as a reply. Exception names are matched before codes: the 5.2.x family shares its codes (facts 3.2).
"""

from __future__ import annotations

from relay.deliver.phases import ANY, MAILING, Phase
from relay.deliver.row import Row
from relay.message import Result, Scope

HOUR = 3600.0
RCPT = frozenset({Phase.RCPT})
RCPT_ON = frozenset({Phase.RCPT, Phase.DATA, Phase.BODY})
MESSAGE = frozenset({Phase.MAIL, Phase.DATA, Phase.BODY})
SOURCE = "3.2"

SEND_AS = "The mailbox <mailbox> may not send as the From address of this message."
SEND_AS_REMEDY = (
    "Let a sender rule rewrite From to <mailbox>, or set login to the mailbox of that address, or in Exchange Online"
    " PowerShell run Add-RecipientPermission -Identity <from address> -Trustee <service principal> -AccessRights"
    " SendAs. Changes take up to 2 hours."
)


def _throttled(code: str, phases: frozenset[Phase], replies: str, enhanced: str, text: str, wait: float,
               reason: str, remedy: str = "", scope: Scope = Scope.LANE) -> Row:  # fmt: skip
    """Temporary, and ours to cure by going slower: never counted against the message."""
    return Row(code, phases, replies, enhanced, text, Result.DEFERRED, scope, reason, remedy,
               wait=wait, slow=True, counts=False, source=SOURCE)  # fmt: skip


def _passing(code: str, phases: frozenset[Phase], replies: str, enhanced: str, text: str, reason: str,
             scope: Scope = Scope.MESSAGE, wait: float | None = None, counts: bool = True,
             remedy: str = "") -> Row:  # fmt: skip
    """Temporary; tried again."""
    return Row(code, phases, replies, enhanced, text, Result.DEFERRED, scope, reason, remedy,
               wait=wait, counts=counts, source=SOURCE)  # fmt: skip


def _held(code: str, phases: frozenset[Phase], replies: str, enhanced: str, text: str, scope: Scope,
          reason: str, remedy: str, wait: float = HOUR) -> Row:  # fmt: skip
    """An administrator's to mend; probed after ``wait`` seconds at the earliest."""
    return Row(code, phases, replies, enhanced, text, Result.HELD, scope, reason, remedy,
               wait=wait, counts=False, source=SOURCE)  # fmt: skip


def _failed(code: str, phases: frozenset[Phase], replies: str, enhanced: str, scope: Scope, reason: str,
            remedy: str, text: str = "") -> Row:  # fmt: skip
    """For good: goes back to the sender."""
    return Row(code, phases, replies, enhanced, text, Result.FAILED, scope, reason, remedy, source=SOURCE)


def _repeated(last: int, slug: str, what: str, remedy: str) -> Row:
    """5.2.251 to 5.2.255: Exchange throttles a mailbox for repeating one mistake (facts 3.2, CET)."""
    return _held(
        slug, MAILING, "550", rf"5\.2\.{last}", "", Scope.LANE,
        f"Exchange has stopped <mailbox> for repeating the same mistake: {what}.", remedy)  # fmt: skip


THROTTLING: tuple[Row, ...] = (
    _passing("recipient-thread-limit", MAILING, "432", r"4\.3\.2", "recipient thread limit",
             "The recipient's mailbox takes in too much mail at once."),
    _throttled("sender-thread-limit", ANY, "432", r"4\.3\.2", "sender thread limit", 15,
               "Too many messages of this mailbox at once.",
               "If another program sends through <mailbox> too, lower limits.connections to 1."),
    _throttled("too-many-connections", ANY, "432", r"4\.3\.2", "", 15,
               "Too many connections for this mailbox at once: Exchange allows 3.",
               "If another program sends through <mailbox> too, lower limits.connections to 1."),
    _throttled("submission-rate", ANY, "421", r"4\.4\.2", "submission rate", 60,
               "The mailbox sent more than its messages per minute: Exchange allows 30.",
               "If another program sends through <mailbox> too, lower limits.messages_per_minute."),
    _passing("service-not-available", ANY, "421", r"4\.3\.2", "", "Exchange is not available just now.",
             Scope.LANE, wait=30, counts=False),
    _passing("session-timed-out", ANY, "421", r"4\.4\.1", "", "Exchange ended a connection it found too old.",
             Scope.LANE, wait=1, counts=False),
    _throttled("throttled", ANY, "421", r"4\.7\.(?!8[5-9]\d)\d+", "", 300,
               "Exchange asks this mailbox to slow down."),
    _throttled("reputation", ANY, "4..", r"4\.7\.[56]\d\d", "", 900,
               "Exchange limits mail from this address for its reputation.",
               "If it lasts over an hour: in the Microsoft Defender portal, Email & collaboration, Review,"
               " Restricted entities, and check what <mailbox> has been sending."),
    _passing("ip-reputation", ANY, "4..", r"4\.7\.8[5-9]\d", "",
             "Exchange limits connections from this machine's public IP address.", Scope.UPSTREAM, wait=900,
             counts=False, remedy="If it lasts over an hour, ask the owner of the public IP address about spam from"
             " it, and check https://sender.office.com."),
    _passing("connection-ended", ANY, "421", "", "", "Exchange ended the connection.", Scope.LANE, wait=30,
             counts=False),
    _passing("too-many-recipients", RCPT, "452", r"[45]\.5\.3", "", "More recipients than one message may have.",
             Scope.RECIPIENT, wait=1, counts=False),
    _passing("insufficient-resources", ANY, "452", r"4\.3\.1", "", "Exchange is short of resources just now."),
    _passing("recipient-hourly-limit", RCPT_ON, "[45]..", r"5\.2\.12[12]", "",
             "The recipient has reached the mail it may receive in an hour.", Scope.RECIPIENT, wait=HOUR),
    _throttled("external-recipient-limit", MAILING, "5..", r"5\.7\.23[23]", "", HOUR,
               "The tenant has reached its external recipients of 24 hours.",
               "In the Exchange admin center, Reports, Mail flow, Tenant outbound external recipients; more licences"
               " raise the limit.", scope=Scope.UPSTREAM),
)  # fmt: skip

HOLDS: tuple[Row, ...] = (
    _held("submission-quota", MAILING, "5..", r"5\.2\.\d+", "SubmissionQuotaExceeded|Submission quota exceeded",
          Scope.LANE, "The mailbox <mailbox> has reached its recipients of 24 hours: Exchange allows 10,000.",
          "Wait, or spread the mail over several mailboxes (login: [a, b]); lower limits.recipients_per_day if other"
          " programs send through it too."),
    _held("outbound-spam", MAILING, "5..", r"5\.2\.\d+", "OutboundSpamException", Scope.LANE,
          "Exchange takes the mail of <mailbox> for spam.",
          "In the Microsoft Defender portal, Email & collaboration, Review, Restricted entities, unblock <mailbox>;"
          " raise the limits in Policies & rules, Anti-spam, Outbound policy."),
    _held("send-as-denied", MAILING, "554", r"5\.2\.0", "SendAsDenied", Scope.SENDER, SEND_AS, SEND_AS_REMEDY),
    _held("send-as-denied", MAILING, "554", r"5\.2\.252", "", Scope.SENDER, SEND_AS, SEND_AS_REMEDY),
    _held("send-as-denied", MAILING, "5..", r"5\.7\.60", "", Scope.SENDER, SEND_AS, SEND_AS_REMEDY),
    _repeated(251, "throttled-mailbox-full", "mail sent from a full mailbox",
              "Empty <mailbox> (Sent Items first), then wait: the block ends by itself after some hours."),
    _repeated(252, "throttled-send-as", "sending as an address it has no right to",
              "Mend the sender rule or the SendAs permission, then wait: the block ends by itself after some hours."),
    _repeated(253, "throttled-licence", "sending without a valid licence",
              "In the Microsoft 365 admin center, Users, <mailbox>, Licenses and apps, assign Exchange Online; then"
              " wait: the block ends by itself after some hours."),
    _repeated(254, "throttled-recipient-count", "too many recipients in one message",
              "Lower limits.recipients_per_message to what Get-Mailbox <mailbox> shows as RecipientLimits, then wait."),
    _repeated(255, "throttled-bad-recipients", "addresses that do not exist",
              "Mend the addresses in the sending application, then wait: the block ends by itself after some hours."),
    _held("mailbox-full", frozenset({Phase.DATA, Phase.BODY}), "5..", r"5\.2\.[02]", "QuotaExceeded|mailbox full",
          Scope.LANE, "The mailbox <mailbox> is full, usually with copies in Sent Items.",
          "Empty Sent Items of <mailbox>, and in Exchange Online PowerShell run Set-Mailbox <mailbox>"
          " -MessageCopyForSMTPClientSubmissionEnabled $false so that it does not fill again."),
    _held("sender-blocked", MAILING, "5..", r"5\.1\.8", "", Scope.LANE,
          "Exchange has blocked <mailbox> for sending spam.",
          "In the Microsoft Defender portal, Email & collaboration, Review, Restricted entities, unblock <mailbox>"
          " after finding out what it sent."),
    _held("onmicrosoft-limit", MAILING, "5..", r"5\.7\.236", "", Scope.LANE,
          "A sender under onmicrosoft.com has reached the 100 external recipients of 24 hours.",
          "Give <mailbox> an address of your own domain: Microsoft 365 admin center, Users, Manage username."),
    _held("account-banned", ANY, "5..", r"5\.7\.(50[123]|511|800)", "", Scope.LANE,
          "Exchange has banned <mailbox> for abuse.",
          "In the Microsoft Defender portal, Review, Restricted entities; else open a support request with Microsoft."),
    _held("bad-helo", ANY, "5..", r"5\.7\.506", "", Scope.UPSTREAM,
          "Exchange does not accept this machine's name in EHLO.",
          "Give the machine a full host name (hostname -f must show a name with a domain)."),
    _held("dmarc", MAILING, "5..", r"5\.7\.509", "", Scope.SENDER,
          "The domain of the From address fails its own DMARC policy.",
          "Publish SPF and DKIM for the domain: Microsoft Defender portal, Policies & rules, Email authentication."),
    _held("ip-banned", ANY, "5..", r"5\.7\.6(0[6-9]|[1-4]\d)", "", Scope.UPSTREAM,
          "Microsoft has banned this machine's public IP address.",
          "Ask for its removal at https://sender.office.com; or grant Graph's Mail.Send and set transport: auto."),
    _held("traffic-not-accepted", ANY, "5..", r"5\.7\.708", "", Scope.UPSTREAM,
          "Exchange takes no mail from this IP address or from a tenant this new.",
          "A trial tenant needs a paid licence; else open a support request with Microsoft and name the reply."),
    _held("tenant-blocked", ANY, "5..", r"5\.7\.7[0-4]\d", "", Scope.UPSTREAM,
          "Exchange has blocked the whole tenant for too much or suspicious mail.",
          "Find the account that sends spam (Microsoft Defender portal, Restricted entities), then open a support"
          " request with Microsoft."),
    _held("domain-not-registered", MAILING, "5..", r"5\.7\.750", "", Scope.SENDER,
          "The domain of the From address is not registered in the tenant.",
          "Add and verify it: Microsoft 365 admin center, Settings, Domains; or let a sender rule rewrite From."),
    _held("routing-loop", MAILING, "5..", r"5\.4\.(6|14)", "", Scope.MESSAGE,
          "The message runs in a circle between mail servers.",
          "Check accepted domains and connectors (Exchange admin center, Mail flow), and that nothing forwards to"
          " this relay again; then retry or delete the message."),
    _held("invalid-characters", MAILING, "5..", r"5\.6\.11", "", Scope.MESSAGE,
          "Exchange found a bare line feed in the message, which this relay never sends: a device in between did.",
          "Take SMTP inspection off the firewall, then retry the message."),
    _held("no-from-header", MAILING, "5..", r"5\.7\.512", "", Scope.MESSAGE,
          "Exchange found no valid From field in the message.",
          "Look at it with relay queue show; then let a sender rule rewrite From, and retry."),
)  # fmt: skip

FAILURES: tuple[Row, ...] = (
    _failed("bad-recipient-address", RCPT_ON, "501", r"5\.1\.3", Scope.RECIPIENT,
            "The recipient's address is not a valid one.", "Correct the address and send again."),
    _failed("bad-sender-address", MAILING, "501", r"5\.1\.7", Scope.MESSAGE,
            "The sender's address is not a valid one.", "Correct the address and send again."),
    _failed("recipient-not-found", RCPT_ON, "5..", r"5\.1\.10|5\.1\.1|5\.4\.1", Scope.RECIPIENT,
            "The recipient does not exist.", "Check the address and send again."),
    _failed("several-from", MAILING, "5..", r"5\.1\.20", Scope.MESSAGE,
            "The message has several From addresses and no Sender.",
            "Send it with one From address, or let a sender rule rewrite From."),
    _failed("message-too-large", MAILING, "552", r"5\.3\.4", Scope.MESSAGE,
            "The message is larger than Exchange takes.",
            "Send less at once, or raise the limit: Exchange Online PowerShell, Set-Mailbox <mailbox> -MaxSendSize"
            " 150MB."),
    _failed("message-too-large", MAILING, "5..", r"5\.2\.3", Scope.MESSAGE,
            "The message is larger than the mailbox <mailbox> may send.",
            "Send less at once, or raise the limit: Exchange Online PowerShell, Set-Mailbox <mailbox> -MaxSendSize"
            " 150MB."),
    _failed("recipient-refuses-sender", RCPT_ON, "5..", r"5\.7\.(12|124|13[3-6])", Scope.RECIPIENT,
            "The recipient (a group or mailbox) does not take mail from this sender.",
            "Ask its owner to allow the sender."),
    _failed("recipient-refuses-sender", RCPT, "5..", r"5\.7\.1", Scope.RECIPIENT,
            "The recipient (a group or mailbox) does not take mail from this sender.",
            "Ask its owner to allow the sender."),
    _failed("protocol-error", MAILING, "50[0-3]", r"5\.5\.\d+|", Scope.MESSAGE,
            "Exchange did not understand the dialogue, twice.",
            "Take SMTP inspection off the firewall; if there is none, report this as a fault of the relay."),
)  # fmt: skip

AGAIN = frozenset({"protocol-error"})
"""Fails only after one more try on a clean connection (facts 3.2: "log, do not loop")."""

MAIL_ROWS = THROTTLING + HOLDS + FAILURES
