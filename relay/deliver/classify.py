"""From what the server said, or did not say, to an outcome. The only place that judges; the table is the data.

aiosmtplib's manners: a malformed reply carries code -1, a time-out or a lost connection carries no code at all,
and partial refusals would come as a dictionary (not with our own pipelined dialogue, which reads every reply).
"""

from __future__ import annotations

import re
import socket
import ssl
from dataclasses import dataclass, replace

from aiosmtplib import (
    SMTPException,
    SMTPResponseException,
    SMTPServerDisconnected,
    SMTPTimeoutError,
)

from relay.deliver.phases import LOGIN, Phase
from relay.deliver.table import ROWS
from relay.deliver.table_faults import FAULTS
from relay.message import Outcome, Reply, Result, Scope

SERVER = LOGIN - {Phase.AUTH}
LONGEST_TEXT = 400
"""Characters of a reply's words that are kept."""
ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?:\s+|$)")
CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]+")
INNER = re.compile(r"\berror:\s*(\d{3})[ -](.*)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Names:
    """What the table's sentences call by name; the defaults leave the placeholders standing."""

    mailbox: str = "<mailbox>"
    host: str = "<host>"
    port: str = "<port>"
    timeout: str = "<timeout>"
    proxy: str = "<proxy>"
    client_id: str = "<client id>"

    def fill(self, text: str) -> str:
        """The sentence with the placeholders replaced."""
        if "<" not in text:
            return text
        for name in ("mailbox", "host", "port", "timeout", "proxy"):
            text = text.replace(f"<{name}>", getattr(self, name))
        return text.replace("<client id>", self.client_id)


NAMELESS = Names()


class Fallen(Exception):
    """A fault of ``table_faults``, raised by our own dialogue; ``detail`` is said to people after the reason."""

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(detail or code)
        self.code = code
        self.detail = detail


def reply_of(code: int, message: str) -> Reply:
    """A reply as aiosmtplib hands it over (lines joined by LF), with the enhanced code of RFC 2034 taken out."""
    enhanced, lines = "", []
    for line in message.split("\n"):
        found = ENHANCED.match(line)
        if found is not None:
            enhanced = enhanced or found[1]
            line = line[found.end() :]
        lines.append(line)
    text = CONTROLS.sub(" ", " ".join(lines)).strip()
    return Reply(max(code, 0), enhanced, text[:LONGEST_TEXT])


def judge(phase: Phase, reply: Reply, names: Names = NAMELESS) -> Outcome:
    """What one reply decides. Total: every reply at every phase gets an outcome, and an unknown one a mild one."""
    if reply.code // 100 == 2 and phase is Phase.BODY:
        return Outcome(Result.SENT, Scope.MESSAGE, reply)
    inner = _inner(reply)
    if inner is not None:
        return replace(judge(Phase.AUTH, inner, names), reply=reply)
    for row in ROWS:
        if row.matches(phase, reply):
            outcome = Outcome(
                row.result, row.scope, reply, names.fill(row.reason), names.fill(row.remedy), row.code,
                row.wait, row.counts, row.slow)  # fmt: skip
            return _widen(outcome) if phase in LOGIN else outcome
    return replace(judge_fault("unexpected-reply" if reply.code else "malformed-reply", names), reply=reply)


def _inner(reply: Reply) -> Reply | None:
    """The login error that ``530 5.7.57`` wraps (facts 1.2), when there is one."""
    if reply.code != 530:
        return None
    found = INNER.search(reply.text)
    return reply_of(int(found[1]), found[2]) if found else None


def _widen(outcome: Outcome) -> Outcome:
    """Before a message is under way, nothing can be a message's fault, count against it, or fail it."""
    if outcome.scope not in (Scope.RECIPIENT, Scope.MESSAGE, Scope.SENDER):
        return outcome
    return replace(outcome, scope=Scope.LANE, counts=False)


def judge_fault(code: str, names: Names = NAMELESS, detail: str = "") -> Outcome:
    """The outcome of a fault of ``table_faults``; KeyError for a code that is not there."""
    fault = FAULTS[code]
    reason = names.fill(fault.reason)
    if detail:
        reason = f"{reason.rstrip('.')}: {CONTROLS.sub(' ', detail)[:LONGEST_TEXT]}"
    uncertain = code == "uncertain"
    return Outcome(
        fault.result, fault.scope, None, reason, names.fill(fault.remedy), fault.code, fault.wait,
        counts=uncertain, uncertain=uncertain)  # fmt: skip


def judge_error(phase: Phase, error: BaseException, names: Names = NAMELESS) -> Outcome:
    """What an exception of the dialogue decides: ours, aiosmtplib's, the resolver's, or TLS's.

    Errors that are none of these are bugs, and are raised again.
    """
    if isinstance(error, Fallen):
        return judge_fault(error.code, names, error.detail)
    if isinstance(error, SMTPResponseException):
        reply = reply_of(error.code, error.message)
        if error.code < 0:
            return replace(_at_server(phase, judge_fault("malformed-reply", names)), reply=reply)
        return judge(phase, reply, names)
    code = _fault_code(phase, error)
    if code is None:
        raise error
    return _at_server(phase, judge_fault(code, names, _detail(error)))


def _at_server(phase: Phase, outcome: Outcome) -> Outcome:
    """Before AUTH no mailbox is concerned yet: a lane's fault is the upstream's."""
    if phase in SERVER and outcome.scope is Scope.LANE:
        return replace(outcome, scope=Scope.UPSTREAM)
    return outcome


def _fault_code(phase: Phase, error: BaseException) -> str | None:
    """Which fault an exception without a reply is; the narrow types first, since most are OSErrors too."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return "certificate-not-trusted"
    if isinstance(error, ssl.SSLError):
        return "tls-failed"
    if isinstance(error, (SMTPTimeoutError, TimeoutError)):
        return "connect-timed-out" if phase is Phase.CONNECT else "timed-out"
    if isinstance(error, socket.gaierror):
        return "name-not-found"
    if isinstance(error, ConnectionRefusedError):
        return "connection-refused"
    if isinstance(error, (SMTPServerDisconnected, ConnectionError)):
        return "connection-lost"
    if isinstance(error, OSError):
        return "unreachable" if phase is Phase.CONNECT else "connection-lost"
    return "connection-lost" if isinstance(error, SMTPException) else None


def _detail(error: BaseException) -> str:
    """Words worth adding to the reason: what the certificate check found, or the system's own error text."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return str(error.verify_message)
    if isinstance(error, ssl.SSLError):
        return str(getattr(error, "reason", None) or "")
    if isinstance(error, OSError) and error.strerror and not isinstance(error, SMTPException):
        return str(error.strerror)
    return ""
