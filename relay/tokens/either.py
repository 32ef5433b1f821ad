"""Two credentials of one upstream: the second is tried when the first is refused, and the one that works is kept to.

So a secret can be changed without a gap: put the new one beside the old one, and take the old one out afterwards.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from relay.clock import Clock
from relay.errors import TokenError
from relay.settings import Upstream
from relay.tokens.asker import Asker
from relay.tokens.choice import OF_THE_CREDENTIAL, Choice
from relay.tokens.contract import Resource, Token


class EitherAsker:
    """Like `Asker`, for all credentials of the upstream. One call at a time."""

    def __init__(
        self, upstream: Upstream, clock: Clock, choice: Choice, make: Callable[..., Asker] = Asker
    ) -> None:
        both = [upstream.credential, *([upstream.next_credential] if upstream.next_credential else [])]
        self._askers = [
            make(dataclasses.replace(upstream, credential=one, next_credential=None), clock) for one in both
        ]
        self._choice = choice
        self._last = self._askers[0]

    @property
    def skew(self) -> float | None:
        """See `Asker`."""
        return self._last.skew

    @property
    def retry_after(self) -> float | None:
        """See `Asker`."""
        return self._last.retry_after

    def fetch(self, resource: Resource) -> Token:
        """A new token, by whichever credential gives one. Raises TokenError: the first credential's, when both fail."""
        refused: dict[int, TokenError] = {}
        for which in self._choice.order(len(self._askers)):
            self._last = self._askers[which]
            try:
                token = self._last.fetch(resource)
            except TokenError as error:
                if error.code not in OF_THE_CREDENTIAL:
                    raise
                refused[which] = error
                continue
            self._choice.worked(which, refused)
            return token
        raise _joined(refused)


def _joined(refused: dict[int, TokenError]) -> TokenError:
    first = refused[0]
    if len(refused) == 1:
        return first
    evidence = f"{first.evidence} | next_credential: {refused[1].code}: {refused[1].evidence}"
    says = f"{first} The credential in `next_credential` was refused as well."
    return TokenError(says, code=first.code, remedy=first.remedy, temporary=False, evidence=evidence)
