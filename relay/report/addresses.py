"""Which texts are addresses, and whether a notice could ever reach them."""

from __future__ import annotations

import re

_WIDE = "\u00a0-\ud7ff\ue000-\U0010ffff"
_ATOM = rf"[A-Za-z0-9!#$%&'*+/=?^_`{{|}}~{_WIDE}-]+"
_LABEL = rf"[A-Za-z0-9_{_WIDE}](?:[A-Za-z0-9_{_WIDE}-]*[A-Za-z0-9_{_WIDE}])?"
_LOCAL = rf'(?:{_ATOM}(?:\.{_ATOM})*|"(?:[ !#-\[\]-~{_WIDE}]|\\[ -~])*")'
_MAILBOX = re.compile(rf"{_LOCAL}@(?:{_LABEL}(?:\.{_LABEL})*|\[[A-Za-z0-9:.-]+\])")
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252}[A-Za-z0-9_])?")
_LONGEST = 320

_NOWHERE = frozenset(
    (
        "local",
        "localhost",
        "localdomain",
        "lan",
        "internal",
        "intranet",
        "home",
        "corp",
        "private",
        "invalid",
        "arpa",
        "onion",
    )
)
"""Last labels that no mail leaves the site for (RFC 6761, RFC 6762 appendix G and what devices are found with).
Not ``example`` and ``test``: rehearsals against the simulator use them."""


def is_mailbox(text: str) -> bool:
    """Whether it is one address (RFC 5321 section 4.1.2, RFC 6531) that may stand in a header as it is."""
    return (
        len(text) <= _LONGEST
        and "\u2028" not in text
        and "\u2029" not in text
        and bool(_MAILBOX.fullmatch(text))
    )


def reachable(address: str) -> bool:
    """Whether its domain is one that mail can be delivered to at all, by its form: no look-up is made.

    ``app@localhost``, ``scanner@10.0.0.7`` and ``x@scanners.local`` are not. Meant as (part of) the ``deliverable``
    of `relay.report.notice.recipient`.
    """
    labels = address.rpartition("@")[2].lower().rstrip("]").split(".")
    return is_mailbox(address) and len(labels) > 1 and not labels[-1].isdigit() and labels[-1] not in _NOWHERE


def host(name: str) -> str:
    """The host name as it may stand in a field; ``localhost`` when it may not."""
    return name if _HOST.fullmatch(name) else "localhost"
