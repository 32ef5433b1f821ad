"""Which transport the rights in an upstream's tokens decide for: design section 5, for delivery and for `relay check`."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from relay.errors import TokenError
from relay.tokens.contract import NEEDED_ROLE, NEEDED_SCOPE, Resource, TokenSource


class Way(enum.StrEnum):
    """What ``transport`` and the tokens' rights decide."""

    SMTP = "smtp"
    GRAPH = "graph"
    TRY_SMTP = "smtp, then graph"
    """Neither token shows a right: Exchange roles leave no trace, so only a try decides, SMTP first."""


def choose(transport: str, *, smtp: bool, graph: bool) -> Way:
    """``auto`` follows the rights that the tokens show; ``smtp`` and ``graph`` decide by themselves. Pure."""
    if transport in ("smtp", "graph"):
        return Way(transport)
    if smtp:  # first even where both rights show; delivery goes over to Graph when SMTP refuses
        return Way.SMTP
    return Way.GRAPH if graph else Way.TRY_SMTP


def words_of(resource: Resource, *, user: bool) -> str:
    """The right's name: a user's token has a scope where an application's has a role."""
    return (NEEDED_SCOPE if user else NEEDED_ROLE)[resource]


@dataclass(frozen=True, slots=True)
class Rights:
    """What the tokens show."""

    smtp: bool
    graph: bool


async def rights_of(tokens: TokenSource, *, fresh: bool = False) -> Rights:
    """What the tokens show; Graph's is asked for only when SMTP's does not decide. ``fresh``: see `may_send`.

    Raises TokenError: SMTP's when neither can be had, since one wrong secret spoils both.
    """
    trouble: TokenError | None = None
    try:
        if await may_send(tokens, Resource.SMTP, fresh=fresh):
            return Rights(smtp=True, graph=False)
    except TokenError as error:
        if error.temporary:
            raise
        trouble = error
    try:
        return Rights(smtp=False, graph=await may_send(tokens, Resource.GRAPH, fresh=fresh))
    except TokenError as error:
        raise trouble or error from error


async def may_send(tokens: TokenSource, resource: Resource, *, fresh: bool = False) -> bool:
    """Whether the token shows the right. ``fresh``: one without it may be older than a consent, so ask anew.

    Raises TokenError.
    """
    token = await tokens.token(resource)
    if fresh and not token.may_send:
        tokens.discard(token)
        token = await tokens.token(resource)
    return token.may_send


async def shows(tokens: TokenSource, resource: Resource, *, fresh: bool = False) -> bool:
    """The same; no token, no right."""
    try:
        return await may_send(tokens, resource, fresh=fresh)
    except TokenError:
        return False
