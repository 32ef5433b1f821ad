"""What the other rooms may ask of the tokens room: a token for a resource, or a typed reason why not."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Protocol


class Resource(enum.StrEnum):
    """The two services a token can be for; tokens are never interchangeable (facts: one per resource)."""

    SMTP = "smtp"
    GRAPH = "graph"


NEEDED_ROLE = {Resource.SMTP: "SMTP.SendAsApp", Resource.GRAPH: "Mail.Send"}
"""The application permission that shows the right to send; Exchange roles (RBAC) leave no trace in a token."""
NEEDED_SCOPE = {Resource.SMTP: "SMTP.Send", Resource.GRAPH: "Mail.Send"}
"""The same for a user's token (facts 1.3)."""


@dataclass(frozen=True, slots=True)
class Token:
    """An access token. Its text never appears in ``repr``."""

    value: str = field(repr=False)
    resource: Resource
    expires: float
    """Wall time, seconds since 1970."""
    roles: tuple[str, ...] = ()
    """Application permissions in the token; empty when there are none."""
    claims: dict[str, object] = field(default_factory=dict, repr=False)
    """The decoded payload: aud, tid, appid, nbf and so on; not verified, never logged whole."""
    scopes: tuple[str, ...] = ()
    """Delegated permissions: a user's token has these instead of ``roles``."""

    @property
    def permissions(self) -> tuple[str, ...]:
        """All that it carries: an application's roles, or what a user allowed."""
        return (*self.roles, *self.scopes)

    @property
    def may_send(self) -> bool:
        """Whether it shows the right to send, an application's or a user's. False proves nothing for an application."""
        return NEEDED_ROLE[self.resource] in self.roles or NEEDED_SCOPE[self.resource] in self.scopes


@dataclass(frozen=True, slots=True)
class TokenState:
    """What ``relay status`` shows of one upstream's token for one resource."""

    resource: Resource
    expires: float | None
    error: str | None


class TokenSource(Protocol):
    """The tokens of one upstream: shared by all its lanes, fetched by one caller at a time."""

    async def token(self, resource: Resource) -> Token:
        """A token with time left on it.

        Raises ``relay.errors.TokenError`` with reason, remedy and whether waiting can help.
        """
        ...

    def discard(self, token: Token) -> None:
        """The server refused this very token: the next call fetches a new one. Refusing an old one is a no-op."""
        ...

    def doubt(self, token: Token) -> None:
        """A permission was missed, which may have been granted since: the next call tries for a new token.

        The old one goes on being handed out when there is none; doubting an old one is a no-op.
        """
        ...

    def states(self) -> list[TokenState]:
        """What is held now, for ``relay status``; no I/O."""
        ...

    async def close(self) -> None:
        """Let go of threads and connections."""
        ...
