"""What ends mail that goes round in circles: notices are recognised, and hops are counted (RFC 5321 section 6.3)."""

from __future__ import annotations

import re

NOTICE_FIELD = "X-Relay-Notice-For"
"""Our own trace field: every mail that this room composes carries it."""

_END = re.compile(rb"(?:\A|\n)\r?\n")
_FOLD = re.compile(rb"\r?\n[ \t]+")
_RECEIVED = re.compile(rb"^received[ \t]*:", re.IGNORECASE | re.MULTILINE)
_NOTICE = re.compile(rb"^x-relay-notice-for[ \t]*:", re.IGNORECASE | re.MULTILINE)
_OWN_ID = re.compile(rb"^message-id[ \t]*:\s*<[0-9a-f]{32}\.notice@", re.IGNORECASE | re.MULTILINE)
"""The Message-ID of a notice of ours (`relay.schedule.desk.new_id`): what is left of it when Graph drops our field."""
_REPORT = re.compile(
    rb"^content-type[ \t]*:[ \t]*multipart[ \t]*/[ \t]*report(?![\w-])", re.IGNORECASE | re.MULTILINE
)


def is_notice(header: bytes) -> bool:
    """Whether a message is a notice already, ours or another's, so that none may be written about it.

    Our field or our kind of Message-ID alone decides, without ``Auto-Submitted`` beside it: Graph drops fields without
    ``X-``, and some with it (facts 6.4).
    Mail that is merely ``auto-generated`` is ordinary mail of an application, and its owner wants to know.
    """
    block = _block(header)
    return bool(_NOTICE.search(block) or _OWN_ID.search(block) or _REPORT.search(_FOLD.sub(b" ", block)))


def hops(header: bytes) -> int:
    """How many servers a message has passed: its ``Received`` fields."""
    return len(_RECEIVED.findall(_block(header)))


def _block(header: bytes) -> bytes:
    """Without what follows the first empty line, should the whole message have been given."""
    end = _END.search(header)
    return header[: end.start() + 1] if end else header
