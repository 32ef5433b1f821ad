"""Which transport carries an upstream's mail: design section 5, as a pure function. To be replaced by delivery's own."""

from __future__ import annotations

import enum


class Choice(enum.StrEnum):
    """What ``transport`` and the tokens' permissions decide."""

    SMTP = "smtp"
    GRAPH = "graph"
    TRY_SMTP = "smtp, then graph"
    """Neither token shows a right: Exchange roles leave no trace, so only a try decides, SMTP first."""


def choose(transport: str, *, smtp: bool, graph: bool) -> Choice:
    """``auto`` follows the rights that the tokens show; ``smtp`` and ``graph`` decide by themselves."""
    if transport in ("smtp", "graph"):
        return Choice(transport)
    if smtp:  # first even where both rights show; delivery goes over to Graph when SMTP refuses
        return Choice.SMTP
    return Choice.GRAPH if graph else Choice.TRY_SMTP
