"""Which of an upstream's two credentials works: remembered, and told. No I/O."""

from __future__ import annotations

from dataclasses import dataclass

from relay.errors import TokenError

OF_THE_CREDENTIAL = frozenset(
    {
        "secret-wrong",
        "secret-expired",
        "credential-missing",
        "certificate-unknown",
        "certificate-subject",
        "certificate-missing",
        "certificate-passphrase",
        "certificate-unusable",
    }
)
"""Refusals that another credential of the same application may cure; all others would meet it as well."""
NAMES = ("credential", "next_credential")
"""What the two are called in status and log."""


@dataclass(frozen=True, slots=True)
class ChoiceNews:
    """One credential was refused while the other works; ``dead`` and ``working`` are two of `NAMES`."""

    dead: str
    working: str
    fault: TokenError
    remedy: str


class Choice:
    """Which of an upstream's credentials works; shared by its resources. Written by worker threads, one value each."""

    def __init__(self) -> None:
        self.working: int | None = None
        """0 the first, 1 the second, None while neither has been tried."""
        self.faults: dict[int, TokenError] = {}
        """Why one was refused, while the other works."""
        self._told: tuple[int, str] | None = None

    def order(self, count: int) -> list[int]:
        """The one that worked last comes first."""
        first = self.working or 0
        return [first, *(one for one in range(count) if one != first)]

    def worked(self, which: int, refused: dict[int, TokenError]) -> None:
        """Remember what came of a request."""
        self.faults = {**{one: fault for one, fault in self.faults.items() if one != which}, **refused}
        self.working = which

    def news(self) -> ChoiceNews | None:
        """What an administrator has not been told yet."""
        if self.working is None or not self.faults:
            return None
        dead, fault = next(iter(self.faults.items()))
        if self._told == (dead, fault.code):
            return None
        self._told = (dead, fault.code)
        return ChoiceNews(NAMES[dead], NAMES[self.working], fault, _REMEDIES[dead])


_REMEDIES = (
    "Move what stands in `next_credential` to its place, remove `next_credential`, reload, and delete the dead one at "
    "the app registration.",
    "Put a valid one into `next_credential`, or remove the section, and reload.",
)
