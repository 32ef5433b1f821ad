"""What it means when no usable reply came: names, dialling, TLS, time-outs, broken and garbled connections.

None of these is a message's fault, so none counts as an attempt; `Outcome.reply` is None, or holds the garbled line.
"""

from __future__ import annotations

from dataclasses import dataclass

from relay.message import Result, Scope

FIREWALL = (
    "Check that outbound TCP port <port> to <host> is open in the firewall, without a filter in between."
)


@dataclass(frozen=True, slots=True)
class Fault:
    """One way in which a reply can be missing."""

    code: str
    scope: Scope
    reason: str
    remedy: str = ""
    result: Result = Result.DEFERRED
    wait: float | None = None


FAULTS: dict[str, Fault] = {
    fault.code: fault
    for fault in (
        Fault("name-not-found", Scope.UPSTREAM, "The name <host> cannot be resolved.",
              "Check the spelling of host, and this machine's DNS servers."),
        Fault("connection-refused", Scope.UPSTREAM, "<host> port <port> refuses connections.", FIREWALL),
        Fault("unreachable", Scope.UPSTREAM, "<host> port <port> cannot be reached.", FIREWALL),
        Fault("connect-timed-out", Scope.UPSTREAM, "<host> port <port> does not answer.", FIREWALL),
        Fault("certificate-not-trusted", Scope.UPSTREAM, "The certificate of <host> is not trusted.",
              "If a firewall inspects TLS, exempt <host> or name the firewall's CA with ca_file; check host.",
              Result.HELD),
        Fault("tls-failed", Scope.UPSTREAM, "The TLS handshake with <host> failed.",
              "Take TLS inspection of port <port> off the firewall, or let it speak TLS 1.2 or newer."),
        Fault("starttls-not-offered", Scope.UPSTREAM, "<host> port <port> does not offer STARTTLS, and a token never"
              " travels in clear.",
              "Set host to smtp.office365.com and port to 587, and take SMTP inspection off the firewall.",
              Result.HELD),
        Fault("starttls-injected", Scope.UPSTREAM, "Somebody between here and <host> added text before TLS began.",
              "Look for a device that intercepts port <port>.", Result.HELD),
        Fault("xoauth2-not-offered", Scope.UPSTREAM, "<host> port <port> does not offer OAuth2 logins (XOAUTH2).",
              "Set host to smtp.office365.com and port to 587; or grant Graph's Mail.Send and set transport: auto.", Result.HELD),
        Fault("ca-file", Scope.UPSTREAM, "The file named by ca_file cannot be used.",
              "Name a readable PEM file that holds CA certificates.", Result.HELD),
        Fault("proxy-refused", Scope.UPSTREAM, "The proxy <proxy> refused the connection to <host> port <port>.",
              "Let the proxy allow CONNECT to <host>:<port>; give user and password in proxy if it wants them.",
              Result.HELD),
        Fault("proxy-failed", Scope.UPSTREAM, "The proxy <proxy> cannot be used just now.",
              "Check that the proxy is up and that the address in proxy is right."),
        Fault("timed-out", Scope.LANE, "<host> did not answer within <timeout> seconds."),
        Fault("connection-lost", Scope.LANE, "The connection to <host> broke."),
        Fault("abandoned", Scope.MESSAGE, "<host> had not taken the message when its client stopped waiting."),
        Fault("malformed-reply", Scope.LANE, "<host> sent something that is not an SMTP reply.",
              "Check that host and port name the SMTP submission service of Exchange."),
        Fault("unexpected-reply", Scope.LANE, "<host> sent a reply that does not fit the dialogue."),
        Fault("uncertain", Scope.MESSAGE, "The connection broke after the whole message was sent: it may have been"
              " accepted."),
    )
}  # fmt: skip
