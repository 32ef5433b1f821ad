"""The reply table: every known reply of Exchange, then the defaults. docs/replies.md shows it to people.

The first row that holds decides, so within a code the rows that match words come before those that do not.
"""

from __future__ import annotations

from relay.deliver.phases import LOGIN, MAILING, Phase
from relay.deliver.row import Row
from relay.deliver.table_login import LOGIN_ROWS, PROBE
from relay.deliver.table_mail import AGAIN, MAIL_ROWS
from relay.message import Result, Scope

__all__ = ["AGAIN", "DEFAULT_ROWS", "ROWS"]

SERVER = LOGIN - {Phase.AUTH}
MAIL = frozenset({Phase.MAIL})
RCPT = frozenset({Phase.RCPT})
SEE_REPLY = "Look up the reply's code in Microsoft's list of non-delivery reports in Exchange Online."

DEFAULT_ROWS: tuple[Row, ...] = (
    Row("temporary-at-connect", SERVER, "4..", scope=Scope.UPSTREAM, wait=60, counts=False, source="default",
        reason="Exchange does not take connections just now."),
    Row("temporary-at-login", frozenset({Phase.AUTH}), "4..", scope=Scope.LANE, wait=60, counts=False,
        source="default", reason="Exchange does not take the login just now."),
    Row("temporary-recipient", RCPT, "4..", scope=Scope.RECIPIENT, source="default",
        reason="Exchange does not take mail for this recipient just now."),
    Row("temporary", MAILING - RCPT, "4..", scope=Scope.MESSAGE, source="default",
        reason="Exchange does not take the message just now."),
    Row("login-refused", LOGIN, "5..", result=Result.HELD, scope=Scope.LANE, wait=PROBE, counts=False,
        source="default", reason="Exchange refused the connection or the login of <mailbox>.", remedy=SEE_REPLY),
    Row("recipient-policy", RCPT, "5..", r"5\.7\.\d+", result=Result.HELD, scope=Scope.RECIPIENT, counts=False,
        source="default", reason="A policy of Exchange refused the recipient.", remedy=SEE_REPLY),
    Row("policy", MAIL, "5..", r"5\.7\.\d+", result=Result.HELD, scope=Scope.LANE, wait=PROBE,
        counts=False, source="default", reason="A policy of Exchange refused mail from <mailbox>.",
        remedy=SEE_REPLY),
    # after the content it may be about this one message (a transport rule): the lane is held once a second one
    # meets the same
    Row("message-policy", MAILING - RCPT - MAIL, "5..", r"5\.7\.\d+", result=Result.HELD, scope=Scope.MESSAGE,
        counts=False, source="default", reason="A policy of Exchange refused the message.", remedy=SEE_REPLY),
    Row("recipient-refused", RCPT, "5..", result=Result.FAILED, scope=Scope.RECIPIENT, source="default",
        reason="Exchange refused the recipient.", remedy="Check the address and send again."),
    Row("message-refused", MAILING - RCPT, "5..", result=Result.FAILED, scope=Scope.MESSAGE, source="default",
        reason="Exchange refused the message.", remedy=SEE_REPLY),
)  # fmt: skip

ROWS: tuple[Row, ...] = LOGIN_ROWS + MAIL_ROWS + DEFAULT_ROWS
