"""Which transport carries an upstream's mail: design section 5, as a pure function. To be replaced by delivery's own."""

from __future__ import annotations

import enum
from collections.abc import Iterable

from relay.tokens.claims import NEEDED_ROLE
from relay.tokens.contract import Resource


class Choice(enum.StrEnum):
    """What ``transport`` and the tokens' permissions decide."""

    SMTP = "smtp"
    GRAPH = "graph"
    TRY_SMTP = "smtp, then graph"
    """Neither token shows a right: Exchange roles leave no trace, so only a try decides, SMTP first."""


def choose(transport: str, smtp_roles: Iterable[str], graph_roles: Iterable[str]) -> Choice:
    """``auto`` follows the permissions; ``smtp`` and ``graph`` decide by themselves."""
    if transport in ("smtp", "graph"):
        return Choice(transport)
    # SMTP first even where both rights show; delivery goes over to Graph when SMTP refuses
    if NEEDED_ROLE[Resource.SMTP] in smtp_roles:
        return Choice.SMTP
    if NEEDED_ROLE[Resource.GRAPH] in graph_roles:
        return Choice.GRAPH
    return Choice.TRY_SMTP
