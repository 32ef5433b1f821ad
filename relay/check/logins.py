"""Logins of all mailboxes an upstream is used with: each tried once, a few at a time, and no more than it takes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from relay.check.smtp import log_in
from relay.check.verdicts import REFUSED
from relay.deliver.login import Door
from relay.message import Outcome, Scope
from relay.settings import SenderRule, Settings, Upstream
from relay.tokens.contract import Token

AT_ONCE = 3
"""Logins under way at the same time: each is another mailbox, and Exchange counts failures of one source."""


def mailboxes_of(settings: Settings, upstream: Upstream) -> list[str]:
    """Every mailbox the configuration submits as over this upstream, `from_email` first; lower case, each once."""
    found = [upstream.from_email.lower()]
    for rule in settings.senders:
        if rule.upstream == upstream.name:
            found += [mailbox.lower() for mailbox in _of_rule(rule)]
    return list(dict.fromkeys(found))


def _of_rule(rule: SenderRule) -> tuple[str, ...]:
    if rule.login:
        return rule.login
    return (rule.from_address,) if rule.from_address is not None else ()


class Logins:
    """`run` once."""

    def __init__(self, door: Door, token: Token) -> None:
        self._door = door
        self._token = token
        self._room = asyncio.Semaphore(AT_ONCE)

    async def run(self, mailboxes: Sequence[str]) -> dict[str, Outcome | None]:
        """What refused each mailbox (None: it was let in). The first goes alone.

        When what refused it concerns all of them, the others are not tried and missing here.
        """
        first, rest = mailboxes[0], mailboxes[1:]
        outcome = await self._one(first)
        if outcome is not None and self._concerns_all(outcome):
            return {first: outcome}
        return {first: outcome, **dict(zip(rest, await asyncio.gather(*map(self._one, rest)), strict=True))}

    async def _one(self, mailbox: str) -> Outcome | None:
        async with self._room:
            return await log_in(self._door, mailbox, self._token)

    def _concerns_all(self, outcome: Outcome) -> bool:
        if outcome.scope is Scope.UPSTREAM:
            return True
        return outcome.code in REFUSED and not self._token.may_send
